"""Queries and judgments in the layouts of BEIR, TREC and CSV."""

import gzip

import pytest

from sbert_mini.errors import InputError
from sbert_mini.evaluation.judgments import read_judgments, read_queries

TEXTS = {"q1": "red fox", "q2": "a dog, asleep"}
GRADES = {"q1": {"d1": 2, "d2": 0}, "q2": {"d3": 1}}


def written(folder, name, text):
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("q.jsonl", '{"_id": "q1", "text": "red fox"}\n{"_id": "q2", "text": "a dog, asleep", "metadata": {}}\n', {}),
        ("q.tsv", "q1\tred fox\n\nq2\ta dog, asleep\n", {}),
        ("queries.txt", "\ufeffq1\tred fox\r\nq2\ta dog, asleep\r\n", {}),
        ("topics.robust.gz", "q1\tred fox\nq2\ta dog, asleep", {}),
        ("q.tsv.gz", "id\ttext\nq1\tred fox\nq2\ta dog, asleep\n", {}),
        ("q.csv", 'id,text\nq1,red fox\nq2,"a dog, asleep"\n', {}),
        ("q.tsv", "n\tquestion\nq1\tred fox\nq2\ta dog, asleep\n", {"id_column": "n", "text_column": "question"}),
    ],
)
def test_queries_of_every_layout(tmp_path, name, text, columns):
    queries = read_queries(written(tmp_path, name, text), **columns)
    assert queries.texts == TEXTS
    assert list(queries.texts) == ["q1", "q2"]
    assert queries.repeated == 0


@pytest.mark.parametrize(
    ("name", "text", "columns", "message"),
    [
        ("q.csv", "number,text\n7,red\n", {}, r"q\.csv, line 2: the query has no id.*--id-column"),
        ("q.csv", "id,text\n,red\n", {}, r"q\.csv, line 2: the query has no id"),
        ("q.tsv", "qid\tquestion\nq1\tred\n", {}, "no column 'text' for the text; there are: qid, question"),
        ("q.tsv", "q1\tred\nq1\tblue\n", {}, r"q\.tsv, line 2: the query 'q1' stands in an earlier line"),
        ("q.tsv", "q1\tred\nq2 blue\n", {}, r"q\.tsv, line 2: an id, a tab and a text are required"),
        ("q.txt", "red\n", {}, r"q\.txt, line 1: the query has no id"),
        ("q.tsv", "", {}, "is empty|holds no query"),
        ("q.jsonl", "", {}, "holds no query"),
        ("none.tsv", None, {}, r"none\.tsv cannot be opened"),
    ],
)
def test_queries_that_cannot_be_used_name_their_line(tmp_path, name, text, columns, message):
    path = tmp_path / name if text is None else written(tmp_path, name, text)
    with pytest.raises(InputError, match=message):
        read_queries(path, **columns)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td3\t1\n"),
        ("qrels.tsv", "q1\td1\t2\nq1\td2\t0\nq2\td3\t1\n"),
        ("qrels.trec", "q1 0 d1 2\nq1 0 d2 0\n\nq2 Q0 d3 1\n"),
        ("qrels.txt.gz", "q1\t0\td1\t2\nq1\t0\td2\t0\nq2\t0\td3\t1"),
        ("r.csv", 'grade,Query,"Document"\n2,q1,d1\n0.0,q1,d2\n1,"q2",d3\n'),
        ("r.csv", "qid,docid,relevance,note\nq1,d1,2,x\nq1,d2,0,\nq2,d3,1.0,\n"),
    ],
)
def test_judgments_of_every_layout(tmp_path, name, text):
    judgments = read_judgments(written(tmp_path, name, text))
    assert judgments.grades == GRADES
    assert (judgments.repeated, judgments.conflicting) == (0, 0)


def test_a_table_without_grades_names_relevant_documents(tmp_path):
    path = written(tmp_path, "r.csv", "query_id,doc_id\nq1,a b\nq1,c\n")
    assert read_judgments(path).grades == {"q1": {"a b": 1, "c": 1}}


def test_repeated_queries_and_judgments_are_counted(tmp_path):
    path = written(tmp_path, "r.trec", "q1 0 d1 1\nq1 0 d1 1\nq1 0 d1 3\nq1 0 d1 2\nq1 0 d2 -1\nq1 0 d2 -2\n")
    judgments = read_judgments(path)
    assert judgments.grades == {"q1": {"d1": 3, "d2": -1}}
    assert (judgments.repeated, judgments.conflicting) == (1, 3)
    queries = read_queries(written(tmp_path, "q.tsv", "q1\tred\nq2\tblue\nq1\tred\n"))
    assert (queries.texts, queries.repeated) == ({"q1": "red", "q2": "blue"}, 1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.tsv", "q1 0 d1 1\nq1 d1 1\n", r"line 2: four fields are required .*found 3"),
        ("r.tsv", "q1 0 d1 1\nq1 0 d1 1 x y\n", r"line 2: four fields are required .*found more"),
        ("r.csv", "query,document\rq1,d1\n", r"r\.csv, line 1: the header cannot be read: new-line"),
        ("r.csv", "query,document," + "x" * 200_000 + "\nq1\n", r"r\.csv, line 2: "),
        ("r.tsv", "q1\td1\t1\nq1\td1\n", r"line 2: query, document and grade are required, tab separated; found 2"),
        ("r.tsv", "q1 0 d1 1\nq1 0 d1 high\n", r"line 2: the grade must be a whole number; found 'high'"),
        ("r.csv", "query,document,grade\nq1,d1,0.5\n", r"line 2: the grade must be a whole number; found '0\.5'"),
        ("r.csv", "query,document,grade\nq1,d1,inf\n", r"line 2: the grade must be a whole number; found 'inf'"),
        ("r.csv", "query,document,grade\nq1,,1\n", "line 2: the document has no id"),
        ("r.csv", "query,document,grade\nq1,d1\n", "line 2: 2 columns, and the header names 3"),
        ("r.csv", "question,answer\nq1,d1\n", r"neither a judgment of TREC .* found: question, answer"),
        ("r.csv", "query,document,grade\n", "holds no judgment"),
        ("r.csv", "", "neither a judgment of TREC"),
        ("r.csv", "q1 0 d\x00 1\n", "a NUL byte"),
        ("none.csv", None, r"none\.csv cannot be opened"),
    ],
)
def test_judgments_that_cannot_be_used_name_their_line(tmp_path, name, text, message):
    path = tmp_path / name if text is None else written(tmp_path, name, text)
    with pytest.raises(InputError, match=message):
        read_judgments(path)
