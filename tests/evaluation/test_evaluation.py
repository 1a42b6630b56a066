"""Measuring: statistics against scipy, sets in all their formats, retrieval against trec's definition, reports, the commands."""

import gzip
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import one_error
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sbert_mini.errors import InputError, UsageError
from sbert_mini.evaluation import retrieval, sets, speed, sts, tables
from sbert_mini.evaluation.contestants import Contestant, open_contestant
from sbert_mini.evaluation.measure import median_ratio, process, summary
from sbert_mini.evaluation.pairs import most_similar_pair
from sbert_mini.evaluation.significance import interval
from sbert_mini.model.layout import BertConfig
from sbert_mini.model.registry import resolve
from sbert_mini.runtime.graphs import find


def contestant(vectors, *, name="toy", trained_on=None):
    """A model that looks its vectors up."""

    def encode(texts):
        return np.stack([vectors[text] for text in texts]).astype(np.float32)

    return Contestant(name, "toy", encode, encode, encode, trained_on=trained_on or {})


def pair_set(name, scores, subsets=None, rng=None):
    """A set whose cosines a toy model can be made to have: sentence i against sentence i."""
    n = len(scores)
    first, second = (tuple(f"{name} {side}{i}" for i in range(n)) for side in "ab")
    return sets.PairSet(name, first, second, tuple(map(float, scores)), tuple(subsets or [""] * n), "here")


def vectors_with(held, cosines):
    """Vectors such that each pair of the set has the cosine given."""
    found = {}
    for a, b, cosine in zip(held.first, held.second, cosines, strict=True):
        found[a] = np.array([1.0, 0.0])
        found[b] = np.array([cosine, math.sqrt(1 - cosine**2)])
    return found


# --- statistics -------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=23))
def test_correlations_are_scipys_ties_included_and_undefined_where_scipy_has_nan(rows):
    x, y = np.array(rows, float).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert sts.spearman(x, y) is None
        assert sts.pearson(x, y) is None
    else:
        assert sts.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert sts.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)


def test_correlations_of_two_of_one_and_of_misshapen_arrays():
    assert sts.spearman(np.array([1.0, 2]), np.array([5.0, 3])) == pytest.approx(-1)
    assert sts.pearson(np.array([1.0]), np.array([5.0])) is None
    with pytest.raises(UsageError, match=r"\(2,\) and \(3,\)"):
        sts.pearson(np.zeros(2), np.zeros(3))


def test_bootstrap_equals_a_plain_loop_over_the_same_draws(rng):
    gold = rng.integers(0, 6, 31).astype(float)
    predictions = np.stack([gold + rng.normal(size=31), rng.normal(size=31)])
    spearman, pearson = sts.bootstrap(gold, predictions, [""] * 31, "all", 100, seed=7)
    draws = np.random.default_rng(7).integers(0, 31, (100, 31))
    for model, b in itertools.product(range(2), range(100)):
        x, y = predictions[model][draws[b]], gold[draws[b]]
        assert spearman[model, b] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        assert pearson[model, b] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)


def test_the_interval_covers_the_truth_about_as_often_as_it_says(rng):
    """95 % intervals of a correlation of 0.8, by Fisher's account known, cover it in 90 to 99 % of 200 samples."""
    covered = 0
    for seed in range(200):
        x = rng.normal(size=101)
        y = 0.8 * x + 0.6 * rng.normal(size=101)
        _, pearson = sts.bootstrap(y, x[None], [""] * 101, "all", 200, seed)
        low, high = interval(pearson[0])
        covered += low <= 0.8 <= high
    assert 180 <= covered <= 198


def test_a_model_does_not_differ_from_itself_and_does_from_noise(rng):
    gold = rng.uniform(0, 5, 97)
    held = pair_set("toy", gold)
    good = vectors_with(held, np.clip(gold / 5 + rng.normal(scale=0.1, size=97), -1, 1))
    noise = vectors_with(held, rng.uniform(-1, 1, 97))
    result = sts.score([contestant(good, name="a"), contestant(good, name="b"), contestant(noise, name="c")], [held])
    same, other, _ = (c.differences[0] for c in result.comparisons)
    assert (same.difference, same.interval, same.p) == (0, (0, 0), 1)
    assert other.difference > 50
    assert other.interval[0] > 0
    assert other.p < 0.005
    again = sts.score([contestant(good, name="a"), contestant(noise, name="c")], [held])
    assert again.comparisons[0].differences[0].interval == other.interval  # the draws do not depend on the other models


def test_pooling_of_subsets_by_hand():
    gold = [0, 1, 2, 3, 4, 0, 1, 2]
    subsets = ["x"] * 5 + ["y"] * 3
    cosines = [0.0, 0.1, 0.2, 0.3, 0.4, 0.9, 0.8, 0.85]
    held = pair_set("toy", gold, subsets)
    model = contestant(vectors_with(held, cosines))
    y = stats.spearmanr([0, 1, 2], [0.9, 0.8, 0.85]).statistic
    joined = stats.spearmanr(gold, cosines).statistic
    for pooling, expected in (("all", joined), ("mean", (1 + y) / 2), ("wmean", (5 + 3 * y) / 8)):
        (found,) = sts.score([model], [held], pooling=pooling).models[0].sets
        assert found.spearman == pytest.approx(100 * expected)
        assert found.subsets["y"] == {
            "n": 3,
            "spearman": pytest.approx(100 * y),
            "pearson": found.subsets["y"]["pearson"],
        }
    with pytest.raises(UsageError, match="pooling must be one of all, mean, wmean; found 'sum'"):
        sts.score([model], [held], pooling="sum")


def test_the_mean_is_over_the_usual_tasks_without_those_trained_on():
    held = [pair_set(name, [0, 1, 2, 3]) for name in ("sts12", "stsb_dev", "stsb_test")]
    cosines = {"sts12": [0.0, 0.1, 0.2, 0.3], "stsb_dev": [0.3, 0.2, 0.1, 0.0], "stsb_test": [0.0, 0.2, 0.1, 0.3]}
    vectors = {k: v for s in held for k, v in vectors_with(s, cosines[s.name]).items()}
    result = sts.score(
        [contestant(vectors), contestant(vectors, name="t", trained_on={"sts12": "its card says so"})], held
    )
    clean, trained = result.models
    assert clean.mean == pytest.approx((100 + 80) / 2)
    assert clean.mean_of == ("sts12", "stsb_test")
    assert not clean.is_mean_of_seven
    assert trained.mean == pytest.approx(80)
    assert trained.mean_of == ("stsb_test",)
    shown = "\n".join(table.markdown() for table in tables.sts(result.to_json()))
    assert "its card says so. Left out of its mean." in shown
    assert "mean of 2: sts12, stsb_test" in shown
    (mean,) = [d for d in result.comparisons[0].differences if d.set == "mean"]
    assert mean.difference == 0  # over what counts for both


def test_an_undefined_correlation_is_said_and_kept_out_of_the_mean():
    held = [pair_set("flat", [2, 2, 2]), pair_set("fine", [0, 1, 2])]
    vectors = {**vectors_with(held[0], [0.1, 0.2, 0.3]), **vectors_with(held[1], [0.1, 0.2, 0.3])}
    result = sts.score([contestant(vectors)], held)
    flat, fine = result.models[0].sets
    assert (flat.spearman, flat.pearson, flat.spearman_interval) == (None, None, None)
    assert fine.spearman == pytest.approx(100)
    assert result.models[0].mean_of == ("fine",)
    assert "undefined" in tables.sts(result.to_json())[0].markdown()
    json.dumps(result.to_json(), allow_nan=False)


def test_what_cannot_be_scored_is_refused():
    held = pair_set("toy", [0, 1, 2])
    bad = contestant({text: np.array([np.nan, 1]) for text in (*held.first, *held.second)})
    with pytest.raises(InputError, match=r"toy \(toy\) gave a vector that holds NaN"):
        sts.score([bad], [held])
    with pytest.raises(UsageError, match="the set toy is there twice"):
        sts.score([bad], [held, held])
    with pytest.raises(UsageError, match="at least 100 resamples"):
        sts.score([bad], [held], resamples=3)


# --- sets -------------------------------------------------------------------------------------------------------------

ROWS = [("a cat", "the cat", 4.5, "news"), ('a "dog"', "dogs", 3.0, "news"), ("ein Haus", "une maison", 0.0, "web")]


def write_table(path, rows=ROWS, columns=("sentence1", "sentence2", "score", "subset")):
    text = "".join("\t".join(map(str, row)) + "\n" for row in [columns, *rows])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def content(held):
    return sorted(zip(held.first, held.second, held.scores, strict=True))


def test_a_year_is_found_as_a_table_as_a_hub_copy_and_in_semevals_format(tmp_path):
    write_table(tmp_path / "sts15.tsv.gz")
    found = sets.find_set(tmp_path, "sts15")
    assert content(found) == sorted(row[:3] for row in ROWS)
    assert found.subsets == ("news", "news", "web")

    copy = tmp_path / "hub" / "sts15-sts"
    copy.mkdir(parents=True)
    lines = [json.dumps({"sentence1": a, "sentence2": b, "score": s}) for a, b, s, _ in ROWS]
    (copy / "test.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    assert content(sets.find_set(tmp_path / "hub", "sts15")) == content(found)

    original = tmp_path / "senteval" / "STS" / "STS15-en-test"
    original.mkdir(parents=True)
    for subset in ("news", "web"):
        rows = [row for row in ROWS if row[3] == subset]
        sentences = [f"{a}\t{b}" for a, b, _, _ in rows] + ["not\tscored"]
        (original / f"STS.input.{subset}.txt").write_text("\n".join(sentences) + "\n")
        (original / f"STS.gs.{subset}.txt").write_text("".join(f"{row[2]}\n" for row in rows) + "\n")
    (original / "STS.input.ALL.txt").write_text("all\tof them\n")
    (original / "STS.gs.ALL.txt").write_text("1\n")
    held = sets.find_set(tmp_path / "senteval", "sts15")
    assert content(held) == content(found)
    assert held.unscored == 2
    assert sets.find_set(tmp_path / "senteval", "sts16") is None
    with pytest.raises(UsageError, match="the set must be one of"):
        sets.find_set(tmp_path, "sts17")


def test_a_year_as_semevals_archives_unpack_it(tmp_path):
    for name, place, start in (
        ("sts14", "sts-en-test-gs-2014", "STS"),
        ("sts16", "sts2016-english-with-gs-v1.0", "STS2016"),
    ):
        folder = tmp_path / place
        folder.mkdir()
        (folder / f"{start}.input.news.txt").write_text("a cat\tthe cat\ta\tb\nx\ty\n")
        (folder / f"{start}.gs.news.txt").write_text("4.5\n\n")
        held = sets.find_set(tmp_path, name)
        assert (held.first, held.second, held.scores, held.unscored) == (("a cat",), ("the cat",), (4.5,), 1)
    (folder / "STS2016.gs.news.txt").write_text("4.5\n1\n2\n")
    with pytest.raises(InputError, match="they do not belong together"):
        sets.find_set(tmp_path, "sts16")


def test_the_benchmark_and_sick_in_their_original_formats(tmp_path):
    place = tmp_path / "stsbenchmark"
    place.mkdir()
    lines = [f"main-{g}\tf\t2012\t{i}\t{s}\t{a}\t{b}\tsource\n" for i, (a, b, s, g) in enumerate(ROWS)]
    (place / "sts-test.csv").write_text("".join(lines))
    assert content(sets.find_set(tmp_path, "stsb_test")) == sorted(row[:3] for row in ROWS)
    assert sets.find_set(tmp_path, "stsb_dev") is None
    (place / "sts-dev.csv").write_text("too\tfew\n")
    with pytest.raises(InputError, match=r"sts-dev.csv, line 1: seven columns are needed; found 2"):
        sets.find_set(tmp_path, "stsb_dev")

    header = "pair_ID\tsentence_A\tsentence_B\tentailment_label\trelatedness_score\tSemEval_set\n"
    splits = ("TRAIN", "TRIAL", "TEST")
    lines = [
        f"{i}\t{a}\t{b}\tNEUTRAL\t{s}\t{x}\n" for i, ((a, b, s, _), x) in enumerate(zip(ROWS, splits, strict=True))
    ]
    (tmp_path / "SICK.txt").write_text(header + "".join(lines))
    assert content(sets.find_set(tmp_path, "sickr")) == sorted(row[:3] for row in ROWS)
    assert content(sets.find_set(tmp_path, "sickr_test")) == [ROWS[2][:3]]
    (tmp_path / "SICK.txt").unlink()
    header = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    for name, (a, b, s, _) in zip(("train", "trial", "test_annotated"), ROWS, strict=True):
        (tmp_path / f"SICK_{name}.txt").write_text(f"{header}1\t{a}\t{b}\t{s}\tNEUTRAL\n")
    assert content(sets.find_set(tmp_path, "sickr")) == sorted(row[:3] for row in ROWS)


def test_the_cs224n_split_beside_is_not_taken_for_the_benchmark(tmp_path):
    (tmp_path / "cs224n").mkdir()
    (tmp_path / "cs224n" / "sts-dev.csv").write_text("\tid\tsentence1\tsentence2\tsimilarity\n0\tx\ta\tb\t1.0\n")
    assert sets.find_set(tmp_path, "stsb_dev") is None
    assert sets.find_set(tmp_path / "cs224n", "stsb_dev") is None


def test_pairs_of_a_users_own_and_what_is_wrong_with_them(tmp_path):
    (tmp_path / "mine.csv").write_text('left,right,grade\n"a, b",c,1\nd,e,2.5\n')
    held = sets.read_pairs(tmp_path / "mine.csv", columns=["left", "right", "grade"])
    assert (held.name, held.first, held.scores) == ("mine", ("a, b", "d"), (1.0, 2.5))
    for row, message in (
        ("a,b,high", "line 2: the score must be a finite number, and is 'high'"),
        ("a,b,nan", "line 2: the score must be a finite number, and is 'nan'"),
        ("a,,1", "line 2: 'right' must be a text, and is ''"),
    ):
        (tmp_path / "bad.csv").write_text(f"left,right,grade\n{row}\n")
        with pytest.raises(InputError, match=re.escape(message)):
            sets.read_pairs(tmp_path / "bad.csv", columns=["left", "right", "grade"])
    with pytest.raises(InputError, match="there is no column 'points'; the columns are left, right, grade"):
        sets.read_pairs(tmp_path / "mine.csv", columns=["left", "right", "points"])


def test_what_a_card_names_as_training_data(tmp_path):
    def card(text):
        (tmp_path / "README.md").write_text(f"---\n{text}\n---\n\n# A model\n")
        return set(sets.trained_on(tmp_path))

    assert card("datasets:\n- sentence-transformers/stsb\n- snli") == {*sets.SEVEN[:5], "stsb_dev", "stsb_test"}
    assert card("datasets:\n- stsb_train") == set(sets.SEVEN[:5])
    assert card("datasets: [cs224n/sts-train]") >= {"stsb_test", "sts12"}
    assert card("datasets: [nyu-mll/glue]") >= {"stsb_test", "sts12"}
    assert card("datasets: mteb/sickr-sts") == {"sickr", "sickr_test"}
    assert card("datasets: [sickr_train]") == {"sickr"}
    assert card("datasets: [mteb/sts14-sts]") >= {"sts14", "stsb_test"}
    assert card("datasets: [quora, snli, multi_nli, classics12, stsomething]") == set()
    assert card("sbmini_trained_on:\n  sts13: 7") == {"sts13"}
    assert "7 pairs" in sets.trained_on(tmp_path)["sts13"]
    assert card("license: [") == set()
    bomb = "a0: &a0 [stsb]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    assert card(f"{bomb}datasets: *a11") == set()  # 10 ** 11 names
    (tmp_path / "README.md").unlink()
    assert sets.trained_on(tmp_path) == {}


def test_the_built_in_pairs_are_as_many_as_is_said_and_in_range():
    held = sets.builtin_pairs()
    assert len(held) == len(set(zip(held.first, held.second, strict=True))) == 64
    assert min(held.scores) == 0
    assert max(held.scores) <= 5


# --- models ------------------------------------------------------------------------------------------------------------


def test_every_runtime_gives_the_same_vectors(minilm):
    texts = ["a cat sleeps", "the dough rises " * 200, "x"]
    opened = {
        kind: open_contestant(str(minilm), kind, 2) for kind in ("int8", "fp32", "torch", "sentence-transformers")
    }
    exact = opened["sentence-transformers"].encode(texts)
    for kind, model in opened.items():
        np.testing.assert_allclose(model.encode(texts), exact, atol=0.05 if kind == "int8" else 2e-6)
        assert model.truncated(texts) == 1, kind
        assert (model.name, model.path) == (minilm.name, minilm)
    with pytest.raises(UsageError, match="the runtime must be one of int8, fp32, torch, sentence-transformers"):
        open_contestant(str(minilm), "onnx", 1)


def test_published_figure_of_the_benchmark(minilm, data):
    held = sets.find_set(data, "stsb_test")
    (model,) = sts.score([open_contestant(str(minilm), "fp32", 2)], [held], resamples=100).models
    assert model.sets[0].spearman == pytest.approx(82.03, abs=0.05)
    assert model.sets[0].n == 1379


@pytest.mark.long
def test_published_figures_of_all_sets(minilm, data):
    published = {"sts12": 72.37, "sts13": 80.60, "sts15": 85.39, "stsb_test": 82.03, "sickr": 77.58}
    held = [sets.find_set(data, name) for name in published]
    for runtime in ("fp32", "sentence-transformers"):
        (model,) = sts.score([open_contestant(str(minilm), runtime, 2)], held, resamples=100).models
        for found in model.sets:
            assert found.spearman == pytest.approx(published[found.set], abs=0.05), found.set


# --- retrieval --------------------------------------------------------------------------------------------------------


def test_ranking_scores_by_definition(rng):
    documents, queries = [f"d{i}" for i in range(23)], [f"q{i}" for i in range(7)]
    relevant = {q: {d: int(rng.integers(1, 4)) for d in rng.choice(documents, 3, replace=False)} for q in queries}
    ranked = {q: {d: float(s) for d, s in zip(documents, rng.permutation(23), strict=True)} for q in queries}
    del ranked["q3"]  # a query without an answer counts as 0
    gains, reciprocal, recall = [], [], []
    for q in queries:
        order = sorted(ranked.get(q, {}), key=lambda d: -ranked[q][d])
        judged = [relevant[q].get(d, 0) for d in order]
        ideal = sorted(relevant[q].values(), reverse=True)
        dcg, best = (sum(g / math.log2(i + 2) for i, g in enumerate(x[:10])) for x in (judged, ideal))
        gains.append(dcg / best)
        reciprocal.append(next((1 / (i + 1) for i, g in enumerate(judged[:10]) if g), 0))
        recall.append(sum(g > 0 for g in judged[:100]) / 3)
    found = retrieval.ranking_scores(relevant, ranked)
    assert found == pytest.approx((np.mean(gains), np.mean(recall), np.mean(reciprocal)))


def beir(folder, *, zipped=False):
    folder.mkdir(parents=True, exist_ok=True)
    corpus = [{"_id": f"d{i}", "title": t, "text": x} for i, (t, x) in enumerate([("A", "a"), ("", "b"), ("C", "c")])]
    queries = [{"_id": "q1", "text": "x"}, {"_id": "q2", "text": "y"}, {"_id": "unjudged", "text": "z"}]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (folder / f"{name}.jsonl{'.gz' if zipped else ''}").write_bytes(gzip.compress(text) if zipped else text)
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t2\nq2\td1\t1\nq2\td2\t0\n")
    return folder


def test_a_collection_is_read_and_scored(tmp_path):
    held = retrieval.read_collection(beir(tmp_path / "retrieval" / "toy", zipped=True))
    assert held.documents == {"d0": "A a", "d1": "b", "d2": "C c"}
    assert held.queries == {"q1": "x", "q2": "y"}
    assert held.relevant == {"q1": {"d0": 2}, "q2": {"d1": 1}}
    assert retrieval.find_collections(tmp_path) == [tmp_path / "retrieval" / "toy"]
    vectors = {"A a": [1, 0], "b": [0, 1], "C c": [0.9, 0.3], "x": [1, 0], "y": [0.9, 0.35]}
    found = retrieval.score_retrieval(contestant({k: np.array(v, float) for k, v in vectors.items()}), held)
    # y: C c, A a, b: the relevant one is third
    assert (found.ndcg_at_10, found.mrr_at_10) == pytest.approx(((1 + 1 / math.log2(4)) / 2, (1 + 1 / 3) / 2))
    (tmp_path / "retrieval" / "toy" / "qrels" / "test.tsv").write_text("q1\td0\tmuch\nq1 d0 1\n")
    with pytest.raises(InputError, match="line 2: query, document and a whole number"):
        retrieval.read_collection(tmp_path / "retrieval" / "toy")
    (tmp_path / "retrieval" / "toy" / "corpus.jsonl.gz").unlink()
    with pytest.raises(InputError, match=r"has no corpus\.jsonl"):
        retrieval.read_collection(tmp_path / "retrieval" / "toy")


@pytest.mark.long
def test_published_figure_of_scifact(minilm, data):
    held = retrieval.read_collection(data / "retrieval" / "scifact")
    found = retrieval.score_retrieval(open_contestant(str(minilm), "fp32", 2), held)
    assert found.ndcg_at_10 == pytest.approx(0.645, abs=0.001)


def test_kinds_of_index_against_brute_force(rng):
    rows = rng.normal(size=(601, 24)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries = rows[:53] + 0.01
    found = retrieval.measure_kinds(
        rows, queries, ["exact", "PCA2,SQ8", "HNSW8"], k=5, threads=1, rounds=1, with_peer=True
    )
    flat, coarse, hnsw, peer = found.values()
    assert flat.recall == peer.recall == 1
    assert peer.build_s is None
    assert 0.1 < coarse.recall < 1
    assert 0.5 < hnsw.recall <= 1
    assert coarse.bytes_per_vector < 24 < 4 * 24 <= flat.bytes_per_vector < 4 * 24 + 20
    assert flat.peak_bytes > 10_000_000
    with pytest.raises(UsageError, match="FAISS cannot make and search an index of the kind 'Nonsense'"):
        retrieval.measure_kinds(rows, queries, ["Nonsense"], k=5, threads=1, rounds=1, with_peer=False)


def test_recall_is_the_share_of_the_exact_neighbours_by_hand():
    exact = np.array([[1, 2, 3], [4, 5, 6]])
    assert retrieval.recall_of(np.array([[3, 9, 1], [7, 8, 9]]), exact) == 2 / 6
    assert retrieval.recall_of(exact[:, ::-1], exact) == 1
    assert retrieval.recall_of(exact[:, :1], exact) == 2 / 6  # a search may return fewer


def test_the_most_similar_pair_by_brute_force(rng):
    vectors = rng.normal(size=(67, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    all_pairs = vectors @ vectors.T - 2 * np.eye(67)
    i, j = sorted(np.unravel_index(np.argmax(all_pairs), all_pairs.shape))
    assert most_similar_pair(vectors) == (pytest.approx(all_pairs[i, j], abs=1e-6), i, j)
    vectors[41] = vectors[7]
    assert most_similar_pair(vectors) == (pytest.approx(1), 7, 41)
    with pytest.raises(UsageError, match="found 1"):
        most_similar_pair(vectors[:1])


# --- speed ------------------------------------------------------------------------------------------------------------


def test_operations_of_a_text_are_those_that_torch_counts(minilm):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from sbert_mini import MiniBert

    config = BertConfig(vocab_size=11, hidden_size=28, num_hidden_layers=3, num_attention_heads=7, intermediate_size=52)
    bert = MiniBert(config, pooler=False).eval()
    with FlopCounterMode(display=False) as counted, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # it counts no other
        bert(torch.ones(1, 13, dtype=torch.long))
    assert speed.flops_per_text(config, 13) == counted.get_total_flops()


def test_ratios_are_of_rounds_and_processes_are_measured_whole():
    assert median_ratio([2, 9, 8], [1, 3, 2]) == 3
    assert summary([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}
    import sys

    elapsed_s, peak = process([sys.executable, "-c", "import time; x = bytearray(80_000_000); time.sleep(0.3)"])
    assert elapsed_s > 0.3
    assert peak > 80_000_000
    with pytest.raises(Exception, match="failed with 3: out of luck"):
        process([sys.executable, "-c", "import sys; print('out of luck', file=sys.stderr); sys.exit(3)"])


# --- the commands -----------------------------------------------------------------------------------------------------


def test_bench_sts_without_data_a_network_or_torch(sbmini, tmp_path, minilm):
    done = sbmini("bench", "sts", "--sets", "builtin", "--json", "--offline", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    (model,) = found["models"]
    assert (model["model"], model["runtime"]) == ("sbert-mini", "int8")
    (builtin,) = model["sets"]
    assert (builtin["set"], builtin["n"]) == ("builtin", 64)
    assert builtin["spearman_interval"][0] < builtin["spearman"] < builtin["spearman_interval"][1]
    assert builtin["spearman"] > 75
    assert found["machine"]["threads"] == 1
    again = sbmini("bench", "sts", "--sets", "builtin", "--json", "--offline", "--threads", 1)
    assert json.loads(again.stdout)["models"] == found["models"]
    one_error(sbmini("bench", "sts", "--offline"), 1, "--data or SBMINI_DATA", "--sets builtin", "zenodo.org")
    (tmp_path / "empty").mkdir()
    one_error(sbmini("bench", "sts", "--data", "empty"), 1, "none of sts12", "--sets builtin")
    one_error(sbmini("bench", "sts", "--data", "nowhere"), 2, "the data folder nowhere does not exist")
    one_error(sbmini("bench", "sts", "--sets", "sts99"), 2, "there is no set 'sts99'")


def test_bench_sts_says_what_is_absent_and_reports(sbmini_here, tmp_path, make_model):
    model = make_model()
    (tmp_path / "data").mkdir()
    write_table(tmp_path / "data" / "sts13.tsv")
    (tmp_path / "mine.csv").write_text("a,b,grade\ncats,a cat,4\ndogs,a house,0\nbread,a loaf,3\n")
    done = sbmini_here(
        "bench", "sts", "-m", model, "--data", "data", "--sets", "sts13,sts14", "--pairs", "mine.csv", "--columns", "a,b,grade",
        "--runtime", "int8", "--runtime", "fp32", "--report", "out", "--resamples", 100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sts14: absent." in done.stdout
    assert "mean of 1: sts13" in done.stdout
    assert f"{model.name} (fp32)" in done.stdout
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"sts.json", "sts.png", "sts-mine.png", "sts-sts13.png", "report.md", "report.html"}
    assert json.loads((tmp_path / "out" / "sts.json").read_text())["absent"] == ["sts14"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r'(src|href)="?(?!data:)http', page)
    assert "| mine" in (tmp_path / "out" / "report.md").read_text()
    (tmp_path / "out" / "sts-notes.png").write_bytes(b"a picture of somebody's own")
    done = sbmini_here("bench", "sts", "-m", model, "--sets", "builtin", "--report", "out", "--resamples", 100)
    assert done.returncode == 0, done.stderr
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"sts.json", "sts.png", "sts-builtin.png", "sts-notes.png", "report.md", "report.html"}
    (tmp_path / "file").write_text("")
    one_error(
        sbmini_here("bench", "sts", "--sets", "builtin", "--report", "file"), 2, "the report folder file is a file"
    )
    (tmp_path / "out" / "speed.json").write_text("{}\n")


def check_speed(done, name, graph):
    """Assert what a report of speed must hold, whatever the machine's speed is."""
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    int8 = f"{name} (int8)"
    assert found["models"][int8]["cosine_mean"] > 0.99
    assert found["models"][int8]["disk_bytes"] == graph.stat().st_size
    assert set(found["by_batch_size"][int8]) == {"1", "8", "32", "128"}
    assert found["by_length"][int8]["256"]["times_faster"] is None
    roofline = found["roofline"]
    for label, held in roofline["models"].items():  # a share of the limit, and the limit from operations a second
        best = max(entry["texts_per_s"]["median"] for entry in found["by_batch_size"][label].values())
        rate = roofline["fp32_flops_per_s" if label.endswith("(fp32)") else "int8_flops_per_s"]
        assert held["limit_texts_per_s"] == pytest.approx(rate / roofline["flops_per_text"])
        assert held["share"] == pytest.approx(best * roofline["flops_per_text"] / rate)


@pytest.mark.long
def test_the_speed_of_the_default_model(sbmini_here, tmp_path):
    done = sbmini_here("bench", "speed", "--no-peer", "--texts", 64, "--rounds", 1, "--json")
    check_speed(done, "sbert-mini", find(resolve("sbert-mini")).file)
    assert json.loads(done.stdout.splitlines()[-1])["models"]["sbert-mini (int8)"]["disk_bytes"] < 25e6


@pytest.mark.long
def test_the_other_benchmarks_at_a_small_size(sbmini_here, tmp_path, make_model):
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "num_hidden_layers": 1}
    model = make_model(**sizes, max_position_embeddings=256)  # native code computes these sizes, too
    settings = {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 256}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    graph = find(model).file
    small = ("-m", model, "--no-peer", "--rounds", 1, "--report", "out")
    done = sbmini_here("bench", "speed", *small, "--texts", 64, "--json")
    check_speed(done, model.name, graph)
    beir(tmp_path / "toy")
    done = sbmini_here("bench", "search", *small, "--collection", "toy", "--kind", "SQ8")
    one_error(done, 2, "at least 100 distinct texts are needed")
    texts = [p["text"] for p in map(json.loads, PASSAGES.read_text("utf-8").splitlines())]
    (tmp_path / "t.txt").write_text("\n".join(texts) + "\n", "utf-8")
    done = sbmini_here("bench", "search", *small, "--collection", "toy", "--kind", "SQ8", "-i", "t.txt")
    assert done.returncode == 0, done.stderr
    assert "Retrieval: toy, 3 documents, 2 queries" in done.stdout
    pairs = ("bench", "pairs", "-m", model, "-i", "t.txt", "--n", 50, "--sample", 8, "--rounds", 1)
    done = sbmini_here(*pairs, "--report", "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sizes"][0]["n"] == 50
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    for title in ("Speed", "Search and retrieval", "The most similar pair"):
        assert title in page
    one_error(sbmini_here("bench", "pairs", "-i", "t.txt", "--n", 5000), 2, "5,000 distinct sentences are needed")


PASSAGES = Path(__file__).parents[2] / "sbert_mini" / "examples" / "collection.jsonl"


def test_bench_sts_of_the_vectors_beginnings(sbmini_here, minilm):
    from sbert_mini import Embedder
    from sbert_mini.evaluation.sets import builtin_pairs
    from sbert_mini.evaluation.sts import spearman

    done = sbmini_here("bench", "sts", "--sets", "builtin", "-m", minilm, "--dim", 64, "--json", "--threads", 1)
    assert done.returncode == 0, done.stderr
    whole, part = json.loads(done.stdout.splitlines()[-1])["models"]
    assert part["model"] == f"{whole['model']}[:64]"
    held = builtin_pairs()
    u, v = (Embedder(minilm).encode(list(texts), truncate_dim=64) for texts in (held.first, held.second))
    assert part["sets"][0]["spearman"] == pytest.approx(
        100 * spearman((u * v).sum(axis=1), np.asarray(held.scores)), abs=1e-6
    )
    assert part["sets"][0]["spearman"] != whole["sets"][0]["spearman"]
    one_error(
        sbmini_here("bench", "sts", "--sets", "builtin", "-m", minilm, "--dim", 385),
        2,
        "--dim must be from 1 to 384",
        "found 385",
    )


def test_no_cosine_is_taken_between_models_of_other_weights():
    from sbert_mini.evaluation.speed import _fidelity

    exact = lambda texts, size: np.eye(3, dtype=np.float32)[[len(t) % 3 for t in texts]]  # noqa: E731
    near = lambda texts, size: exact(texts, size) * np.float32(0.9)  # noqa: E731
    found = _fidelity({"own": exact, "near": near, "peer": near}, "own", "peer", ["a", "bb", "ccc"])
    assert found["near"]["cosine_mean"] == pytest.approx(0.9)
    assert found["peer"]["cosine_mean"] is None
    assert found["peer"]["cosine_min"] is None
    assert found["peer"]["alone_to_batch_min"] == pytest.approx(0.81)
