"""What commands and `read_records` make of their input: several files, joined columns, and files with something wrong in them."""

import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import one_error

from sbert_mini.errors import InputError, UsageError
from sbert_mini.text.records import ReadCounts, Reject, read_records


def rows(path, **options):
    return [(record.text, record.id, dict(record.columns)) for record in read_records(path, **options)]


def read_with_rejects(path, **options) -> tuple[list[str], list[Reject]]:
    rejects: list[Reject] = []
    return [record.text for record in read_records(path, on_reject=rejects.append, **options)], rejects


# --- several files, several columns ----------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path):
    (tmp_path / "b.csv").write_text("id,text,year\n1,one,1999\n2,two,2001\n")
    (tmp_path / "a.jsonl").write_text('{"text": "three", "year": 3}\n{"_id": "x", "text": "four"}\n')
    (tmp_path / "c.txt").write_text("five\n\nsix\n")
    return [tmp_path / name for name in ("b.csv", "a.jsonl", "c.txt")]


def test_files_are_read_in_order_each_by_its_suffix(three):
    records = list(read_records(three))
    assert [(r.text, r.id, r.line, Path(r.file).name, r.typed) for r in records] == [
        ("one", "1", 2, "b.csv", False),
        ("two", "2", 3, "b.csv", False),
        ("three", None, 1, "a.jsonl", True),
        ("four", "x", 2, "a.jsonl", True),
        ("five", None, 1, "c.txt", True),
        ("six", None, 3, "c.txt", True),
    ]
    assert records[1].place == f"{three[0]}, line 3"
    assert [r.text for r in read_records(three, format="txt")][:2] == ["id,text,year", "1,one,1999"]


def test_errors_and_rejects_name_the_file(three, tmp_path):
    three[1].write_text('{"text": "three"}\nno\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: not JSON"):
        list(read_records(three))
    texts, rejects = read_with_rejects(three)
    assert texts == ["one", "two", "three", "five", "six"]
    assert [(Path(r.file).name, r.line) for r in rejects] == [("a.jsonl", 2)]


def test_a_file_that_is_named_twice_or_absent_is_refused_before_anything_is_read(three, tmp_path):
    with pytest.raises(UsageError, match=r"b\.csv is named twice"):
        read_records([three[0], three[0]])
    (tmp_path / "link.csv").symlink_to(three[0])
    with pytest.raises(UsageError, match="are one file"):
        read_records([three[0], tmp_path / "link.csv"])
    with pytest.raises(InputError, match=r"d\.csv cannot be opened: No such file"):
        read_records([three[0], tmp_path / "d.csv"])
    with pytest.raises(UsageError, match="is plain text"):
        read_records(three, text_column="text")
    with pytest.raises(UsageError, match="no input file"):
        read_records([])


def test_a_row_of_beir_s_corpus_has_its_title_before_its_text(tmp_path):
    made = [
        {"_id": "1", "title": "T", "text": "body"},
        {"_id": "2", "title": " ", "text": "b2"},
        {"_id": "3", "title": None, "text": "b3"},
        {"_id": "4", "title": 7, "text": "b4"},
        {"_id": "5", "title": "T5", "text": ""},
        {"_id": "6", "text": "b6"},
        {"id": "7", "_id": "x", "title": "T7", "text": "b7"},
        {"id": "8", "title": "T8", "text": "b8"},
    ]
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    counts = ReadCounts()
    records = list(read_records(file, counts=counts))
    texts = ["T body", "b2", "b3", "b4", "T5", "b6", "b7", "b8"]
    assert [(record.id, record.text) for record in records] == [(str(i), t) for i, t in enumerate(texts, start=1)]
    assert records[0].columns == {"title": "T", "text": "body"}  # as --text-column title --text-column text
    assert records[1].columns == {"title": " "}
    assert (counts.records, counts.titled) == (8, 2)
    assert next(read_records(file, id_column="_id")).text == "T body"
    for alone in ({"text_column": "text"}, {"id_column": "text"}):
        assert next(read_records(file, **alone)).text == "body"
    (tmp_path / "corpus.csv").write_text("_id,title,text\n1,T,body\n")
    assert rows(tmp_path / "corpus.csv") == [("T body", "1", {"title": "T", "text": "body"})]


def test_text_columns_are_joined_and_kept(tmp_path):
    file = tmp_path / "a.jsonl"
    made = [
        {"_id": "q", "title": "T", "text": "body"},
        {"title": "", "text": "b2"},
        {"title": None, "text": "b3", "n": 1},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    assert rows(file, text_column=["title", "text"]) == [
        ("T body", "q", {"title": "T", "text": "body"}),
        ("b2", None, {"title": "", "text": "b2"}),
        ("b3", None, {"title": None, "text": "b3", "n": 1}),
    ]
    assert rows(file, text_column=["text", "title"], text_separator=" | ")[0][0] == "body | T"
    assert rows(file, text_column=["text"]) == rows(file, text_column="text")
    assert rows(file, text_column="text")[0] == ("body", "q", {"title": "T"})
    assert rows(file, id_column="text")[0] == ("body", "body", {"_id": "q", "title": "T"})
    with pytest.raises(UsageError, match="'title' is named twice"):
        read_records(file, text_column=["title", "title"])
    with pytest.raises(InputError, match="no column 'tilte' for the text"):
        list(read_records(file, text_column=["tilte", "text"]))
    file.write_text('{"title": " ", "text": null}\n{"title": 5, "text": "a"}\n')
    _, (empty, number) = read_with_rejects(file, text_column=["title", "text"])
    assert empty.error == "the text is empty"
    assert "'title' must be a string" in number.error


def test_every_command_uses_all_its_inputs_and_columns(sbmini_here, tmp_path):
    (tmp_path / "a.txt").write_text("apples are red\n")
    (tmp_path / "b.jsonl").write_text('{"title": "the sky", "text": "is blue"}\n')
    joined = ("--text-column", "title", "--text-column", "text")
    two = ("-i", "a.txt", "-i", "b.jsonl")
    found = [json.loads(line)["text"] for line in sbmini_here("encode", *two, "--dim", 1).stdout.splitlines()]
    assert found == ["apples are red", "is blue"]
    (line,) = sbmini_here("encode", "-i", "b.jsonl", *joined, "--text-separator", ", ").stdout.splitlines()
    row = json.loads(line)
    assert (row["title"], row["text"]) == ("the sky", "is blue")
    (line,) = sbmini_here("encode", "the sky, is blue").stdout.splitlines()
    assert row["embedding"] == json.loads(line)["embedding"]
    (tmp_path / "c.jsonl").write_text('{"title": "bread", "text": "rises"}\n')
    assert (
        sbmini_here("index", "create", "i", "-i", "b.jsonl", "-i", "c.jsonl", *joined).stderr == "sbmini: 2 rows -> i\n"
    )
    (tmp_path / "d.jsonl").write_text('{"title": "a dog", "text": "runs"}\n')
    assert sbmini_here("index", "add", "i", "-i", "d.jsonl", *joined).returncode == 0
    (tmp_path / "e.csv").write_text("title,text\nthe sky,is blue\n")
    done = sbmini_here("search", "i", "-i", "e.csv", "-i", "c.jsonl", *joined, "--jsonl", "-k", 1)
    hits = [(r["query"], r["hits"][0]["text"]) for r in map(json.loads, done.stdout.splitlines())]
    assert hits == [("the sky is blue", "the sky is blue"), ("bread rises", "bread rises")]
    (tmp_path / "again.txt").write_text("apples are  red\nbread\n")
    assert sbmini_here("dedup", "-i", "a.txt", "-i", "again.txt", "-q").stdout == "apples are red\nbread\n"
    one_error(sbmini_here("encode", "-i", "a.txt", "-i", "a.txt"), 2, "a.txt is named twice")
    one_error(sbmini_here("encode", "-i", "-", "-i", "-"), 2, "named twice")
    one_error(sbmini_here("encode", "-i", "b.jsonl", "--text-separator", ","), 2, "--text-column two times")
    one_error(
        sbmini_here("encode", "text", "--text-column", "x", "--max-row-bytes", 9), 2, "--text-column, --max-row-bytes"
    )
    one_error(sbmini_here("search", "i", "text", "--text-column", "x"), 2, "--text-column")


def test_a_rejects_file_names_the_file_and_the_line(sbmini_here, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\n")
    (tmp_path / "b.txt").write_bytes(b"fine\nb\xffd\n" + b"x" * 3000 + b"\n")
    done = sbmini_here(
        "encode", "-i", "a.txt", "-i", "b.txt", "-o", "v.npy", "--on-error", "skip", "--max-row-bytes", 2000
    )
    assert done.returncode == 4
    assert len(np.load(tmp_path / "v.npy")) == 2
    bad, long = map(json.loads, (tmp_path / "v.npy.rejects.jsonl").read_text().splitlines())
    assert (bad["file"], bad["line"], bad["content"]) == ("b.txt", 2, "b\\xffd\n")
    assert (long["file"], long["line"], len(long["content"])) == ("b.txt", 3, 1000)
    assert "longer than 2,000 bytes, the limit of --max-row-bytes" in long["error"]
    held = (tmp_path / "b.txt").read_bytes()
    for command in (["encode", "-o", "w.npy"], ["index", "create", "i"]):
        done = sbmini_here(*command, "-i", "a.txt", "-i", "b.txt", "--on-error", "skip", "--rejects", "b.txt")
        one_error(done, 2, "the rejects would replace the input, b.txt")
    assert (tmp_path / "b.txt").read_bytes() == held


# --- CSV ---------------------------------------------------------------------------------------------------------------


def test_after_an_unclosed_quotation_mark_reading_goes_on_at_the_next_line(tmp_path):
    lines = [f"{i},row number {i}\n" for i in range(5000)]
    lines[10] = '10,"unclosed nail\n'
    file = tmp_path / "a.csv"
    file.write_text("id,text\n" + "".join(lines))
    texts, (reject,) = read_with_rejects(file)
    assert texts == [f"row number {i}" for i in range(5000) if i != 10]
    assert (reject.line, reject.content) == (12, '10,"unclosed nail\n')
    with pytest.raises(InputError, match=r"a\.csv, line 12: a quotation mark is opened in this row, and not closed"):
        list(read_records(file))


@pytest.mark.parametrize(
    ("content", "texts", "rejects"),
    [
        ('id,text\n1,"a "b" c"\n2,x\n', ["x"], [(2, "must be doubled")]),
        ('id,text\n1,"a\nb "c"\n2,x\n', ["x"], [(2, "on line 3"), (3, "1 columns")]),
        ('id,text\n1,a,"b\nc"\n2,x\n', ["x"], [(2, "3 columns.*takes the lines 2 to 3")]),
        ("id,text\n1,a\rb\n2,x\n", ["x"], [(2, "carriage return")]),
        ('id,text\n1,"two\nli\udcff\nnes"\n2,x\n', ["x"], [(3, "not UTF-8.*takes the lines 2 to 4")]),
        ("text\na\n\ufefftext\nb\n", ["a", "b"], [(3, "byte order mark")]),
        ('\ufeff"text"\na\n', ["a"], []),
        ('text,text2\na,5" nail\n', ["a"], []),
    ],
)
def test_rows_that_are_wrong_are_one_reject_each(tmp_path, content, texts, rejects):
    file = tmp_path / "a.csv"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    read, found = read_with_rejects(file)
    assert read == texts
    assert [reject.line for reject in found] == [line for line, _ in rejects]
    for reject, (_, message) in zip(found, rejects, strict=True):
        assert __import__("re").search(message, reject.error), reject.error


def test_a_header_that_cannot_be_read_makes_the_file_unreadable(tmp_path):
    file = tmp_path / "a.csv"
    for header, message in (
        (b"te\xffxt,text\n", "line 1: not UTF-8"),
        (b"text,text\n", "stands twice"),
        (b'"text\n', "line 1"),
    ):
        file.write_bytes(header + b"a,b\nc,d\n")
        with pytest.raises(InputError, match=message):
            read_with_rejects(file)


def test_a_table_of_100000_columns_is_read_and_refused_in_a_short_line(tmp_path):
    names = ",".join(f"c{i}" for i in range(100_000))
    (tmp_path / "a.csv").write_text(f"text,{names}\nx,{names}\nshort\n")
    script = """
import sys
from sbert_mini.text.records import read_records
rejects = []
(record,) = read_records(sys.argv[1], on_reject=rejects.append)
print(len(record.columns), record.columns["c99999"], len(rejects), len(rejects[0].error) < 500)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.csv")], capture_output=True, text=True, timeout=600
    )
    assert done.stdout == "100000 c99999 1 True\n", done.stderr


# --- JSON lines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1e999", "1e999 is greater than any number"),
        ("[{}, {}]".format('{"x": -1e999}', 1), "-1e999 is greater"),
        ("9" * 5000, "a number of 5,000 digits"),
        ("9" * 400, "a number of 400 digits"),
        ("NaN", "NaN is not a JSON value"),
        ('{"a": [Infinity]}', "Infinity is not"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ("[" * 150 + "]" * 150, "nested more than 100 deep"),
        ("[" * 90_000 + "]" * 90_000, "not JSON"),
        ('"\\udfff"', "cut in half"),
    ],
)
def test_values_that_cannot_be_stored_are_rejects(tmp_path, value, message):
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"text": "a"}}\n{{"text": "b", "n": {value}}}\n{{"text": "c", "n": 1e308}}\n')
    texts, (reject,) = read_with_rejects(file)
    assert texts == ["a", "c"]
    assert reject.line == 2
    assert message in reject.error
    assert len(reject.error) < 300


def test_an_id_is_text_or_a_whole_number(tmp_path):
    file = tmp_path / "a.jsonl"
    values = ['"a"', "7", "8.0", "null", "true", "[1]", "{}", "1.5", "1e17"]
    file.write_text("".join(f'{{"id": {value}, "text": "t"}}\n' for value in values[:4]))
    assert [record.id for record in read_records(file)] == ["a", "7", "8", None]
    file.write_text("".join(f'{{"id": {value}, "text": "t"}}\n' for value in values[4:]))
    texts, rejects = read_with_rejects(file)
    assert texts == []
    assert all("the id must be text or a whole number" in reject.error for reject in rejects)
    assert len(rejects) == 5


# --- text and memory -------------------------------------------------------------------------------------------------


def test_nul_bytes_utf16_and_marks_of_joined_files(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"a\nb\0c\nd\n")
    assert read_with_rejects(file)[0] == ["a", "d"]
    with pytest.raises(InputError, match=r"line 2: a NUL byte \(0x00\) at position 2.*UTF-16"):
        list(read_records(file))
    file.write_bytes("é\n".encode("utf-16"))
    with pytest.raises(InputError, match="the file is UTF-16, and text must be UTF-8"):
        read_with_rejects(file)
    file.write_text("\ufeffa\n\ufeffb\n")
    assert [record.text for record in read_records(file)] == ["a", "b"]
    (tmp_path / "a.jsonl").write_text('\ufeff{"text": "a"}\n\ufeff{"text": "b"}\n')
    assert [record.text for record in read_records(tmp_path / "a.jsonl")] == ["a", "b"]


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.csv.gz"])
def test_memory_is_bounded_by_the_longest_row(tmp_path, name):
    header = b"text\n" if "csv" in name else b""
    good = b'{"text": "good"}\n' if "jsonl" in name else b"good\n"
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as stream:
        stream.write(header + good)
        for _ in range(64):
            stream.write(b"x" * 2**20)
        stream.write(b"\n" + good)
        if "csv" in name:
            stream.write(b'"open\n' + b"yyyy\n" * 30_000)
    tracemalloc.start()
    texts, rejects = read_with_rejects(tmp_path / name, max_row_bytes=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts[:2] == ["good", "good"]
    assert "longer than 100,000 bytes" in rejects[0].error
    assert peak < 20 * 2**20
    if "csv" in name:
        assert len(texts) == 30_002
        assert "is a quotation mark not closed?" in rejects[1].error


def test_an_endless_line_is_an_error():
    with pytest.raises(InputError, match="/dev/zero, line 1: the line is longer than 67,108,864 bytes"):
        list(read_records("/dev/zero", format="txt"))


# --- Parquet ---------------------------------------------------------------------------------------------------------


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_values_that_cannot_be_read_are_rejects(tmp_path):
    file = tmp_path / "a.parquet"
    bad = pa.StringArray.from_buffers(3, pa.array([0, 1, 3, 4], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff\xfec"))
    parquet(file, text=bad, when=pa.array([0, 1, 2], pa.timestamp("ms")))
    texts, (reject,) = read_with_rejects(file)
    assert (texts, reject.line) == (["a", "c"], 2)
    assert reject.error == "the column 'text' is not UTF-8 (byte 0xff at position 1)"
    with pytest.raises(InputError, match=r"a\.parquet, row 2: the column 'text' is not UTF-8"):
        list(read_records(file))
    parquet(file, text=["a", "b", "c"], day=pa.array([0, 4_000_000, None], pa.date32()), x=[1.5, 2.5, float("inf")])
    assert read_with_rejects(file)[0] == ["a"]
    assert [reject.error for reject in read_with_rejects(file)[1]] == [
        "the column 'day' holds a time outside of the years 1 to 9999",
        "the column 'x' cannot be read: infinity is not a number that JSON has",
    ]


def test_parquet_columns_of_one_name_or_no_text_make_the_file_unreadable(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), file)
    with pytest.raises(InputError, match="two columns are called 'text'"):
        read_with_rejects(file)
    for values, kind in ((pa.array([b"a"]), "binary"), (pa.array([0], pa.timestamp("us")), r"timestamp\[us\]")):
        with pytest.raises(InputError, match=f"'text' must hold strings, and is of the type {kind}"):
            read_with_rejects(parquet(file, text=values))


def test_parquet_ids_with_a_gap_are_whole_numbers(tmp_path):
    file = parquet(tmp_path / "a.parquet", id=[1.0, None, 3.0], text=["a", "b", "c"])
    assert [record.id for record in read_records(file)] == ["1", None, "3"]
    assert len(read_with_rejects(parquet(file, id=[True], text=["a"]))[1]) == 1


def test_a_long_parquet_text_is_in_memory_once_and_may_be_refused(tmp_path):
    many = pa.DictionaryArray.from_arrays(pa.array([0] * 600, pa.int32()), pa.array(["x" * 4_000_000]))
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": many}), file, store_schema=False)  # so that it is a column of plain strings
    before = pa.total_allocated_bytes()
    lengths, allocated = zip(*((len(r.text), pa.total_allocated_bytes()) for r in read_records(file)), strict=True)
    assert lengths == (4_000_000,) * 600
    assert max(allocated) - before < 80 * 2**20
    parquet(file, text=["a", "x" * 2000, "b"], more=[["z"] * 9, ["z"], ["w" * 3000]])
    texts, rejects = read_with_rejects(file, max_row_bytes=1000)
    assert texts == ["a"]
    assert [reject.line for reject in rejects] == [2, 3]


# --- streams, homes and names ---------------------------------------------------------------------------------------


def closed_input():
    os.close(0)


def test_a_closed_standard_input_is_one_line(sbmini, tmp_path):
    (tmp_path / "a.txt").write_text("a\n")
    assert sbmini("index", "create", "i", "-i", "a.txt").returncode == 0
    for command in (
        ["encode", "-i", "-"],
        ["index", "create", "j", "-i", "-"],
        ["index", "add", "i", "-i", "-"],
        ["index", "update", "i", "-i", "-"],
        ["index", "delete", "i", "--ids-from", "-"],
        ["search", "i", "-i", "-"],
        ["dedup"],
        ["bench", "speed", "-i", "-"],
    ):
        done = sbmini(*command, preexec_fn=closed_input)
        one_error(done, 2, "standard input is closed")


def test_a_cache_is_asked_for_only_where_it_is_needed(sbmini, tmp_path, make_model):
    if os.getuid() != 0:
        pytest.skip("only root can run as a user that does not exist")

    def unknown_user():
        os.setresuid(54321, 0, 0)  # whose files it reads is decided by the second number

    unknown = {"HOME": "", "XDG_CACHE_HOME": "", "SBMINI_CACHE_DIR": ""}
    env = {name: value for name, value in os.environ.items() if name not in unknown}
    command = [str(Path(sys.executable).with_name("sbmini")), "encode", "hi", "--dim", "2"]
    done = subprocess.run(command, env=env, preexec_fn=unknown_user, capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout == sbmini("encode", "hi", "--dim", 2).stdout
    model = make_model()
    again = subprocess.run([*command, "-m", model], env=env, preexec_fn=unknown_user, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr  # the graphs go into the model's own folder
    foreign = make_model(seed=1)
    (foreign / "onnx").mkdir()
    (foreign / "onnx" / "model.onnx").write_bytes(b"of another tool")
    refused = subprocess.run(
        [*command, "-m", foreign], env=env, preexec_fn=unknown_user, capture_output=True, text=True
    )
    one_error(refused, 2, "no home directory", "SBMINI_CACHE_DIR")
    done = sbmini("encode", "hi", "-m", foreign, env={"SBMINI_CACHE_DIR": "/dev/null/cache"})
    one_error(done, 2, "SBMINI_CACHE_DIR", "/dev/null/cache")


def test_a_home_that_is_not_there_is_one_line(sbmini_here):
    one_error(sbmini_here("encode", "hi", "-m", "~nosuchuser/m"), 2, "~nosuchuser/m", "no home directory")
    one_error(sbmini_here("encode", "hi", "-m", "~nosuchuser"), 2, "'~nosuchuser'")


def test_built_in_names_win_over_folders(sbmini, tmp_path, make_model):
    expected = sbmini("encode", "x").stdout
    (tmp_path / "sbert-mini").mkdir()
    done = sbmini("encode", "x")
    assert (done.returncode, done.stdout) == (0, expected)
    assert (
        done.stderr
        == "sbmini: sbert-mini is the built-in model; the folder sbert-mini here is another: ./sbert-mini names it\n"
    )
    one_error(sbmini("encode", "x", "-m", "./sbert-mini"), 1, "has no config.json")
    (tmp_path / "a.txt").write_text("a cat\n")
    assert sbmini("index", "create", "i", "-i", "a.txt").returncode == 0
    assert json.loads(sbmini("index", "info", "i", "--json").stdout)["model_name"] == "sbert-mini"
    (tmp_path / "sbert-mini").rmdir()
    make_model().rename(tmp_path / "sbert-mini")
    assert sbmini("index", "create", "own", "-i", "a.txt", "-m", "./sbert-mini").returncode == 0
    described = json.loads(sbmini("index", "info", "own", "--json").stdout)
    assert described["model_name"] == str(tmp_path / "sbert-mini")
    assert sbmini("search", "own", "cat", "-q").returncode == sbmini("search", "i", "cat", "-q").returncode == 0


def test_a_path_object_is_a_directory_whatever_its_name(tmp_path, monkeypatch):
    from sbert_mini.model import registry

    monkeypatch.chdir(tmp_path)
    (tmp_path / "sbert-mini").mkdir()
    assert registry.resolve(Path("sbert-mini")) == registry.resolve("./sbert-mini") == tmp_path / "sbert-mini"
    assert registry.name_of(Path("sbert-mini")) == "./sbert-mini"
    assert registry.directory(registry.name_of(Path("sbert-mini"))) == tmp_path / "sbert-mini"
    assert registry.resolve("sbert-mini").parent.name == "pretrained"
    assert registry.directory("sbert-mini") is None


def test_paths_that_are_not_utf8_work_in_every_command(sbmini_here, tmp_path, make_model):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    make_model().rename(folder / "model")
    (folder / "a.csv").write_text("id,text\n1,a cat\n2\n3,the dog\n")
    model = ("-m", folder / "model")
    assert sbmini_here("models", "convert", folder / "model").returncode == 0
    one_error(sbmini_here("encode", "-i", folder / "a.csv", *model), 1, "caf\\udce9/a.csv, line 3")
    for name in ("v.npy", "v.jsonl", "v.parquet"):
        done = sbmini_here("encode", "-i", folder / "a.csv", "-o", folder / name, *model, "--on-error", "skip")
        assert done.returncode == 4, done.stderr
        (reject,) = map(json.loads, (folder / f"{name}.rejects.jsonl").read_text().splitlines())
        assert os.fsencode(reject["file"]) == os.fsencode(folder / "a.csv")
    texts = [
        json.loads(line)["text"]
        for line in sbmini_here("encode", "-i", folder / "v.parquet", *model).stdout.splitlines()
    ]
    assert texts == ["a cat", "the dog"]
    for command in (
        ["index", "create", folder / "i", "-i", folder / "a.csv", "--on-error", "skip", "--kind", "SQ8", *model],
        ["search", folder / "i", "cat"],
        ["search", folder / "i", "cat", "--json"],
        ["index", "info", folder / "i", "--json"],
        ["index", "verify", folder / "i"],
        ["index", "compact", folder / "i", "--kind", "exact"],
        ["index", "delete", folder / "i", "1"],
        ["dedup", "-i", folder / "v.jsonl", "-o", folder / "k.jsonl", *model],
        ["reduce", "fit", folder / "v.npy", "-d", "1", "-o", folder / "r.safetensors"],
        ["reduce", "apply", folder / "r.safetensors", folder / "v.npy", "-o", folder / "s.npy"],
        ["models", "info", folder / "model"],
    ):
        done = sbmini_here(*command)
        assert done.returncode in (0, 4), (command, done.stderr)
    one_error(sbmini_here("search", folder / "none", "x"), 1, "caf\\udce9/none does not exist")


def test_files_of_no_known_format_say_what_is_read(sbmini_here, tmp_path):
    for name in ("README.md", "w.xml", "none"):
        (tmp_path / name).write_text("[]")
        one_error(sbmini_here("encode", "-i", name), 2, name, ".jsonl", "--input-format")
    (tmp_path / "notes").mkdir()
    one_error(sbmini_here("encode", "-i", "notes"), 2, "notes is a directory", "index sync INDEX notes", "--input")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"embedding": [1]}\n', "is not a .npy file"),
        (
            b"\x93NUMPY\x01\x00\x76\x00"
            + b"{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 384), }".ljust(117)
            + b"\n",
            "damaged",
        ),
        (
            b"\x93NUMPY\x01\x00\x76\x00"
            + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9, 384), }".ljust(117)
            + b"\n",
            "damaged",
        ),
        (
            b"\x93NUMPY\x01\x00\x76\x00"
            + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117)
            + b"\n\x80",
            "damaged",
        ),
        (b"\x93NUMPY\x01\x00\x76\x00" + b"((((".ljust(117) + b"\n", "damaged"),
    ],
)
def test_files_of_vectors_that_are_none_get_one_line(sbmini_here, tmp_path, content, message):
    (tmp_path / "v.npy").write_bytes(content)
    done = sbmini_here("reduce", "fit", "v.npy", "-d", 1, "-o", "r.safetensors")
    one_error(done, 1, "v.npy", message)
    assert "allow_pickle" not in done.stderr
