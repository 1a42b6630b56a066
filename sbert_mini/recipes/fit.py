"""A plan, carried out: each phase trained, then saved. What `sbmini train` does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments
from transformers import TrainerCallback, TrainerState, set_seed

from sbert_mini.encoder.module import MiniSentenceTransformer
from sbert_mini.errors import SbertMiniError, UsageError
from sbert_mini.evaluation.log_keys import EVAL_MEAN, dev_figures, figures_in
from sbert_mini.files import outputs
from sbert_mini.model import registry
from sbert_mini.recipes.callbacks import LastStepCallback, LogCallback
from sbert_mini.recipes.card import write_card
from sbert_mini.recipes.comparison import compare_with_start
from sbert_mini.recipes.launchers import is_first_process
from sbert_mini.recipes.plan import Fit, Phase, Plan
from sbert_mini.recipes.run_folder import (
    LOG,
    is_over,
    newest_checkpoint,
    open_run,
    remove_checkpoints,
    step_of,
    trim_log,
)
from sbert_mini.recipes.settings import tensorboard_in, training_arguments
from sbert_mini.training import processes
from sbert_mini.training.distill import teacher_vectors
from sbert_mini.training.stopping import Patience
from sbert_mini.training.tasks import Task
from sbert_mini.training.trainer import MultiTaskTrainer


def fit(
    plan: Plan,
    *,
    seed: int | None = None,
    resume: bool = False,
    offline: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    on_progress: Callable[[str], None] = lambda text: None,  # noqa: ARG005
) -> Fit:
    """Train by a plan, and write the model directory.

    Checkpoints and the log lie in `<output>.run/` while it trains, those of a phase in `<output>.run/phase-<n>/`; the checkpoints
    are deleted when the model is written. Under torchrun every process calls this, and the first one writes.

    Args:
        plan: the plan.
        seed: of everything that is drawn; None for the plan's.
        resume: go on from the newest checkpoint, if there is one.
        offline: open no socket.
        callbacks: of the trainer, further ones.
        on_progress: called with a line of text for each stage.

    Raises:
        UsageError: the output exists already, or there are checkpoints and `resume` is not asked for, or they are of another
            recipe.
    """
    seed = plan.seed if seed is None else seed
    outputs.check_new(plan.output)
    if plan.recipe.evaluation.keep == "not-worse":
        outputs.check_new(plan.worse)
    open_run(plan, seed, resume=resume, offline=offline)
    earlier: Path | None = None  # the model of the phase before
    resumed_from = 0
    for phase in plan.phases:
        if phase.is_done:
            resumed_from += phase.steps
            earlier = phase.output
            continue
        _announce(plan, phase, earlier, on_progress)
        checkpoint = newest_checkpoint(phase.run)
        arguments = training_arguments(phase, seed)  # joins the other processes, if there are some
        tasks = _with_teachers(plan, phase, offline, on_progress)
        set_seed(seed)
        model = plan.start.load(earlier, offline=offline)
        trainer = _trainer(plan, phase, model, arguments, tasks, callbacks)
        if earlier is not None:
            trainer.load_heads(earlier)
        _train(trainer, phase, checkpoint)
        resumed_from += step_of(checkpoint)
        done = _result(plan, phase, trainer, resumed_from)
        if is_first_process():
            done = _save(plan, phase, trainer, done, seed, offline=offline, on_progress=on_progress)
        processes.wait()
        earlier = phase.output
    return done


def _announce(plan: Plan, phase: Phase, earlier: Path | None, on_progress: Callable[[str], None]) -> None:
    if len(plan.phases) > 1:
        on_progress(f"phase {phase.number} of {len(plan.phases)}: encoder {phase.fitter.encoder}")
    for name in phase.waiting:
        on_progress(f"task {name}: it has no head to train, and waits until the encoder is trained")
    on_progress(f"loading {earlier or plan.start.model}")


def _with_teachers(plan: Plan, phase: Phase, offline: bool, on_progress: Callable[[str], None]) -> list[Task]:
    """Return a phase's tasks, those that learn from a teacher with its vectors: the first process computes them."""
    tasks = []
    for task in phase.tasks:
        teacher = plan.teachers.get(task.config.name)
        if teacher is None:
            tasks.append(task)
            continue
        encode = partial(
            teacher_vectors,
            [row[0] for row in task.train.texts],
            teacher.model,
            plan.run / "teachers",
            graph=teacher.graph,
            threads=torch.get_num_threads(),
            offline=offline,
            trust_tokenizer=teacher.trust_tokenizer,
        )
        if is_first_process():
            encode(on_progress=on_progress)
        processes.wait()
        tasks.append(replace(task, teacher_vectors=encode()))
    return tasks


def _trainer(
    plan: Plan,
    phase: Phase,
    model: MiniSentenceTransformer,
    arguments: SentenceTransformerTrainingArguments,
    tasks: Sequence[Task],
    callbacks: Sequence[TrainerCallback],
) -> MultiTaskTrainer:
    """Return the fitter of a phase.

    Raises:
        UsageError: sentence-transformers refuses the arguments.
    """
    stopping = [Patience(phase.patience, [task.config for task in tasks])] if phase.patience else []
    try:
        with tensorboard_in(plan.run / "tensorboard"):
            return MultiTaskTrainer(
                model,
                arguments,
                tasks,
                phase.fitter,
                callbacks=[LogCallback(phase.run / LOG), LastStepCallback(), *stopping, *callbacks],
            )
    except (ValueError, RuntimeError) as error:
        if isinstance(error, SbertMiniError):
            raise
        raise UsageError(f"{plan.recipe.path}: sentence-transformers refuses these settings: {error}") from error


def _train(trainer: MultiTaskTrainer, phase: Phase, checkpoint: Path | None) -> None:
    """Train a phase to its end, from its newest checkpoint where there is one."""
    if is_first_process():
        trim_log(phase.run, step_of(checkpoint))
    if checkpoint is None or not is_over(checkpoint):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    else:  # killed between its last checkpoint and the model's writing
        trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        best = checkpoint.with_name(f"checkpoint-{trainer.state.best_global_step}")
        trainer.restore(best if best.is_dir() else checkpoint)


def _result(plan: Plan, phase: Phase, trainer: MultiTaskTrainer, resumed_from: int) -> Fit:
    state = trainer.state
    step = state.best_global_step if phase.with_dev and state.best_global_step else state.global_step
    return Fit(
        output=plan.output,
        steps=step,
        figures=_figures_at(state.log_history, step),
        history=tuple(trainer.schedule.history),
        resumed_from=resumed_from,
    )


def _figures_at(history: Sequence[Mapping[str, Any]], step: int) -> dict[str, float | None]:
    """Return the dev figures that were taken at a step."""
    lines = [line for line in history if line.get("step") == step and EVAL_MEAN in line]
    return dev_figures(figures_in(lines[-1])) if lines else {}


def _save(
    plan: Plan,
    phase: Phase,
    trainer: MultiTaskTrainer,
    done: Fit,
    seed: int,
    *,
    offline: bool,
    on_progress: Callable[[str], None],
) -> Fit:
    """Write a phase's model, the last one with a card, beside its start; then remove the checkpoints that it makes needless."""
    part = outputs.new_part(phase.output)
    trainer.save_model(str(part))
    place = phase.output
    if phase.is_last:
        comparison = compare_with_start(plan, part, offline=offline, on_progress=on_progress)
        place = plan.place_of(comparison)
        done = replace(done, output=place, comparison=comparison)
        start = plan.start_directory(offline=offline)
        teachers = [registry.resolve(teacher.model, offline=offline) for teacher in plan.teachers.values()]
        write_card(part, plan, done, start=start, teachers=teachers, seed=seed, threads=torch.get_num_threads())
    outputs.finish(part, place, keep_mark=not phase.is_last)
    remove_checkpoints(plan, phase)
    return done
