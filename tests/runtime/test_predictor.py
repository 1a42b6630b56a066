"""A head's predictions of many inputs: one by one, window by window, with one report."""

import numpy as np
import pytest
from small_tasks import sentences

from sbert_mini.errors import UsageError
from sbert_mini.model.heads import HeadConfig
from sbert_mini.runtime.predictor import Predictor
from sbert_mini.runtime.stream import WINDOW, EncodeCounts
from sbert_mini.training.heads import Head

LONG = "cat " * 300


@pytest.fixture(params=["single", "siamese", "pair", "pair+siamese"])
def predictor(request, make_model):
    path = make_model(seed=4)
    Head(HeadConfig("t", request.param, "regression", 28)).save(path)
    return Predictor(path, threads=1)


def test_windows_are_predicted_as_a_whole_with_one_report(predictor, caplog):
    texts = sentences(17, 3)
    count = WINDOW + 3
    inputs = [texts[i % 17] for i in range(count)]
    inputs[1] = inputs[-1] = LONG  # in two windows
    if predictor.texts_each == 2:
        inputs = [(text, texts[i % 13]) for i, text in enumerate(inputs)]
    counts = EncodeCounts()
    scores = [p.score for p in predictor.predict_stream(iter(inputs), counts=counts)]
    encoded = 2 * count if predictor.config.structure == "siamese" else count
    assert (counts.texts, counts.truncated, len(caplog.messages)) == (encoded, 2, 1)
    assert f"2 of {encoded} " in caplog.text
    some = [0, 1, 2, WINDOW - 1, WINDOW, count - 1]
    expected = [predictor.predict([inputs[i]])[0].score for i in some]
    np.testing.assert_allclose([scores[i] for i in some], expected, rtol=1e-6)
    assert list(predictor.predict_stream([])) == predictor.predict([]) == []


def test_inputs_are_read_as_they_are_predicted(predictor):
    read = []

    def inputs():
        for number in range(10 * WINDOW):
            read.append(number)
            yield ("a cat", "a dog") if predictor.texts_each == 2 else "a cat"

    stream = predictor.predict_stream(inputs())
    assert not read
    next(stream)
    assert 0 < len(read) <= 4 * WINDOW


def test_inputs_that_are_there_are_predicted_before_the_next_one_is_waited_for(predictor):
    inputs = [("a cat", "a dog"), ("red", "blue")] if predictor.texts_each == 2 else ["a cat", "a dog"]
    asked = []
    stream = predictor.predict_stream((asked.append(i) or i for i in inputs), waits=lambda: True)
    first = next(stream)
    assert asked == inputs[:1]
    np.testing.assert_allclose(
        [first.score, *(p.score for p in stream)], [p.score for p in predictor.predict(inputs)], rtol=1e-6
    )


def test_an_input_of_another_kind_is_refused_when_it_is_read(predictor):
    inputs = ["one", ("two", "texts")] if predictor.texts_each == 1 else [("two", "texts"), "one"]
    with pytest.raises(UsageError, match=r"the head 't' reads (one text|two texts) an input"):
        list(predictor.predict_stream(inputs))


def test_pairs_may_lie_across_two_windows(tmp_path, converted_model, monkeypatch):
    path = converted_model()
    HeadConfig("near", "siamese", "similarity", 28).write(path / "heads" / "near")
    pairs = [(f"the cat {'sleeps ' * (i % 5)}", f"a dog {i % 7}") for i in range(40)]
    predictor = Predictor(path, "near", threads=1)
    expected = predictor.predict(pairs)
    monkeypatch.setattr("sbert_mini.runtime.stream._VECTOR_BYTES", 4 * 28 * 7)
    assert predictor.predict(pairs) == expected
