"""Make `sbert-mini-static` from scratch: `make model` calls it after sbert-mini is there.

    python -m benchmarks.models.static              texts, sbert-mini's vectors of them, the table; then it is shipped
    python -m benchmarks.models.static --only ship  build/model/sbert-mini-static -> sbert_mini/pretrained

Everything is kept in build/model/static, and the same command continues after an interruption. `SBMINI_DATA` names the data
folder. Rows are measured after each phase on sets that nothing is trained on: STS-B dev, SICK dev (Spearman x 100), and how a
lead's last sentence finds the rest of the lead (MRR x 100), among this model's vectors and among those of sbert-mini.
"""

import argparse
import json
import logging
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.models import static_texts as taught
from benchmarks.models.data import FOLDER as MODELS
from benchmarks.models.data import rows, titles_dev
from benchmarks.models.static_training import (
    Bags,
    Passages,
    Table,
    batches,
    contrast,
    correlation,
    distillation,
    encoded,
    least_squares,
    reciprocal_rank,
    round_rows,
)
from sbert_mini import Embedder
from sbert_mini.model.layout import read_layout
from sbert_mini.model.registry import resolve
from sbert_mini.model.token_table import write_packed
from sbert_mini.shapes import FloatArray, IntArray
from sbert_mini.text.tokenizer import TextTokenizer, open_tokenizer

NAME = "sbert-mini-static"
TARGET = MODELS / NAME
SHIPPED = Path("sbert_mini/pretrained") / NAME
TAUGHT = 74 * taught.BLOCK
"""Texts whose vectors the table is fitted to."""
WORDS, LEAST = 6_500, 12
"""Words that sbert-mini's tokenizer splits and this model's does not: the most, and how often each occurs in all the texts."""
MAX_SEQ_LENGTH = 512
RIDGE, ROUNDS = 0.02, 15
BATCH, LAST_RATE, WARM_UP = 1024, 0.03, 20
PAIRS = {"nli": (256, 0.3), "captions": (64, 0.05), "questions": (64, 0.05), "titles": (256, 0.1)}
"""Rows of a step, and the weight of their loss."""
SENTENCES = (3, 9)
"""Of a passage that a sentence is taken out of."""
TEMPERATURE, COSINE = 0.05, 1.0


@dataclass(frozen=True)
class Stage:
    """Steps of distillation and contrast, with moments and a drawn order of their own.

    Attributes:
        steps: how many.
        rate: of the first step after the warm-up.
        passages: how many a step.
        weight: of their loss, which finds the passage that a sentence was taken out of.
    """

    steps: int
    rate: float
    passages: int
    weight: float


STAGES = (Stage(300, 4e-3, 512, 0.3), Stage(220, 3e-3, 1024, 0.5))
MODULES = (
    ("", "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"),
    ("1_Normalize", "sentence_transformers.base.modules.normalize.Normalize"),
)


def words_to_add(tokenizer: TextTokenizer, texts: list[str]) -> list[str]:
    """Return the most frequent words of the texts that the tokenizer splits."""
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.findall(r"[a-z]{3,}", text.lower()))
    known = sorted((-count, word) for word, count in counts.items() if word not in vocabulary and count >= LEAST)
    return [word for _, word in known[:WORDS]]


def make_tokenizer(texts: list[str]) -> None:
    """Write sbert-mini's tokenizer with more words: they take the ids of its unused tokens, and then new ones."""
    source = resolve(taught.TEACHER)
    data = json.loads((source / "tokenizer.json").read_bytes())
    vocabulary: dict[str, int] = data["model"]["vocab"]
    free = sorted(i for token, i in vocabulary.items() if token.startswith("[unused"))
    kept = {token: i for token, i in vocabulary.items() if not token.startswith("[unused")}
    words = words_to_add(open_tokenizer(read_layout(source)), texts)
    ids = [*free, *range(len(vocabulary), len(vocabulary) + len(words))]
    data["model"]["vocab"] = dict(sorted({**kept, **dict(zip(words, ids, strict=False))}.items(), key=lambda x: x[1]))
    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")), "utf-8")


class Vocabulary:
    """The model's tokens.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        names = {i: token for token, i in tokenizer.backend.get_vocab(with_added_tokens=True).items()}
        self.tokenizer = tokenizer
        self.size = max(names) + 1
        self.names = [names.get(i, "[unused]") for i in range(self.size)]
        marks = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[unused]")
        self.counts = np.array([name not in marks for name in self.names])

    def texts(self) -> list[str]:
        """Return each token as a text of its own."""
        return [name.removeprefix("##") if counts else "" for name, counts in zip(self.names, self.counts, strict=True)]

    def masked(self, table: FloatArray) -> FloatArray:
        """Return rows with zeros for the tokens that no text has."""
        result: FloatArray = (table * self.counts[:, None]).astype(np.float32)
        return result


def kept(name: str) -> Path:
    """Return where a phase's rows are kept."""
    return taught.FOLDER / f"{name}.npy"


def prior(vocabulary: Vocabulary, bags: Bags, threads: int) -> FloatArray:
    """Return rows to start from: sbert-mini's vector of each token alone less their mean, smaller the more frequent it is.

    Source of the weights: smooth inverse frequency, Arora et al. 2017, section 3, with a = 0.001.
    """
    file = kept("tokens")
    if not file.is_file():
        np.save(file, Embedder(taught.TEACHER, threads=threads).encode(vocabulary.texts()))
    alone = np.load(file)
    counts = np.bincount(bags.ids, minlength=vocabulary.size) + 1
    weights = 1e-3 / (1e-3 + counts / counts.sum())
    return vocabulary.masked((alone - alone[vocabulary.counts].mean(axis=0)) * weights[:, None])


class Development:
    """The sets that phases are measured on.

    Args:
        data: the data folder.
        tokenizer: of the model.
        threads: for sbert-mini.
    """

    def __init__(self, data: Path, tokenizer: TextTokenizer, threads: int) -> None:
        self._pairs = {}
        for name in ("stsb_dev", "sickr_dev"):
            first, second, scores = zip(*rows(data, name, "sentence1", "sentence2", "score"), strict=True)
            self._pairs[name] = (Bags.of(first, tokenizer), Bags.of(second, tokenizer), [float(s) for s in scores])
        split = [re.split(taught.BORDER, lead) for _, lead in titles_dev(data)]
        leads = [(parts[-1], " ".join(parts[:-1])) for parts in split if len(parts) >= 3 and len(parts[-1]) > 30]
        self._queries, self._documents = (Bags.of(texts, tokenizer) for texts in zip(*leads, strict=True))
        self._teachers = Embedder(taught.TEACHER, threads=threads).encode([document for _, document in leads])

    def of(self, table: FloatArray) -> dict[str, float]:
        """Return the figures of a table."""
        queries = encoded(table, self._queries)
        figures = {name: correlation(table, *pairs) for name, pairs in self._pairs.items()}
        figures["rest of a lead"] = reciprocal_rank(queries, encoded(table, self._documents))
        figures["among sbert-mini's"] = reciprocal_rank(queries, self._teachers)
        return {name: round(figure, 2) for name, figure in figures.items()}


@dataclass(frozen=True)
class Taught:
    """What the table learns from.

    Attributes:
        bags: texts.
        vectors: sbert-mini's of them, (texts, dim).
        pairs: name -> the texts of each column.
        passages: of Wikipedia.
    """

    bags: Bags
    vectors: FloatArray
    pairs: Mapping[str, list[Bags]]
    passages: Passages


def report(*words: object) -> None:
    """Print a line on standard error, and keep it."""
    line = " ".join(str(word) for word in words)
    print(line, file=sys.stderr, flush=True)
    with (taught.FOLDER / "log.txt").open("a") as log:
        log.write(line + "\n")


def tune(start: FloatArray, taught_texts: Taught, number: int, measure: "Measure") -> FloatArray:
    """Return rows after a stage of distillation and contrast together."""
    stage, rng, table = STAGES[number], np.random.default_rng(number), Table(start)
    bags, pairs, teacher = taught_texts.bags, taught_texts.pairs, torch.from_numpy(taught_texts.vectors)
    order = batches(len(bags), BATCH, rng)
    orders: dict[str, Iterator[IntArray]] = {
        name: batches(len(pairs[name][0]), size, rng) for name, (size, _) in PAIRS.items()
    }
    weights = [weight for _, weight in PAIRS.values()] + [stage.weight]
    for step in range(stage.steps):
        positions = next(order)
        groups: list[tuple[Bags, ...]] = [(bags.take(positions),)]
        for name in PAIRS:
            drawn = next(orders[name])
            groups.append(tuple(part.take(drawn) for part in pairs[name]))
        groups.append(taught_texts.passages.draw(stage.passages, rng))
        parts = [part for group in groups for part in group]
        found, used, leaf = table.vectors(Bags.joined(parts))
        wanted = teacher[positions]
        blocks = iter(torch.split(found, [len(part) for part in parts]))
        loss = distillation(next(blocks), wanted, wanted, COSINE)
        for group, weight in zip(groups[1:], weights, strict=True):
            anchors, *others = (next(blocks) for _ in group)
            loss = loss + weight * contrast(anchors, torch.cat(others), TEMPERATURE)
        loss.backward()  # type: ignore[no-untyped-call]
        rate = stage.rate * min(1, (step + 1) / WARM_UP) * (1 - (1 - LAST_RATE) * step / stage.steps)
        if leaf.grad is not None:
            table.update(used, leaf.grad, rate)
        if step % 100 == 99:
            report("step", step + 1, f"loss {loss.item():.4f}", measure(table.rows.numpy()))
    return table.rows.numpy()


class Measure:
    """The development figures of rows, without those that no text has."""

    def __init__(self, development: Development, vocabulary: Vocabulary) -> None:
        self._development, self._vocabulary = development, vocabulary

    def __call__(self, table: FloatArray) -> dict[str, float]:
        """Return the figures."""
        return self._development.of(self._vocabulary.masked(table))


def fit(data: Path, threads: int) -> None:
    """Fit the table, phase by phase, and write the model directory."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    texts = taught.texts()
    if not (TARGET / "tokenizer.json").is_file():
        make_tokenizer(texts)
    tokenizer = TextTokenizer.from_directory(TARGET, MAX_SEQ_LENGTH)
    vocabulary = Vocabulary(tokenizer)
    bags, vectors = Bags.of(texts[:TAUGHT], tokenizer), taught.vectors()[:TAUGHT].astype(np.float32)
    if len(vectors) < TAUGHT:
        raise ValueError(f"{len(vectors)} vectors of {TAUGHT} are there")
    measure = Measure(Development(data, tokenizer, threads), vocabulary)
    report(f"{vocabulary.size} tokens, {TAUGHT} texts of {len(bags.ids) / len(bags):.1f}")
    if not kept("least-squares").is_file():
        start = prior(vocabulary, bags, threads)
        report("prior", measure(start))
        np.save(kept("least-squares"), vocabulary.masked(least_squares(bags, vectors, start, RIDGE, ROUNDS, report)))
    table = np.load(kept("least-squares"))
    report("least squares", measure(table))
    if not kept("tuned").is_file():
        pairs = {
            name: [Bags.of(texts, tokenizer) for texts in zip(*found, strict=True)]
            for name, found in taught.pairs(data).items()
        }
        sentences, allowed = taught.wikipedia(data)
        learnt = Taught(bags, vectors, pairs, Passages(Bags.of(sentences, tokenizer), allowed, SENTENCES))
        for number in range(len(STAGES)):
            table = tune(table, learnt, number, measure)
        np.save(kept("tuned"), vocabulary.masked(table))
    table = np.load(kept("tuned"))
    report("tuned", measure(table))
    numbers, scales = round_rows(table)
    report("4 bits", measure(numbers * scales.astype(np.float32)[:, None]))
    write(numbers, scales)


def write(numbers: IntArray, scales: FloatArray) -> None:
    """Write the model directory, beside its tokenizer."""
    write_packed(TARGET, numbers, scales, Embedder(taught.TEACHER).fingerprint)
    source = resolve(taught.TEACHER)
    shutil.copy(source / "config_sentence_transformers.json", TARGET)
    (TARGET / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_SEQ_LENGTH}) + "\n", "utf-8")
    modules = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(MODULES)]
    (TARGET / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", "utf-8")
    for path, _ in MODULES[1:]:
        (TARGET / path).mkdir(exist_ok=True)
        shutil.copy(source / "2_Normalize" / "config.json", TARGET / path)
    Embedder(TARGET).component_ranges()  # kept in the directory


def ship() -> int:
    """Copy the model into the package, beside its card; return its bytes."""
    shutil.copytree(TARGET, SHIPPED, dirs_exist_ok=True)
    return sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file())


def main() -> None:
    """Prepare, teach, fit, ship."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("texts", "fit", "ship"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if "SBMINI_DATA" not in os.environ:
        sys.exit("SBMINI_DATA must name the data folder")
    logging.getLogger("sbert_mini").setLevel(logging.ERROR)  # texts that are cut or unknown are taken as they are read
    data = Path(os.environ["SBMINI_DATA"])
    taught.FOLDER.mkdir(parents=True, exist_ok=True)
    if options.only in (None, "texts"):
        taught.prepare(data)
        taught.teach(options.threads, TAUGHT)
    if options.only in (None, "fit"):
        fit(data, options.threads)
    if options.only in (None, "ship"):
        print(json.dumps({"bytes": ship()}))


if __name__ == "__main__":
    main()
