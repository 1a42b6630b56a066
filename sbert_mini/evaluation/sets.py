"""The STS sets: which there are, where they lie in a folder, how each of their formats is read, who has trained on them.

| set | pairs | what it is |
| --- | --- | --- |
| `sts12` ... `sts16` | 3108, 1500, 3750, 3000, 1186 | SemEval's test sets of a year, all subsets |
| `stsb_dev`, `stsb_test` | 1500, 1379 | the STS benchmark |
| `sickr_test`, `sickr` | 4927, 9927 | SICK's test split; SICK whole (train, trial and test), as MTEB scores it |
| `builtin` | 64 | written for this project, for a smoke run: its figures mean nothing beside those of the others |

A set is found by its name in these places of a folder, the first that is there:

1. `NAME.tsv`, `.csv`, `.jsonl` or `.parquet`, gzipped or not, with the columns `sentence1`, `sentence2`, `score` and maybe
   `subset`; `sickr` also as `sickr_train`, `sickr_dev` and `sickr_test`;
2. the files of its copy on the Hugging Face hub (`sts12-sts/test.jsonl.gz`, ...);
3. its own original format: `STS12-en-test/STS.input.*.txt` with `STS.gs.*.txt` (SentEval's folders, or those that SemEval's
   archives unpack to), `stsbenchmark/sts-test.csv`, `SICK.txt`, or
   SentEval's `SICK_test_annotated.txt`; up to two folders deep.
"""

import csv
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbert_mini.errors import InputError, MissingExtraError, UsageError
from sbert_mini.files.reading import open_stream
from sbert_mini.model.registry import is_offline
from sbert_mini.text.records import read_records
from sbert_mini.text.rows import column_of, read_row, score_of, text_of

log = logging.getLogger("sbert_mini")

SEVEN = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb_test", "sickr")
"""The seven usual tasks, over which a mean is quoted (SentEval; Gao et al. 2021, arXiv 2104.08821, table 5)."""
KNOWN = (*SEVEN[:5], "stsb_dev", "stsb_test", "sickr_test", "sickr")
BUILTIN = "builtin"
COLUMNS = ("sentence1", "sentence2", "score")
_HUB = {
    **{f"sts{year}": (f"mteb/sts{year}-sts", "test") for year in (12, 13, 14, 15, 16)},
    "stsb_dev": ("mteb/stsbenchmark-sts", "validation"),
    "stsb_test": ("mteb/stsbenchmark-sts", "test"),
    "sickr": ("mteb/sickr-sts", "test"),
}
_SUFFIXES = tuple(f".{kind}{zipped}" for kind in ("tsv", "csv", "jsonl", "parquet") for zipped in ("", ".gz"))
_UNPACKED = {
    "12": "test-gold",
    "13": "test-gs",
    "14": "sts-en-test-gs-2014",
    "15": "test_evaluation_task2a",
    "16": "sts2016-english-with-gs-v1.0",
}
"""The folders that SemEval's own archives unpack to."""
_SICK_PARTS = {
    "train": ("sickr_train", "SICK_train.txt", "TRAIN"),
    "dev": ("sickr_dev", "SICK_trial.txt", "TRIAL"),
    "test": ("sickr_test", "SICK_test_annotated.txt", "TEST"),
}
PUBLISHED = (
    "STS12-16 and the STS benchmark: the STS wiki, ixa2.si.ehu.eus/stswiki, or mteb/sts12-sts ... mteb/stsbenchmark-sts on the "
    "Hugging Face hub; SICK: zenodo.org/record/2787612, or mteb/sickr-sts"
)


@dataclass(frozen=True)
class PairSet:
    """Pairs of sentences with a gold score each.

    Attributes:
        name: as in the module's table, or a user file's name without suffixes.
        first: the first sentences.
        second: the second sentences.
        scores: the gold scores; larger means more alike. Their range does not matter to a correlation.
        subsets: the subset of each pair; empty strings where the set has none.
        source: the file or folder that it was read from.
        unscored: pairs of the original files that have no gold score; they are not in the set.
    """

    name: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: tuple[float, ...]
    subsets: tuple[str, ...]
    source: str
    unscored: int = 0

    def __len__(self) -> int:
        return len(self.scores)


def read_pairs(path: str | Path, name: str | None = None, columns: Sequence[str] = COLUMNS) -> PairSet:
    """Return the pairs of a table: tsv, csv, jsonl or parquet.

    Args:
        path: the file.
        name: the set's name; None for the file's name without suffixes.
        columns: of the first sentence, the second one and the score. A column `subset` is read where there is one.

    Raises:
        UsageError: not three columns are named.
        InputError: a column is missing, a sentence is empty, or a score is not a finite number; the text says which line.
    """
    if len(columns) != 3:
        raise UsageError(f"three columns are needed (two of text and one of scores); found {', '.join(columns)}")
    text, second, score = columns
    rows: list[tuple[str, str, float, str]] = []
    for record in read_records(path, text_column=text):
        row = read_row(record)
        other, points = text_of(row, second, record.place), score_of(column_of(row, score, record.place), record.place)
        rows.append((record.text, other, points, str(row.get("subset") or "")))
    if not rows:
        raise InputError(f"{path} holds no pair")
    return _made(name or re.sub(r"(\.\w+)+$", "", Path(path).name), rows, str(path))


def _made(name: str, rows: Sequence[tuple[str, str, float, str]], source: str, unscored: int = 0) -> PairSet:
    first, second, scores, subsets = zip(*rows, strict=True)
    return PairSet(name, first, second, scores, subsets, source, unscored)


def builtin_pairs() -> PairSet:
    """Return the 64 pairs that were written for this project, scored from 0 (unrelated) to 5 (the same)."""
    path = Path(__file__).parent.parent / "examples" / "pairs.tsv"
    return read_pairs(path, BUILTIN)


def choose_sets(
    folder: Path | None,
    names: Sequence[str] = (),
    files: Sequence[Path] = (),
    columns: Sequence[str] = COLUMNS,
    *,
    offline: bool = False,
) -> tuple[list[PairSet], list[str]]:
    """Return the sets that are asked for and are there, and the names of those that are not.

    Args:
        folder: of data; None to fetch sets from the Hugging Face hub.
        names: of `KNOWN` or `BUILTIN`; none for all of `KNOWN`, where no file is named either.
        files: tables of pairs.
        columns: of the files; see `read_pairs`.
        offline: open no socket.

    Raises:
        UsageError: there is no set of a name.
        InputError: none of the sets is there, or one cannot be fetched.
    """
    sets = [read_pairs(file, columns=columns) for file in files]
    requested = list(names) or ([] if files else list(KNOWN))
    if unknown := [name for name in requested if name not in (*KNOWN, BUILTIN)]:
        raise UsageError(
            f"there is no set {unknown[0]!r}; known are {', '.join((*KNOWN, BUILTIN))}, and files with --pairs"
        )
    absent = []
    for name in requested:
        pairs = _set_of(folder, name, offline=offline)
        if pairs is None:
            absent.append(name)
        else:
            sets.append(pairs)
    if not sets:
        where = folder if folder is not None else "the Hugging Face hub"
        raise InputError(
            f"none of {', '.join(absent)} is in {where}: name another folder with --data, or try --sets {BUILTIN}. "
            f"Published: {PUBLISHED}"
        )
    return sets, absent


def _set_of(folder: Path | None, name: str, *, offline: bool) -> PairSet | None:
    if name == BUILTIN:
        return builtin_pairs()
    if folder is not None:
        return find_set(folder, name)
    if offline or is_offline():
        raise InputError(
            f"{name} is needed, no folder of data is named (--data or SBMINI_DATA), and the network is switched off. "
            f"The built-in pairs need neither: --sets {BUILTIN}. Published: {PUBLISHED}"
        )
    return fetch_set(name)


def find_set(folder: Path, name: str) -> PairSet | None:
    """Return the set `name` if the folder holds it in one of the module's formats, else None.

    Raises:
        UsageError: the name is unknown, or the folder does not exist.
        InputError: a file of it cannot be read.
    """
    if name not in KNOWN:
        raise UsageError(f"the set must be one of {', '.join((*KNOWN, BUILTIN))}; found {name!r}")
    if not folder.is_dir():
        raise UsageError(f"the data folder {folder} does not exist")
    for suffix in _SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return read_pairs(folder / f"{name}{suffix}", name)
    if name == "sickr" and (parts := _sick_tables(folder)):
        return parts
    if copy := _hub_copy(folder, name):
        return copy
    if name.startswith("stsb"):
        return _original_benchmark(folder, name)
    if name.startswith("sickr"):
        return _original_sick(folder, name)
    return _original_year(folder, name)


def _sick_tables(folder: Path) -> PairSet | None:
    files = [
        next((folder / f"{table}{s}" for s in _SUFFIXES if (folder / f"{table}{s}").is_file()), None)
        for table, _, _ in _SICK_PARTS.values()
    ]
    if not all(files):
        return None
    parts = [read_pairs(file) for file in files if file is not None]
    rows = [row for part in parts for row in zip(part.first, part.second, part.scores, part.subsets, strict=True)]
    return _made("sickr", rows, ", ".join(part.source for part in parts))


def _hub_copy(folder: Path, name: str) -> PairSet | None:
    repository, split = _HUB.get(name, ("", ""))
    path = folder / repository.rpartition("/")[2]
    if not repository or not path.is_dir():
        return None
    for pattern in (f"{split}.*", f"data/{split}-*", f"{split}-*"):
        for file in sorted(path.glob(pattern)):
            if file.name.endswith(_SUFFIXES):
                return read_pairs(file, name)
    return None


def _places(folder: Path, pattern: str) -> Iterator[Path]:
    for prefix in ("", "*/", "*/*/"):
        yield from sorted(folder.glob(prefix + pattern))


def _text_lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _original_year(folder: Path, name: str) -> PairSet | None:
    """SemEval's own format: `STS.input.SUBSET.txt`, a pair a line, and `STS.gs.SUBSET.txt`, its score, or a blank line."""
    year = name[3:]
    for pattern in (f"STS{year}-en-test", f"STS20{year}-en-test", _UNPACKED[year]):
        for path in _places(folder, pattern):
            rows, unscored = [], 0
            for file in sorted(path.rglob("STS*.input.*.txt")):
                start, _, subset = file.name.removesuffix(".txt").partition(".input.")
                gold = file.with_name(f"{start}.gs.{subset}.txt")
                if subset == "ALL" or not gold.is_file():
                    continue  # ALL is the other files joined; inputs without gold are those of tracks that are not scored
                sentences, scores = _text_lines(file), _text_lines(gold)
                if len(scores) > len(sentences):
                    raise InputError(
                        f"{gold} has {len(scores)} lines and {file.name} {len(sentences)}: they do not belong together"
                    )
                for number, line in enumerate(sentences, start=1):
                    fields = line.rstrip("\r").split("\t")
                    score = scores[number - 1].strip() if number <= len(scores) else ""
                    if not line.strip() and not score:
                        continue
                    if not score:
                        unscored += 1
                        continue
                    if len(fields) < 2 or not fields[0].strip() or not fields[1].strip():
                        raise InputError(f"{file}, line {number}: two sentences and a tab between them are needed")
                    rows.append((fields[0], fields[1], score_of(score, f"{gold}, line {number}"), subset))
            if rows:
                return _made(name, rows, str(path), unscored)
    return None


def _original_benchmark(folder: Path, name: str) -> PairSet | None:
    """`sts-dev.csv`, `sts-test.csv`: genre, file, year, index, score, sentence1, sentence2; tabs, no quoting, no header."""
    file_name = {"stsb_dev": "sts-dev.csv", "stsb_test": "sts-test.csv"}[name]
    paths = [folder / file_name]
    paths += [p for p in _places(folder, f"*/{file_name}") if "benchmark" in p.parent.name.lower()]
    for file in paths:
        if not file.is_file() or (file.parent == folder and _text_lines(file)[0].count("\t") < 6):
            continue  # another file of that name, such as the course CS224N's
        rows = []
        for number, line in enumerate(_text_lines(file), start=1):
            fields = line.rstrip("\r").split("\t")
            if not line.strip():
                continue
            if len(fields) < 7:
                raise InputError(f"{file}, line {number}: seven columns are needed; found {len(fields)}")
            if not fields[5].strip() or not fields[6].strip():
                raise InputError(f"{file}, line {number}: a sentence is empty")
            rows.append((fields[5], fields[6], score_of(fields[4], f"{file}, line {number}"), fields[0]))
        if rows:
            return _made(name, rows, str(file))
    return None


def _original_sick(folder: Path, name: str) -> PairSet | None:
    """`SICK.txt` (its column SemEval_set tells the split), or SentEval's three files; tabs, a header, no quoting."""
    parts = ("test",) if name == "sickr_test" else ("train", "dev", "test")
    for whole in _places(folder, "SICK.txt"):
        splits = {_SICK_PARTS[part][2] for part in parts}
        rows = [row for row, split in _sick_rows(whole) if split in splits]
        if rows:
            return _made(name, rows, str(whole))
    files = [next(_places(folder, _SICK_PARTS[part][1]), None) for part in parts]
    if not all(files):
        return None
    rows = [row for file in files if file is not None for row, _ in _sick_rows(file)]
    return _made(name, rows, ", ".join(str(file) for file in files))


def _sick_rows(file: Path) -> Iterator[tuple[tuple[str, str, float, str], str]]:
    reader = csv.DictReader(
        (line for line in _text_lines(file) if line.strip()), delimiter="\t", quoting=csv.QUOTE_NONE
    )
    for number, row in enumerate(reader, start=2):
        try:
            first, second, score = row["sentence_A"], row["sentence_B"], row["relatedness_score"]
        except KeyError as error:
            raise InputError(f"{file} has no column {error}; SICK's own are needed") from error
        yield (first, second, score_of(score, f"{file}, line {number}"), ""), (row.get("SemEval_set") or "").strip()


def fetch_set(name: str) -> PairSet | None:
    """Return the set from its copy on the Hugging Face hub, through the `datasets` library and its cache.

    None for a set that has no copy of its own there (`sickr_test`).

    Raises:
        MissingExtraError: `datasets` is not installed.
        InputError: there is no network, or the hub does not give it; the text says where the set is published.
    """
    if name not in _HUB:
        return None
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingExtraError("fetching a set from the hub", "datasets", "bench") from error
    repository, split = _HUB[name]
    log.info("fetching %s from %s", name, repository)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; what comes of them is said below
    try:
        table = datasets.load_dataset(repository, split=split)
    except Exception as error:  # the library raises its own, the hub's, and the network's exceptions
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{name} could not be fetched from {repository} ({reason}). Name a folder that holds the sets with --data or "
            f"SBMINI_DATA, or try the built-in pairs with --sets {BUILTIN}. Published: {PUBLISHED}"
        ) from error
    rows = [
        (str(row["sentence1"]), str(row["sentence2"]), score_of(row["score"], f"{repository}, row {number}"), "")
        for number, row in enumerate(table)
    ]
    return _made(name, rows, f"{repository} ({split})")


# --- which sets a model has been trained on ---------------------------------------------------------------------------

_MOST_METADATA = 1 << 17
"""Bytes of a card that are read."""
TRAINED_ON = "sbmini_trained_on"
"""Key of a model card's metadata: the sets of which pairs were trained on, as `sbmini train` counts them."""
_NAMED = (
    # what a card's `datasets` may say (lower case) -> the sets that hold pairs of it, and why
    (r"sts-?b(enchmark)?[_-]train\b", SEVEN[:5], "STS-B train, whose pairs stand in STS12-16"),
    (
        r"stsb|sts-?benchmark|cs224n.*sts|sts.*cs224n|\bsts[-_](train|dev)\b|\bglue\b",
        (*SEVEN[:5], "stsb_dev", "stsb_test"),
        "STS-B, without saying which split; its pairs stand in STS12-16, too",
    ),
    (r"sick-?r?[_-]train\b|sick-?r?[_-]dev\b", ("sickr",), "a part of SICK"),
    (r"\bsick(-?r)?\b", ("sickr", "sickr_test"), "SICK, without saying which split"),
    (
        r"\bsts-?(20)?(12|13|14|15|16)\b",
        (*SEVEN[:5], "stsb_dev", "stsb_test"),
        "an STS set, of whose pairs STS-B was made",
    ),
)


def card_metadata(model: Path) -> dict[str, Any]:
    """Return the metadata of a model's card; none where it has no card, or one that cannot be read, which is told."""
    import yaml

    class CardLoader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):  # a few lines of aliases of aliases are gigabytes as a text
                raise yaml.YAMLError("its metadata hold an alias")
            return super().compose_node(parent, index)

    card = model / "README.md"
    try:
        if not card.is_file():
            return {}
        with open_stream(card) as stream:
            lines = stream.read(_MOST_METADATA).decode("utf-8", "replace").splitlines()
        if not lines or lines[0].strip() != "---":
            return {}
        end = next((number for number, line in enumerate(lines[1:], start=1) if line.strip() == "---"), len(lines))
        metadata = yaml.load("\n".join(lines[1:end]), CardLoader)  # noqa: S506  # a safe loader
        return dict(metadata or {})
    except Exception as error:  # YAML's errors are many
        reason = str(error).strip().splitlines()
        log.warning("%s cannot be read, so that nobody knows what the model was trained on: %s", card, reason[:1])
        return {}


def trained_on(model: Path) -> dict[str, str]:
    """Return the sets that a model's card names as training data, each with the words of the card.

    Read from the metadata of `README.md`: the names in `datasets`, and the sets in `sbmini_trained_on`. A card that names a
    set without its split is taken to mean all of it. A card that is absent or cannot be read names nothing.
    """
    metadata = card_metadata(model)
    reasons: dict[str, str] = {}
    datasets = metadata.get("datasets") or []
    for entry in datasets if isinstance(datasets, list) else [datasets]:
        text = str(entry).lower()
        for pattern, sets, why in _NAMED:
            if re.search(pattern, text):
                for name in sets:
                    reasons.setdefault(name, f"its card names {entry!r} as training data: {why}")
                break
    counted = metadata.get(TRAINED_ON) or {}
    for name, count in counted.items() if isinstance(counted, dict) else ():
        reasons[str(name)] = f"its card says that {count} pairs of the set were trained on"
    return reasons
