"""The folder of a training run: its notes, checkpoints and log. Nothing is removed that was not made here."""

import hashlib
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.evaluation.measure import machine
from sbert_mini.files import outputs
from sbert_mini.files.durable import is_part, write_durably
from sbert_mini.files.json_files import ANY_OBJECT, TRAINER_STATE
from sbert_mini.files.json_schema import read_json
from sbert_mini.model import registry
from sbert_mini.model.layout import read_layout
from sbert_mini.model.weights import weight_files
from sbert_mini.recipes.launchers import is_first_process, process_count
from sbert_mini.recipes.plan import Phase, Plan
from sbert_mini.runtime.fingerprint import file_sha256
from sbert_mini.training import checkpoints
from sbert_mini.training.tasks import Task

RUN, LOG = "run.json", "log.jsonl"


def open_run(plan: Plan, seed: int, *, resume: bool = False, offline: bool = False) -> None:
    """Make a run's folder, or check that the one there is of the same run; note what must be the same to go on.

    Raises:
        UsageError: something in the folder was not made here, checkpoints are there and `resume` is not asked for, or they are of
            another run; the text says what differs.
    """
    _check_run(plan.run)
    newest = newest_checkpoint(plan.run)
    if newest is not None and not resume:
        raise UsageError(
            f"{plan.run} holds {newest.relative_to(plan.run)} of an earlier run: go on with it (resume=True), or delete it",
            "resume=True",
        )
    if not is_first_process():
        return
    identity = _identity(plan, seed, offline=offline)
    outputs.make_folder(plan.run)
    names = {
        "start": str(plan.start.model),
        "teachers": ", ".join(str(teacher.model) for teacher in plan.teachers.values()),
    }
    if newest is None:
        notes = {**identity, "names": names, "machine": machine(torch.get_num_threads())}
        write_durably(plan.run / RUN, (json.dumps(notes) + "\n").encode())
    elif differences := _differences(run_notes(plan.run), identity, names):
        raise UsageError(
            f"the checkpoints in {plan.run} were made with {'; '.join(differences)}: give what they were made with, name "
            "another output, or delete that folder"
        )


def is_finished(plan: Plan, *, seed: int | None = None, offline: bool = False) -> bool:
    """Return whether the plan's output, or its `worse` one, is the model that just this plan, with this seed, gave.

    The number of processes does not matter.
    """
    if plan.written() is None:
        return False
    identity = _identity(plan, plan.seed if seed is None else seed, offline=offline)
    notes = run_notes(plan.run)
    return all(notes.get(key) == value for key, value in identity.items() if key != "processes")


def run_notes(run: Path) -> dict[str, Any]:
    """Return what a run's folder notes of the run: what must be the same to go on, and the `machine`; empty where it does not."""
    try:
        return dict(read_json(run / RUN, ANY_OBJECT, CorruptModelError))
    except CorruptModelError:
        return {}


def newest_checkpoint(run: Path) -> Path | None:
    """Return the newest whole checkpoint in a run's folder, or None."""
    for folder in reversed(_run_folders(run)):
        if whole := [path for path in checkpoints.checkpoint_folders(folder) if checkpoints.is_checkpoint(path)]:
            return whole[-1]
        if folder != run and outputs.is_made(folder / "model"):
            return folder / "model"
    return None


def step_of(checkpoint: Path | None) -> int:
    """Return the step that a checkpoint was made at; 0 for None."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint is not None else 0


def is_over(checkpoint: Path) -> bool:
    """Return whether a checkpoint is that of a run's last step: all steps done, or stopped early."""
    state = read_json(checkpoint / "trainer_state.json", TRAINER_STATE, CorruptModelError)
    control = state["stateful_callbacks"].get("TrainerControl", {}).get("args", {})
    return bool(control.get("should_training_stop")) or state["global_step"] >= state["max_steps"]


def remove_checkpoints(plan: Plan, phase: Phase) -> None:
    """Remove the checkpoints of a phase that is done; after the last one, those of all phases and their models."""
    for folder in _run_folders(plan.run) if phase.is_last else [phase.run]:
        for checkpoint in filter(checkpoints.is_checkpoint, checkpoints.checkpoint_folders(folder)):
            shutil.rmtree(checkpoint, ignore_errors=True)
        if phase.is_last and outputs.is_made(folder / "model"):
            shutil.rmtree(folder / "model", ignore_errors=True)


def trim_log(run: Path, step: int) -> None:
    """Leave in a run's log what was before a step: what came after it is done again."""
    file = run / LOG
    if file.is_file():
        lines = [line for line in file.read_text("utf-8").splitlines() if step and json.loads(line)["step"] <= step]
        file.write_text("".join(line + "\n" for line in lines), "utf-8")


def _run_folders(run: Path) -> list[Path]:
    """Return a run's folder and those of its phases, in order."""
    phases = [path for path in run.glob("phase-*") if path.is_dir() and path.name.removeprefix("phase-").isdecimal()]
    return [run, *sorted(phases, key=lambda path: int(path.name.removeprefix("phase-")))]


def _check_run(run: Path) -> None:
    """Refuse a folder of checkpoints that a run would write into, or remove from, what it did not make.

    Raises:
        UsageError: the text names what is in the way.
    """
    if not run.exists():
        return
    if not run.is_dir():
        raise UsageError(f"{run}, the folder for checkpoints, is a file: move it, or name another output")
    others = [path for path in run.iterdir() if not is_part(path.name, RUN)]
    if others and not {"recipe", "seed"} <= set(run_notes(run)):
        raise UsageError(
            f"{run}, the folder for checkpoints, holds {others[0].name}, and was not made by sbmini: move it, or name another "
            "output"
        )
    for folder in _run_folders(run):
        made = [(path, checkpoints.is_checkpoint(path)) for path in checkpoints.checkpoint_folders(folder)]
        made += [(path, outputs.is_made(path)) for path in folder.glob(f"checkpoint-*{outputs.PART}")]
        if folder != run:
            made += [
                (path, outputs.is_made(path)) for name in ("model", "model.part") if (path := folder / name).exists()
            ]
        for path, ours in made:
            if not ours:
                raise UsageError(f"{path} is in the way, and was not made by sbmini: move it, or name another output")


def _identity(plan: Plan, seed: int, *, offline: bool) -> dict[str, Any]:
    """Return what must be the same for a run to go on."""
    teachers = {
        task: _weights_digest(registry.resolve(teacher.model, offline=offline))
        for task, teacher in plan.teachers.items()
    }
    return {
        "recipe": plan.recipe.text,
        "seed": seed,
        "data": _data_digest(plan.tasks),
        "start": _weights_digest(plan.start_directory(offline=offline)),
        **({"teachers": teachers} if teachers else {}),
        "processes": process_count() or 1,
    }


def _data_digest(tasks: Sequence[Task]) -> str:
    """Return the sha256 of all rows and labels."""
    digest = hashlib.sha256()
    for task in tasks:
        for examples in (task.train, task.dev):
            rows = [] if examples is None else [examples.texts, examples.labels]
            digest.update(json.dumps([task.config.name, rows], ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _weights_digest(model: Path) -> str:
    """Return the sha256 of a model's weights."""
    layout = read_layout(model)
    return ", ".join(file_sha256(file) for file in weight_files(layout.encoder_path))


def _differences(noted: Mapping[str, Any], identity: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """Return what a run's notes have otherwise than this run, in words.

    Args:
        noted: from `run_notes`.
        identity: this run's.
        names: what this run's starting model and teachers are called.
    """
    differences = []
    before = noted.get("names") or {}
    if noted.get("start") != identity["start"]:
        theirs, ours = before.get("start"), names["start"]
        named = f"the starting model {theirs}, and this run starts from {ours}" if theirs not in (None, ours) else ""
        differences.append(
            named or f"another starting model (the weights of {ours} have changed, or it is another one)"
        )
    if noted.get("recipe") != identity["recipe"]:
        differences.append(f"another recipe{_first_change(str(noted.get('recipe')), str(identity['recipe']))}")
    if noted.get("seed") != identity["seed"]:
        differences.append(f"seed {noted.get('seed')}, and this run has seed {identity['seed']}")
    if noted.get("data") != identity["data"]:
        differences.append("other data: rows or labels of a train or dev file have changed")
    if noted.get("teachers") != identity.get("teachers"):
        differences.append(
            f"another teacher than {names.get('teachers') or 'none'} (before: {before.get('teachers') or 'none'})"
        )
    if noted.get("processes", 1) != identity["processes"]:
        differences.append(f"{noted.get('processes', 1)} processes, and this run has {identity['processes']}")
    return differences


def _first_change(before: str, now: str) -> str:
    """Return the first line in which two recipes differ, in words."""
    pairs = itertools.zip_longest(before.splitlines(), now.splitlines(), fillvalue="")
    for number, (old, new) in enumerate(pairs, start=1):
        if old != new:
            return f" (line {number} was `{old.strip()}`, and is `{new.strip()}`)"
    return ""
