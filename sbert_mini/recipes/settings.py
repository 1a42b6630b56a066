"""What a run takes from where it runs: folder, device, threads, TensorBoard's folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments

from sbert_mini.recipes.launchers import process_count, refuse_sharding
from sbert_mini.recipes.plan import Phase


def training_arguments(
    phase: Phase, seed: int, folder: Path | None = None, **changes: Any
) -> SentenceTransformerTrainingArguments:
    """Return sentence-transformers' training arguments of a phase. Under torchrun this joins the other processes.

    Args:
        phase: the phase.
        seed: of everything that is drawn.
        folder: of checkpoints; None for the phase's.
        changes: arguments that replace the phase's.
    """
    refuse_sharding()
    launched = process_count() is not None
    on_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    return SentenceTransformerTrainingArguments(
        **{
            **phase.arguments,
            "output_dir": str(folder or phase.run),
            "use_cpu": not on_gpu,
            "dataloader_drop_last": launched,  # no batch is partial; the stock trainer warns otherwise
            "ddp_backend": "gloo" if launched and not on_gpu else None,
            "logging_nan_inf_filter": False,
            "save_strategy": "steps",
            "restore_callback_states_from_checkpoint": True,
            "disable_tqdm": True,
            "seed": seed,
            **changes,
        }
    )


@contextlib.contextmanager
def computing_threads(threads: int) -> Iterator[None]:
    """Compute with this many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def tensorboard_in(folder: Path) -> Iterator[None]:
    """Name the folder to TensorBoard's callback while the trainer is made, unless the user named one."""
    name = "TENSORBOARD_LOGGING_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]
