"""What is written into files: the format that the suffix promises, every column under its name, ids of their own type."""

import csv
import json
import os

import numpy as np
import pandas as pd
import pytest
from conftest import one_error
from pyarrow import parquet

from sbert_mini.errors import UsageError
from sbert_mini.runtime.job import EncodeJob, EncodeSettings
from sbert_mini.runtime.precision import restore_vectors
from sbert_mini.text.records import Record, read_records

TEXTS = ["Bread needs yeast, and time.", 'She said "no".', "Zwei\nZeilen", "stars shine\tat night", "日本"]


def read(path):
    """Return a file as pandas reads it."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".jsonl":
        return pd.read_json(path, lines=True)
    return pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", quoting=3 if path.suffix == ".tsv" else 0)


def csv_rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def table(path, ids=(3, 1, 2**40, 9, 7), texts=TEXTS):
    """Write a file with pandas, and return what it holds."""
    frame = pd.DataFrame({"year": [2001, 2002, 2003, 2004, 2005], "id": list(ids), "text": list(texts)})
    frame["score"] = [0.5, 1.25, -3.0, 1e-9, 2.0]
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    return frame


PAIRS = [
    ("csv", "csv"),
    ("csv", "parquet"),
    ("csv", "jsonl"),
    ("jsonl", "jsonl"),
    ("jsonl", "parquet"),
    ("jsonl", "csv"),
]
PAIRS += [("parquet", "parquet"), ("parquet", "csv"), ("parquet", "jsonl")]


@pytest.mark.parametrize(("source", "output"), PAIRS)
def test_every_output_merges_with_its_source_by_id(default_embedder, tmp_path, source, output):
    frame = table(tmp_path / f"s.{source}")
    out = tmp_path / f"o.{output}"
    records = read_records(tmp_path / f"s.{source}")
    assert EncodeJob(out, default_embedder, EncodeSettings(dim=4)).run(records) == 5
    merged = read(tmp_path / f"s.{source}").merge(read(out), on="id", suffixes=("", "_out"))
    assert len(merged) == 5
    assert merged["id"].dtype == np.int64
    assert merged["text_out"].tolist() == frame["text"].tolist()
    assert merged["year_out"].tolist() == frame["year"].tolist()
    np.testing.assert_allclose(merged["score_out"].astype(float), frame["score"])
    vectors = np.stack(merged["embedding"]) if output != "csv" else merged[["e0", "e1", "e2", "e3"]].to_numpy()
    np.testing.assert_allclose(vectors, default_embedder.encode(TEXTS, truncate_dim=4), atol=1e-6)
    if output == "parquet":
        assert list(pd.read_parquet(out)) == ["year", "id", "text", "score", "embedding"]


@pytest.mark.parametrize("output", ["csv", "parquet", "jsonl", "tsv"])
def test_dedup_merges_with_its_source_too(sbmini_here, tmp_path, output):
    texts = ["bread", "bread", "stars shine", "trains run", "Bread"]
    for source in ("csv", "jsonl", "parquet"):
        frame = table(tmp_path / f"s.{source}", texts=texts)
        done = sbmini_here("dedup", "-i", f"s.{source}", "-o", f"o.{output}", "--duplicates", "d.jsonl")
        assert done.returncode == 0, done.stderr
        kept = read(tmp_path / f"o.{output}")
        assert list(kept) == list(frame)
        merged = read(tmp_path / f"s.{source}").merge(kept, on="id")
        assert merged["id"].tolist() == [3, 2**40, 9]
        rows = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
        typed = int if source != "csv" else str
        assert [(row["id"], row["of"]["id"]) for row in rows] == [(typed(1), typed(3)), (typed(7), typed(3))]
        assert rows[0]["row"]["year"] == typed(2002)


def test_dedup_keeps_columns_that_are_called_text_and_id(sbmini_here, tmp_path):
    rows = "id,url,text,body\n1,https://x.org/a,teaser one,A long body.\n2,https://x.org/b,teaser two,Markets fell.\n"
    (tmp_path / "s.csv").write_text(rows)
    expected = list(csv.DictReader(rows.splitlines()))
    for options in ([], ["--id-column", "url"]):
        done = sbmini_here("dedup", "-i", "s.csv", "--text-column", "body", *options, "-q")
        assert [json.loads(line) for line in done.stdout.splitlines()] == expected
        assert list(json.loads(done.stdout.splitlines()[0])) == ["id", "url", "text", "body"]
        assert sbmini_here("dedup", "-i", "s.csv", "--text-column", "body", *options, "-o", "o.csv").returncode == 0
        assert (tmp_path / "o.csv").read_text() == rows
    both = ["--text-column", "text", "--text-column", "body"]
    assert sbmini_here("dedup", "-i", "s.csv", *both, "-o", "o.csv").returncode == 0
    assert (tmp_path / "o.csv").read_text() == rows
    (line, _) = sbmini_here(
        "encode", "-i", "s.csv", "--text-column", "body", "--id-column", "url", "-q"
    ).stdout.splitlines()
    assert json.loads(line).items() >= expected[0].items()
    (line, _) = sbmini_here(
        "encode", "-i", "s.csv", "--text-column", "url", "--text-column", "body"
    ).stdout.splitlines()
    assert json.loads(line)["text"] == "teaser one"


def test_what_has_no_column_of_its_name_is_added(sbmini_here, tmp_path):
    (tmp_path / "s.jsonl").write_text(
        '{"key": 7, "body": "bread", "tags": ["a", {"b": null}], "none": null, "on": true}\n'
    )
    columns = ["--text-column", "body", "--id-column", "key", "--dim", 2]
    row = json.loads(sbmini_here("encode", "-i", "s.jsonl", *columns).stdout)
    vector = row.pop("embedding")
    assert row == {
        "key": 7, "body": "bread", "tags": ["a", {"b": None}], "none": None, "on": True, "id": 7, "text": "bread",
    }  # fmt: skip
    assert sbmini_here("encode", "-i", "s.jsonl", *columns, "-o", "o.csv").returncode == 0
    (line,) = csv_rows(tmp_path / "o.csv")
    assert line == {
        "key": "7", "body": "bread", "tags": '["a", {"b": null}]', "none": "", "on": "true", "id": "7", "text": "bread",
        "e0": str(vector[0]), "e1": str(vector[1]),
    }  # fmt: skip
    assert sbmini_here("encode", "-i", "s.jsonl", *columns, "-o", "o.parquet").returncode == 0
    (stored,) = parquet.read_table(tmp_path / "o.parquet").to_pylist()
    assert (stored["key"], stored["on"], stored["none"], stored["tags"]) == (7, True, None, '["a", {"b": null}]')


@pytest.mark.parametrize(
    ("ids", "kind", "stored"),
    [
        (["7", "-3", "0"], "int64", [7, -3, 0]),
        (["007", "7", "1"], "string", ["007", "7", "1"]),
        (["1", "", "2"], "string", ["1", "", "2"]),
        (["1", "2", str(2**63)], "string", ["1", "2", str(2**63)]),
        (["1", "2", str(2**63 - 1)], "int64", [1, 2, 2**63 - 1]),
        (["-0", "1", "2"], "string", ["-0", "1", "2"]),
        (["1.0", "2", "3"], "string", ["1.0", "2", "3"]),
        (["+1", "2", "٣"], "string", ["+1", "2", "٣"]),
    ],
)
def test_values_of_a_csv_are_whole_numbers_in_parquet_where_all_read_back_unchanged(
    default_embedder, tmp_path, ids, kind, stored
):
    with (tmp_path / "s.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["n", "text"], *([value, "bread"] for value in ids)])
    for output in ("o.parquet", "o.csv"):
        EncodeJob(tmp_path / output, default_embedder, EncodeSettings()).run(read_records(tmp_path / "s.csv"))
    column = parquet.read_table(tmp_path / "o.parquet")["n"]
    assert (str(column.type), column.to_pylist()) == (kind, stored)
    assert [row["n"] for row in csv_rows(tmp_path / "o.csv")] == ids


def test_mixed_types_become_text_in_parquet(default_embedder, tmp_path):
    values = [1, 2.5, "x", True, None, 2**70]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps({"text": "a", "v": v, "n": v}) + "\n" for v in values[:2]))
    EncodeJob(tmp_path / "n.parquet", default_embedder, EncodeSettings()).run(read_records(tmp_path / "s.jsonl"))
    assert pd.read_parquet(tmp_path / "n.parquet")["v"].tolist() == [1.0, 2.5]
    (tmp_path / "s.jsonl").write_text("".join(json.dumps({"text": "a", "v": v}) + "\n" for v in values))
    EncodeJob(tmp_path / "m.parquet", default_embedder, EncodeSettings()).run(read_records(tmp_path / "s.jsonl"))
    stored = parquet.read_table(tmp_path / "m.parquet")["v"].to_pylist()
    assert stored == ["1", "2.5", "x", "true", None, str(2**70)]


def test_the_suffix_decides_and_others_are_refused(sbmini_here, tmp_path):
    (tmp_path / "t.csv").write_text("id,text\n1,bread\n")
    (tmp_path / "t.txt").write_text("bread\n")
    (tmp_path / "tabs.jsonl").write_text(json.dumps({"text": "a\tb"}) + "\n")
    np.save(tmp_path / "x.npy", np.eye(3, dtype=np.float32))
    for command in ("encode", "dedup"):
        for name in ("out", "out.json", "out.xlsx", "out.csv.gz"):
            one_error(
                sbmini_here(command, "-i", "t.csv", "-o", name), 2, ".jsonl", ".csv", ".tsv or .parquet", repr(name)
            )
        one_error(sbmini_here(command, "-i", "tabs.jsonl", "-o", "out.tsv"), 1, "tabs.jsonl, line 1", "'text'", ".csv")
    one_error(sbmini_here("dedup", "-i", "t.csv", "-o", "out.txt"), 2, ".csv")
    one_error(
        sbmini_here("dedup", "-i", "t.csv", "--duplicates", "d.csv"), 2, "--duplicates writes JSON lines", "d.csv"
    )
    skip = ["--on-error", "skip", "--rejects", "r.csv"]
    one_error(sbmini_here("encode", "-i", "t.csv", "-o", "v.npy", *skip), 2, "--rejects writes JSON lines", "r.csv")
    one_error(sbmini_here("reduce", "fit", "x.npy", "-d", 2, "-o", "p.csv"), 2, "must end in .safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.txt", "tabs.jsonl", "x.npy"]
    assert sbmini_here("dedup", "-i", "t.txt", "-o", "-").stdout == "bread\n"
    assert sbmini_here("dedup", "-i", "t.txt", "-o", "o.csv").returncode == 0
    assert (tmp_path / "o.csv").read_text() == "text\nbread\n"
    assert not (tmp_path / "-").exists()


def test_columns_that_the_vectors_need_are_replaced_with_a_warning(default_embedder, tmp_path, sbmini_here, caplog):
    (tmp_path / "s.jsonl").write_text(
        '{"text": "a", "embedding": 1, "e3": 2}\n{"text": "b", "embedding": 1, "e3": 2}\n'
    )
    for output, name in (("o.jsonl", "embedding"), ("o.parquet", "embedding"), ("o.csv", "e3")):
        caplog.clear()
        EncodeJob(tmp_path / output, default_embedder, EncodeSettings(dim=5)).run(read_records(tmp_path / "s.jsonl"))
        assert caplog.text.count(f"the input's columns {name} are replaced") == 1
    expected = default_embedder.encode(["a", "b"], truncate_dim=5)
    np.testing.assert_allclose(np.stack(read(tmp_path / "o.jsonl")["embedding"]), expected, atol=1e-6)
    np.testing.assert_allclose(read(tmp_path / "o.csv")["e3"], expected[:, 3], atol=1e-6)
    done = sbmini_here("encode", "-i", "s.jsonl", "--dim", 5)
    assert done.stderr == "sbmini: the input's columns embedding are replaced by those of the new vectors\n"
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[1])["embedding"], expected[1], atol=1e-6)
    EncodeJob(tmp_path / "o.csv", default_embedder, EncodeSettings(dim=3)).run(read_records(tmp_path / "s.jsonl"))
    assert list(pd.read_csv(tmp_path / "o.csv")) == ["text", "embedding", "e3", "e0", "e1", "e2"]


def test_8_bit_values_are_the_same_in_every_file_and_can_be_restored(sbmini_here, default_embedder, tmp_path):
    texts = ["bread rises", *(f"sentence number {i} about trains" for i in range(60))]
    (tmp_path / "many.txt").write_text("\n".join(texts) + "\n")
    (tmp_path / "one.txt").write_text(texts[0] + "\n")
    for options in ([], ["--dim", 64]):
        dim = options[1] if options else None
        for name in ("one", "many"):
            done = sbmini_here("encode", "-i", f"{name}.txt", "-o", f"{name}.npy", "--precision", "int8", *options)
            assert done.returncode == 0, done.stderr
        one, many = np.load(tmp_path / "one.npy"), np.load(tmp_path / "many.npy")
        assert one.dtype == np.int8
        np.testing.assert_array_equal(one[0], many[0])
        printed = json.loads(sbmini_here("encode", texts[0], "--precision", "int8", *options).stdout)["embedding"]
        assert printed == one[0].tolist()
        ranges = np.load(tmp_path / "one.npy.ranges.npy")
        np.testing.assert_array_equal(ranges, default_embedder.component_ranges(dim))
        exact = default_embedder.encode(texts, truncate_dim=dim)
        assert np.abs(restore_vectors(many, ranges) - exact).max() < 0.01
        expected = default_embedder.encode(texts, truncate_dim=dim, precision="uint8")
        for kind in ("jsonl", "csv", "parquet"):
            sbmini_here("encode", "-i", "many.txt", "-o", f"v.{kind}", "--precision", "uint8", *options)
            frame = read(tmp_path / f"v.{kind}")
            held = frame.drop(columns="text").to_numpy() if kind == "csv" else np.stack(frame["embedding"])
            np.testing.assert_array_equal(held, expected)
            np.testing.assert_array_equal(np.load(tmp_path / f"v.{kind}.ranges.npy"), ranges)
    assert sbmini_here("encode", "-i", "one.txt", "-o", "one.npy").returncode == 0
    assert not (tmp_path / "one.npy.ranges.npy").exists()


def test_records_from_python_keep_their_columns(default_embedder, tmp_path):
    records = [Record("bread", "7", {"text": "not this", "year": 2001}), Record("stars")]
    EncodeJob(tmp_path / "o.jsonl", default_embedder, EncodeSettings(dim=2)).run(records)
    first, second = (json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines())
    assert (first["id"], first["text"], first["year"]) == ("7", "bread", 2001)
    assert set(second) == {"text", "embedding"}
    with pytest.raises(UsageError, match=r"\.csv, \.tsv or \.parquet"):
        EncodeJob(tmp_path / "o.xml", default_embedder, EncodeSettings())


def test_pipes_are_written_to_and_never_replaced(sbmini, default_embedder, tmp_path):
    (tmp_path / "t.txt").write_text("bread\n")
    np.save(tmp_path / "x.npy", np.eye(5, dtype=np.float32))
    for name in ("pipe", "p.npy", "p.jsonl"):
        os.mkfifo(tmp_path / name)
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert sbmini("dedup", "-i", "t.txt", "-o", "pipe").returncode == 0
    assert os.read(reader, 100) == b"bread\n"
    os.close(reader)
    one_error(sbmini("reduce", "fit", "x.npy", "-d", 2, "-o", "pipe"), 2, "regular file", "'pipe'")
    assert sbmini("reduce", "fit", "x.npy", "-d", 2, "-o", "r").returncode == 0
    one_error(sbmini("reduce", "apply", "r", "x.npy", "-o", "p.npy"), 2, "regular file", "'p.npy'")
    for name in ("p.npy", "p.jsonl"):
        one_error(sbmini("encode", "-i", "t.txt", "-o", name), 2, f"{name} is not a regular file")
    with pytest.raises(UsageError, match="not a regular file"):
        default_embedder.encode_to_npy(["a"], tmp_path / "p.npy")
    assert all((tmp_path / name).is_fifo() for name in ("pipe", "p.npy", "p.jsonl"))


def test_an_output_keeps_the_columns_that_are_named(sbmini_here, tmp_path):
    table(tmp_path / "t.csv")
    done = sbmini_here("encode", "-i", "t.csv", "--keep-columns", "year, id")
    assert [list(json.loads(line)) for line in done.stdout.splitlines()] == [["year", "id", "embedding"]] * 5
    assert sbmini_here("encode", "-i", "t.csv", "-o", "v.csv", "--keep-columns", "text").returncode == 0
    assert list(csv_rows(tmp_path / "v.csv")[0])[:2] == ["text", "e0"]
    one_error(sbmini_here("encode", "-i", "t.csv", "--keep-columns", "yeer"), 1, "'yeer'", "year, id, text, score")
    one_error(sbmini_here("encode", "-i", "t.csv", "--keep-columns", "year,"), 2, "--keep-columns")
    one_error(sbmini_here("encode", "-i", "t.csv", "-o", "v.npy", "--keep-columns", "year"), 2, "vectors alone")
    (tmp_path / "t.jsonl").write_text('{"text": "a", "n": 1}\n{"text": "b"}\n')
    assert sbmini_here("encode", "-i", "t.jsonl", "-o", "n.jsonl", "--keep-columns", "n").returncode == 0
    assert [list(json.loads(line)) for line in (tmp_path / "n.jsonl").read_text().splitlines()] == [
        ["n", "embedding"],
        ["embedding"],
    ]
