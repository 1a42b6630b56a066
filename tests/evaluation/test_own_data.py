"""An index on its user's queries: figures by their definitions, counts by hand, runs read by trec_eval."""

import json
import math

import numpy as np
import pytest
import pytrec_eval
from conftest import one_error

from sbert_mini import IndexWriter, Record, SearchIndex
from sbert_mini.errors import InputError, UsageError
from sbert_mini.evaluation import tables
from sbert_mini.evaluation.judgments import Judgments, Queries
from sbert_mini.evaluation.own_data import evaluate, write_runs

TEXTS = {
    "rise": "why does bread dough rise",
    "trains": "how are two trains kept apart",
    "promise": "is a spoken promise binding",
    "none": "what is the capital of France",
    "zero": "animals that see in the dark",
}


@pytest.fixture(scope="module")
def judged(passages):
    """Judgments with the documents of a topic, one document that the index lacks, and one query that the file lacks."""
    judgments = Judgments()
    of_topic = {"rise": "cooking", "trains": "railways", "promise": "law and contracts"}
    for query, topic in of_topic.items():
        for row in passages:
            if row["topic"] == topic:
                judgments.add(query, row["id"], row["level"])
    judgments.add("rise", "gone", 3)
    judgments.add("rise", "gone", 3)
    judgments.add("trains", "gone as well", 0)
    judgments.add("elsewhere", "gone", 1)
    judgments.add("zero", passages[0]["id"], 0)
    judgments.add("zero", passages[0]["id"], -1)
    return judgments


@pytest.fixture(scope="module")
def result(collection_index, judged):
    return evaluate(SearchIndex(collection_index), Queries(TEXTS, 2), judged, resamples=500, seed=3)


def by_definition(hits, grades):
    """Return nDCG@10, recall@10, recall@100 and MRR@10 of a ranking."""
    gains = [max(grades.get(document, 0), 0) for document, _ in hits]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    dcg, best = (sum(g / math.log2(rank + 1) for rank, g in enumerate(x[:10], start=1)) for x in (gains, ideal))
    first = next((1 / rank for rank, gain in enumerate(gains[:10], start=1) if gain), 0)
    return dcg / best, sum(g > 0 for g in gains[:10]) / len(ideal), sum(g > 0 for g in gains) / len(ideal), first


def test_figures_are_those_of_the_definitions(result, judged, collection_index):
    measured, runs = result
    index = SearchIndex(collection_index)
    assert list(runs) == list(measured.methods) == ["meaning", "words", "both"]
    for method, run in runs.items():
        assert list(run) == ["rise", "trains", "promise"]
        expected = [by_definition(run[query], judged.grades[query]) for query in run]
        for i, query in enumerate(run):
            assert run[query] == [(hit.id, hit.score) for hit in index.search(TEXTS[query], 100, by=method)]
            assert list(measured.queries[i][method].values()) == pytest.approx(expected[i])
        means = [m.value for m in measured.methods[method].values()]
        assert means == pytest.approx(np.mean(expected, axis=0))
        assert all(m.interval[0] <= m.value <= m.interval[1] for m in measured.methods[method].values())
    assert [(q["query_id"], q["query"]) for q in measured.queries] == [(q, TEXTS[q]) for q in runs["both"]]
    ndcg = {method: m["ndcg_at_10"].value for method, m in measured.methods.items()}
    pairs = [(c.first, c.second) for c in measured.comparisons["ndcg_at_10"]]
    assert pairs == [("meaning", "words"), ("meaning", "both"), ("words", "both")]
    for comparison in measured.comparisons["ndcg_at_10"]:
        assert comparison.difference == pytest.approx(ndcg[comparison.first] - ndcg[comparison.second])


def test_what_cannot_be_used_is_counted(result, judged, passages):
    counts = result[0].counts
    relevant = sum(grade > 0 for query in ("rise", "trains", "promise") for grade in judged.grades[query].values())
    assert vars(counts) == {
        "queries": 5,
        "repeated_queries": 2,
        "unjudged_queries": 1,
        "irrelevant_queries": 1,
        "unknown_queries": 1,
        "evaluated_queries": 3,
        "judgments": relevant + 3,
        "repeated_judgments": 1,
        "conflicting_judgments": 1,
        "relevant": relevant,
        "absent_documents": 2,
        "absent_relevant": 1,
    }
    shown = [table.terminal() for table in tables.own_data(json.loads(json.dumps(result[0].to_json())))]
    assert "judged documents that the index does not have" in shown[2]
    assert "500 bootstrap resamples of the queries, seed 3" in shown[1]
    assert all(query in shown[3] for query in ("rise", "trains", "promise"))


def test_grades_that_are_no_gains_count_as_1(result, judged, collection_index):
    binary, _ = evaluate(SearchIndex(collection_index), Queries(TEXTS), judged, binary=True, resamples=100)
    flat = {query: {d: min(g, 1) for d, g in grades.items()} for query, grades in judged.grades.items()}
    plain, _ = evaluate(SearchIndex(collection_index), Queries(TEXTS), Judgments(flat), resamples=100)
    assert binary.methods == plain.methods
    assert binary.methods != result[0].methods


def test_trec_eval_reads_the_runs_as_they_were_ranked(result, judged, tmp_path):
    measured, runs = result
    files = write_runs(tmp_path / "out.trec", runs)
    assert [file.name for file in files] == ["out.meaning.trec", "out.words.trec", "out.both.trec"]
    for method, file in zip(runs, files, strict=True):
        assert all(line.split()[5] == f"sbmini-{method}" for line in file.read_text().splitlines())
        with file.open() as stream:
            run = pytrec_eval.parse_run(stream)
        relevant = {query: judged.grades[query] for query in runs[method]}
        theirs = pytrec_eval.RelevanceEvaluator(relevant, {"ndcg_cut.10", "recall.100"}).evaluate(run)
        for i, query in enumerate(relevant):
            assert theirs[query]["ndcg_cut_10"] == measured.queries[i][method]["ndcg_at_10"]
            assert theirs[query]["recall_100"] == measured.queries[i][method]["recall_at_100"]


def test_scores_that_tie_or_fall_below_float32_keep_their_order(tmp_path):
    hits = [(f"d{i}", score) for i, score in enumerate([0.5, 0.5, 0.5 - 1e-12, 0.25, 0.25])]
    (file,) = write_runs(tmp_path / "a", {"both": {"q": hits}})
    rows = [line.split() for line in file.read_text().splitlines()]
    assert [(row[2], row[3]) for row in rows] == [(f"d{i}", str(i + 1)) for i in range(5)]
    scores = np.array([row[4] for row in rows], np.float32)
    assert (np.diff(scores) < 0).all()
    np.testing.assert_allclose(scores, [score for _, score in hits], atol=1e-6)
    for wrong in ("a b", "", "a\u00a0b"):
        with pytest.raises(InputError, match="cannot hold the id"):
            write_runs(tmp_path / "b", {"both": {"q": [(wrong, 1.0)]}})
    assert [path.name for path in tmp_path.iterdir()] == ["a.both"]


def test_queries_without_judgments_alone_are_an_error(collection_index):
    index = SearchIndex(collection_index)
    with pytest.raises(InputError, match="of 5 queries and 1 judged queries 0 have the same id"):
        evaluate(index, Queries(TEXTS), Judgments({"1": {"a": 1}}))
    with pytest.raises(UsageError, match="at least 100 resamples are needed for an interval; found 7"):
        evaluate(index, Queries(TEXTS), Judgments({"rise": {"a": 1}}), resamples=7)


@pytest.fixture
def beir_folder(tmp_path):
    corpus = [
        {"_id": "d1", "title": "Foxes", "text": "A fox sleeps in a den."},
        {"_id": "d2", "title": "", "text": "Dogs sleep anywhere."},
        {"_id": "d3", "title": "Trains", "text": "The brakes work by air."},
    ]
    queries = [{"_id": "7", "text": "where do foxes sleep"}, {"_id": "9", "text": "brakes of a train"}]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n7\td1\t1\n9\td3\t1\n9\td4\t1\n")
    (tmp_path / "q.csv").write_text("number,question\n7,where do foxes sleep\n9,brakes of a train\n8,cats\n")
    return tmp_path


def test_the_command_evaluates_an_index_made_of_beir_s_files(sbmini_here, beir_folder):
    created = sbmini_here("index", "create", "ix", "-i", "corpus.jsonl")
    assert (
        "sbmini: 2 rows are in BEIR's layout (_id, title, text): each title was joined with its text" in created.stderr
    )
    row = SearchIndex(beir_folder / "ix").get("d1")
    assert (row.text, row.columns["title"]) == ("Foxes A fox sleeps in a den.", "Foxes")
    asked = ("bench", "search", "--index", "ix", "--qrels", "qrels.tsv", "--resamples", 200)
    done = sbmini_here(*asked, "--queries", "queries.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["methods"]["meaning"]["ndcg_at_10"]["value"] == pytest.approx((1 + 1 / (1 + 1 / math.log2(3))) / 2)
    assert [query["query_id"] for query in result["queries"]] == ["7", "9"]
    assert (result["resamples"], result["seed"], result["counts"]["absent_relevant"]) == (200, 0, 1)
    named = ("--queries", "q.csv", "--id-column", "number", "--text-column", "question")
    done = sbmini_here(*asked, *named, "--run", "out.trec", "--report", "report")
    assert done.returncode == 0, done.stderr
    assert "queries without a judgment: left out" in done.stdout
    assert (beir_folder / "out.both.trec").read_text().startswith("7 Q0 d1 1 ")
    assert "Search on your own queries" in (beir_folder / "report" / "report.md").read_text()
    for wrong, parts in (
        (("--index", "ix", "--queries", "q.csv"), ("--queries and --qrels: give both",)),
        (("--index", "ix", "-k", 5, "--rows", 100), ("-k, --rows", "not for the evaluation")),
        (("--queries", "q.csv"), ("--queries", "for the evaluation of an --index")),
    ):
        one_error(sbmini_here("bench", "search", *wrong), 2, *parts)
    one_error(sbmini_here(*asked, "--queries", "q.csv"), 1, "no column 'text'")


def test_titles_are_joined_in_beir_s_layout_alone(sbmini_here, beir_folder):
    (beir_folder / "own.jsonl").write_text('{"id": "a", "title": "T", "text": "x y"}\n')
    done = sbmini_here("index", "create", "own", "-i", "own.jsonl")
    assert "BEIR" not in done.stderr
    assert SearchIndex(beir_folder / "own").get("a").text == "x y"
    done = sbmini_here("index", "create", "alone", "-i", "corpus.jsonl", "--text-column", "text")
    assert "BEIR" not in done.stderr
    assert SearchIndex(beir_folder / "alone").get("d1").text == "A fox sleeps in a den."


def test_the_queries_ids_stand_in_every_output_of_search(sbmini_here, beir_folder, default_embedder):
    IndexWriter(beir_folder / "ix", default_embedder).create([Record("a fox", "d1"), Record("a train", "d2")])
    asked = ("search", "ix", "-k", 1, "-i", "q.csv", "--id-column", "number", "--text-column", "question")
    rows = [line.split("\t") for line in sbmini_here(*asked).stdout.splitlines()]
    assert [row[:2] for row in rows] == [["7", "where do foxes sleep"], ["9", "brakes of a train"], ["8", "cats"]]
    assert [row[3] for row in rows[:2]] == ["d1", "d2"]
    answers = [json.loads(line) for line in sbmini_here(*asked, "--jsonl").stdout.splitlines()]
    assert [list(answer) for answer in answers] == [["query_id", "query", "hits"]] * 3
    assert [answer["query_id"] for answer in answers] == ["7", "9", "8"]
    both = json.loads(sbmini_here(*asked, "--json", "--by", "both").stdout)["results"][0]["hits"][0]
    assert both["rank_by_meaning"] == both["rank_by_words"] == 1
    assert both["bm25"] > 0
    assert 0 < both["cosine"] < 1
    assert both["cosine"] / 2 < both["score"] < both["cosine"] / 2 + 0.5  # half of each, and a word counts
    assert len(sbmini_here("search", "ix", "-i", "queries.jsonl").stdout.splitlines()[0].split("\t")) == 5
    assert "query_id" not in sbmini_here("search", "ix", "fox", "--json").stdout
    one_error(sbmini_here("search", "ix", "fox", "--id-column", "n"), 2, "--id-column")
    one_error(sbmini_here("search", "ix", "fox", "--by", "words", "--hybrid"), 2, "--hybrid is --by both")
