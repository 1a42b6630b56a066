"""Dev figures of every task, taken with the torch model while it is trained."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.evaluation import BaseEvaluator
from torch import Tensor

from sbert_mini.cosine import TOLERANCE
from sbert_mini.evaluation.gains import average_precision
from sbert_mini.evaluation.log_keys import MEAN
from sbert_mini.evaluation.sts import pearson, spearman, without_rounding
from sbert_mini.shapes import AnyArray
from sbert_mini.text.batching import batches_by_length
from sbert_mini.training import processes
from sbert_mini.training.checks import has_no_rivals, normalized
from sbert_mini.training.examples import Examples, TokenizedTexts
from sbert_mini.training.objective import Objective
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task

BATCH_TOKENS = 4096
"""Tokens of a batch, padding included."""


def encode_tokenized(embed: Callable[[Sequence[Any]], Tensor], texts: TokenizedTexts, *, shared: bool = True) -> Tensor:
    """Return the sentence vectors of tokenized texts, in order, in evaluation mode and without a graph.

    Args:
        embed: tokens of a batch -> its vectors, (batch, dim).
        texts: the texts.
        shared: whether several processes, where there are some, share the work; all of them must call it then.

    Shapes: the result (texts, dim), float32, on the CPU.
    """
    parts: list[tuple[AnyArray, Tensor]] = []
    device = torch.device("cpu")
    count, process = (processes.count(), processes.number()) if shared else (1, 0)
    with torch.inference_mode():
        for number, batch in enumerate(batches_by_length(texts.lengths, 256, BATCH_TOKENS)):
            if number and number % count != process:
                continue  # all take the first batch, and so learn the dimension
            part = embed([texts[i] for i in batch])
            device = part.device
            parts.append((batch, part.float().cpu()))
    vectors = torch.zeros(len(texts), parts[0][1].shape[1])
    for batch, part in parts[1:] if process else parts:
        vectors[torch.from_numpy(batch)] = part
    if count == 1:
        return vectors
    together = vectors.to(device)
    processes.add(together)
    return together.cpu()


def classification_figures(truth: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Return accuracy and macro F1 (the mean over the labels in either list), each in [0, 1], as scikit-learn computes them."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "macro_f1": float(f1_score(truth, predicted, average="macro", zero_division=0.0)),
    }


def task_figures(
    task: Task, examples: Examples, objective: Objective, vectors: Sequence[Tensor]
) -> dict[str, float | None]:
    """Return a task's figures on some examples; None for one that is not defined.

    Classification: accuracy, macro F1. Scores: Pearson's and Spearman's correlation with the gold scores; they are not defined
    where all gold scores are equal, or all predictions (`evaluation.sts.without_rounding`). Ranking and triplets: the share of
    anchors whose positive is nearer than every other (`ranks`); it is not defined where there is no other text
    (`checks.has_no_rivals`). Scores of two values have an average precision, too.

    Args:
        task: the task.
        examples: its dev examples, say.
        objective: its loss and head.
        vectors: of their texts, a tensor a column.

    Shapes: vectors (examples, dim) each.
    """
    config = task.config
    with torch.inference_mode():
        if config.head_kind == "classification":
            assert objective.head is not None  # noqa: S101
            device = next(objective.head.parameters()).device
            best = objective.head(*(v.to(device) for v in vectors)).argmax(dim=-1).tolist()
            return {**classification_figures([str(x) for x in examples.labels or ()], [task.labels[i] for i in best])}
        if not config.needs_label:
            texts = examples.texts
            return {"accuracy": None if has_no_rivals(texts) else _ranking_accuracy(vectors, texts)}
        if config.head_kind == "regression":
            assert objective.head is not None  # noqa: S101
            device = next(objective.head.parameters()).device
            predicted = torch.sigmoid(objective.head(*(v.to(device) for v in vectors))[:, 0]).cpu().numpy()
        else:
            predicted = torch.nn.functional.cosine_similarity(vectors[0], vectors[1]).numpy()
    gold, predicted = np.array(examples.labels, np.float64), without_rounding(predicted)
    figures: dict[str, float | None] = {"pearson": pearson(predicted, gold), "spearman": spearman(predicted, gold)}
    if is_two_valued(examples.labels):
        figure = average_precision(gold == gold.max(), predicted)
        figures["average_precision"] = float(figure(np.ones((1, len(gold))))[0])
    return figures


def ranks(vectors: Sequence[Tensor], texts: Sequence[Sequence[str]]) -> AnyArray:
    """Return the rank of each row's positive among the texts that it is compared with: 1 where every other is farther.

    The others are the other rows' positives, about 1,000 rows together; for triplets the row's own negative. Another row whose
    anchor or whose positive is the same text is no rival: its positive is a right answer, too. 0 is a row without a rival.

    Args:
        vectors: of anchors, positives, and for triplets negatives.
        texts: of each row.

    Shapes: vectors (rows, dim) each; the result (rows,).
    """
    anchors, positives, *negatives = (torch.nn.functional.normalize(v, dim=-1) for v in vectors)
    positive = (anchors * positives).sum(dim=-1) - TOLERANCE  # equal texts are no nearer than each other
    if negatives:
        return (1 + (positive <= (anchors * negatives[0]).sum(dim=-1)).long()).numpy()
    keys = [_numbers([row[column] for row in texts]) for column in (0, 1)]
    found = torch.zeros(len(anchors), dtype=torch.long)
    starts = list(range(0, len(anchors), 1000))
    if len(starts) > 1 and len(anchors) - starts[-1] == 1:
        starts.pop()  # a row by itself has no other to be nearer than
    for start, stop in zip(starts, [*starts[1:], len(anchors)], strict=True):
        block = anchors[start:stop] @ positives[start:stop].T
        same = [key[start:stop, None] == key[None, start:stop] for key in keys]
        rivals = ~(same[0] | same[1])
        nearer = (rivals & (block >= positive[start:stop, None])).sum(dim=1)
        found[start:stop] = torch.where(rivals.any(dim=1), nearer + 1, 0)
    return found.numpy()


def _numbers(texts: Sequence[str]) -> Tensor:
    """Return a number for each text, the same for texts that `checks.normalized` makes the same. Shapes: (texts,)."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(normalized(text), len(numbers)) for text in texts])


def _ranking_accuracy(vectors: Sequence[Tensor], texts: Sequence[Sequence[str]]) -> float | None:
    found = ranks(vectors, texts)
    found = found[found > 0]
    return float(np.mean(found == 1)) if len(found) else None


def is_two_valued(labels: Sequence[Any] | None) -> bool:
    """Return whether scores take two values, so that they are a yes and a no."""
    return labels is not None and len(set(labels)) == 2


def as_share(metric: str, value: float) -> float:
    """Return a figure on the scale [0, 1], to be averaged with others: a correlation r becomes (r + 1) / 2.

    Source: De La Cruz, Musa and Ndotu, "Model Acc".
    """
    return (value + 1) / 2 if metric in ("pearson", "spearman") else value


def standing(figures: Mapping[str, Any], tasks: Sequence[TaskConfig]) -> tuple[int, float] | None:
    """Return what the best evaluation has the greatest of: the number of tasks whose main figure is defined, then the mean.

    A mean over fewer tasks (the model gave all rows of one the same prediction) is another mean, and loses against one over more.

    Args:
        figures: of an evaluation, as `TaskEvaluator` returns them.
        tasks: all tasks; those without dev examples do not matter.

    Returns:
        None where no main figure is defined: then nothing tells how good the weights are.
    """
    defined = sum(figures.get(f"{task.name}_{task.main_metric}") is not None for task in tasks)
    return (defined, float(figures[MEAN])) if defined else None


@dataclass(frozen=True)
class Measured:
    """Examples that figures are taken on.

    Attributes:
        task: whose they are.
        examples: the examples.
        texts: their texts, tokenized, a column each.
        prefix: put before the figures' names: empty for dev examples, `train_` for training ones.
    """

    task: Task
    examples: Examples
    texts: Sequence[TokenizedTexts]
    prefix: str = ""


class TaskEvaluator(BaseEvaluator):
    """Takes the figures of all tasks, and the mean of the dev figures.

    The mean is over the tasks' main figures that are defined, each on the scale [0, 1] (`as_share`).

    Args:
        measured: what is measured.
        objectives: the tasks' losses and heads, by name.
        embed: tokens of a batch, and a task's adapter or None -> vectors; the model must be in evaluation mode.
        fixed: whether the encoder stays as it is: then the texts are encoded once.
    """

    def __init__(
        self,
        measured: Sequence[Measured],
        objectives: Mapping[str, Objective],
        embed: Callable[..., Tensor],
        *,
        fixed: bool = False,
    ) -> None:
        super().__init__()
        self.measured, self.objectives, self.embed, self.fixed = measured, objectives, embed, fixed
        self._vectors: dict[int, list[Tensor]] = {}
        self.primary_metric = MEAN

    def __call__(
        self,
        model: Any,
        output_path: str | None = None,  # noqa: ARG002
        epoch: float = -1,  # noqa: ARG002
        steps: int = -1,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return the figures: `<task>_<metric>`, `train_<task>_<metric>` and `mean`; None for one that is not defined.

        The model is left in evaluation mode.
        """
        model.eval()
        figures: dict[str, float | None] = {}
        shares = []
        for number, part in enumerate(self.measured):
            name = part.task.config.name
            objective = self.objectives[name].eval()
            embed = partial(self.embed, adapter=objective.adapter)
            vectors = self._vectors.get(number) or [encode_tokenized(embed, column) for column in part.texts]
            if self.fixed:
                self._vectors[number] = vectors
            values = task_figures(part.task, part.examples, objective, vectors)
            figures |= {f"{part.prefix}{name}_{metric}": value for metric, value in values.items()}
            main = values.get(part.task.config.main_metric)
            if not part.prefix and main is not None:
                shares.append(as_share(part.task.config.main_metric, main))
        figures[MEAN] = math.fsum(shares) / len(shares) if shares else None
        return figures
