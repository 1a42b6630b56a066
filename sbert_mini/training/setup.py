"""What a fitter is made of, from its settings and tasks: arguments that fit, the evaluator, the schedule."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence

from sentence_transformers import SentenceTransformerTrainingArguments
from torch import Tensor

from sbert_mini.encoder.bert import MiniBert
from sbert_mini.errors import UsageError
from sbert_mini.evaluation.log_keys import TRAIN
from sbert_mini.text.tokenizer import TextTokenizer
from sbert_mini.training import processes
from sbert_mini.training.batches import tokenized
from sbert_mini.training.config import FitterConfig, needs_dropout
from sbert_mini.training.evaluator import Measured, TaskEvaluator
from sbert_mini.training.objective import Objective
from sbert_mini.training.schedule import Schedule
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task

log = logging.getLogger("sbert_mini")


def check_arguments(args: SentenceTransformerTrainingArguments, batch_size: int, is_sharded: bool) -> None:
    """Refuse training arguments that the fitter cannot do.

    Args:
        args: the arguments.
        batch_size: examples of a step.
        is_sharded: whether FSDP or DeepSpeed are on.

    Raises:
        UsageError: the text says which, and what to do.
    """
    if is_sharded:
        raise UsageError(
            "the fitter takes whole gradients of each task: FSDP and DeepSpeed, which shard them, are not for it"
        )
    if args.n_gpu > 1:
        raise UsageError("a process trains on one device: start one for each, by torchrun --nproc-per-node")
    if batch_size % processes.count():
        raise UsageError(
            f"a batch of {batch_size} examples cannot be shared by {processes.count()} processes: name a multiple"
        )
    if args.fp16:
        raise UsageError("fp16 needs its losses scaled; use bf16")


def warn_without_dropout(encoder: MiniBert, tasks: Sequence[TaskConfig], config: FitterConfig) -> None:
    """Warn where a method compares two dropout masks, and the encoder has no dropout.

    Args:
        encoder: the encoder.
        tasks: the tasks that are trained.
        config: the fitter's settings.
    """
    if encoder.config.hidden_dropout_prob > 0 or config.encoder == "frozen":
        return
    needs = needs_dropout(tasks, config.regularization)
    if needs:
        log.warning("the encoder's dropout is 0, so that %s compares a text with itself: use with_dropout(0.1)", needs)


def make_evaluator(
    tasks: Sequence[Task],
    config: FitterConfig,
    objectives: Mapping[str, Objective],
    tokenizer: TextTokenizer,
    embed: Callable[..., Tensor],
) -> TaskEvaluator | None:
    """Return the evaluator of the tasks' dev rows, and of a sample of their training rows; None without dev rows.

    Args:
        tasks: all tasks.
        config: the fitter's settings.
        objectives: the tasks' losses and heads, by name.
        tokenizer: the model's.
        embed: tokens of a batch, and a task's adapter or None -> vectors, (batch, dim).
    """
    measured = [
        Measured(task, task.dev, tokenized(task, task.dev, tokenizer, "dev")) for task in tasks if task.dev is not None
    ]
    if not measured:
        return None
    for task in tasks if config.train_rows else ():
        if task.config.has_dev_figure and not task.only_measured:
            sample = task.train.sample(config.train_rows, seed=0)
            measured.append(Measured(task, sample, tokenized(task, sample, tokenizer, "training"), TRAIN))
    return TaskEvaluator(measured, objectives, embed, fixed=config.encoder == "frozen")


def make_schedule(
    tasks: Sequence[Task], config: FitterConfig, args: SentenceTransformerTrainingArguments, steps_per_epoch: int
) -> Schedule:
    """Return the schedule of the tasks that are trained; `steps_per_epoch` counts batches."""
    counts = {task.config.name: len(task.train) for task in tasks}
    epochs = args.num_train_epochs
    if args.max_steps > 0:
        epochs = args.max_steps / math.ceil(steps_per_epoch / args.gradient_accumulation_steps)
    unit = processes.count()
    return Schedule(config.schedule, counts, config.batch_size, math.ceil(epochs), config.floor, unit)
