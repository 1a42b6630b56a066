"""Make the training files of `sbert-mini.toml` from the data folder.

    python -m benchmarks.models.data
    SBMINI_MODEL_DATA=build/model sbmini train benchmarks/models/sbert-mini.toml

Writes into build/model:

    nli.tsv          premise, entailed, contradicting hypothesis: SimCSE's triplets, and those of nli_train
    quora.tsv        question, duplicate, hard negative: a labelled non-duplicate, else the nearest question that is no duplicate
    captions.tsv     two captions of one image
    titles.tsv       title, lead; the last 1,000 rows are titles-dev.tsv
    texts.txt        the texts for a teacher: passages of 1 to 8 sentences, leads, titles, captions, questions, hypotheses

The recipe leaves out pairs that occur in an STS set (`data.drop_evaluation`). Nothing of SciFact or Cranfield is
read.
"""

import argparse
import itertools
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.harness import data_file
from sbert_mini import Embedder
from sbert_mini.evaluation.choices import PEER_MODEL
from sbert_mini.text.records import read_records

FOLDER = Path("build/model")
TEACHER = PEER_MODEL
TITLES_DEV = 1000
NEIGHBOURS, LEAST_GAP = 30, 0.02
"""Of mined negatives: among so many nearest questions, by this much less near than the duplicate."""
TEXTS = {
    "passages": 45_000,
    "leads": 18_000,
    "titles": 8_000,
    "captions": 12_000,
    "questions": 12_000,
    "hypotheses": 12_000,
}


def rows(data: Path, name: str, *columns: str) -> Iterator[tuple[str, ...]]:
    """Yield some columns of a file of the data folder."""
    for record in read_records(data_file(data, f"{name}.tsv.gz"), text_column=columns[0]):
        yield (record.text, *(str(record.columns[column]) for column in columns[1:]))


def lines(data: Path, name: str) -> list[str]:
    """Return a file's texts, one a line."""
    return [record.text for record in read_records(data_file(data, f"{name}.txt.gz"))]


def write(name: str, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> int:
    """Write a table, each row once, and return how many rows it has."""
    unique = list(dict.fromkeys(rows))
    (FOLDER / name).write_text("".join("\t".join(row) + "\n" for row in (header, *unique)), "utf-8")
    return len(unique)


def nli(data: Path) -> Iterator[tuple[str, str, str]]:
    """Yield triplets: SimCSE's, and of each premise of nli_train its entailed and contradicting hypotheses in turn."""
    for anchor, positive, negative in rows(data, "nli_simcse_triplets", "anchor", "positive", "hard_negative"):
        yield anchor, positive, negative
    hypotheses: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for premise, hypothesis, label in rows(data, "nli_train", "premise", "hypothesis", "label"):
        hypotheses[premise][label].append(hypothesis)
    for premise, by_label in hypotheses.items():
        for positive, negative in zip(by_label["entailment"], by_label["contradiction"], strict=False):
            yield premise, positive, negative


def quora(data: Path, threads: int) -> Iterator[tuple[str, str, str]]:
    """Yield duplicates with a hard negative. Questions that are joined by duplicates are never negatives of each other."""
    pairs = list(rows(data, "quora_train", "question1", "question2", "is_duplicate"))
    texts = list(dict.fromkeys(text for first, second, _ in pairs for text in (first, second)))
    position = {text: i for i, text in enumerate(texts)}
    group = list(range(len(texts)))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    different: dict[int, list[int]] = defaultdict(list)
    for first, second, label in pairs:
        a, b = position[first], position[second]
        if label == "1":
            group[root(a)] = root(b)
        else:
            different[a].append(b)
            different[b].append(a)
    vectors = Embedder(TEACHER, threads=threads).encode(texts, show_progress_bar=True)
    for first, second, label in pairs:
        if label != "1":
            continue
        a, b = position[first], position[second]
        scores = vectors @ vectors[a]
        allowed = [i for i in different[a] if root(i) != root(a)]
        if not allowed:
            near = np.argpartition(-scores, NEIGHBOURS)[:NEIGHBOURS]
            allowed = [i for i in near.tolist() if root(i) != root(a) and scores[i] < scores[b] - LEAST_GAP]
        if allowed:
            yield first, second, texts[max(allowed, key=lambda i: float(scores[i]))]


def captions(data: Path, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Yield two pairs of captions an image, drawn."""
    of_image: dict[str, list[str]] = defaultdict(list)
    for caption, image, split in rows(data, "captions_multi30k", "caption", "image", "split"):
        if split == "train":
            of_image[image].append(caption)
    for captions_of_image in of_image.values():
        order = rng.permutation(len(captions_of_image)).tolist()
        for i, j in zip(order[::2], order[1::2], strict=False):
            yield captions_of_image[i], captions_of_image[j]


def sample(texts: list[str], count: int, rng: np.random.Generator) -> list[str]:
    """Return some of the texts, drawn."""
    return [texts[i] for i in rng.permutation(len(texts))[:count]]


def titles_dev(data: Path) -> list[tuple[str, str]]:
    """Return the titles and leads that no model is trained on."""
    return [(title, lead) for title, lead in rows(data, "pairs_wiki_title_lead", "title", "lead")][-TITLES_DEV:]


def prepare(data: Path, threads: int) -> dict[str, int]:
    """Write all files, and return their counts of rows."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    counts: dict[str, int] = {}
    triplet = ("anchor", "positive", "negative")
    counts["nli"] = write("nli.tsv", triplet, nli(data))
    counts["quora"] = write("quora.tsv", triplet, quora(data, threads))
    counts["captions"] = write("captions.tsv", ("sentence1", "sentence2"), captions(data, rng))
    leads = list(rows(data, "pairs_wiki_title_lead", "title", "lead"))
    pair = ("title", "lead")
    counts["titles"] = write("titles.tsv", pair, leads[:-TITLES_DEV])
    counts["titles-dev"] = write("titles-dev.tsv", pair, titles_dev(data))
    wiki = lines(data, "sentences_wikipedia_1")

    starts = rng.permutation(len(wiki) - 20)[: TEXTS["passages"]].tolist()
    held_back = {lead for _, lead in leads[-TITLES_DEV:]}
    texts = {
        "passages": [" ".join(wiki[i : i + int(rng.integers(1, 9))]) for i in starts],
        "leads": [lead for _, lead in leads if lead not in held_back],
        "titles": [title for title, _ in leads[:-TITLES_DEV]],
        "captions": lines(data, "sentences_captions"),
        "questions": [text for pair in rows(data, "quora_train", "question1", "question2") for text in pair],
        "hypotheses": [text for pair in rows(data, "nli_train", "hypothesis") for text in pair],
    }
    all_texts = itertools.chain.from_iterable(sample(texts[name], count, rng) for name, count in TEXTS.items())
    unique = list(dict.fromkeys(all_texts))
    (FOLDER / "texts.txt").write_text("".join(f"{text}\n" for text in sample(unique, len(unique), rng)), "utf-8")
    counts["texts"] = len(unique)
    return counts


def main() -> None:
    """Prepare, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if "SBMINI_DATA" not in os.environ:
        sys.exit("SBMINI_DATA must name the data folder")
    print(json.dumps(prepare(Path(os.environ["SBMINI_DATA"]), options.threads)))


if __name__ == "__main__":
    main()
