"""Hostile indexes of more than 1,000 rows, where FAISS is reached, and hostile folders of words."""

import contextlib
import json
import random
import shutil
import struct
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.hostile import kinds
from tests.native import messages

ROWS = 1200
BASES = ("SQ8", "HNSW8_SQ8", "IVF8,RaBitQ", "PCA8,IVF8,SQ8", "PQ14", "SQ8,RFlat")
"""Kinds of the indexes of which the cases are copies; PQ14 has passages."""
NAMED = (
    *("HNSW32_PQ14", "PRQ4x2x4", "OPQ14_28,PQ14", "IMI2x4,SQ8", "PQ28x10", "LSQ4x8", "RQ8x8", "NSG16", "IVF30,PQ14"),
    *(
        "HNSW2",
        "HNSW64",
        "HNSW512_SQ8",
        "IVF30,SQ8",
        "IVF8_HNSW2,Flat",
        "PCA27,Flat",
        "LSH",
        "ITQ14,LSH",
        "ZnLattice2x4_4",
    ),
    *(
        "IVF8,RaBitQfs",
        "IVF8,PQ14x4fs",
        "SQ8,Refine(SQfp16)",
        "SQ8,RFlat",
        "Flat",
        "PCAR8,SQ6",
        "L2norm,SQ8",
        "IDMap,SQ8",
    ),
    *(
        "IVF8,Flat,Refine(PQ14x10)",
        "PQ14x4fsr",
        "HNSW16_PQ14np",
        "HNSW8_2x4",
        "IVF8,HNSW8",
        "Pad64,SQ8",
        "RR28,SQ8",
        "auto",
        "exact",
    ),
)
NUMBERS = (0, 1, 2, 3, 27, 29, 64, ROWS - 1, ROWS, ROWS + 1, 2**15, 2**20, 2**31 - 1, 2**31, 2**32 - 1)


def make_bases(folder: Path, embedder: Any) -> None:
    """Write the indexes."""
    from sbert_mini import IndexWriter, SearchIndex
    from sbert_mini.text.records import Record

    words = ["the cat", "a dog", "red house", "bread rises", "blue tree"]
    for number, kind in enumerate(BASES):
        records = [
            Record(
                f"{words[i % 5]} {i} {chr(97 + i % 23)}{chr(97 + i % 19)}{chr(97 + i % 17)} {words[i // 5 % 5]}",
                f"r{i}",
                {"n": i, "b": i % 2 == 0, "l": "en"},
            )
            for i in range(ROWS)
        ]
        passages = {"passage_tokens": 4, "overlap": 1} if kind == "PQ14" else {}
        writer = IndexWriter(folder / f"large{number}", embedder, **passages)
        writer.create(records[: ROWS - 20], kind=kind)
        if number % 2:
            writer.add(records[ROWS - 20 :])
            writer.delete(["r3", "r7"])
        SearchIndex(folder / f"large{number}", threads=1).search("the cat", 3, by="both")


def large_case(bases: Path, folder: Path, rng: random.Random) -> kinds.Case:
    """Change the kind, the FAISS file, its record or its rows' vectors, and make all checksums agree."""
    path = folder / "x.index"
    shutil.copytree(bases / f"large{rng.randrange(len(BASES))}", path)
    how = "; ".join(_change(path, rng) for _ in range(rng.choice((1, 1, 2))))
    kinds.reseal(path)
    return kinds.Case(how, partial(use_large, seed=rng.random()))


def _change(path: Path, rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.3:
        return _name(path, rng)
    if roll < 0.4:
        shutil.rmtree(path / "faiss", ignore_errors=True)
        return "without faiss"
    files = sorted((path / "faiss").glob("*")) if (path / "faiss").is_dir() else []
    if roll < 0.75 and files:
        return _change_faiss(rng.choice(files), rng)
    arrays = sorted((path / "segments").rglob("*.npy"))
    file = rng.choice(arrays)
    if rng.random() < 0.3:
        return f"{file.name}: {kinds.change_npy(file, rng)}"
    return f"{file.name}: {change_numbers(file, rng)}"


def _name(path: Path, rng: random.Random) -> str:
    """Name another kind in the manifest, and perhaps in the records of the FAISS files."""
    kind, pca = rng.choice(NAMED), rng.choice((None, None, None, 1, 14, 27))
    with contextlib.suppress(Exception):
        file = path / kinds.sealed(path / "CURRENT")["manifest"]
        manifest = json.loads(file.read_text())
        manifest["kind"] = {"factory": kind, "pca": pca}
        file.write_text(json.dumps(manifest))
    if rng.random() < 0.5:
        for record in (path / "faiss").glob("*.json"):
            with contextlib.suppress(Exception):
                kinds.seal(record, kinds.sealed(record) | {"factory": kind})
    return f"kind {kind} {pca}"


def _change_faiss(file: Path, rng: random.Random) -> str:
    if file.suffix == ".json":
        with contextlib.suppress(Exception):
            data, how = kinds.change_value(kinds.sealed(file), rng)
            kinds.seal(file, data)
            return f"{file.name}: {how}"
        return "nothing"
    data = bytearray(file.read_bytes())
    if file.suffix == ".npy" or rng.random() < 0.15 or len(data) < 64:
        file.write_bytes(messages.damage(bytes(data), rng))
        return f"{file.name}: bytes"
    at = rng.randrange(0, min(len(data) - 8, rng.choice((48, 400, 1 << 30))))
    number = rng.choice(NUMBERS)
    size, form = rng.choice(((4, "<I"), (8, "<Q")))
    data[at : at + size] = struct.pack(form, number)
    file.write_bytes(data)
    return f"{file.name}: {number} of {size} bytes at {at}"


def change_numbers(file: Path, rng: random.Random) -> str:
    """Give some numbers of an array other values."""
    import numpy as np

    try:
        array = np.load(file, allow_pickle=False)
    except Exception:
        return "nothing"
    if not array.size:
        return "nothing"
    flat, how = array.reshape(-1), []
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(flat.size)
        real = (0.0, -0.0, 1e30, float("nan"), float("inf"), 2.0)
        whole = (
            0,
            1,
            ROWS - 1,
            ROWS,
            2**31,
            2**53,
            2**62,
            int(flat[rng.randrange(flat.size)]) if flat.dtype.kind in "iu" else 5,
        )
        flat[at] = rng.choice(real if flat.dtype.kind == "f" else whole)
        how.append(f"[{at}] = {flat[at]}")
    if rng.random() < 0.2:
        flat[:] = flat[::-1].copy()
        how.append("reversed")
    np.save(file, array)
    return ", ".join(how)


def use_large(folder: Path, seed: float) -> str:
    """Search and check an index as a reader, and change it with a kind that the user names."""
    from sbert_mini import IndexWriter, SearchIndex
    from sbert_mini.text.records import Record

    path, rng = folder / "x.index", random.Random(seed)

    def opened() -> SearchIndex:
        return SearchIndex(path, threads=1, offline=True)

    acts: Mapping[str, Callable[[], object]] = {
        "search": lambda: opened().search(["the cat", "red 17"], 5),
        "filter": lambda: opened().search("the cat", 5, filter=f"n < {rng.choice((5, 900, 1190))} and l = 'en'"),
        "exact": lambda: opened().search("a dog", 3, exact=True),
        "both": lambda: opened().search(["the cat 9", "bread"], 5, by="both"),
        "prepare": lambda: opened().prepare(),
        "verify": lambda: opened().verify(),
        "get": lambda: [opened().get(f"r{i}") for i in (0, 3, 700, ROWS - 1, ROWS)],
        "add": lambda: IndexWriter(path, opened().embedder()).add([Record("a new cat", "new")]),
        "update": lambda: IndexWriter(path, opened().embedder()).update([Record("a new cat", "r10")]),
        "delete": lambda: IndexWriter(path).delete(["r10", "r900"]),
        "compact": lambda: IndexWriter(path, threads=1).compact(kind=rng.choice(["SQ8", "exact", "IVF8,SQ8"])),
    }
    return kinds.used(acts, rng.sample(sorted(acts), 4))


# ---- words -------------------------------------------------------------------------------------------------------------------


def words_case(bases: Path, folder: Path, rng: random.Random) -> kinds.Case:
    """Change the files of words of an index or their record, and make all checksums agree."""
    path = folder / "x.index"
    shutil.copytree(bases / rng.choice(("index0", "index1", "index2", "large1")), path)
    how = "; ".join(_change_words(path, rng) for _ in range(rng.choice((1, 1, 2, 3))))
    if rng.random() < 0.95:
        kinds.reseal(path)
    return kinds.Case(how, partial(use_words, seed=rng.random()))


def _change_words(path: Path, rng: random.Random) -> str:
    files = sorted(file for file in (path / "words").rglob("*") if file.is_file())
    if not files:
        return "nothing"
    file, roll = rng.choice(files), rng.random()
    if file.name == "record.json" or roll < 0.25:
        record = next((one for one in files if one.name == "record.json"), None)
        with contextlib.suppress(Exception):
            data, how = kinds.change_value(kinds.sealed(record), rng)  # type: ignore[arg-type]
            kinds.seal(record, data)  # type: ignore[arg-type]
            return f"record.json: {how}"
        return "nothing"
    if roll < 0.35:
        other = rng.choice(files)
        data = other.read_bytes()
        file.write_bytes(data)
        return f"{file.suffix} is {other.suffix}"
    if roll < 0.45:
        file.unlink()
        if rng.random() < 0.5:
            file.symlink_to(rng.choice(("/dev/zero", "../../../../outside/thesis.txt", "record.json")))
        return f"no {file.suffix}"
    data = bytearray(file.read_bytes())
    if roll < 0.7 and len(data) > 16:  # tantivy's footer and its tables of offsets stand at the end
        at = len(data) - rng.randrange(1, min(len(data), rng.choice((16, 64, 300))))
        data[at : at + 4] = struct.pack("<I", rng.choice(NUMBERS))[: len(data) - at]
        file.write_bytes(data)
        return f"{file.suffix}: at {at - len(data)}"
    file.write_bytes(messages.damage(bytes(data), rng))
    return f"{file.suffix}: bytes"


def use_words(folder: Path, seed: float) -> str:
    """Search by words, check them, and carry them on."""
    from sbert_mini import IndexWriter, SearchIndex
    from sbert_mini.text.records import Record

    path, rng = folder / "x.index", random.Random(seed)

    def opened() -> SearchIndex:
        return SearchIndex(path, threads=1, offline=True)

    acts: Mapping[str, Callable[[], object]] = {
        "words": lambda: opened().search(["the cat", "red house tree", "nothing", '"a" +b -c (d', ""], 5, by="words"),
        "both": lambda: opened().search("bread rises", 50, by="both", filter="n > 3"),
        "filter": lambda: opened().search("cat", 50, by="words", filter="n < 100 and b"),
        "verify": lambda: opened().verify(),
        "add": lambda: IndexWriter(path, opened().embedder()).add([Record("a new cat", "new")]),
        "delete": lambda: IndexWriter(path).delete(["r10"]),
        "compact": lambda: IndexWriter(path, threads=1).compact(),
    }
    return kinds.used(acts, [*rng.sample(sorted(acts), 2), "words"])


# ---- passages ----------------------------------------------------------------------------------------------------------------


def passages_case(bases: Path, folder: Path, rng: random.Random) -> kinds.Case:
    """Change which vectors are of which rows and passages, or the rule for long texts."""
    path = folder / "x.index"
    shutil.copytree(bases / rng.choice(("index1", "large4")), path)
    how = []
    for _ in range(rng.choice((1, 1, 2))):
        files = sorted((path / "segments").rglob("passages.npy"))
        if files and rng.random() < 0.7:
            how.append(f"passages.npy: {change_numbers(rng.choice(files), rng)}")
            continue
        with contextlib.suppress(Exception):
            file = path / kinds.sealed(path / "CURRENT")["manifest"]
            manifest = json.loads(file.read_text())
            segment = rng.choice(manifest["segments"])
            change = rng.choice(("vectors", "rows", "long_texts", "format_version"))
            if change in segment:
                segment[change] = rng.choice((1, segment[change] + 1, segment[change] - 1, 2**31, 2**53))
            elif change == "long_texts":
                tokens = rng.choice((None, 0, 1, 2, 500, 2**31))
                manifest[change] = {
                    "truncation": rng.choice(("passages", "chunk")),
                    "tokens": tokens,
                    "overlap": rng.choice((None, 0, 1, 5)),
                }
            else:
                manifest[change] = rng.choice((1, 2, 3, 4, 5))
            file.write_text(json.dumps(manifest))
            how.append(f"{change} = {segment.get(change, manifest.get(change))}")
    kinds.reseal(path)
    return kinds.Case("; ".join(how) or "nothing", partial(use_passages, seed=rng.random()))


def use_passages(folder: Path, seed: float) -> str:
    """Search passages, read rows and blocks, and change the index."""
    from sbert_mini import IndexWriter, SearchIndex
    from sbert_mini.text.records import Record

    path, rng = folder / "x.index", random.Random(seed)

    def opened() -> SearchIndex:
        return SearchIndex(path, threads=1, offline=True)

    long = Record("the cat sleeps and a dog runs " * 20, "long")
    acts: Mapping[str, Callable[[], object]] = {
        "search": lambda: [hit.passage for hits in opened().search(["the cat", "red"], 9) for hit in hits],
        "words": lambda: [hit.passage for hit in opened().search("bread", 9, by="words")],
        "both": lambda: [hit.passage for hit in opened().search("bread", 9, by="both", filter="n > 3")],
        "blocks": lambda: list(opened().row_blocks()),
        "verify": lambda: opened().verify(),
        "add": lambda: IndexWriter(path, opened().embedder()).add([long]),
        "delete": lambda: IndexWriter(path).delete(["r10"]),
        "compact": lambda: IndexWriter(path, threads=1).compact(kind="exact"),
    }
    return kinds.used(acts, rng.sample(sorted(acts), 4))


CASES: Mapping[str, Callable[[Path, Path, random.Random], kinds.Case]] = {
    "large": large_case,
    "words": words_case,
    "passages": passages_case,
}
