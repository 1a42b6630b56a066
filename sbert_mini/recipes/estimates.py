"""What a training run will cost: a few steps of it are taken, on weights that are thrown away."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sbert_mini.files import system
from sbert_mini.recipes.plan import Phase, Plan
from sbert_mini.recipes.settings import training_arguments
from sbert_mini.training.schedule import Schedule
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer

STEPS = 3
ROWS = 1000
"""Rows of each task that the steps are drawn from."""


_NOT_MEASURED = {
    "eval_strategy": "no",
    "load_best_model_at_end": False,
    "metric_for_best_model": None,
    "greater_is_better": None,
    "report_to": "none",
}


@dataclass(frozen=True)
class Estimate:
    """The cost of one phase of a run.

    Attributes:
        encoder: `trained` or `frozen`.
        steps: optimizer steps.
        seconds_a_step: the median of a few, evaluations left out.
        seconds: of making the data ready (with a frozen encoder all texts are encoded) and of all steps.
        peak_bytes: the greatest memory of the process so far, Python and its libraries included, after a step on the longest
            rows; on a GPU, of the GPU.
    """

    encoder: str
    steps: int
    seconds_a_step: float
    seconds: float
    peak_bytes: int


def estimate(plan: Plan, *, offline: bool = False) -> list[Estimate]:
    """Return what each phase of a plan costs, measured on this machine.

    Args:
        plan: the plan.
        offline: open no socket.
    """
    return [_of_phase(plan, phase, offline) for phase in plan.phases]


def describe(plan: Plan, costs: Sequence[Estimate], *, offline: bool = False) -> dict[str, Any]:
    """Return what a plan will do, as JSON holds it.

    Args:
        plan: the plan.
        costs: from `estimate`.
        offline: open no socket.
    """
    train = plan.recipe.train
    counts = {task.config.name: len(task.train) for task in plan.tasks if not task.only_measured}
    schedule = Schedule(train.schedule, counts, train.batch_size, 1, train.floor)
    sizes = dict(zip(counts, schedule.sizes_at(0), strict=True))
    return {
        "model": plan.recipe.model.start,
        "output": str(plan.output),
        "parameters": sum(p.numel() for p in plan.start.load(offline=offline).parameters()),
        "steps": plan.steps,
        "batch_size": train.batch_size,
        "surgery": train.surgery,
        "memory_bytes": max(cost.peak_bytes for cost in costs),
        "seconds": sum(cost.seconds for cost in costs),
        "phases": [asdict(cost) for cost in costs],
        "tasks": [_described(task, sizes.get(task.config.name, 0)) for task in plan.tasks],
    }


def _described(task: Task, examples_a_batch: int) -> dict[str, Any]:
    return {
        "name": task.config.name,
        "structure": task.config.structure,
        "loss": task.config.loss,
        "train_rows": len(task.train),
        "dev_rows": len(task.dev) if task.dev is not None else 0,
        "labels": list(task.labels),
        "examples_a_batch": examples_a_batch,
        "dropped": task.train.dropped,
    }


def _of_phase(plan: Plan, phase: Phase, offline: bool) -> Estimate:
    rng = np.random.default_rng(0)
    drawn, longest = [], []
    for task in phase.tasks:
        rows = np.sort(rng.permutation(len(task.train))[:ROWS])
        drawn.append(_with_rows(task, rows.tolist()))
        sizes = np.array([sum(map(len, row)) for row in task.train.texts])
        longest.append(_with_rows(task, np.argsort(-sizes, kind="stable")[: phase.fitter.batch_size].tolist()))
    ready, seconds = _steps(plan, phase, drawn, STEPS + 1, offline)
    _steps(plan, phase, longest, 1, offline)
    a_step = statistics.median(seconds[1:])
    rows_of = [sum(len(task.train) for task in tasks) for tasks in (phase.tasks, drawn)]
    total = ready * rows_of[0] / rows_of[1] + a_step * phase.steps
    return Estimate(phase.fitter.encoder, phase.steps, a_step, total, _peak_bytes())


def _with_rows(task: Task, rows: Sequence[int]) -> Task:
    drawn = set(rows)
    train = task.train.kept([i in drawn for i in range(len(task.train))], "not in the trial")
    labels = task.labels
    config = replace(task.config, labels=labels) if labels else task.config
    vectors = None
    if config.spec.taught:  # what the teacher says costs nothing
        vectors, config = np.zeros((len(train), 1), np.float32), replace(config, vector_weight=0.0)
    return Task(config, train, None if not task.only_measured else task.dev, task.margin, vectors)


def _steps(plan: Plan, phase: Phase, tasks: Sequence[Task], count: int, offline: bool) -> tuple[float, list[float]]:
    """Take steps; return the seconds of making the data ready, and of each step."""
    average = phase.fitter.average
    if average.kind == "checkpoints":  # it costs nothing a step
        average = replace(average, kind="none")
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(phase, plan.seed, Path(folder), max_steps=count, **_NOT_MEASURED)
        model = plan.start.load(offline=offline)
        trainer = MultiTaskTrainer(model, arguments, tasks, replace(phase.fitter, average=average))
        return _trial(trainer, count)


def _trial(trainer: MultiTaskTrainer, steps: int) -> tuple[float, list[float]]:
    """Take steps without logs or checkpoints, which spoils the weights; see `_steps`."""
    trainer.start_averages()
    optimizer = trainer.create_optimizer()
    trainer.state.max_steps, trainer.current_gradient_accumulation_steps = steps, 1
    begun = time.perf_counter()
    loader = trainer.get_train_dataloader()
    ready = time.perf_counter() - begun
    seconds: list[float] = []
    while len(seconds) < steps:
        for batch in itertools.islice(loader, steps - len(seconds)):
            begun = time.perf_counter()
            trainer.training_step(trainer.model, batch)
            trainer.clip_gradients()
            optimizer.step()
            trainer.model.zero_grad()
            trainer.after_step()
            seconds.append(time.perf_counter() - begun)
    return ready, seconds


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return system.peak_memory_bytes()
