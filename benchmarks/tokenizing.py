"""Tokenizing with one thread: native code, Hugging Face's `tokenizers`, and `tokie` where it is installed (pip install tokie).

    python -m benchmarks.tokenizing --threads 1 --rounds 9

20,000 Wikipedia sentences, in batches of 2,048; contestants alternate. Rates are of processor seconds: who starts threads gains
nothing by them. All read the same `tokenizer.json`. About 1 minute.
"""

import gzip
import itertools
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import numpy as np
from tokenizers import Tokenizer

from benchmarks import harness
from sbert_mini.evaluation.measure import alternate, median_ratio, summary
from sbert_mini.evaluation.table import Json, Table
from sbert_mini.model import registry
from sbert_mini.model.layout import read_layout
from sbert_mini.text.tokenizer import open_tokenizer
from sbert_mini.text.wordpiece import open_wordpiece

SENTENCES, BATCH = 20_000, 2048
MODEL = "sbert-mini"
OURS, LIBRARY, ONE, TOKIE = "sbert_mini", "tokenizers, batches", "tokenizers, one text at a time", "tokie"
Ids = Callable[[Sequence[str]], list[list[int]]]
Run = Callable[[Sequence[str]], object]


def contestants() -> dict[str, tuple[Run, Ids]]:
    """Return what each contestant runs, and a function that gives its ids as lists.

    Each returns ids in the form that costs it least: arrays of a batch, or lists where a library has no other.
    """
    tokenizer = open_tokenizer(read_layout(registry.resolve(MODEL)))
    assert open_wordpiece(tokenizer.backend) is not None, "native code is not compiled"
    file = str(registry.resolve(MODEL) / "tokenizer.json")
    library = Tokenizer.from_file(file)
    library.no_padding()
    library.encode_special_tokens = True
    library.enable_truncation(tokenizer.max_seq_length)

    def batches(texts: Sequence[str]) -> list[list[int]]:
        return [encoded.ids for encoded in library.encode_batch_fast(list(texts))]

    def one(texts: Sequence[str]) -> list[list[int]]:
        return [library.encode(text).ids for text in texts]

    made: dict[str, tuple[Run, Ids]] = {
        OURS: (tokenizer.encode, lambda texts: [tokens.ids for tokens in tokenizer.encode(texts)]),
        LIBRARY: (batches, batches),
        ONE: (one, one),
    }
    if find_spec("tokie") is not None:
        import tokie  # type: ignore[import-not-found, unused-ignore]

        other = tokie.Tokenizer.from_json(file)
        other.enable_truncation(tokenizer.max_seq_length)

        def flat(texts: Sequence[str]) -> Any:
            return other.encode_batch_flat(list(texts))

        def lists(texts: Sequence[str]) -> list[list[int]]:
            ids, lengths = flat(texts)
            return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]

        made[TOKIE] = (flat, lists)
    return made


def processor_s(run: Run, texts: Sequence[str]) -> float:
    """Return the processor seconds of all threads, for texts in batches."""
    start = time.process_time()
    for first in range(0, len(texts), BATCH):
        run(texts[first : first + BATCH])
    return time.process_time() - start


def tables(result: Json) -> list[Table]:
    """Return a table: the rate of each contestant, its ratio to the library, and how many texts have the library's ids."""
    header = ("one thread", "texts/s", f"to {LIBRARY}", "texts with the library's ids")
    rows = tuple(
        (
            name,
            f"{entry['texts_per_s']['median']:,.0f} [{entry['texts_per_s']['low']:,.0f}-{entry['texts_per_s']['high']:,.0f}]",
            f"{entry['to_library']:.1f}",
            f"{100 * entry['same_ids']:.2f} %",
        )
        for name, entry in result["contestants"].items()
    )
    note = (
        f"{result['texts']:,} Wikipedia sentences of {result['tokens_per_text']:.1f} tokens in batches of {BATCH:,}, "
        "vocabulary of sbert-mini; texts a processor second. The ratio is the median of the rounds' ratios. "
        f"Opening the vocabulary takes {result['open_ms']:.1f} ms."
    )
    return [Table("Tokenizing", header, rows, (note,))]


def open_ms() -> float:
    """Return the processor milliseconds that opening a vocabulary in native code takes, the median."""
    tokenizer = open_tokenizer(read_layout(registry.resolve(MODEL)))
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=False)
    taken = []
    for _ in range(21):
        start = time.process_time()
        open_wordpiece(tokenizer.backend, vocabulary)
        taken.append(1000 * (time.process_time() - start))
    return float(np.median(taken))


def main() -> None:
    options = harness.arguments(__doc__, threads=1, rounds=9)
    file = harness.data_file(options.data, "sentences_wikipedia_1.txt.gz")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        texts = [line.rstrip("\n") for line in itertools.islice(lines, SENTENCES)]
    encoders = contestants()
    expected = encoders[LIBRARY][1](texts)
    same = {
        name: float(np.mean([a == b for a, b in zip(ids(texts), expected, strict=True)]))
        for name, (_, ids) in encoders.items()
    }

    def rate(name: str) -> float:
        return len(texts) / processor_s(encoders[name][0], texts)

    rates = alternate({name: partial(rate, name) for name in encoders}, options.rounds)
    entries = {
        name: {
            "texts_per_s": summary(rates[name]),
            "to_library": median_ratio(rates[name], rates[LIBRARY]),
            "same_ids": same[name],
        }
        for name in encoders
    }
    tokens = float(np.mean([len(ids) for ids in expected]))
    result = {"texts": len(texts), "tokens_per_text": tokens, "open_ms": open_ms(), "contestants": entries}
    harness.save("tokenizing", result, options)


if __name__ == "__main__":
    main()
