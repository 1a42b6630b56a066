"""What a run needs to go on exactly where it was: optimizer, learning-rate schedule, random states.

Safetensors and JSON; no pickle.
"""

import json
import random
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from sbert_mini.errors import CorruptModelError, UsageError
from sbert_mini.files import outputs
from sbert_mini.files.durable import save_file
from sbert_mini.files.json_files import FITTER_STATE
from sbert_mini.files.json_schema import read_json
from sbert_mini.files.reading import check_regular
from sbert_mini.training import processes

OPTIMIZER, STATE = "optimizer.safetensors", "fitter.json"

_NAME = re.compile(r"checkpoint-\d+")


def checkpoint_folders(folder: Path) -> list[Path]:
    """Return what is called `checkpoint-<number>` in a folder, the lowest number first."""
    named = (path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name))
    return sorted(named, key=lambda path: int(path.name.rpartition("-")[2]))


def is_checkpoint(path: Path) -> bool:
    """Return whether this project's fitter wrote a folder `checkpoint-<number>`."""
    return bool(_NAME.fullmatch(path.name)) and (path / STATE).is_file()


def write_checkpoint(
    folder: Path,
    state: Any,
    save: Callable[[str], None],
    optimizer: Any,
    scheduler: Any,
    fitter: Mapping[str, Any],
    callbacks: Iterable[Any],
) -> None:
    """Write `checkpoint-<step>` whole, and rename it into its place. Every process calls this, and the first one writes.

    Args:
        folder: of the checkpoints.
        state: the `TrainerState`; it names the step.
        save: writes the model, with what belongs to it, into a directory.
        optimizer: a `torch.optim.Optimizer`, or accelerate's wrapper of one.
        scheduler: a `torch.optim.lr_scheduler`.
        fitter: further state, as JSON holds it.
        callbacks: those whose state is kept, if they have one.

    Raises:
        UsageError: something that was not made here is in its place.
    """
    final = folder / f"checkpoint-{state.global_step}"
    if state.best_global_step is not None:
        state.best_model_checkpoint = str(folder / f"checkpoint-{state.best_global_step}")
    randoms = processes.everyone(random_state())
    if not processes.number():
        if final.exists() and not is_checkpoint(final):
            raise UsageError(f"{final} is in the way, and was not made by this fitter: move it, or name another folder")
        part = outputs.new_part(final)
        save(str(part))
        save_state(part, optimizer, scheduler, fitter, randoms)
        for callback in callbacks:
            if hasattr(callback, "state") and type(callback).__name__ in state.stateful_callbacks:
                state.stateful_callbacks[type(callback).__name__] = callback.state()
        state.save_to_json(str(part / "trainer_state.json"))
        shutil.rmtree(final, ignore_errors=True)
        outputs.finish(part, final)
    processes.wait()


def remove_old_checkpoints(folder: Path, best_step: int | None, limit: int | None) -> None:
    """Remove the oldest of the fitter's checkpoints down to `limit`; the newest one and that of `best_step` stay."""
    if processes.number():
        return
    written = [path for path in checkpoint_folders(folder) if is_checkpoint(path)]
    needed = {written[-1], folder / f"checkpoint-{best_step}"} & set(written)
    excess = len(written) - max(limit or len(written), len(needed))
    for path in [path for path in written if path not in needed][: max(excess, 0)]:
        shutil.rmtree(path, ignore_errors=True)


def random_state() -> dict[str, Any]:
    """Return this process' random states: of Python, NumPy, torch and its CUDA devices."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ()
    return {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": list(cuda),
    }


def save_state(
    folder: Path, optimizer: Any, scheduler: Any, fitter: Mapping[str, Any], randoms: Sequence[Mapping[str, Any]]
) -> None:
    """Write the optimizer's and the schedule's state, every process' random states, and `fitter`, which is JSON.

    Args:
        folder: an existing folder.
        optimizer: a `torch.optim.Optimizer`, or accelerate's wrapper of one.
        scheduler: a `torch.optim.lr_scheduler`.
        fitter: further state.
        randoms: each process' `random_state`.
    """
    packed = optimizer.state_dict()
    tensors, numbers = {}, {}
    for index, state in packed["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{name}"] = value.detach().cpu().contiguous()
            else:
                numbers[f"{index}.{name}"] = value
    for process, states in enumerate(randoms):
        tensors[f"random.{process}.torch"] = states["torch"]
        for number, state in enumerate(states["cuda"]):
            tensors[f"random.{process}.cuda.{number}"] = state
    save_file(tensors, folder / OPTIMIZER)
    state = {
        "optimizer": {"numbers": numbers, "param_groups": packed["param_groups"]},
        "scheduler": scheduler.state_dict(),
        "random": [{name: states[name] for name in ("python", "numpy")} for states in randoms],
        "fitter": fitter,
    }
    (folder / STATE).write_text(json.dumps(state) + "\n", "utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """Return what `save_state` wrote as JSON.

    Raises:
        CorruptModelError: it is missing or damaged.
    """
    return dict(read_json(folder / STATE, FITTER_STATE, CorruptModelError))


def load_optimizer_and_scheduler(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Restore the optimizer's and the schedule's state.

    Raises:
        CorruptModelError: a file is missing or damaged.
    """
    saved = read_state(folder)
    try:
        tensors = load_file(check_regular(folder / OPTIMIZER))
    except Exception as error:  # the library raises its own
        raise CorruptModelError(f"{folder / OPTIMIZER} cannot be read: {error}") from error
    states: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *saved["optimizer"]["numbers"].items()]:
        index, _, name = key.partition(".")
        if index.isdecimal():
            states.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": states, "param_groups": saved["optimizer"]["param_groups"]})
    scheduler.load_state_dict(saved["scheduler"])


def load_random_state(folder: Path, process: int = 0) -> None:
    """Restore a process' random states of Python, NumPy and torch."""
    saved = read_state(folder)["random"][process]
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = saved["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, cached))
    tensors = load_file(check_regular(folder / OPTIMIZER))
    torch.set_rng_state(tensors[f"random.{process}.torch"])
    if torch.cuda.is_available():
        states = [tensors[name] for name in sorted(tensors) if name.startswith(f"random.{process}.cuda.")]
        if len(states) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(states)
