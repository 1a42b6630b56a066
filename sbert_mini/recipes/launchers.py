"""What a launcher such as torchrun or accelerate says in the environment. Without torch, so that it is read first."""

import os

from sbert_mini.errors import UsageError


def refuse_sharding() -> None:
    """Refuse a launcher's FSDP or DeepSpeed, before either is loaded.

    Raises:
        UsageError: the environment asks for one of them.
    """
    for variable, name in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(variable, "false").lower() in ("1", "true", "yes", "on"):
            raise UsageError(
                f"{variable} is set: the fitter projects whole gradients of each task, which {name} shards; start it by torchrun "
                "alone"
            )


def process_count() -> int | None:
    """Return how many processes train together, as a launcher says; None without a launcher."""
    count = os.environ.get("WORLD_SIZE")
    return None if count is None else int(count)


def is_first_process() -> bool:
    """Return whether this process is the one that writes: the only one, or the first under torchrun."""
    return int(os.environ.get("RANK", "0")) == 0
