"""The SentenceBERT headline: the most similar pair among n sentences, by embeddings and by a cross-encoder.

Reimers and Gurevych 2019 (arXiv 1908.10084, abstract and section 1): among 10,000 sentences a BERT cross-encoder needs about 65
hours on a V100 GPU, SBERT about 5 seconds. A cross-encoder reads every pair, `[CLS] a [SEP] b [SEP]`, so its cost grows with n²;
embeddings are computed once a sentence. Ours is measured whole, the cross-encoder's rate on a sample of pairs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.cosine import as_cosines
from sbert_mini.errors import MissingExtraError, UsageError
from sbert_mini.evaluation.contestants import short_name
from sbert_mini.evaluation.measure import alternate, silent, summary, timed
from sbert_mini.model import registry
from sbert_mini.model.layout import BertConfig, read_layout
from sbert_mini.shapes import FloatArray


@dataclass(frozen=True)
class MostSimilar:
    """The most similar pair among the first n sentences, and what it took to find it.

    Attributes:
        n: sentences.
        encode_s: seconds to encode them.
        search_s: seconds to find each one's nearest neighbour, exactly, with FAISS.
        cosine: of the pair.
        first: one of the two.
        second: the other.
    """

    n: int
    encode_s: float
    search_s: float
    cosine: float
    first: str
    second: str


@dataclass(frozen=True)
class PairsResult:
    """What `sbmini bench pairs` measures.

    Attributes:
        model: the model whose embeddings are compared.
        runtime: what ran it.
        sizes: each n.
        sample: pairs that the cross-encoders' rates were measured on, a round.
        rounds: of that measurement.
        cross_encoders: name -> pairs_per_s: median, lowest, highest. Its cost for n sentences is n (n - 1) / 2 / rate.
        duplicates: sentences that stood in the input more than once; one of each was kept.
    """

    model: str
    runtime: str
    sizes: tuple[MostSimilar, ...]
    sample: int
    rounds: int
    cross_encoders: Mapping[str, Any]
    duplicates: int

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON holds it."""
        return asdict(self)


def most_similar_pair(vectors: FloatArray) -> tuple[float, int, int]:
    """Return `(cosine, i, j)` of the two closest rows, i < j, by exact search.

    Shapes: vectors (texts, dim), each of length 1, at least two.

    Raises:
        UsageError: there are fewer than two.
    """
    import faiss

    if len(vectors) < 2:
        raise UsageError(f"a pair needs two vectors; found {len(vectors)}")
    scores, rows = faiss.knn(vectors, vectors, 2, metric=faiss.METRIC_INNER_PRODUCT)
    numbers = np.arange(len(vectors))
    column = np.where(rows[:, 0] == numbers, 1, 0)  # equal vectors may push a row itself to the second place
    best = int(np.argmax(scores[numbers, column]))
    other = int(rows[best, column[best]])
    return float(as_cosines(scores[best, column[best]])), min(best, other), max(best, other)


def measure(
    model: str,
    sentences: Sequence[str],
    sizes: Sequence[int],
    *,
    sample: int,
    threads: int,
    rounds: int,
    offline: bool = False,
    trust_tokenizer: bool = False,
    on_progress: Callable[[str], None] = silent,
) -> PairsResult:
    """Return what the most similar pair costs by embeddings, and what it would cost by cross-encoders.

    Args:
        model: a model directory, a built-in name or a hub id.
        sentences: at least as many distinct ones as the largest size.
        sizes: how many sentences, each at least 2.
        sample: pairs to measure the cross-encoders' rates on.
        threads: for everything.
        rounds: of that measurement.
        offline: open no socket.
        trust_tokenizer: see `Embedder`.
        on_progress: told what is being done.

    Raises:
        UsageError: there are too few distinct sentences, or a size or the sample is too small.
        MissingExtraError: torch is not installed.
        UnsupportedModelError: the model's tokenizer is not BERT's, and is not trusted.
    """
    distinct = list(dict.fromkeys(sentences))
    if min(sizes) < 2 or sample < 8:
        raise UsageError(f"a size must be at least 2 and the sample 8; found {min(sizes)} and {sample}")
    if len(distinct) < max(sizes):
        raise UsageError(f"{max(sizes):,} distinct sentences are needed, and the input holds {len(distinct):,}")
    import faiss

    from sbert_mini.runtime.embedder import Embedder

    path = registry.resolve(model, offline=offline)
    # the cross-encoders first: a missing one ends the run before the long work
    encoders = _cross_encoders(path, short_name(model), threads, trust_tokenizer)
    embedder = Embedder(path, threads=threads, trust_tokenizer=trust_tokenizer)
    faiss.omp_set_num_threads(threads)
    embedder.encode(distinct[:64])
    sizes_measured = []
    for n in sorted(sizes):
        on_progress(f"{n:,} sentences: encode and search")
        results: list[Any] = []
        encode_s = timed(lambda: results.append(embedder.encode(distinct[:n])))  # noqa: B023
        search_s = timed(lambda: results.append(most_similar_pair(results[0])))  # noqa: B023
        cosine, i, j = results[1]
        sizes_measured.append(MostSimilar(n, encode_s, search_s, cosine, distinct[i], distinct[j]))
    on_progress(f"cross-encoders on {sample} pairs")
    numbers = np.random.default_rng(0).choice(min(len(distinct), max(sizes)), (sample, 2))
    drawn = [(distinct[i], distinct[j]) for i, j in numbers.tolist()]
    for encode in encoders.values():
        encode(drawn[:8])

    def rate(name: str) -> float:
        return sample / timed(partial(encoders[name], drawn))

    rates = alternate({name: partial(rate, name) for name in encoders}, rounds)
    return PairsResult(
        model=short_name(model),
        runtime="int8",
        sizes=tuple(sizes_measured),
        sample=sample,
        rounds=rounds,
        cross_encoders={name: {"pairs_per_s": summary(values)} for name, values in rates.items()},
        duplicates=len(sentences) - len(distinct),
    )


def _cross_encoders(
    path: Path, name: str, threads: int, trust_tokenizer: bool
) -> dict[str, Callable[[list[tuple[str, str]]], None]]:
    """Return cross-encoders of the model's own size and of BERT-base's (weights do not matter to the cost: drawn at random)."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("a cross-encoder", "torch", "train") from error
    from sbert_mini.encoder.bert import MiniBert
    from sbert_mini.text.batching import batches_by_length, pad
    from sbert_mini.text.tokenizer import open_tokenizer

    torch.set_num_threads(threads)
    layout = read_layout(path)
    tokenizer = open_tokenizer(layout, trust=trust_tokenizer)
    base = BertConfig(vocab_size=layout.config.vocab_size)
    encoders = {
        f"cross-encoder of {name}'s size": MiniBert.from_pretrained(layout.encoder_path),
        "cross-encoder of BERT-base's size": MiniBert(base).eval(),
    }

    def run(bert: MiniBert, pairs: list[tuple[str, str]]) -> None:
        tokens = tokenizer.encode(pairs)
        with torch.inference_mode():
            for batch in batches_by_length([len(t.ids) for t in tokens], 32, 4096):
                arrays = pad([tokens[i] for i in batch], layout.config.pad_token_id)
                bert(*(torch.from_numpy(array) for array in arrays))

    return {label: partial(run, bert) for label, bert in encoders.items()}
