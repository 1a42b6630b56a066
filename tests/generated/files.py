"""Generated CSV, TSV, JSON-lines, text and Parquet files: each is read, or refused by one of the package's own errors.

    python -m tests.generated.files --count 10000 --seed 0

Laws that are checked of each file:

* Reading raises `InputError` or `UsageError`, or nothing; its text is one line of a bounded length.
* Where rejects are taken, no row is lost: records, rejects and blank lines add up to the rows that the file has, where a row is
  a line (text, JSON lines, Parquet's rows), and there is no reject exactly where reading without rejects succeeds.
* Where pandas (CSV, TSV, JSON lines) or pyarrow (Parquet) reads the file too, it has the same number of rows and the same texts.
"""

import argparse
import gzip
import io
import json
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from sbert_mini.errors import InputError, SbertMiniError, UsageError
from sbert_mini.text.records import ReadCounts, read_records

WORDS = [
    "cat",
    "naïve",
    "数据",
    "🎉",
    "a",
    "5 inches",
    "x" * 300,
    "tab",
    "null",
    "NaN",
    "1e999",
    "-",
    "é",
    "\u2028",
    "اب",
]
ODD_TEXTS = [
    "",
    " ",
    '"',
    '""',
    "a,b",
    "a\tb",
    "a\nb",
    "a\r\nb",
    "a\rb",
    '5" nail',
    "'",
    "\\",
    "\\n",
    "\x1a",
    "\u200b",
    "\ufeffx",
]
ODD_NUMBERS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e400",
    "9" * 400,
    "9" * 5000,
    "1e-400",
    "0.1",
    "007",
    "1_000",
    "-0",
]


class FaultError(AssertionError):
    """A file for which a law does not hold."""


class Draw(random.Random):
    """Draws; of texts the share `odd` is an odd one."""

    odd = 0.0


def text(rng: Draw) -> str:
    """Return a text, now and then an odd one."""
    if rng.random() < rng.odd:
        return rng.choice(ODD_TEXTS)
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 5)))


def names(rng: Draw) -> list[str]:
    """Return the names of columns: mostly with `text`, seldom one twice."""
    columns = ["id", "text", "year", "lang", "Text", "_id", "a b", "", "ünï"]
    made = rng.sample(columns, rng.randint(1, 5))
    if "text" not in made and rng.random() < 0.9:
        made[rng.randrange(len(made))] = "text"
    if rng.random() < 0.05:
        made.append(rng.choice(made))
    return made


def quoted(rng: Draw, value: str, delimiter: str) -> str:
    """Return a CSV field, most often as it must be quoted."""
    needed = any(character in value for character in (delimiter, '"', "\n", "\r"))
    if rng.random() < 0.02:
        return value  # not quoted, though it may be needed
    if rng.random() < 0.02:
        return '"' + value  # not closed, or not doubled
    return '"' + value.replace('"', '""') + '"' if needed or rng.random() < 0.2 else value


def table(rng: Draw, delimiter: str) -> str:
    """Return a CSV (delimiter `,`) or TSV file's text."""
    end = rng.choice(["\n", "\n", "\r\n"])
    columns = names(rng)
    lines = [delimiter.join(columns)]
    for _ in range(rng.randint(0, 12)):
        width = len(columns) if rng.random() < 0.97 else rng.randint(0, len(columns) + 2)
        values = [text(rng) for _ in range(width)]
        if delimiter == ",":
            lines.append(delimiter.join(quoted(rng, value, delimiter) for value in values))
        else:
            lines.append(delimiter.join(" ".join(value.split()) for value in values))
        if rng.random() < 0.02:
            lines.append("")
    return end.join(lines) + end * (rng.random() < 0.8)


def json_value(rng: Draw, depth: int = 0) -> str:
    """Return a JSON value, or what looks like one."""
    kind = rng.random()
    if kind < 0.05 and depth < 3:
        return "[" + ",".join(json_value(rng, depth + 1) for _ in range(rng.randint(0, 3))) + "]"
    if kind < 0.1 and depth < 3:
        keys = [rng.choice(["a", "b", "c"]) for _ in range(rng.randint(0, 2))]
        return "{" + ",".join(f'"{key}":{json_value(rng, depth + 1)}' for key in keys) + "}"
    if kind < 0.14:
        return rng.choice(ODD_NUMBERS)
    if kind < 0.4:
        return rng.choice(["1", "2.5", "true", "false", "null", "-3", "1.0", "12345678901234567890"])
    if kind < 0.41:
        return "[" * rng.choice([50, 150, 3000]) + "]" * rng.choice([50, 150, 3000])
    if kind < 0.42:
        return rng.choice(['"\\ud800"', '"\\u0000"', '"\\x"', "'a'", "{", '"open'])
    return json.dumps(text(rng), ensure_ascii=rng.random() < 0.5)


def json_lines(rng: Draw) -> str:
    """Return a file of JSON lines."""
    lines = []
    for _ in range(rng.randint(0, 12)):
        columns = [name for name in names(rng) if name != "text"]
        pairs = [f'"text": {json.dumps(text(rng))}'] if rng.random() < 0.98 else []
        pairs += [f"{json.dumps(name)}: {json_value(rng)}" for name in columns[: rng.choice([0, 0, 1, 3])]]
        rng.shuffle(pairs)
        lines.append("{" + ", ".join(pairs) + "}")
        if rng.random() < 0.01:
            lines.append(rng.choice(["", " ", "[]", "null", "{}", "x"]))
    end = rng.choice(["\n", "\n", "\r\n"])
    return end.join(lines) + end * (rng.random() < 0.8)


def damaged(rng: Draw, data: bytes) -> bytes:
    """Return a file's bytes, seldom with something that does not belong there."""
    if rng.random() < 0.1:
        data = b"\xef\xbb\xbf" + data
    if rng.random() < 0.02:
        data += b"\xef\xbb\xbf" + data
    if rng.random() < 0.04 and data:
        at = rng.randrange(len(data))
        data = data[:at] + rng.choice([b"\0", b"\xff", b"\xc3", b'"', b"\r", b"\xed\xa0\x80"]) + data[at:]
    if rng.random() < 0.01:
        data = data.decode("utf-8", "replace").encode("utf-16")
    return data


def parquet_column(rng: Draw, rows: int) -> pa.Array:
    """Return a column of one of many types, with nulls."""
    some = [rng.randint(-5, 99) if rng.random() < 0.9 else None for _ in range(rows)]
    bad = pa.StringArray.from_buffers(
        rows, pa.array(range(rows + 1), pa.int32()).buffers()[1], pa.py_buffer(b"a\xffc" * rows)
    )
    makers = [
        lambda: pa.array(some, pa.int64()),
        lambda: pa.array([None if n is None else float(n) for n in some]),
        lambda: pa.array([rng.choice([1.5, float("nan"), float("inf"), None]) for _ in range(rows)], pa.float64()),
        lambda: pa.array([n is not None for n in some]),
        lambda: pa.array(
            [None if n is None else n * 10**14 for n in some], pa.timestamp(rng.choice(["s", "ms", "us"]))
        ),
        lambda: pa.array([None if n is None else abs(n) * 10**5 for n in some], pa.date32()),
        lambda: pa.array([None if n is None else [str(n)] * (n % 4) for n in some], pa.list_(pa.string())),
        lambda: pa.array([None if n is None else {"a": n, "b": str(n)} for n in some]),
        lambda: pa.array([None if n is None else bytes([n % 256]) for n in some], pa.binary()),
        lambda: pa.array([text(rng) for _ in some]).dictionary_encode(),
        lambda: bad,
        lambda: pa.nulls(rows),
        lambda: pa.array([None if n is None else {"k": n} for n in some]).cast(pa.struct([("k", pa.int64())])),
    ]
    return rng.choice(makers)()


def parquet_file(rng: Draw, path: Path) -> None:
    """Write a Parquet file, seldom a damaged one."""
    rows = rng.choice([0, 1, 5, 5, 40, 3000 if rng.random() < 0.1 else 7])
    columns = names(rng)
    arrays = [
        pa.array([text(rng) if rng.random() < 0.98 else None for _ in range(rows)], pa.string())
        if name == "text" and rng.random() < 0.93
        else parquet_column(rng, rows)
        for name in columns
    ]
    stream = io.BytesIO()
    try:
        pq.write_table(pa.table(arrays, names=columns), stream, compression=rng.choice(["snappy", "zstd", "none"]))
    except pa.ArrowException:  # a column that pyarrow writes in no version of the format
        pq.write_table(pa.table({"text": pa.array(["a"])}), stream)
    data = stream.getvalue()
    if rng.random() < 0.05:
        at = rng.randrange(len(data))
        data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :] if rng.random() < 0.7 else data[:at]
    path.write_bytes(data)


def make(seed: int, folder: Path) -> Path:
    """Write the file of a seed into a folder, and return it."""
    rng = Draw(seed)
    rng.odd = rng.choice([0.0, 0.02, 0.12])
    kind = rng.choice(["csv", "csv", "csv", "tsv", "jsonl", "jsonl", "txt", "parquet", "parquet"])
    path = folder / f"{seed}.{kind}"
    if kind == "parquet":
        parquet_file(rng, path)
        return path
    if kind == "txt":
        content = "\n".join(text(rng) for _ in range(rng.randint(0, 12)))
    elif kind == "jsonl":
        content = json_lines(rng)
    else:
        content = table(rng, "\t" if kind == "tsv" or rng.random() < 0.05 else ",")
    data = damaged(rng, content.encode())
    if rng.random() < 0.2:
        path = path.with_name(path.name + ".gz")
        data = gzip.compress(data)
        if rng.random() < 0.05:
            data = data[: -rng.randint(1, 12)]
    path.write_bytes(data)
    return path


def check(path: Path) -> str:
    """Check the laws of a file, and return what happened: `read`, `refused`, and whether a peer was compared with.

    Raises:
        FaultError: a law does not hold.
    """
    texts, refusal = _read(path, None)
    rejects: list[object] = []
    counts = ReadCounts()
    skipped, fatal = _read(path, rejects.append, counts)
    if fatal is None and (refusal is None) != (not rejects):
        raise FaultError(f"{path}: refused: {refusal!r}, and {len(rejects)} rejects")
    if refusal is None and texts != skipped:
        raise FaultError(f"{path}: with and without rejects the texts differ")
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if fatal is None and kind in ("txt", "jsonl", "parquet"):
        rows = _rows_of(path, kind)
        if rows is not None and len(skipped) + len(rejects) + counts.blank != rows:
            raise FaultError(f"{path}: {rows} rows, {len(skipped)} read, {len(rejects)} rejects, {counts.blank} blank")
    if refusal is not None:
        return f"{kind} refused"
    expected = _by_peer(path, kind)
    if expected is not None and expected != texts:
        raise FaultError(f"{path}: a peer reads {len(expected)} rows, and we {len(texts)}, or other texts")
    return f"{kind} read" + ("" if expected is None else ", as a peer reads it")


def _read(path: Path, on_reject: object, counts: ReadCounts | None = None) -> tuple[list[str], SbertMiniError | None]:
    texts: list[str] = []
    try:
        for record in read_records(path, on_reject=on_reject, counts=counts):  # type: ignore[arg-type]
            texts.append(record.text)
            json.dumps(dict(record.columns), allow_nan=False, ensure_ascii=False).encode()
    except (InputError, UsageError) as error:
        if len(str(error)) > 4000 or str(path) not in str(error):
            raise FaultError(f"{path}: the error names no file, or is long: {str(error)[:300]}") from error
        return texts, error
    except Exception as error:
        raise FaultError(f"{path}: {type(error).__name__}: {error}") from error
    return texts, None


def _rows_of(path: Path, kind: str) -> int | None:
    if kind == "parquet":
        return pq.read_metadata(path).num_rows
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if data == b"\xef\xbb\xbf":
        return 0
    return data.count(b"\n") + (not data.endswith(b"\n") and bool(data))


def _by_peer(path: Path, kind: str) -> list[str] | None:
    """Return the texts as pandas or pyarrow reads them; None where it does not."""
    try:
        if kind == "parquet":
            return pq.read_table(path).column("text").to_pylist()
        if kind == "jsonl":
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            frame = pd.read_json(io.BytesIO(data), lines=True, dtype=False)
            return frame["text"].tolist() if len(frame) else []
        if kind in ("csv", "tsv"):
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            header = data.decode("utf-8-sig", "replace").partition("\n")[0]
            tabs = kind == "tsv" or ("\t" in header and "," not in header)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                frame = pd.read_csv(
                    path, sep="\t" if tabs else ",", quoting=3 if kind == "tsv" else 0, dtype=str, keep_default_na=False,
                    index_col=False, skip_blank_lines=False,
                )  # fmt: skip
            return frame["text"].tolist()
    except (ValueError, KeyError, OSError, pa.ArrowException, RecursionError, OverflowError):
        return None
    return None


def run(count: int, seed: int, folder: Path) -> Counter[str]:
    """Make and check files of the seeds from `seed` on, and return how many of which kind came to what."""
    results: Counter[str] = Counter()
    for number in range(seed, seed + count):
        path = make(number, folder)
        results[check(path)] += 1
        path.unlink()
    return results


def main() -> int:
    """Check files, print the counts, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-going", action="store_true", help="print every fault, rather than stop at the first")
    given = parser.parse_args()
    started, faults, results = time.perf_counter(), 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.seed, given.seed + given.count):
            try:
                results += run(1, number, Path(folder))
            except FaultError as error:
                faults += 1
                print(f"seed {number}: {error}", file=sys.stderr)
                if not given.keep_going:
                    break
    for what, files in sorted(results.items()):
        print(f"{files:7,} {what}")
    print(f"{sum(results.values()):7,} files, {faults} faults, {time.perf_counter() - started:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
