"""Hard negatives: beside an oracle that holds all cosines in one matrix, and the laws of what may be one."""

import numpy as np
import pytest

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import InputError, ModelMismatchError, UsageError
from sbert_mini.search.mining import MiningCounts, MiningOptions, mine_hard_negatives, same_text
from sbert_mini.text.records import Record


@pytest.fixture(scope="module")
def fast():
    return Embedder("sbert-mini-fast", threads=1)


@pytest.fixture(scope="module")
def other():
    return Embedder(threads=1)


@pytest.fixture(scope="module")
def pairs(passage_sentences):
    """29 queries, the first of which have two positives, and a positive of several."""
    queries, positives = passage_sentences[:29], passage_sentences[29:58]
    pairs = list(zip(queries, positives, strict=True))
    return [*pairs, (queries[0], positives[7]), (queries[1], positives[7]), pairs[3]]


@pytest.fixture(scope="module")
def corpus(passage_sentences, pairs):
    """151 texts, with a query, a positive in capitals, a text twice and one of which nothing can be read among them."""
    more = [pairs[2][0], pairs[4][1].upper(), passage_sentences[60], "\u200b", f"  {passage_sentences[60]}"]
    return [Record(text) for text in (*passage_sentences[58:204], *more)]


def oracle(pairs, texts, model, options, teacher=None):
    """Return the negatives of each query, from the matrix of all cosines."""
    unique = dict.fromkeys(same_text(text) for text in texts)
    first = {same_text(text): text for text in reversed(texts)}
    texts = [first[key] for key in unique]
    vectors, judge = model.encode(texts), teacher or model
    judged, negatives = judge.encode(texts), {}
    for query in dict.fromkeys(query for query, _ in pairs):
        positives = [p for q, p in pairs if q == query]
        out = {same_text(text) for text in (query, *positives)}
        cosines = vectors @ model.encode(query)
        ranks = [i for i in np.argsort(-cosines) if same_text(texts[i]) not in out]
        ranks = ranks[options.range_min : options.depth]
        mark = judge.encode(query)
        lowest = min(float(mark @ judge.encode(p)) for p in positives)
        limit = options.max_score if options.max_score is not None else 9
        if options.absolute_margin is not None:
            limit = min(limit, lowest - options.absolute_margin)
        if options.relative_margin is not None:
            limit = min(limit, lowest - abs(lowest) * options.relative_margin)
        least = options.min_score if options.min_score is not None else -9
        kept = [texts[i] for i in ranks if least <= float(judged[i] @ mark) <= limit]
        negatives[query] = kept[: options.num_negatives]
    return negatives


CASES = [
    MiningOptions(),
    MiningOptions(2, range_min=3, range_max=11, relative_margin=0.05),
    MiningOptions(3, absolute_margin=-0.2, max_score=0.35),
    MiningOptions(5, relative_margin=0.3, min_score=0.1),
]


@pytest.mark.parametrize("options", CASES)
def test_negatives_are_those_of_all_cosines(fast, pairs, corpus, options):
    counts = MiningCounts()
    found = mine_hard_negatives(pairs, fast, corpus, options=options, counts=counts)
    texts = [p for _, p in pairs] + [r.text for r in corpus if r.text != "\u200b"]
    expected = oracle(pairs, texts, fast, options)
    assert [(one.query, one.positive) for one in found] == list(dict.fromkeys(pairs))
    assert any(expected.values())
    for one in found:
        assert list(one.negatives) == expected[one.query]
        assert one.score == pytest.approx(float(fast.encode(one.query) @ fast.encode(one.positive)), abs=1e-5)
        assert list(one.scores) == sorted(one.scores, reverse=True)
    assert (counts.pairs, counts.repeated_pairs, counts.queries) == (31, 1, 29)
    assert (counts.texts, counts.repeated_texts, counts.silent_texts) == (29 + 147, 3, 1)


def test_windows_and_pruning_change_nothing(fast, pairs, corpus, monkeypatch):
    """Many windows: the texts that are near to no query are forgotten between them."""
    whole = mine_hard_negatives(pairs, fast, corpus)
    monkeypatch.setattr("sbert_mini.search.mining._PRUNED_ABOVE", 10)
    monkeypatch.setattr(Embedder, "encode_windows", _small_windows(Embedder.encode_windows))
    assert [one.negatives for one in mine_hard_negatives(pairs, fast, corpus)] == [one.negatives for one in whole]


def _small_windows(encode):
    return lambda self, texts, **options: encode(self, texts, **{**options, "window": 13})


def test_a_teacher_judges_and_ranks_stay(fast, other, pairs, corpus):
    options = MiningOptions(4, relative_margin=0.25, min_score=0.05)
    texts = [p for _, p in pairs] + [r.text for r in corpus if r.text != "\u200b"]
    expected = oracle(pairs, texts, fast, options, teacher=other)
    found = mine_hard_negatives(pairs, fast, corpus, options=options, teacher=other)
    assert [list(one.negatives) for one in found] == [expected[one.query] for one in found]
    assert found[5].score == pytest.approx(
        float(other.encode(found[5].query) @ other.encode(found[5].positive)), abs=1e-5
    )
    alone = mine_hard_negatives(pairs, fast, corpus, options=options)
    assert [one.negatives for one in alone] != [one.negatives for one in found]
    with pytest.raises(UsageError, match="a teacher judges by a margin"):
        mine_hard_negatives(pairs, fast, corpus, teacher=other)


def test_a_draw_follows_from_its_seed(fast, pairs):
    def drawn(seed):
        options = MiningOptions(2, range_max=9, sampling_strategy="random", seed=seed)
        return [one.negatives for one in mine_hard_negatives(pairs, fast, options=options)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    nearest = mine_hard_negatives(pairs, fast, options=MiningOptions(9))
    assert all(set(two) <= set(nine.negatives) for two, nine in zip(drawn(1), nearest, strict=True))


def test_an_index_gives_what_its_texts_give(fast, other, pairs, corpus, tmp_path):
    IndexWriter(tmp_path / "index", fast).create([record for record in corpus if record.text != "\u200b"])
    from_index = mine_hard_negatives(pairs, fast, SearchIndex(tmp_path / "index"))
    from_texts = mine_hard_negatives(pairs, fast, corpus)
    assert [one.negatives for one in from_index] == [one.negatives for one in from_texts]
    with pytest.raises(ModelMismatchError):
        mine_hard_negatives(pairs, other, SearchIndex(tmp_path / "index"))


def test_what_cannot_be_mined_is_counted(fast):
    counts = MiningCounts()
    options = MiningOptions(1, max_score=-1.0)
    found = mine_hard_negatives([("\u200b", "a cat"), ("a dog", "dogs")], fast, options=options, counts=counts)
    assert [one.negatives for one in found] == [(), ()]
    assert np.isnan(found[0].score)
    assert found[1].discarded == {"max_score": 1}
    assert (counts.silent_queries, counts.max_score, counts.equal) == (1, 1, 1)
    with pytest.raises(InputError, match="no pair"):
        mine_hard_negatives([], fast)
    with pytest.raises(InputError, match="no query"):
        mine_hard_negatives([("\u200b", "a cat")], fast)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_negatives": 0}, "num_negatives"),
        ({"range_min": -1}, "range_min"),
        ({"range_min": 5, "range_max": 7}, r"at least range_min \+ num_negatives \(8\); found 7"),
        ({"relative_margin": float("nan")}, "relative_margin"),
        ({"min_score": 0.5, "max_score": 0.4}, "min_score must not be above max_score"),
    ],
)
def test_options_are_checked(options, said):
    with pytest.raises(UsageError, match=said):
        MiningOptions(**options)
