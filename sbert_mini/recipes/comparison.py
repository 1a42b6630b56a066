"""A trained model beside the model that its training started from, on the dev rows of a plan."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from sbert_mini.cosine import unit_rows
from sbert_mini.encoder.module import MiniSentenceTransformer, load
from sbert_mini.evaluation import gains
from sbert_mini.evaluation.gains import Comparison, TaskGain
from sbert_mini.model.heads import head_names
from sbert_mini.recipes.plan import Plan
from sbert_mini.shapes import AnyArray
from sbert_mini.training.answers import (
    FITTED_ROWS,
    compares_by_cosine,
    details_of,
    figures_of,
    start_answers,
    trained_answers,
)
from sbert_mini.training.batches import embed, tokenized
from sbert_mini.training.evaluator import as_share, encode_tokenized
from sbert_mini.training.examples import TokenizedTexts
from sbert_mini.training.objective import Objective
from sbert_mini.training.tasks import Task


def compare_with_start(
    plan: Plan,
    trained: Path,
    *,
    offline: bool = False,
    on_progress: Callable[[str], None] = lambda text: None,  # noqa: ARG005
) -> Comparison | None:
    """Return the comparison of a trained model with its start; None where no task has dev rows.

    Both models are computed in float32 by this process alone.

    Args:
        plan: the plan.
        trained: the model directory that it gave.
        offline: open no socket.
        on_progress: told what is being done.
    """
    heads = head_names(trained)
    tasks = [
        task
        for task in plan.tasks
        if task.dev is not None and (not task.config.has_weights or task.config.name in heads)
    ]
    if not tasks:
        return None
    on_progress("comparing with the starting model on the dev rows")
    start = _Encoder(load(plan.start.model, offline=offline, trust_tokenizer=plan.start.trust_tokenizer))
    ours = _Encoder(load(trained, offline=True, trust_tokenizer=plan.start.trust_tokenizer))
    return gains.compare(str(plan.start.model), [_of_task(task, start, ours, trained) for task in tasks], as_share)


class _Encoder:
    """A model's vectors of a task's texts; those of the same texts are computed once."""

    def __init__(self, model: MiniSentenceTransformer) -> None:
        self.model = model
        self.tokenizer: Any = model[0].text_tokenizer
        self._known: dict[tuple[str, ...], AnyArray] = {}

    def of_columns(self, rows: Sequence[Sequence[str]]) -> list[AnyArray]:
        """Return the vectors of each column's texts by themselves, of length 1. Shapes: (rows, dim) each."""
        return [self._of_texts(tuple(column)) for column in zip(*rows, strict=True)]

    def _of_texts(self, texts: tuple[str, ...]) -> AnyArray:
        if texts not in self._known:
            self._known[texts] = unit_rows(self.encode(TokenizedTexts(texts, self.tokenizer)).numpy())
        return self._known[texts]

    def encode(self, texts: TokenizedTexts, adapter: Any = None) -> Tensor:
        """Return vectors, not normalised. Shapes: (texts, dim)."""
        function = partial(embed, self.model, adapter=adapter, pad_id=self.tokenizer.pad_id)
        return encode_tokenized(function, texts, shared=False)


def _of_task(task: Task, start: _Encoder, ours: _Encoder, trained: Path) -> tuple[TaskGain, AnyArray]:
    """Return a task's gains, and the differences of its main figure over the draws."""
    assert task.dev is not None  # noqa: S101
    objective = Objective(task, ours.model)
    objective.load(trained)
    objective.to(ours.model.device).eval()
    columns = tokenized(task, task.dev, ours.tokenizer, "")
    vectors = [ours.encode(column, objective.adapter) for column in columns]
    theirs = trained_answers(task, objective.to("cpu"), vectors)
    sample = task.train.sample(FITTED_ROWS, seed=0) if not compares_by_cosine(task) else None
    before = start_answers(
        task,
        start.of_columns(task.dev.texts),
        start.of_columns(sample.texts) if sample is not None else [],
        [str(label) for label in sample.labels or ()] if sample is not None else [],
    )
    figures = [figures_of(task, answers) for answers in (before, theirs)]
    both = {name: (figures[0][name], figures[1][name]) for name in figures[1] if name in figures[0]}
    found, drawn = gains.measure(both, len(task.dev))
    metric = task.config.main_metric
    details = details_of(task, before, theirs)
    return TaskGain(task.config.name, metric, len(task.dev), before.kind, found, details), drawn[metric]
