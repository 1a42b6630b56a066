"""What a model says of a task's dev rows: a trained one by its head, the starting model by the best that needs no training.

The starting model has no head. Its answer is

| task | the start's answer |
| --- | --- |
| labels of single texts, or more than two labels of pairs | logistic regression on its vectors, fitted on the training rows |
| two labels of pairs | the cosine, and the best threshold, which is chosen on other dev rows (`evaluation.binary.cross_fitted`) |
| scores | the cosine |
| a ranking | the cosine |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbert_mini.cosine import as_cosines
from sbert_mini.evaluation import binary, gains
from sbert_mini.evaluation.gains import Figure
from sbert_mini.evaluation.sts import without_rounding
from sbert_mini.runtime.predictor import siamese_features
from sbert_mini.shapes import AnyArray
from sbert_mini.training.evaluator import is_two_valued, ranks
from sbert_mini.training.objective import Objective
from sbert_mini.training.tasks import Task

FITTED_ROWS = 10_000
"""The most training rows that the logistic regression of a start is fitted on."""
MOST_WRONG = 20
"""Rows of `most_wrong`."""
_TUNED_ROWS = 2_000
_STRENGTHS = (3.0, 10.0, 30.0)
"""C of the logistic regression: the best of these in three folds of training rows."""


@dataclass(frozen=True)
class Answers:
    """A model's answers to a task's dev rows.

    Attributes:
        predicted: the label of each row; of a classification.
        probabilities: of the predicted label; where the model gives one.
        scores: of scores, or of the second of two labels; (rows,).
        ranks: of a ranking, as `evaluator.ranks` gives them.
        kind: how the answers were found, in words.
    """

    predicted: AnyArray | None = None
    probabilities: AnyArray | None = None
    scores: AnyArray | None = None
    ranks: AnyArray | None = None
    kind: str = ""


def is_binary(task: Task) -> bool:
    """Return whether a task has two labels of pairs, so that a cosine with a threshold can answer it."""
    return task.config.head_kind == "classification" and task.config.structure != "single" and len(task.labels) == 2


def compares_by_cosine(task: Task) -> bool:
    """Return whether the start answers a task by cosines, and needs no training rows."""
    return task.config.head_kind != "classification" or is_binary(task)


def trained_answers(task: Task, objective: Objective, vectors: Sequence[Tensor]) -> Answers:
    """Return the answers of a trained model.

    Args:
        task: the task, with dev rows.
        objective: its loss and head, in evaluation mode, on the CPU.
        vectors: of the dev rows, a tensor a column.

    Shapes: vectors (rows, dim) each.
    """
    assert task.dev is not None  # noqa: S101
    if not task.config.needs_label:
        return Answers(ranks=ranks(vectors, task.dev.texts))
    with torch.inference_mode():
        outputs = objective.outputs(vectors)
        if task.config.head_kind != "classification":
            return Answers(scores=without_rounding(outputs.numpy()))
        probabilities = torch.softmax(outputs.double(), dim=-1).numpy()
    return _of_probabilities(task, np.asarray(task.labels), probabilities, "")


def start_answers(
    task: Task, dev: Sequence[AnyArray], train: Sequence[AnyArray], train_labels: Sequence[Any], seed: int = 0
) -> Answers:
    """Return the starting model's answers.

    Args:
        task: the task, with dev rows.
        dev: vectors of the dev rows, each column's texts by themselves.
        train: of training rows; not looked at where `compares_by_cosine`.
        train_labels: their labels.
        seed: of the order of training rows.

    Shapes: vectors (rows, dim) each, of length 1.
    """
    assert task.dev is not None  # noqa: S101
    if not task.config.needs_label:
        return Answers(ranks=ranks([torch.from_numpy(v) for v in dev], task.dev.texts), kind="cosine")
    if not compares_by_cosine(task):
        return _by_regression(task, dev, train, train_labels, seed)
    cosines = without_rounding(as_cosines(np.sum(dev[0] * dev[1], axis=1)))
    if task.config.head_kind != "classification":
        return Answers(scores=cosines, kind="cosine")
    labels = np.asarray(task.labels)
    gold = _is_second(task)
    if gold.all() or not gold.any():
        named, scores = gold.astype(np.int64), cosines
    else:
        scores = cosines if cosines[gold].mean() >= cosines[~gold].mean() else -cosines
        named = binary.cross_fitted(gold, scores, task.config.main_metric)
    return Answers(predicted=labels[named], scores=scores, kind="cosine, best threshold of other rows")


def _is_second(task: Task) -> AnyArray:
    """Return which dev rows are a yes: the second of two labels, or the higher of two scores. Shapes: (rows,)."""
    assert task.dev is not None  # noqa: S101
    if task.config.graded:
        gold = np.asarray(task.dev.labels, np.float64)
        return np.asarray(gold == gold.max())
    return np.asarray([label == task.labels[1] for label in task.dev.labels or ()])


def _of_probabilities(task: Task, labels: AnyArray, probabilities: AnyArray, kind: str) -> Answers:
    best = probabilities.argmax(axis=1)
    scores = probabilities[:, 1] if is_binary(task) else None
    return Answers(labels[best], probabilities[np.arange(len(best)), best], scores, kind=kind)


def _by_regression(
    task: Task, dev: Sequence[AnyArray], train: Sequence[AnyArray], train_labels: Sequence[Any], seed: int
) -> Answers:
    """Return what logistic regression on frozen vectors says, its strength of regularization chosen by three folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    x, y = _features(train), np.asarray(train_labels)
    kinds, counts = np.unique(y, return_counts=True)
    if len(kinds) < 2:
        return Answers(np.full(len(dev[0]), kinds[0]), np.ones(len(dev[0])), kind="the one label of the training rows")
    order = np.random.default_rng(seed).permutation(len(y))
    model = LogisticRegression(max_iter=2000)
    tuned = order[:_TUNED_ROWS]
    strength = _STRENGTHS[1]
    if counts.min() >= 3 and np.unique(y[tuned], return_counts=True)[1].min() >= 3:
        by = "f1_macro" if task.config.main_metric == "macro_f1" else "accuracy"
        search = GridSearchCV(model, {"C": _STRENGTHS}, scoring=by, cv=StratifiedKFold(3))
        strength = search.fit(x[tuned], y[tuned]).best_params_["C"]
    model.set_params(C=strength).fit(x, y)
    kind = f"logistic regression on its vectors, fitted on {len(y):,} training rows"
    return _of_probabilities(task, model.classes_, model.predict_proba(_features(dev)), kind)


def _features(vectors: Sequence[AnyArray]) -> AnyArray:
    return vectors[0] if len(vectors) == 1 else siamese_features(*vectors)


def figures_of(task: Task, answers: Answers) -> dict[str, Figure]:
    """Return a model's figures on a task's dev rows, as functions of the rows' weights; not all may be defined."""
    assert task.dev is not None  # noqa: S101
    config = task.config
    if not config.needs_label:
        assert answers.ranks is not None  # noqa: S101
        found = np.where(answers.ranks > 0, answers.ranks.astype(np.float64), np.nan)
        figures = {"accuracy": gains.share_correct(np.where(np.isnan(found), np.nan, found == 1))}
        if config.structure != "triplet":
            for k in (5, 10):
                figures[f"recall_at_{k}"] = gains.share_correct(np.where(np.isnan(found), np.nan, found <= k))
            figures["mrr"] = gains.share_correct(1 / found)
        return figures
    if config.head_kind == "classification":
        assert answers.predicted is not None  # noqa: S101
        gold = np.asarray([str(label) for label in task.dev.labels or ()])
        hits = gold == answers.predicted
        figures = {"accuracy": gains.share_correct(hits), "macro_f1": gains.macro_f1(gold, answers.predicted)}
        if is_binary(task) and answers.scores is not None:
            figures["average_precision"] = gains.average_precision(_is_second(task), answers.scores)
        if answers.probabilities is not None:
            figures["calibration_error"] = gains.calibration_error(hits, answers.probabilities)
        return figures
    assert answers.scores is not None  # noqa: S101
    gold_scores = np.asarray(task.dev.labels, np.float64)
    figures = {f.__name__: f(gold_scores, answers.scores) for f in (gains.pearson, gains.spearman)}
    if is_two_valued(task.dev.labels):
        yes = _is_second(task)
        figures["average_precision"] = gains.average_precision(yes, answers.scores)
        figures["accuracy"] = gains.share_correct(binary.cross_fitted(yes, answers.scores) == yes)
    return figures


def details_of(task: Task, start: Answers, trained: Answers) -> Mapping[str, Any]:
    """Return the most wrong rows, and figures by class, precision at some recalls and scores by label where there are such."""
    assert task.dev is not None  # noqa: S101
    models = {"start": start, "trained": trained}
    details: dict[str, Any] = {}
    if task.config.head_kind == "classification":
        gold = [str(label) for label in task.dev.labels or ()]
        details["classes"] = {
            name: binary.by_class(gold, answers.predicted, task.labels)  # type: ignore[arg-type]
            for name, answers in models.items()
        }
    if is_binary(task) or (task.config.graded and is_two_valued(task.dev.labels)):
        yes = _is_second(task)
        details["precision_at_recall"] = {
            name: binary.precision_at_recall(yes, answers.scores)  # type: ignore[arg-type]
            for name, answers in models.items()
        }
        labels = [str(label) if not isinstance(label, float) else f"{label:g}" for label in task.dev.labels or ()]
        details["histograms"] = {name: binary.histogram(labels, answers.scores) for name, answers in models.items()}  # type: ignore[arg-type]
    details["most_wrong"] = most_wrong(task, start, trained)
    return details


def most_wrong(task: Task, start: Answers, trained: Answers) -> list[dict[str, Any]]:
    """Return the dev rows that the trained model is most wrong on, the worst first.

    A label is the more wrong the more probable it is; a score the further its place among all scores is from that of the right
    one, and of two scores the further it lies on the other one's side; a ranking the further down the positive stands. Rows that
    are right are left out.

    Returns:
        for each row `texts`, `right`, `trained` and `start`: what is right, and what each model says, in words.
    """
    assert task.dev is not None  # noqa: S101
    dev = task.dev
    if trained.ranks is not None and start.ranks is not None:
        wrong = np.where(trained.ranks > 1, trained.ranks, 0).astype(np.float64)
        said = [[f"place {rank}" for rank in answers.ranks.tolist()] for answers in (trained, start)]  # type: ignore[union-attr]
        right = ["place 1"] * len(wrong)
    elif trained.predicted is not None and start.predicted is not None:
        right = [str(label) for label in dev.labels or ()]
        probability = trained.probabilities if trained.probabilities is not None else np.ones(len(right))
        wrong = np.where(np.asarray(right) == trained.predicted, 0.0, probability)
        said = [_named(answers) for answers in (trained, start)]
    else:
        assert trained.scores is not None  # noqa: S101
        assert start.scores is not None  # noqa: S101
        gold = np.asarray(dev.labels, np.float64)
        wrong = np.abs(_places(gold) - _places(trained.scores))
        if is_two_valued(dev.labels):  # wrong is what stands beyond the place where the lower label would end
            border, is_high = float(np.mean(gold == gold.min())), gold == gold.max()
            wrong = np.maximum(np.where(is_high, 1.0, -1.0) * (border - _places(trained.scores)), 0.0)
        right = [f"{value:g}" for value in gold.tolist()]
        said = [[f"{value:.3f}" for value in answers.scores.tolist()] for answers in (trained, start)]  # type: ignore[union-attr]
    worst = [int(row) for row in np.argsort(-wrong, kind="stable")[:MOST_WRONG] if wrong[row] > 0]
    return [
        {"texts": list(dev.texts[row]), "right": right[row], "trained": said[0][row], "start": said[1][row]}
        for row in worst
    ]


def _named(answers: Answers) -> list[str]:
    named = [str(label) for label in answers.predicted.tolist()]  # type: ignore[union-attr]
    if answers.probabilities is None:
        return named
    return [f"{label} ({value:.0%})" for label, value in zip(named, answers.probabilities.tolist(), strict=True)]


def _places(scores: AnyArray) -> AnyArray:
    """Return the place of each score among all, from 0 to 1; equal ones share the middle. Shapes: (rows,) each."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - counts / 2)[inverse] / len(scores))
