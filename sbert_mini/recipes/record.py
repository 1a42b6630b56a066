"""What is worth keeping of a training run: the figures of each evaluation, the gradients, the predictions at the end."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import InputError, UsageError
from sbert_mini.evaluation.gains import Comparison
from sbert_mini.evaluation.log_keys import CONFLICT, COSINE, EVAL_MEAN, by_depth, dev_figures, figures_in, pairs_in
from sbert_mini.evaluation.sets import card_metadata
from sbert_mini.evaluation.sts import pearson, spearman
from sbert_mini.files.json_files import LOG_LINE
from sbert_mini.files.json_schema import check, parse
from sbert_mini.model.choices import Graph
from sbert_mini.model.heads import head_names
from sbert_mini.recipes.comparison import compare_with_start
from sbert_mini.recipes.plan import Fit, Plan
from sbert_mini.recipes.run_folder import LOG, run_notes
from sbert_mini.runtime.predictor import Predictor
from sbert_mini.training.evaluator import classification_figures, standing
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task

POINTS = 200
"""The most points of a curve over the steps: neighbours are averaged."""


def training_record(
    plan: Plan, *, comparison: Comparison | None = None, threads: int | None = None, offline: bool = False
) -> dict[str, Any]:
    """Return the record of a run that is over, from its log and its model, as `evaluation.report` shows it.

    The dev sets of the tasks with a head are predicted once more, in float32 and without torch: what is shown is what the saved
    model says.

    Args:
        plan: the plan that was carried out.
        comparison: of its model and the start, where it is known; None to make it again.
        threads: for predicting.
        offline: open no socket.

    Raises:
        UsageError: the plan's output is no model.
        InputError: the log of a phase is missing or damaged.
    """
    model = plan.written()
    if model is None:
        raise UsageError(f"{plan.output} is no trained model: train it first")
    comparison = comparison or compare_with_start(plan, model, offline=offline)
    recipe = plan.recipe
    phases = [
        {"number": phase.number, "encoder": phase.fitter.encoder, **_phase(_lines(phase.run / LOG))}
        for phase in plan.phases
    ]
    notes = run_notes(plan.run)
    datasets = card_metadata(plan.start_directory(offline=offline)).get("datasets") or []
    with_head = head_names(model)
    return {
        "model": model.name,
        "start": str(recipe.model.start),
        "start_trained_on": [datasets] if isinstance(datasets, str) else [str(name) for name in datasets],
        "seed": notes.get("seed"),
        "trained_by": notes.get("machine"),
        "surgery": recipe.train.surgery,
        "schedule": recipe.train.schedule,
        "batch_size": recipe.train.batch_size * recipe.train.gradient_accumulation,
        "tasks": [
            {
                "name": task.config.name,
                "structure": task.config.structure,
                "loss": task.config.loss,
                "metric": task.config.main_metric if task.dev is not None else None,
                "train_rows": len(task.train),
                "dev_rows": len(task.dev) if task.dev is not None else 0,
            }
            for task in plan.tasks
        ],
        "phases": phases,
        "start_comparison": comparison.to_json() if comparison is not None else None,
        "saved": _saved(phases[-1], [task.config for task in plan.tasks]),
        "predictions": {
            task.config.name: _predictions(model, task, threads, trust_tokenizer=plan.start.trust_tokenizer)
            for task in plan.tasks
            if task.dev is not None and task.config.name in with_head
        },
    }


def saved_fit(plan: Plan, *, offline: bool = False) -> Fit:
    """Return what a run that is over gave: step and figures of the saved weights, from its log; the comparison is made anew.

    Raises:
        InputError: the log is missing or damaged.
    """
    last = _phase(_lines(plan.phases[-1].run / LOG))
    saved = _saved(last, [task.config for task in plan.tasks])
    model = plan.written()
    comparison = compare_with_start(plan, model, offline=offline) if model is not None else None
    return Fit(model or plan.output, saved["step"], saved["figures"], (), saved["step"], comparison)


def _saved(phase: Mapping[str, Any], tasks: Sequence[TaskConfig]) -> dict[str, Any]:
    """Return the step of the weights that were saved, and their figures: the best by the mean, else the last."""
    if not phase["evaluations"]:
        return {"step": phase["steps"], "figures": {}}
    ranked = [(rank, e) for e in phase["evaluations"] if (rank := standing(e["figures"], tasks)) is not None]
    best = max(ranked, key=lambda item: item[0])[1] if ranked else phase["evaluations"][-1]
    return {"step": best["step"], "figures": dev_figures(best["figures"])}


def _lines(log: Path) -> list[dict[str, Any]]:
    try:
        lines = log.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"the log {log} cannot be read: {error}") from error
    return [dict(check(parse(line, log, InputError), LOG_LINE, log, InputError)) for line in lines]


def _phase(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a phase's evaluations, curves, gradients and resources, from the lines of its log."""
    evaluations = []
    for line in lines:
        if EVAL_MEAN in line:
            evaluations.append({"step": line["step"], "epoch": line.get("epoch"), "figures": figures_in(line)})
    steps = [line for line in lines if "loss" in line]
    rates = [line["examples_per_second"] for line in steps if line.get("examples_per_second")]
    prepared = [line["prepared_seconds"] for line in steps if "prepared_seconds" in line]
    timed = [line["seconds"] for line in steps if "seconds" in line]
    return {
        "steps": max((int(line["step"]) for line in lines), default=0),
        "evaluations": evaluations,
        "curves": thinned(steps, POINTS),
        "gradients": _gradients(steps),
        "resources": {
            "seconds": math.fsum(timed) if timed else None,
            "prepared_seconds": math.fsum(prepared) if prepared else None,
            "examples_per_second": statistics.median(rates) if rates else None,
            "peak_mb": max((line["peak_mb"] for line in steps if "peak_mb" in line), default=None),
        },
    }


def _gradients(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return, by pair of tasks, the share of steps in conflict, the mean cosine, and the mean cosine by depth."""

    def mean(key: str) -> float:
        return statistics.fmean(line[key] for line in steps if line.get(key) is not None)

    return {
        pair: {
            "conflict": mean(CONFLICT + pair),
            "cosine": mean(COSINE + pair),
            "depths": {str(depth): mean(by_depth(pair, depth)) for depth in depths},
        }
        for pair, depths in pairs_in(steps).items()
    }


def thinned(lines: Sequence[Mapping[str, Any]], most: int) -> dict[str, list[float | None]]:
    """Return the lines of a log as columns, each of at most `most` means of neighbouring lines.

    Args:
        lines: of the log, in order; a key that a line lacks, or has None for, is left out of the mean.
        most: at least 1.
    """
    size = max(math.ceil(len(lines) / most), 1)
    groups = [lines[start : start + size] for start in range(0, len(lines), size)]
    keys = sorted({key for line in lines for key, value in line.items() if isinstance(value, (int, float))})
    columns: dict[str, list[float | None]] = {}
    for key in keys:
        values = [[float(line[key]) for line in group if line.get(key) is not None] for group in groups]
        columns[key] = [round(statistics.fmean(part), 6) if part else None for part in values]
    return columns


def _predictions(model: Path, task: Task, threads: int | None, *, trust_tokenizer: bool) -> dict[str, Any]:
    """Return what the saved model says of a task's dev set: a table of counts, or scores beside the gold ones."""
    dev = task.dev
    assert dev is not None  # noqa: S101
    inputs: Any = [row[0] if len(row) == 1 else row for row in dev.texts]
    graphs: tuple[Graph, ...] = ("fp32", "int8")
    options: dict[str, Any] = {"threads": threads, "trust_tokenizer": trust_tokenizer}
    fp32, int8 = (Predictor(model, task.config.name, graph, **options).predict(inputs) for graph in graphs)
    if task.config.graded:
        scores = np.array([float(x) for x in dev.labels or ()])
        values = [np.array([p.score if p.cosine is None else p.cosine for p in each], float) for each in (fp32, int8)]
        figures = [{"pearson": pearson(each, scores), "spearman": spearman(each, scores)} for each in values]
        predicted = [round(value, 5) for value in values[0].tolist()]
        return {"gold": scores.tolist(), "predicted": predicted, "int8": _by_graph(graphs, figures)}
    truth = [str(label) for label in dev.labels or ()]
    named, by_int8 = ([str(p.label) for p in each] for each in (fp32, int8))
    numbers = {label: number for number, label in enumerate(task.labels)}
    counts = [[0] * len(numbers) for _ in numbers]
    for gold, label in zip(truth, named, strict=True):
        counts[numbers[gold]][numbers[label]] += 1
    figures = [dict(classification_figures(truth, each)) for each in (named, by_int8)]
    return {"labels": list(task.labels), "counts": counts, **figures[0], "int8": _by_graph(graphs, figures)}


def _by_graph(
    graphs: Sequence[str], figures: Sequence[Mapping[str, float | None]]
) -> dict[str, dict[str, float | None]]:
    """Return figure -> graph -> value."""
    return {name: {graph: each[name] for graph, each in zip(graphs, figures, strict=True)} for name in figures[0]}
