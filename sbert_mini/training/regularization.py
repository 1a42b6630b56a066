"""Which regularizers the settings ask for, and for which tasks."""

import logging
from collections.abc import Sequence

from sbert_mini.training.config import RegularizationConfig
from sbert_mini.training.r_drop import RDrop
from sbert_mini.training.regularizers import Regularizer
from sbert_mini.training.smart import Bregman, Smart
from sbert_mini.training.task_config import TaskConfig

log = logging.getLogger("sbert_mini")


def regularizers(config: RegularizationConfig, tasks: Sequence[TaskConfig]) -> dict[str, list[Regularizer]]:
    """Return the rules of each task, by name; tasks whose loss has no outputs have none, which the log says."""
    made: list[Regularizer] = []
    if config.smart:
        made.append(
            Smart(config.smart, config.smart_radius, config.smart_step_size, config.smart_steps, config.smart_noise)
        )
    if config.bregman:
        made.append(Bregman(config.bregman))
    if config.r_drop:
        made.append(RDrop(config.r_drop))
    rules: dict[str, list[Regularizer]] = {}
    for task in tasks if made else ():
        if config.tasks and task.name not in config.tasks:
            continue
        if task.has_outputs:
            rules[task.name] = made
        else:
            log.info("task %s: the loss %s has no outputs to regularize", task.name, task.loss)
    return rules
