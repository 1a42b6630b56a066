"""A task's loss on its part of a batch: forward passes, head, regularizers."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from sbert_mini.training import processes
from sbert_mini.training.objective import Objective
from sbert_mini.training.regularizers import Pass, Regularizer


def task_loss(
    model: nn.Module,
    objective: Objective,
    batch: Mapping[str, Any],
    hidden: int,
    rules: Sequence[Regularizer] = (),
    under_teacher: Callable[[], AbstractContextManager[None]] | None = None,
) -> Tensor:
    """Return a task's loss on its part of a batch, unweighted, of all processes together.

    Args:
        model: the encoder, with pooling.
        objective: the task's loss and head.
        batch: from `batches.Collator`.
        hidden: components of the encoder's embeddings.
        rules: what is added to the loss.
        under_teacher: inside, the weights are their moving average; for rules that compare with it.

    Shapes: the result ().
    """
    targets = batch.get("targets")
    if "vectors" in batch:
        fixed: Tensor = objective(batch["vectors"], targets)
        return fixed
    if "columns" in batch:
        return objective.cached(batch["columns"])
    vectors = sentence_vectors(model, objective, batch)
    if not rules:
        return objective(vectors, targets)
    by_outputs = objective.loss_of_outputs
    outputs = objective.outputs(vectors)
    loss = objective.loss_of(outputs, targets) if by_outputs else objective(vectors, targets)

    def teacher_outputs() -> Tensor:
        assert under_teacher is not None  # noqa: S101
        with under_teacher():
            return objective.outputs(sentence_vectors(model, objective, batch))

    clean = Pass(
        outputs=outputs,
        loss=loss,
        loss_of=(lambda outputs: objective.loss_of(outputs, targets)) if by_outputs else None,
        embedded=(*batch["features"][0]["input_ids"].shape, hidden),
        run=lambda further: objective.outputs(sentence_vectors(model, objective, batch, further)),
        classes=objective.config.head_kind == "classification",
        teacher=None if under_teacher is None else teacher_outputs,
    )
    return torch.stack([loss, *(rule(clean) for rule in rules)]).sum()


def sentence_vectors(
    model: nn.Module, objective: Objective, batch: Mapping[str, Any], further: Mapping[str, Any] | None = None
) -> list[Tensor]:
    """Return the sentence vectors of a task's part of a batch, of all processes together.

    Args:
        model: the encoder, with pooling.
        objective: the task's loss and head; its adapter, if it has one, alters the vectors.
        batch: from `batches.Collator`, with `features`.
        further: features of the encoder beside the texts.

    Shapes: the results (examples, dim), a tensor a column.
    """
    more = {**(further or {}), **({"adapter": objective.adapter} if objective.adapter is not None else {})}
    part = torch.cat([model({**features, **more})["sentence_embedding"] for features in batch["features"]])
    columns: Any = part.split(batch["size"])  # type: ignore[no-untyped-call]  # part: (columns * batch, dim)
    return [processes.gather(column) for column in columns]
