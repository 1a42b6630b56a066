"""What groups are called: words by class TF-IDF, beside its formula, and rows by their cosines."""

import math

import numpy as np
import pytest

from sbert_mini.atlas.labels import labels_of, mean_cosines, words_of_groups
from sbert_mini.errors import InputError

TEXTS = ["The cat sleeps", "Cats and a dog", "my cat", "shares fell", "Shares rose today", "rain"]
NUMBERS = np.array([0, 0, 0, 1, 1, -1])


def test_words_are_those_with_the_greatest_weights_in_their_most_frequent_form():
    (first, second) = words_of_groups(TEXTS, NUMBERS, 2)
    assert first == ("cat", "dog")  # "cat" came twice, "cats" once; "dog" and "sleeps" weigh the same
    assert second == ("shares", "fell")


def test_weights_are_those_of_the_formula():
    texts = ["12 alpha beta", "alpha gamma", "alpha beta delta", "beta", "beta", "beta", "beta epsilon"]
    numbers = np.array([0, 0, 0, 1, 1, 1, 1])
    frequency = {"alpha": 3, "beta": 6, "gamma": 1, "delta": 1}
    own = {"alpha": 3, "beta": 2, "gamma": 1, "delta": 1}
    mean = (3 + 2 + 1 + 1 + 4 + 1) / 2
    weights = {word: own[word] * math.log(1 + mean / frequency[word]) for word in own}
    assert words_of_groups(texts, numbers, 4)[0] == tuple(sorted(own, key=lambda word: (-weights[word], word)))


def test_scripts_without_spaces_and_groups_without_words_have_names_too():
    texts = ["東京タワー", "東京駅", "12 34", "!"]
    words = words_of_groups(texts, np.array([0, 0, 1, 1]), 1)
    assert words == [("東京",), ()]
    assert words_of_groups([], np.array([], np.int64)) == []


def test_as_many_texts_as_rows_are_asked_for():
    for texts, which in ((TEXTS[:-1], "fewer"), ([*TEXTS, "x"], "more")):
        with pytest.raises(InputError, match=f"{which} texts than 6 rows"):
            words_of_groups(texts, NUMBERS)


def test_central_and_outlying_rows_are_those_by_cosine_and_never_the_same():
    numbers = np.array([0, 1, 0, 0, -1, 0, 1])
    cosines = np.array([0.9, 0.8, 1.0, 0.7, 0.99, 0.95, 1.0], np.float32)
    first, second = labels_of(numbers, cosines, ["word"] * 7, examples=3)
    assert (first.size, first.central, first.outlying) == (4, (2, 5, 0), (3,))
    assert (second.size, second.central, second.outlying) == (2, (6, 1), ())
    assert first.name == "word"
    assert labels_of(np.array([-1, -1]), np.zeros(2, np.float32), ["a", "b"]) == []


def test_cosines_to_a_group_s_mean_are_those_of_the_formula():
    random = np.random.default_rng(5)
    vectors, numbers = random.normal(size=(41, 7)).astype(np.float32), random.integers(-1, 3, 41)
    cosines, means = mean_cosines(numbers, vectors)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for group in range(3):
        mean = units[numbers == group].sum(axis=0)
        assert np.allclose(means[group], mean / np.linalg.norm(mean), atol=1e-6)
        assert np.allclose(cosines[numbers == group], units[numbers == group] @ means[group], atol=1e-6)
    assert not cosines[numbers == -1].any()
