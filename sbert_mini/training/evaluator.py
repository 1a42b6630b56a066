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
from sbert_mini.evaluation.log_keys import MEAN
from sbert_mini.evaluation.sts import pearson, spearman, without_rounding
from sbert_mini.shapes import AnyArray
from sbert_mini.text.batching import batches_by_length
from sbert_mini.training import processes
from sbert_mini.training.checks import has_no_rivals
from sbert_mini.training.examples import Examples, TokenizedTexts
from sbert_mini.training.objective import Objective
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task

BATCH_TOKENS = 4096
"""Tokens of a batch, padding included."""


def encode_tokenized(embed: Callable[[Sequence[Any]], Tensor], texts: TokenizedTexts) -> Tensor:
    """Return the sentence vectors of tokenized texts, in order, in evaluation mode and without a graph.

    Several processes share the work.

    Args:
        embed: tokens of a batch -> its vectors, (batch, dim).
        texts: the texts.

    Shapes: the result (texts, dim), float32, on the CPU.
    """
    parts: list[tuple[AnyArray, Tensor]] = []
    device = torch.device("cpu")
    with torch.inference_mode():
        for number, batch in enumerate(batches_by_length(texts.lengths, 256, BATCH_TOKENS)):
            if number and number % processes.count() != processes.number():
                continue  # all take the first batch, and so learn the dimension
            part = embed([texts[i] for i in batch])
            device = part.device
            parts.append((batch, part.float().cpu()))
    vectors = torch.zeros(len(texts), parts[0][1].shape[1])
    for batch, part in parts[1:] if processes.number() else parts:
        vectors[torch.from_numpy(batch)] = part
    if processes.count() == 1:
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
    anchors whose positive is nearer than every other (the other rows' positives, about 1,000 rows together; for triplets the
    row's own negatives); it is not defined where there is no other text (`checks.has_no_rivals`).

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
            return {"accuracy": None if has_no_rivals(examples.texts) else _ranking_accuracy(vectors)}
        if config.head_kind == "regression":
            assert objective.head is not None  # noqa: S101
            device = next(objective.head.parameters()).device
            predicted = torch.sigmoid(objective.head(*(v.to(device) for v in vectors))[:, 0]).cpu().numpy()
        else:
            predicted = torch.nn.functional.cosine_similarity(vectors[0], vectors[1]).numpy()
    gold, predicted = np.array(examples.labels, np.float64), without_rounding(predicted)
    return {"pearson": pearson(predicted, gold), "spearman": spearman(predicted, gold)}


def _ranking_accuracy(vectors: Sequence[Tensor]) -> float:
    anchors, positives, *negatives = (torch.nn.functional.normalize(v, dim=-1) for v in vectors)
    positive = (anchors * positives).sum(dim=-1) - TOLERANCE  # equal texts are no nearer than each other
    if negatives:
        return float((positive > (anchors * negatives[0]).sum(dim=-1)).float().mean())
    right = 0.0
    starts = list(range(0, len(anchors), 1000))
    if len(starts) > 1 and len(anchors) - starts[-1] == 1:
        starts.pop()  # a row by itself has no other to be nearer than
    for start, stop in zip(starts, [*starts[1:], len(anchors)], strict=True):
        block = anchors[start:stop] @ positives[start:stop].T
        block.fill_diagonal_(-math.inf)
        right += float((positive[start:stop] > block.amax(dim=1)).float().sum())
    return right / len(anchors)


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
            main = values[part.task.config.main_metric]
            if not part.prefix and main is not None:
                shares.append(as_share(part.task.config.main_metric, main))
        figures[MEAN] = math.fsum(shares) / len(shares) if shares else None
        return figures
