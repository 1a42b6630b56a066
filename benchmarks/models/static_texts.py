"""The texts that `sbert-mini-static` learns from, and sbert-mini's vectors of them.

No text is taken that stands, normalised, in a set that a figure is measured on: the STS sets with their training parts, SICK,
the course's Quora dev set, SciFact's and Cranfield's queries and documents, and the titles and leads of `titles-dev.tsv`.
"""

import csv
import gzip
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness import data_file
from benchmarks.models.data import FOLDER as MODELS
from benchmarks.models.data import captions, lines, nli, rows, sample, titles_dev
from sbert_mini import Embedder
from sbert_mini.shapes import AnyArray
from sbert_mini.training.checks import normalized

FOLDER = MODELS / "static"
TEACHER = "sbert-mini"
BLOCK = 4096
"""Texts of a file of vectors."""
TEXTS = {
    "nli": 90_000,
    "captions": 50_000,
    "questions": 50_000,
    "misc": 60_000,
    "wikipedia": 100_000,
    "titles": 22_000,
    "leads": 22_000,
    "passages": 8_000,
}
MORE_TEXTS = {"nli": 40_000, "captions": 60_000, "misc": 31_000, "wikipedia": 300_000, "passages": 20_000}
"""Texts of the second part, which the vectors of are computed where there is time: those after the first part's."""
BORDER = r"(?<=[.!?]) +(?=[A-Z])"
"""Where a lead is cut into sentences."""
EVALUATED = {
    "sts12": ("sentence1", "sentence2"),
    "sts13": ("sentence1", "sentence2"),
    "sts15": ("sentence1", "sentence2"),
    "stsb_train": ("sentence1", "sentence2"),
    "stsb_dev": ("sentence1", "sentence2"),
    "stsb_test": ("sentence1", "sentence2"),
    "sickr_train": ("sentence1", "sentence2"),
    "sickr_dev": ("sentence1", "sentence2"),
    "sickr_test": ("sentence1", "sentence2"),
    "quora_cs224n_dev": ("question1", "question2"),
}


def evaluated_texts(data: Path) -> set[str]:
    """Return the texts, normalised, that no model here is trained on."""
    texts = {text for name, columns in EVALUATED.items() for row in rows(data, name, *columns) for text in row}
    for name in ("sts-train", "sts-dev"):
        file = data_file(data, f"cs224n/{name}.csv")
        with file.open(encoding="utf-8", newline="") as handle:
            texts |= {row[key] for row in csv.DictReader(handle, delimiter="\t") for key in ("sentence1", "sentence2")}
    for name in ("scifact", "cranfield"):
        for part in ("queries", "corpus"):
            with gzip.open(data_file(data, f"retrieval/{name}/{part}.jsonl.gz"), "rt", encoding="utf-8") as handle:
                for line in handle:
                    row = json.loads(line)
                    texts |= {row["text"], row.get("title") or row["text"]}
    texts |= {text for pair in titles_dev(data) for text in pair}
    return {normalized(text) for text in texts}


def sources(data: Path, rng: np.random.Generator) -> dict[str, list[str]]:
    """Return the texts of each kind, in a drawn order, each once."""
    wiki = lines(data, "sentences_wikipedia_1")
    leads = list(rows(data, "pairs_wiki_title_lead", "title", "lead"))
    starts = rng.permutation(len(wiki) - 20)[: TEXTS["passages"] + MORE_TEXTS["passages"]].tolist()
    texts = {
        "nli": [text for row in nli(data) for text in row]
        + [text for row in rows(data, "nli_train", "premise", "hypothesis") for text in row],
        "captions": lines(data, "sentences_captions"),
        "questions": [text for row in rows(data, "quora_train", "question1", "question2") for text in row],
        "misc": lines(data, "sentences_misc"),
        "wikipedia": wiki,
        "titles": [title for title, _ in leads],
        "leads": [lead for _, lead in leads],
        "passages": [" ".join(wiki[i : i + int(rng.integers(2, 8))]) for i in starts],
    }
    return {
        name: sample(unique, len(unique), rng)
        for name, found in texts.items()
        for unique in [list(dict.fromkeys(found))]
    }


def prepare(data: Path) -> None:
    """Write `texts.jsonl` of both parts, a JSON string a line; nothing where it is there."""
    file = FOLDER / "texts.jsonl"
    if file.is_file():
        return
    rng = np.random.default_rng(0)
    left_out, seen = evaluated_texts(data), set[str]()
    found = {name: iter(texts) for name, texts in sources(data, rng).items()}

    def fresh(texts: Iterator[str]) -> Iterator[str]:
        for text in texts:
            key = normalized(text)
            if key and key not in left_out and text not in seen:
                seen.add(text)
                yield text

    written: list[str] = []
    for part in (TEXTS, MORE_TEXTS):
        drawn = [text for name, count in part.items() for text in itertools.islice(fresh(found[name]), count)]
        written += sample(drawn, len(drawn), rng)
    temporary = file.with_suffix(".new")
    temporary.write_text("".join(json.dumps(text, ensure_ascii=False) + "\n" for text in written), "utf-8")
    temporary.replace(file)


def texts() -> list[str]:
    """Return the prepared texts."""
    return [json.loads(line) for line in (FOLDER / "texts.jsonl").read_text("utf-8").splitlines()]


def teach(threads: int, most: int) -> None:
    """Write sbert-mini's vectors of the first `most` texts, in blocks of float16; blocks that are there are kept."""
    embedder = Embedder(TEACHER, threads=threads)
    several = texts()[:most]
    for number, start in enumerate(range(0, len(several), BLOCK)):
        file = FOLDER / f"vectors-{number:05d}.npy"
        block = several[start : start + BLOCK]
        if file.is_file() and len(np.load(file, mmap_mode="r")) == len(block):
            continue
        vectors = embedder.encode(block)
        temporary = file.with_suffix(".new")
        with temporary.open("wb") as handle:
            np.save(handle, vectors.astype(np.float16))
        temporary.replace(file)


def vectors() -> AnyArray:
    """Return the vectors that are there without a gap, (texts, dim), float16."""
    files = itertools.takewhile(Path.is_file, (FOLDER / f"vectors-{number:05d}.npy" for number in itertools.count()))
    return np.concatenate([np.load(file) for file in files])


def wikipedia(data: Path) -> tuple[list[str], AnyArray]:
    """Return Wikipedia's sentences in the order of the articles, and which of them stand in no evaluated set, (sentences,)."""
    sentences = lines(data, "sentences_wikipedia_1")
    left_out = evaluated_texts(data)
    left_out |= {normalized(part) for _, lead in titles_dev(data) for part in re.split(BORDER, lead)}
    return sentences, np.array([normalized(text) not in left_out for text in sentences])


def pairs(data: Path) -> dict[str, list[tuple[str, ...]]]:
    """Return the rows that are contrasted: nli has triplets with a contradiction, the others pairs of texts that go together."""
    left_out = evaluated_texts(data)
    leads = list(rows(data, "pairs_wiki_title_lead", "title", "lead"))
    found: dict[str, Sequence[tuple[str, ...]]] = {
        "nli": list(nli(data)),
        "captions": list(captions(data, np.random.default_rng(0))),
        "questions": [
            (a, b) for a, b, same in rows(data, "quora_train", "question1", "question2", "is_duplicate") if same == "1"
        ],
        "titles": leads,
    }
    return {
        name: [row for row in dict.fromkeys(several) if not any(normalized(text) in left_out for text in row)]
        for name, several in found.items()
    }
