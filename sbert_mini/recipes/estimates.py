"""What a training run will cost: a few steps of it are taken, on weights that are thrown away."""

import resource
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sbert_mini.recipes.fit import Plan, arguments, fitter_config, load_start, phase_tasks, total_steps
from sbert_mini.recipes.recipe import Recipe
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer

STEPS = 3
ROWS = 1000
"""Rows of each task that the steps are drawn from."""


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
    return [_of_phase(plan, recipe, offline) for recipe in plan.recipe.in_phases()]


def _of_phase(plan: Plan, recipe: Recipe, offline: bool) -> Estimate:
    tasks = phase_tasks(recipe, plan.tasks)
    rng = np.random.default_rng(0)
    some, longest = [], []
    for task in tasks:
        rows = len(task.train)
        chosen = np.sort(rng.permutation(rows)[:ROWS])
        some.append(_with_rows(task, chosen.tolist()))
        sizes = np.array([sum(map(len, row)) for row in task.train.texts])
        longest.append(_with_rows(task, np.argsort(-sizes, kind="stable")[: recipe.train.batch_size].tolist()))
    ready, seconds = _steps(recipe, some, STEPS + 1, offline)
    _steps(recipe, longest, 1, offline)
    steps = total_steps(replace(plan, recipe=recipe, tasks=tuple(tasks)))
    a_step = statistics.median(seconds[1:])
    rows, tried = (sum(len(task.train) for task in held) for held in (tasks, some))
    total = ready * rows / tried + a_step * steps
    return Estimate(recipe.model.encoder, steps, a_step, total, _peak_bytes())


def _with_rows(task: Task, rows: Sequence[int]) -> Task:
    kept = set(rows)
    train = task.train.kept([i in kept for i in range(len(task.train))], "not in the trial")
    labels = task.labels
    config = replace(task.config, labels=labels) if labels else task.config
    taught = None
    if config.spec.taught:  # what the teacher says costs nothing
        taught, config = np.zeros((len(train), 1), np.float32), replace(config, vector_weight=0.0)
    return Task(config, train, None if not task.only_measured else task.dev, task.margin, taught)


def _steps(recipe: Recipe, tasks: Sequence[Task], count: int, offline: bool) -> tuple[float, list[float]]:
    """Take steps; return the seconds of making the data ready, and of each step."""
    with tempfile.TemporaryDirectory() as folder:
        limited = replace(recipe, train=replace(recipe.train, steps=max(count, 1), epochs=None, report_to=[]))
        settings = arguments(limited, tasks, Path(folder))
        kind = "ema" if recipe.average.kind == "ema" else "none"  # that of checkpoints costs nothing a step
        config = replace(fitter_config(recipe), average=replace(recipe.average, kind=kind))
        trainer = MultiTaskTrainer(load_start(recipe, offline=offline), settings, tasks, config)
        return trainer.trial(count)


def _peak_bytes() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
