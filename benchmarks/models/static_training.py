"""How the table of `sbert-mini-static` is fitted: least squares, then distillation, then contrast; and its rounding to 4 bits.

A text's vector is the sum of its tokens' rows, scaled to length 1. Rows are float32 arrays (tokens, dim) between the phases.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional

from sbert_mini.shapes import AnyArray, FloatArray, IntArray
from sbert_mini.text.tokenizer import TextTokenizer

LEVELS = 7
"""A row's components are rounded to the whole numbers from -7 to 7, times the row's scale."""


@dataclass(frozen=True)
class Bags:
    """Texts as the tokens that count.

    Attributes:
        ids: of all texts, one after the other.
        offsets: where each text begins, and the number of tokens, (texts + 1,).
    """

    ids: IntArray
    offsets: IntArray

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: TextTokenizer) -> "Bags":
        """Return the tokens of texts, without the special ones around them."""
        parts, lengths = [], []
        for start in range(0, len(texts), 8192):
            batch = tokenizer.encode(texts[start : start + 8192])
            inner = np.ones(len(batch.ids), np.bool_)
            inner[batch.offsets[:-1]] = inner[batch.offsets[1:] - 1] = False
            parts.append(batch.ids[inner].astype(np.int64))
            lengths.append(batch.lengths - 2)
        return cls(np.concatenate(parts), np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))

    @classmethod
    def joined(cls, parts: Sequence["Bags"]) -> "Bags":
        """Return the texts of several, one after the other."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(np.concatenate([part.ids for part in parts]), np.concatenate([[0], np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, positions: IntArray) -> "Bags":
        """Return some of the texts."""
        lengths = np.diff(self.offsets)[positions]
        ends = np.cumsum(lengths)
        index = np.repeat(self.offsets[positions] - (ends - lengths), lengths) + np.arange(ends[-1])
        return Bags(self.ids[index], np.concatenate([[0], ends]))

    def matrix(self, tokens: int) -> sparse.csr_matrix:
        """Return the share of each token in each text, (texts, tokens)."""
        lengths = np.diff(self.offsets)
        shares = np.repeat(1 / np.maximum(lengths, 1), lengths).astype(np.float32)
        return sparse.csr_matrix((shares, self.ids, self.offsets), shape=(len(self), tokens))


def encoded(rows: FloatArray, bags: Bags) -> FloatArray:
    """Return the texts' vectors. Shapes: the result: (texts, dim)."""
    vectors = bags.matrix(len(rows)) @ rows
    result: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return result


def least_squares(
    bags: Bags, vectors: AnyArray, prior: FloatArray, ridge: float, rounds: int, report: Callable[[str], None]
) -> FloatArray:
    """Return the rows whose means come nearest to the texts' vectors, by conjugate gradients, pulled to `prior` by `ridge`."""
    shares = bags.matrix(len(prior))
    transposed = shares.T.tocsr()
    target = vectors.astype(np.float32)

    def product(x: FloatArray) -> FloatArray:
        result: FloatArray = transposed @ (shares @ x) + ridge * x
        return result

    rows = prior.copy()
    residual = transposed @ (target - shares @ rows)
    scale = 1 / np.sqrt(np.asarray(transposed.multiply(transposed).sum(axis=1)) + ridge).astype(np.float32)
    residual *= scale
    direction, energy = residual.copy(), (residual**2).sum(axis=0)
    for step in range(rounds):
        applied = product(direction * scale) * scale
        length = energy / np.maximum((direction * applied).sum(axis=0), 1e-20)
        rows += length * direction * scale
        residual -= length * applied
        before, energy = energy, (residual**2).sum(axis=0)
        direction = residual + (energy / np.maximum(before, 1e-20)) * direction
        if step % 10 == 9:
            report(f"least squares, round {step + 1}: residual {float(np.sqrt(energy.sum())):.4f}")
    return rows


class Table:
    """Rows with Adam's moments. Only the rows of a batch are updated.

    Args:
        rows: where it starts.
    """

    def __init__(self, rows: FloatArray) -> None:
        self.rows = torch.from_numpy(rows.copy())
        self._first, self._second = torch.zeros_like(self.rows), torch.zeros_like(self.rows)
        self._steps = torch.zeros(len(rows))

    def vectors(self, bags: Bags) -> tuple[Tensor, Tensor, Tensor]:
        """Return the texts' vectors of length 1, the tokens that occur, and their rows, which get the gradient."""
        tokens, local = np.unique(bags.ids, return_inverse=True)
        used = torch.from_numpy(tokens)
        leaf = self.rows[used].requires_grad_()
        sums = functional.embedding_bag(torch.from_numpy(local), leaf, torch.from_numpy(bags.offsets[:-1]), mode="mean")
        return functional.normalize(sums, dim=1), used, leaf

    def update(self, used: Tensor, gradient: Tensor, rate: float) -> None:
        """Make a step of Adam on some rows, each with a count of its own steps."""
        self._steps[used] += 1
        steps = self._steps[used][:, None]
        first = self._first[used].mul_(0.9).add_(gradient, alpha=0.1)
        second = self._second[used].mul_(0.99).addcmul_(gradient, gradient, value=0.01)
        self._first[used], self._second[used] = first, second
        step = (first / (1 - 0.9**steps)) / ((second / (1 - 0.99**steps)).sqrt_() + 1e-8)
        self.rows[used] -= rate * step


class Passages:
    """Passages of running text, each without one of its sentences.

    Args:
        sentences: one after the other as in the text.
        allowed: which of them may be taken, (sentences,); a passage with another one is not drawn.
        sizes: the fewest and the most sentences of a passage, with the one that is taken out.
    """

    def __init__(self, sentences: Bags, allowed: AnyArray, sizes: tuple[int, int]) -> None:
        self._sentences, self._sizes = sentences, sizes
        self._refused = np.concatenate([[0], np.cumsum(~allowed)])

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Bags, Bags]:
        """Return sentences, and the rest of their passages."""
        low, high = self._sizes
        starts = rng.integers(0, len(self._sentences) - 20, int(count * 1.05) + 8)
        sizes = rng.integers(low, high + 1, len(starts))
        good = self._refused[starts + sizes] == self._refused[starts]
        starts, sizes = starts[good][:count], sizes[good][:count]
        taken = starts + rng.integers(0, sizes)
        positions = np.repeat(starts, sizes) + np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rest = self._sentences.take(positions[positions != np.repeat(taken, sizes)])
        ends = np.concatenate([[0], np.cumsum(sizes - 1)])
        return self._sentences.take(taken), Bags(rest.ids, rest.offsets[ends])


def distillation(student: Tensor, teacher: Tensor, queue: Tensor, cosine_weight: float) -> Tensor:
    """Return how far students are from their teacher's vectors: 1 - cosine, and the divergence of the similarities to a queue.

    Shapes: student, teacher: (batch, dim); queue: (texts, dim), the teacher's vectors of other texts.
    """
    with torch.no_grad():
        wanted = functional.softmax(teacher @ queue.T / 0.05, dim=1)
    given = functional.log_softmax(student @ queue.T / 0.05, dim=1)
    return (
        functional.kl_div(given, wanted, reduction="batchmean")
        + cosine_weight * (1 - (student * teacher).sum(dim=1)).mean()
    )


def contrast(anchors: Tensor, candidates: Tensor, temperature: float) -> Tensor:
    """Return InfoNCE: anchor i belongs to candidate i."""
    return functional.cross_entropy(anchors @ candidates.T / temperature, torch.arange(len(anchors)))


def round_rows(rows: FloatArray) -> tuple[AnyArray, AnyArray]:
    """Return rows as whole numbers from -7 to 7 and a scale a row, float16: the scale of the least squared error of 40.

    Shapes: the results: (tokens, dim) int8; (tokens,).
    """
    greatest = np.abs(rows).max(axis=1)
    best = np.full(len(rows), np.inf)
    scales = np.zeros(len(rows), np.float16)
    for share in np.linspace(0.3, 1.0, 40):
        scale = (share * greatest / LEVELS).astype(np.float16)
        exact = np.maximum(scale.astype(np.float32), np.finfo(np.float32).tiny)[:, None]
        rounded = np.clip(np.rint(rows / exact), -LEVELS, LEVELS) * exact
        error = ((rounded - rows) ** 2).sum(axis=1)
        better = error < best
        best[better], scales[better] = error[better], scale[better]
    exact = np.maximum(scales.astype(np.float32), np.finfo(np.float32).tiny)[:, None]
    return np.clip(np.rint(rows / exact), -LEVELS, LEVELS).astype(np.int8), scales


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Yield positions in a drawn order, `size` at a time, without end."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def correlation(rows: FloatArray, first: Bags, second: Bags, scores: Sequence[float]) -> float:
    """Return Spearman x 100 of the cosines of pairs with their scores."""
    return 100 * float(spearmanr((encoded(rows, first) * encoded(rows, second)).sum(axis=1), scores).statistic)


def reciprocal_rank(queries: FloatArray, documents: FloatArray) -> float:
    """Return MRR x 100 where query i belongs to document i."""
    scores = queries @ documents.T
    ranks = (scores > np.diag(scores)[:, None]).sum(axis=1) + 1
    return 100 * float((1 / ranks).mean())
