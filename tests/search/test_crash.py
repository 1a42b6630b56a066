"""An index through kills, a full disk and damage: no acknowledged change is lost or applied twice, `verify` reports damage."""

import json
import random
import select
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import replace

from sbert_mini import Embedder, IndexWriter, SearchIndex
from sbert_mini.errors import (
    CorruptIndexError,
    IndexExistsError,
)
from sbert_mini.search.ranking import rows_by_words
from sbert_mini.text.records import Record

WORDS = {".idx", ".term", ".pos", ".store", ".fast", ".fieldnorm", ".del"}


def test_every_flipped_bit_is_found(copied_index, rng):
    assert SearchIndex(copied_index).verify() == []
    files = [p for p in copied_index.rglob("*") if p.is_file() and p.name != "LOCK"]
    assert len(files) == 17
    for file in files:
        data = file.read_bytes()
        for position in {0, len(data) - 1, *rng.integers(0, len(data), 10).tolist()}:
            damaged = bytearray(data)
            damaged[position] ^= 1 << int(rng.integers(8))
            file.write_bytes(damaged)
            try:
                found = bool(SearchIndex(copied_index).verify())
            except CorruptIndexError:
                found = True
            assert found, f"{file} bit flip at byte {position}"
        file.write_bytes(data)
    assert SearchIndex(copied_index).verify() == []


WRITER = """
import sys
from sbert_mini import Embedder, IndexWriter
from sbert_mini.search.ranking import rows_by_words
from sbert_mini.text.records import Record
model = Embedder(sys.argv[1])
print("ready", flush=True)
IndexWriter(sys.argv[2], model).create((Record("the cat " * (i % 9 + 1) + str(i), str(i)) for i in range(160)))
print("done", flush=True)
"""


def test_a_killed_writer_leaves_an_index_or_none(tmp_path, converted_model, rng):
    model = converted_model()
    Embedder(model)
    path = tmp_path / "index"
    for delay_s in rng.uniform(0, 0.12, 8):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(model), str(path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
        acknowledged = "done" in child.stdout.read()
        child.wait()
        child.stdout.close()
        if (path / "CURRENT").exists():
            index = SearchIndex(path)
            assert index.verify() == []
            assert [row.id for row in index.rows()] == [str(i) for i in range(160)]
            shutil.rmtree(path)
        else:
            assert not acknowledged
            IndexWriter(path, Embedder(model)).create([Record("again")])  # what was left there is in nobody's way
            shutil.rmtree(path)


DIM = 28


WORKER = """
import json, resource, sys
import numpy as np
from sbert_mini import Embedder, IndexWriter
from sbert_mini.search.ranking import rows_by_words
from sbert_mini.text.records import Record

path, model = sys.argv[1], Embedder(sys.argv[2], threads=1)
print("ready", flush=True)
for line in sys.stdin:
    kind, given, limit = json.loads(line)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit if limit else hard, hard))
    try:
        if kind == "delete":
            IndexWriter(path).delete(given)
        elif kind == "delete by filter":
            IndexWriter(path).delete(filter=given)
        elif kind == "compact":
            IndexWriter(path, threads=1).compact()
        else:
            x = np.random.default_rng(len(given)).standard_normal((len(given), 28)).astype(np.float32)
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            records = [Record(text, identity, {"n": n}) for identity, text, n in given]
            writer = IndexWriter(path, model)
            if kind == "create":
                writer.create(records, vectors=x, kind="IVF16,SQ8")
            else:
                getattr(writer, kind)(records, vectors=x)
        print("done", flush=True)
    except OSError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        print("failed", type(error).__name__, error, flush=True)
"""


class Plan:
    """Chooses changes at random, and says what they must leave: id -> (text, n)."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.next = 0

    def change(self, rows):
        """Return a change, and the rows as they are after it."""
        if not rows:
            return self._new("create", 1500, rows)
        kind = self.random.choice(["add", "add", "update", "delete", "delete by filter", "compact"])
        if kind == "add" or len(rows) < 1300:
            return self._new("add", self.random.choice([1, 40, 1100]), rows)
        if kind == "compact":
            return (kind, None), rows
        if kind == "delete by filter":
            rest = self.random.randrange(9)
            return (kind, f"n % 9 = {rest} and n < 900"), {
                i: r for i, r in rows.items() if r[1] % 9 != rest or r[1] >= 900
            }
        chosen = self.random.sample(sorted(rows), 25)
        if kind == "delete":
            return (kind, chosen), {i: row for i, row in rows.items() if i not in chosen}
        changed = {i: (f"changed {self.random.random()}", rows[i][1]) for i in chosen}
        return (kind, [(i, *row) for i, row in changed.items()]), {**rows, **changed}

    def _new(self, kind, count, rows):
        new = {str(i): (f"row {i}", i % 1000) for i in range(self.next, self.next + count)}
        self.next += count
        return (kind, [(i, *row) for i, row in new.items()]), {**rows, **new}


def start(path, model):
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout.readline() == "ready\n"
    return worker


def ask(worker, change, limit=0):
    worker.stdin.write(json.dumps([*change, limit]) + "\n")
    worker.stdin.flush()


def stored(path):
    """Return the rows of a sound index, each id once, in whichever way it is read."""
    if not (path / "CURRENT").exists():
        return {}
    index = SearchIndex(path, threads=1)
    assert index.verify() == []
    rows = list(index.rows())
    found = {row.id: (row.text, row.columns["n"]) for row in rows}
    assert len(found) == len(rows) == len(index)
    numbers = index.nearest(np.eye(1, DIM, dtype=np.float32), len(rows), exact=True)[1][0]
    assert len(set(numbers.tolist())) == len(rows)
    assert len(index.nearest(np.eye(1, DIM, dtype=np.float32), 10)[1][0]) == 10
    assert len(index.matching("n >= 0")) == len(rows)
    by_words = rows_by_words(index._words, index._store.segments, "row changed", len(rows), index._allowed(None))
    assert {row for row, _ in by_words} == set(numbers.tolist())
    for row in rows[:: max(len(rows) // 20, 1)]:
        assert index.get(row.id) == row
    return found


def through_kills(path, model, kills, seed):
    """Kill the writer so many times, in the middle of whatever it does; return which changes were met."""
    plan, delays, rows, met = Plan(seed), random.Random(seed + 1), {}, set()
    for _ in range(kills):
        worker = start(path, model)
        end = time.monotonic() + delays.uniform(0.0, 0.5)
        while True:
            change, after = plan.change(rows)
            ask(worker, change)
            while time.monotonic() < end and not select_readable(worker.stdout, end - time.monotonic()):
                pass
            if time.monotonic() >= end:
                break
            assert worker.stdout.readline() == "done\n", change[0]
            rows = after
        worker.send_signal(signal.SIGKILL)
        said, _ = worker.communicate()
        met.add(change[0])
        found = stored(path)
        if said == "done\n":
            assert found == after, change[0]
        else:
            assert found in (rows, after), change[0]
        rows = found
        if rows and (len(rows) > 12_000 or delays.random() < 0.1):
            shutil.rmtree(path)
            rows = {}
    return met


def select_readable(stream, timeout_s):
    return bool(select.select([stream], [], [], max(timeout_s, 0))[0])


def test_a_killed_writer_loses_nothing_acknowledged(tmp_path, make_model):
    model = make_model()
    Embedder(model)
    through_kills(tmp_path / "index", model, 8, 11)


@pytest.mark.long
def test_two_hundred_kills_lose_nothing_acknowledged(tmp_path, make_model):
    model = make_model()
    Embedder(model)
    met = through_kills(tmp_path / "index", model, 200, 12)
    assert met >= {"create", "add", "update", "delete", "delete by filter", "compact"}


def test_a_full_disk_loses_nothing_acknowledged(tmp_path, make_model):
    """The limit of a file's size stands for the disk's: writes beyond it fail as they do on a full one."""
    model = make_model()
    Embedder(model)
    plan, limits, rows, failures = Plan(5), random.Random(6), {}, []
    worker = start(tmp_path / "index", model)
    try:
        for i in range(24):
            change, after = plan.change(rows)
            ask(worker, change, limit=0 if i % 2 else limits.choice([10, 1000, 20_000, 60_000, 150_000]))
            said = worker.stdout.readline()
            rows = after if said == "done\n" else rows
            if said != "done\n":
                assert i % 2 == 0, said
                failures.append(change[0])
            assert stored(tmp_path / "index") == rows, (change[0], said)
        left = [p.name for p in (tmp_path / "index").rglob("*") if ".part" in p.name]
        assert left == []
    finally:
        worker.kill()
        worker.communicate()
    assert {"create", "add", "compact"} & set(failures)
    assert len(failures) > 5


def test_every_flipped_bit_of_every_kind_of_file_is_found(tmp_path, make_model, rng):
    path = tmp_path / "index"
    x = rng.standard_normal((1600, DIM)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    records = [Record(f"row {i}", str(i), {"n": i}) for i in range(1600)]
    writer = IndexWriter(path, Embedder(make_model()))
    writer.create(records[:1500], vectors=x[:1500], kind="IVF16,SQ8")
    writer.add(records[1500:], vectors=x[1500:])
    IndexWriter(path).delete(["3"])
    assert SearchIndex(path).verify() == []
    files = [p for p in path.rglob("*") if p.is_file() and p.name != "LOCK"]
    kinds = {p.name.replace("000002", "").replace("000003", "") for p in files if p.parent.parent.name != "words"}
    assert len(kinds) == 13
    assert {p.suffix for p in files} == {"", ".json", ".npy", ".jsonl", ".bin", ".faiss", *WORDS}
    for file in files:
        data = file.read_bytes()
        for position in {0, len(data) - 1, *rng.integers(0, len(data), 12).tolist()}:
            damaged = bytearray(data)
            damaged[position] ^= 1 << int(rng.integers(8))
            replace(file, damaged)
            try:
                found = bool(SearchIndex(path).verify())
            except CorruptIndexError:
                found = True
            assert found, f"{file}: bit flip at byte {position}"
        replace(file, data)
    assert SearchIndex(path).verify() == []


def test_a_creation_killed_before_it_renamed_its_pointer_is_in_nobodys_way(tmp_path, converted_model):
    model, path = Embedder(converted_model()), tmp_path / "index"
    path.mkdir()
    part = path / ".CURRENT.999999999.2750ed92.part"
    part.touch()
    with pytest.raises(IndexExistsError, match="must be empty or absent"):
        IndexWriter(path, model).create([Record("the cat")])
    assert part.exists()
    (path / "CREATING").touch()
    IndexWriter(path, model).create([Record("the cat")])
    assert not part.exists()
    assert SearchIndex(path).verify() == []
