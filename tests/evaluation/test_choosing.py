"""What a measurement chooses: sets, models, texts and queries."""

from pathlib import Path

import numpy as np
import pytest

from sbert_mini.errors import InputError, UsageError
from sbert_mini.evaluation.contestants import open_contestants
from sbert_mini.evaluation.retrieval import RetrievalSet, held_out_queries, texts_to_search
from sbert_mini.evaluation.sets import BUILTIN, KNOWN, choose_sets
from sbert_mini.evaluation.texts import SENTENCES, read_texts


def test_sets_are_those_asked_for_or_all_that_are_there(tmp_path):
    (tmp_path / "stsb_dev.tsv").write_text("sentence1\tsentence2\tscore\na\tb\t1\nc\td\t2\n")
    sets, absent = choose_sets(tmp_path, [BUILTIN, "stsb_dev", "sts12"])
    assert [pairs.name for pairs in sets] == [BUILTIN, "stsb_dev"]
    assert absent == ["sts12"]
    sets, absent = choose_sets(tmp_path)
    assert [pairs.name for pairs in sets] == ["stsb_dev"]
    assert absent == [name for name in KNOWN if name != "stsb_dev"]
    sets, absent = choose_sets(tmp_path, files=[tmp_path / "stsb_dev.tsv"])
    assert ([pairs.name for pairs in sets], absent) == (["stsb_dev"], [])


def test_a_set_that_is_unknown_or_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"there is no set 'sts17'; known are sts12, .*, builtin"):
        choose_sets(tmp_path, [BUILTIN, "sts17"])
    with pytest.raises(InputError, match=f"none of sts12, sts13 is in {tmp_path}"):
        choose_sets(tmp_path, ["sts12", "sts13"])
    with pytest.raises(InputError, match=f"sts12 is needed, .* the network is switched off.*--sets {BUILTIN}"):
        choose_sets(None, ["sts12"], offline=True)


def test_models_of_one_short_name_keep_their_own_and_beginnings_come_last(make_model, tmp_path):
    first, second = make_model(), make_model(seed=1)
    (tmp_path / "m").mkdir()
    other = first.rename(tmp_path / "m" / second.name)
    opened = open_contestants([str(other), str(second)], ["int8", "fp32"], dims=[5], threads=1, offline=True)
    assert [c.name for c in opened[:4]] == [str(other)] * 2 + [str(second)] * 2
    assert [c.runtime for c in opened] == ["int8", "fp32"] * 4
    assert [c.dimension for c in opened] == [28] * 4 + [5] * 4
    whole, part = (c.encode(["a cat"])[0] for c in (opened[0], opened[4]))
    np.testing.assert_allclose(part, whole[:5] / np.linalg.norm(whole[:5]), atol=1e-6)


def test_texts_come_from_files_then_the_data_folder_then_the_package(tmp_path):
    (tmp_path / "own.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "data.csv").write_text("question1\nfour\nfive\n")
    assert read_texts(2, [tmp_path / "own.txt"], tmp_path / "data.csv", "question1") == ["one", "two"]
    assert read_texts(9, None, tmp_path / "data.csv", "question1") == ["four", "five"]
    assert len(read_texts(7, None, tmp_path / "absent.csv", "question1")) == len(read_texts(7)) == 7


@pytest.mark.parametrize(
    ("texts", "queries"), [(0, 50), (499, 50), (770, 77), (9999, 999), (10_000, 1000), (10**6, 1000)]
)
def test_a_tenth_of_the_texts_are_queries_within_bounds(texts, queries):
    assert held_out_queries(texts) == queries


def test_kinds_are_measured_on_distinct_texts_and_never_on_too_few(tmp_path):
    few, many = ({str(i): f"document {i % 130}" for i in range(n)} for n in (99, 260))
    collections = [RetrievalSet(name, documents, {}, {}) for name, documents in (("few", few), ("many", many))]
    assert texts_to_search(1000, collections[1:], None, None) == [f"document {i}" for i in range(130)]
    with pytest.raises(UsageError, match="at least 100 distinct texts are needed to measure with; found 99"):
        texts_to_search(1000, collections, None, None)
    file = Path(tmp_path / "own.txt")
    file.write_text("".join(f"line {i}\n" for i in range(200)))
    assert texts_to_search(108, collections, [file], tmp_path) == [f"line {i}" for i in range(120)]
    assert SENTENCES.endswith(".txt.gz")
