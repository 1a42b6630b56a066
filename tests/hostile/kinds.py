"""Kinds of hostile files: each is made from a seed in the parent, and used in the child."""

import contextlib
import gzip
import hashlib
import json
import random
import shutil
import struct
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.generated import files as row_files
from tests.hostile import folders, judged
from tests.native import fuzz, messages
from tests.search.fixtures.make import HERE as OLD_INDEXES

Use = Callable[[Path], str]


@dataclass(frozen=True)
class Case:
    """A case: what was changed in its folder, and what to do with it."""

    how: str
    use: Use


# ---- what the cases start from -----------------------------------------------------------------------------------------------


def make_bases(folder: Path) -> None:
    """Write the models, indexes, heads and recipe of which the cases are damaged copies."""
    from sbert_mini import Embedder, IndexWriter, SearchIndex
    from sbert_mini.text.records import Record

    fuzz.make_models(folder / "models")
    model = folder / "model"
    from tests.conftest import _write_model

    model.mkdir()
    _write_model(model, seed=9)
    embedder = Embedder(model, threads=1)
    words = ["the cat", "a dog", "red house", "bread rises", "blue tree"]
    for number, kind in enumerate(("exact", "SQ8", "IVF4,SQ8")):
        records = [
            Record(
                f"{words[i % 5]} {chr(97 + i % 26)} {words[i // 5 % 5]}", f"r{i}", {"n": i, "b": i % 2 == 0, "l": "en"}
            )
            for i in range(200)
        ]
        passages = {"passage_tokens": 3, "overlap": 1} if number == 1 else {}
        writer = IndexWriter(folder / f"index{number}", embedder, **passages)
        writer.create(records[:180], kind=kind)
        writer.add(records[180:])
        writer.delete(["r3", "r7"])
        SearchIndex(folder / f"index{number}", threads=1).search("the cat", 3)  # makes the FAISS files
    for number, name in enumerate(("1-75f771e", "2-3ae1ee1"), 3):  # of earlier formats
        with tarfile.open(OLD_INDEXES / f"format{name}.tar.gz") as archive:
            archive.extractall(folder / name, filter="data")
        (folder / name / "index").rename(folder / f"index{number}")
    _make_heads(folder / "heads", model)
    _make_recipe(folder / "recipe", model)


def _make_heads(path: Path, model: Path) -> None:
    from sbert_mini.model.heads import HeadConfig
    from sbert_mini.training.heads import Head

    shutil.copytree(model, path)
    Head(HeadConfig("mood", "single", "classification", 28, ("bad", "good"), columns=("text",))).save(path)
    Head(HeadConfig("same", "siamese", "regression", 28, columns=("text", "body"), hidden=8)).save(path)


def _make_recipe(path: Path, model: Path) -> None:
    shutil.copytree(model, path / "start")
    rows = "".join(f"the cat {i}\tred house {i}\t{i % 5}\n" for i in range(12))
    (path / "train.tsv").write_text("sentence1\tsentence2\tscore\n" + rows)
    (path / "r.toml").write_text(
        '[model]\nstart = "start"\noutput = "out"\n[train]\nsteps = 2\nbatch_size = 4\n[optimizer]\n'
        "learning_rate = 0.001\n[[task]]\n"
        'name = "t"\nstructure = "siamese"\nloss = "cosent"\ntrain = "train.tsv"\nlabel = "score"\nhigh = 4.0\n'
    )


# ---- values ------------------------------------------------------------------------------------------------------------------

NAMES = [
    "../outside/x",
    "../../../../etc/passwd",
    "/etc/passwd",
    "../outside/*",
    "*",
    "..",
    "a/b",
    "",
    "\x00",
    "\ud800",
    "000001",
    "000099",
    "evil-org/evil-model",
    "http://example.org/m",
    "file:///etc/passwd",
    "model\x1b[31m",
]


def value(rng: random.Random) -> Any:
    """Return a value that a JSON file may hold and nobody expects."""
    return rng.choice(NAMES) if rng.random() < 0.2 else rng.choice(fuzz.VALUES)


def document(rng: random.Random, depth: int = 0) -> Any:
    """Return any JSON value."""
    roll = rng.random()
    if depth > 4 or roll < 0.4:
        return value(rng)
    if roll < 0.7:
        return [document(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    return {str(value(rng))[:40]: document(rng, depth + 1) for _ in range(rng.randint(0, 4))}


def change_value(data: Any, rng: random.Random) -> tuple[Any, str]:
    """Return JSON data of which one value, at any depth, is another, is missing or is doubled; and how."""
    holder, key, node = None, None, data
    while isinstance(node, dict | list) and node and (holder is None or rng.random() < 0.75):
        holder, key = node, rng.choice(sorted(node)) if isinstance(node, dict) else rng.randrange(len(node))
        node = node[key]
    if holder is None:
        return value(rng), "all"
    roll = rng.random()
    if roll < 0.15:
        del holder[key]
        return data, f"without {key!r:.40}"
    if roll < 0.25 and isinstance(holder, list):
        holder.append(holder[key])
        return data, f"{key!r:.40} twice"
    if roll < 0.45 and isinstance(node, int | float) and not isinstance(node, bool):
        holder[key] = rng.choice([node + 1, node - 1, -node, node * 2, node + 2**32, node + 0.5, str(node)])
    else:
        holder[key] = value(rng) if rng.random() < 0.8 else document(rng)
    return data, f"{key!r:.40} = {holder[key]!r:.60}"


# ---- indexes -----------------------------------------------------------------------------------------------------------------


def reseal(path: Path) -> None:
    """Make every checksum of an index agree with what lies there now, as far as it can."""
    with contextlib.suppress(Exception):
        from sbert_mini.search.checksums import file_checksums

        manifest_name = sealed(path / "CURRENT")["manifest"]
        manifest = json.loads((path / manifest_name).read_text())
        for entry in manifest["segments"]:
            with contextlib.suppress(Exception):
                file = path / "segments" / entry["name"] / "checksums.json"
                record = json.loads(file.read_text())
                for name, sums in record["files"].items():
                    sums.update(file_checksums(file.parent / name, sums["block_bytes"]))
                file.write_text(json.dumps(record))
                entry["checksums_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        (path / manifest_name).write_text(json.dumps(manifest))
        for file in (path / "faiss").glob("*.json"):
            with contextlib.suppress(Exception):
                record = sealed(file)
                _resealed_faiss(record, file)
                seal(file, record)
        for file in (path / "words").glob("*/record.json"):
            with contextlib.suppress(Exception):
                record = sealed(file)
                _resealed_words(record, file, path, manifest)
                seal(file, record)
    with contextlib.suppress(Exception):
        current = sealed(path / "CURRENT")
        current["sha256"] = hashlib.sha256((path / current["manifest"]).read_bytes()).hexdigest()
        seal(path / "CURRENT", current)


def _resealed_faiss(record: dict[str, Any], file: Path) -> None:
    from sbert_mini.search.checksums import file_checksums

    for name, sums in record.items():
        if isinstance(sums, dict) and "block_bytes" in sums:
            data = file.with_suffix(".faiss") if "repeat" not in name else file.with_suffix(".repeats.npy")
            sums.update(file_checksums(data, sums["block_bytes"]))


def _resealed_words(record: dict[str, Any], file: Path, path: Path, manifest: dict[str, Any]) -> None:
    import numpy as np

    from sbert_mini.search.word_files import content_digest

    for name, sums in record["files"].items():
        with contextlib.suppress(Exception):
            data = (file.parent / name).read_bytes() if (file.parent / name).is_file() else b""  # not /dev/zero
            sums.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    deleted = path / "generations" / f"{manifest['generation']:06d}.npy"
    rows = np.load(deleted) if deleted.exists() else np.empty(0, np.int64)
    segments = [SimpleNamespace(**entry, checksum=entry["checksums_sha256"]) for entry in manifest["segments"]]
    record["content"] = content_digest(segments, rows)  # type: ignore[arg-type]


def sealed(file: Path) -> dict[str, Any]:
    """Return what a file holds before its checksum."""
    return dict(json.loads(file.read_bytes()[:-65]))


def seal(file: Path, data: Any) -> None:
    """Write a file with its checksum."""
    body = (json.dumps(data) + "\n").encode("utf-8", "surrogatepass")
    file.write_bytes(body + hashlib.sha256(body).hexdigest().encode() + b"\n")


def index_case(bases: Path, folder: Path, rng: random.Random) -> Case:
    """Change one to three things of an index, and most often make its checksums agree again."""
    path = folder / "x.index"
    shutil.copytree(bases / f"index{rng.choice((0, 1, 2, 3, 4))}", path)
    how = "; ".join(_change_index(path, rng) for _ in range(rng.choice((1, 1, 2, 3))))
    if rng.random() < 0.9:
        reseal(path)
        how += "; resealed"
    return Case(how, partial(use_index, seed=rng.random()))


def _change_index(path: Path, rng: random.Random) -> str:
    every = [file for file in sorted(path.rglob("*")) if file.is_file()]
    documents = [file for file in every if file.suffix == ".json" or file.name == "CURRENT"]
    roll = rng.random()
    if roll < 0.6:
        file = rng.choice(documents)
        is_sealed = file.name in ("CURRENT", "record.json") or file.parent.name == "faiss"
        try:
            data, how = change_value(sealed(file) if is_sealed else json.loads(file.read_text()), rng)
        except ValueError:
            return "nothing"
        seal(file, data) if is_sealed else file.write_text(json.dumps(data))
        return f"{file.relative_to(path)}: {how}"
    if roll < 0.65:
        link, target = (
            rng.choice(["segments/000099", "faiss/x", "generations/000009.json", "words/000099"]),
            rng.choice(["../../outside", "/etc"]),
        )
        if (path / link).is_symlink() or not (path / link).parent.is_dir():  # drawn twice, or an index without words
            return "nothing"
        (path / link).symlink_to(target)
        return f"{link} -> {target}"
    if roll < 0.70:
        part = path / rng.choice(["segments/000001", "faiss", "segments", "words", "words/000003"])
        moved = path.parent / "moved"
        if part.is_dir() and not moved.exists():
            part.rename(moved)
            part.symlink_to(moved)
        return f"{part.relative_to(path)} is a link"
    file = rng.choice([file for file in every if file not in documents and file.name != "LOCK"] or every)
    if file.suffix == ".npy" and rng.random() < 0.5:
        return f"{file.relative_to(path)}: {change_npy(file, rng)}"
    file.write_bytes(messages.damage(file.read_bytes(), rng))
    return f"{file.relative_to(path)}: bytes"


def use_index(folder: Path, seed: float) -> str:
    """Search, check and change an index."""
    from sbert_mini import IndexWriter, SearchIndex
    from sbert_mini.text.records import Record

    rng, path = random.Random(seed), folder / "x.index"
    acts: Mapping[str, Callable[[], object]] = {
        "search": lambda: SearchIndex(path, threads=1, offline=True).search(["the cat", "red"], 5),
        "filter": lambda: SearchIndex(path, threads=1, offline=True).search("the cat", 5, filter="n > 3 and l = 'en'"),
        "filter texts": lambda: SearchIndex(path, threads=1, offline=True).matching(
            "id in ('r10', 'row 2') or id like 'r%1%' or title = 'title 2é'" if rng.random() < 0.5 else "id < 'row 1'"
        ),
        "hybrid": lambda: SearchIndex(path, threads=1, offline=True).search("the cat", 5, hybrid=True),
        "verify": lambda: SearchIndex(path, threads=1, offline=True).verify(),
        "rows": lambda: list(SearchIndex(path, threads=1, offline=True).rows()),
        "blocks": lambda: list(SearchIndex(path, threads=1, offline=True).row_blocks()),
        "add": lambda: IndexWriter(path, SearchIndex(path, threads=1, offline=True).embedder()).add(
            [Record("a new cat", "new")]
        ),
        "delete": lambda: IndexWriter(path).delete(["r10"]),
        "compact": lambda: IndexWriter(path, threads=1).compact(kind=rng.choice([None, "SQ8", "exact"])),
    }
    return used(acts, rng.sample(sorted(acts), 4))


def used(acts: Mapping[str, Callable[[], object]], names: Sequence[str]) -> str:
    """Do some acts, and return which of them were refused."""
    from sbert_mini.errors import SbertMiniError

    done = []
    for name in names:
        try:
            acts[name]()
            done.append(name)
        except SbertMiniError:
            done.append(f"{name} refused")
    return f"{'read' if any('refused' not in act for act in done) else 'refused'} {', '.join(done)}"


# ---- models, heads, recipes --------------------------------------------------------------------------------------------------


def model_case(bases: Path, folder: Path, rng: random.Random) -> Case:
    """Damage a model directory as `tests.native.fuzz` does."""
    path = folder / "m"
    shutil.copytree(bases / "models" / str(rng.choice((0, 0, 0, 1, 1, 2))), path)
    how = "nothing"
    while how == "nothing":
        how = fuzz.change(path, rng)
    fuzz.seal(path)
    return Case(how, partial(_use_model, seed=rng.random()))


def _use_model(folder: Path, seed: float) -> str:
    return fuzz.use(folder / "m", random.Random(seed))


def head_case(bases: Path, folder: Path, rng: random.Random) -> Case:
    """Change a head's configuration or weights."""
    path = folder / "m"
    shutil.copytree(bases / "heads", path)
    task = rng.choice(("mood", "same"))
    file = path / "heads" / task / "config.json"
    if rng.random() < 0.8:
        data, how = change_value(json.loads(file.read_text()), rng)
        file.write_text(json.dumps(data))
    else:
        weights = file.with_name("model.safetensors")
        how = change_header(weights, rng)
    return Case(f"heads/{task}: {how}", partial(_use_head, task=task))


def _use_head(folder: Path, task: str) -> str:
    from sbert_mini.runtime.predictor import Predictor

    predictor = Predictor(folder / "m", task, threads=1, offline=True)
    predictor.predict(["the cat", "a dog"] if predictor.texts_each == 1 else [("the cat", "a dog")])
    return "read"


def recipe_case(bases: Path, folder: Path, rng: random.Random) -> Case:
    """Change a recipe's text or its data."""
    shutil.copytree(bases / "recipe", folder / "r")
    file = folder / "r" / rng.choice(("r.toml", "r.toml", "r.toml", "train.tsv"))
    if file.suffix == ".tsv" or rng.random() < 0.2:
        file.write_bytes(messages.damage(file.read_bytes(), rng))
        return Case(f"{file.name}: bytes", _use_recipe)
    lines = file.read_text().splitlines()
    places = [i for i, line in enumerate(lines) if " = " in line]
    at = rng.choice(places)
    key = lines[at].partition(" = ")[0]
    lines[at] = f"{key} = {_toml(value(rng))}"
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    return Case(lines[at][:100], _use_recipe)


def _toml(given: Any) -> str:
    if given is None:
        return "{}"
    return str(given) if isinstance(given, float) else json.dumps(given, ensure_ascii=False)


def _use_recipe(folder: Path) -> str:
    from sbert_mini.recipes.data import read_data
    from sbert_mini.recipes.reader import read_recipe

    read_data(read_recipe(folder / "r" / "r.toml"))
    return "read"


# ---- rows, vectors, headers --------------------------------------------------------------------------------------------------


def rows_case(bases: Path, folder: Path, rng: random.Random) -> Case:
    """Write a file of rows in any format, and now and then damage its bytes or blow it up."""
    file = row_files.make(rng.getrandbits(40), folder)
    roll, how = rng.random(), file.name
    if roll < 0.3:
        file.write_bytes(messages.damage(file.read_bytes() or b"x", rng))
        how += ": bytes"
    elif roll < 0.36:
        file = folder / rng.choice(("big.txt.gz", "big.csv.gz", "big.jsonl.gz"))
        unit = {"t": b"x", "c": b"text\n" + b"x" * 99, "j": b'{"text": "' + b"x" * 99}[file.name[4]]
        count = rng.choice((10**3, 10**5, 3 * 10**6))
        file.write_bytes(gzip.compress(unit * (count // len(unit) + 1), 1))
        how = f"{file.name} of {count} bytes"
    elif roll < 0.4:
        file = folder / "deep.jsonl"
        depth = rng.choice((10, 1000, 100_000))
        file.write_text('{"text": "a", "x": ' + "[" * depth + "]" * depth + "}\n")
        how = f"{depth} deep"
    return Case(how, partial(_use_rows, name=file.name))


def _use_rows(folder: Path, name: str) -> str:
    from sbert_mini.text.records import read_records

    count, rejects = 0, []
    for record in read_records(folder / name, on_reject=rejects.append):
        count += bool(json.dumps(dict(record.columns), allow_nan=False))
    return f"read {count} rows, {len(rejects)} rejects"


def judgments_case(bases: Path, folder: Path, rng: random.Random) -> Case:
    """Write a file of queries or judgments."""
    return Case(*judged.make(folder, rng))


def folder_case(bases: Path, folder: Path, rng: random.Random) -> Case:
    """Write a folder of documents, or what a sync reads beside it."""
    return Case(*folders.make(folder, rng))


def change_npy(file: Path, rng: random.Random) -> str:
    """Give a .npy file another header, or other bytes."""
    data = file.read_bytes()
    size = struct.unpack("<H", data[8:10])[0]
    header = rng.choice(
        [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }",
            "{'descr': '|O', 'fortran_order': False, 'shape': (%s), }",
            "{'descr': '<i8', 'fortran_order': True, 'shape': (%s), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (%s)",
            "__import__('os').system('true') or (%s)",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (%s), }",
        ]
    )
    shape = rng.choice(
        ["3, 4", "-1, 4", "4294967296, 4294967296", "0, 0", "1000000000000,", "", "2, 3, 4", "True, 1", "1.5, 2"]
    )
    text = (header % shape).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    length = len(text) if rng.random() < 0.9 else rng.choice((0, 1, 65535))
    file.write_bytes(data[:8] + struct.pack("<H", length) + text + data[10 + size :])
    return f"{header.split('(')[0][:30]} ({shape})"


def change_header(file: Path, rng: random.Random) -> str:
    """Change a safetensors file: a value of its header, the header's length, or bytes."""
    data = file.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    roll = rng.random()
    if roll < 0.2:
        file.write_bytes(messages.damage(data, rng))
        return "bytes"
    if roll < 0.3:
        length = rng.choice((0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1))
        file.write_bytes(struct.pack("<Q", length) + data[8:])
        return f"header of {length} bytes"
    header, how = change_value(json.loads(data[8 : 8 + size]), rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    return how


def header_case(bases: Path, folder: Path, rng: random.Random) -> Case:
    """Change the header of a .npy file of vectors, or of a safetensors file of weights of a reduction or of groups."""
    import numpy as np

    kind = rng.choice(("npy", "weights", "reduction", "groups", "table"))
    if kind == "table":
        return _table_case(folder, rng)
    if kind == "npy":
        np.save(folder / "x.npy", np.ones((6, 4), np.float32))
        return Case(f"npy {change_npy(folder / 'x.npy', rng)}", _use_npy)
    if kind == "weights":
        shutil.copytree(bases / "model", folder / "m")
        shutil.rmtree(folder / "m" / "onnx", ignore_errors=True)
        return Case(f"weights {change_header(folder / 'm' / 'model.safetensors', rng)}", _use_weights)
    if kind == "groups":
        from sbert_mini.atlas.group_file import GroupFile

        file = folder / "g.safetensors"
        GroupFile(np.eye(3, 4, dtype=np.float32), ("a", "b", "c"), 0.7, "f" * 64, "").save(file)
        return Case(f"groups {change_header(file, rng)}", _use_groups)
    from sbert_mini.search.reduction import fit

    file = folder / "p.safetensors"
    if not (bases / file.name).exists():
        fit(np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32), 3).save(bases / file.name)
    shutil.copy(bases / file.name, file)
    return Case(f"reduction {change_header(file, rng)}", _use_reduction)


def _table_case(folder: Path, rng: random.Random) -> Case:
    """Change the header or the bytes of a static model's table; most records are made to agree."""
    from tests.conftest import tiny_static

    path = folder / "s"
    path.mkdir()
    file = tiny_static(path, seed=rng.randrange(9)) / "token_vectors.safetensors"
    if rng.random() < 0.6:
        how = change_header(file, rng)
    else:
        data = bytearray(file.read_bytes())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        file.write_bytes(data[: rng.randint(0, len(data))] if rng.random() < 0.3 else data)
        how = "bytes"
    if rng.random() < 0.8:
        record = {"format": 1, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        (path / "token_vectors.json").write_text(json.dumps(record))
    if rng.random() < 0.2:
        file.rename(path / "model.safetensors")
        (path / "token_vectors.json").unlink()
    return Case(f"table {how}", _use_table)


def _use_table(folder: Path) -> str:
    from sbert_mini import Embedder

    vectors = Embedder(folder / "s", threads=1, offline=True, read_only=True).encode(["the cat sleeps.", "dog", ""])
    return f"read {vectors.shape}"


def _use_npy(folder: Path) -> str:
    from sbert_mini.runtime.npy import read_vectors

    return f"read {read_vectors(folder / 'x.npy').sum():.0f}"


def _use_weights(folder: Path) -> str:
    from sbert_mini.model.weights import read_tensors

    return f"read {len(read_tensors(folder / 'm' / 'model.safetensors'))}"


def _use_reduction(folder: Path) -> str:
    import numpy as np

    from sbert_mini.search.reduction import Reduction

    fitted = Reduction.load(folder / "p.safetensors")
    blocks = list(fitted.blocks(np.ones((3, 6), np.float32)))
    return f"read {len(blocks)}"


def _use_groups(folder: Path) -> str:
    import numpy as np

    from sbert_mini.atlas.group_file import GroupFile
    from sbert_mini.atlas.rows import Rows

    groups = GroupFile.load(folder / "g.safetensors")
    return f"read {groups.assigned(Rows(np.eye(2, 4, dtype=np.float32), ['1', '2'], None))[0].tolist()}"


# ---- JSON --------------------------------------------------------------------------------------------------------


def json_case(bases: Path, folder: Path, rng: random.Random) -> Case:
    """Put any JSON, or what is nearly JSON, into the place of a JSON file of a model, a head or an index."""
    kind = rng.choice(("model", "model", "heads", "index"))
    path = folder / ("x.index" if kind == "index" else "m")
    shutil.copytree(bases / {"model": "models/0", "heads": "heads", "index": "index1"}[kind], path)
    file = rng.choice([f for f in sorted(path.rglob("*")) if f.suffix == ".json" or f.name == "CURRENT"])
    text = json.dumps(document(rng))
    if rng.random() < 0.15:
        text = rng.choice(
            [
                "[" * 100_000,
                '{"a":' * 50_000,
                "",
                "\ufeff{}",
                text[: len(text) // 2],
                "NaN",
                '{"a": 1e999999}',
                "{'a': 1}",
            ]
        )
    elif rng.random() < 0.5:
        with contextlib.suppress(ValueError):
            data, _ = change_value(
                json.loads(file.read_bytes()[:-65] if file.name in ("CURRENT", "record.json") else file.read_text()),
                rng,
            )
            text = json.dumps(data)
    body = text.encode("utf-8", "surrogatepass")
    is_sealed = file.name in ("CURRENT", "record.json") or file.parent.name == "faiss"
    file.write_bytes(body + hashlib.sha256(body).hexdigest().encode() + b"\n" if is_sealed else body)
    seed = rng.random()
    if kind == "index":
        if file.name != "checksums.json":
            reseal(path)
        return Case(f"{file.relative_to(path)}: {text[:200]}", partial(use_index, seed=seed))
    if kind == "heads":
        return Case(f"{file.relative_to(path)}: {text[:200]}", partial(_use_head, task=rng.choice(("mood", "same"))))
    return Case(f"{file.relative_to(path)}: {text[:200]}", partial(_use_model, seed=seed))


KINDS: Mapping[str, Callable[[Path, Path, random.Random], Case]] = {
    "model": model_case,
    "index": index_case,
    "json": json_case,
    "rows": rows_case,
    "judgments": judgments_case,
    "folder": folder_case,
    "header": header_case,
    "head": head_case,
    "recipe": recipe_case,
}
