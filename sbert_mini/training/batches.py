"""Batches of several tasks: tokenized rows, and the features of each task's part of a step."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sbert_mini.model.choices import JOINED
from sbert_mini.shapes import IntArray
from sbert_mini.text.batching import pad
from sbert_mini.text.tokenizer import TextTokenizer
from sbert_mini.text.tokens import Tokens
from sbert_mini.training import processes
from sbert_mini.training.checks import normalized
from sbert_mini.training.evaluator import encode_tokenized
from sbert_mini.training.examples import Examples, TokenizedTexts
from sbert_mini.training.schedule import BundleSampler
from sbert_mini.training.tasks import Task

log = logging.getLogger("sbert_mini")

LIKE_LENGTHS = 0.8
"""Columns whose longest texts are, on average, at least this share of the longest of all go through the encoder together."""


def tokenized(task: Task, examples: Examples, tokenizer: TextTokenizer, which: str) -> list[TokenizedTexts]:
    """Return the texts of a task's examples, tokenized, a column each. Reports texts that are cut.

    A `pair` is one column; for `pair+siamese` the texts' own columns follow it.

    Args:
        task: the task.
        examples: its examples.
        tokenizer: the model's.
        which: what the examples are, for the report; empty for no report.
    """
    is_joined = task.config.structure in JOINED
    columns: list[Any] = [list(column) for column in zip(*examples.texts, strict=True)]
    if is_joined:
        columns = [[(row[0], row[1]) for row in examples.texts], *(columns if task.config.structure != "pair" else [])]
    texts = [TokenizedTexts(column, tokenizer) for column in columns]
    if which and (cut := sum(column.truncated for column in (texts[:1] if is_joined else texts))):
        what = "pairs" if is_joined else "texts"
        limit = tokenizer.max_seq_length
        log.warning(
            "task %s: %d %s %s are longer than %d tokens, and are cut", task.config.name, cut, which, what, limit
        )
    return texts


def features(tokens: Sequence[Tokens], pad_id: int) -> dict[str, Tensor]:
    """Return what the encoder takes of some texts: ids, mask and segments. Shapes: (texts, seq) each."""
    arrays = pad(tokens, pad_id)
    return dict(zip(("input_ids", "attention_mask", "token_type_ids"), map(torch.from_numpy, arrays), strict=True))


def embed(model: nn.Module, tokens: Sequence[Tokens], adapter: nn.Module | None = None, *, pad_id: int) -> Tensor:
    """Return the sentence vectors of some tokens, on the model's device. Shapes: the result (texts, dim)."""
    device = next(model.parameters()).device
    arrays: dict[str, Any] = {name: tensor.to(device) for name, tensor in features(tokens, pad_id).items()}
    if adapter is not None:
        arrays["adapter"] = adapter
    vectors: Tensor = model(arrays)["sentence_embedding"]
    return vectors


@dataclass(frozen=True)
class TaskRows:
    """A task's training examples, ready for batches.

    Attributes:
        task: the task.
        columns: its texts, tokenized; each twice where a text is its own positive.
        targets: what its loss takes beside the vectors, or None.
        lengths: the longest text of each row, in tokens: (rows,).
        keys: numbers of each row's texts, the same for the same text, where rows of a text must not meet in a batch.
        vectors: with a frozen encoder, the sentence vectors of each column: (rows, dim).
    """

    task: Task
    columns: list[TokenizedTexts]
    targets: Tensor | None
    lengths: IntArray
    keys: list[tuple[int, ...]] | None
    vectors: list[Tensor] | None = None


def task_rows(
    task: Task, tokenizer: TextTokenizer, embed: Callable[[Sequence[Tokens]], Tensor] | None = None
) -> TaskRows:
    """Return a task's training examples, ready for batches.

    Args:
        task: the task.
        tokenizer: the model's.
        embed: with a frozen encoder: tokens of a batch -> its vectors, (batch, dim). None to encode in each step.
    """
    columns = tokenized(task, task.train, tokenizer, "training")
    vectors = None if embed is None else [encode_tokenized(embed, column) for column in columns]
    keys = None
    if task.config.spec.ranking:
        numbers: dict[str, int] = {}
        keys = [tuple({numbers.setdefault(normalized(t), len(numbers)) for t in row}) for row in task.train.texts]
    lengths = np.max([column.lengths for column in columns], axis=0)
    return TaskRows(task, columns * task.config.views, task.targets(task.train), lengths, keys, vectors)


class _Names(Dataset[Any]):
    """What a DataLoader draws from: an example is named by (task, row), and the collator looks it up."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, name: tuple[int, int]) -> tuple[int, int]:
        return name


class Collator:
    """Makes a step's batch of the names of its examples: for each task its features, or vectors, and targets.

    Args:
        rows: the tasks' rows.
        pad_id: the tokenizer's.
        joined: the names of tasks whose texts all go through the encoder in one pass, as regularizers need it.
        like_lengths: see `LIKE_LENGTHS`.
    """

    def __init__(
        self,
        rows: Sequence[TaskRows],
        pad_id: int,
        joined: Collection[str] = (),
        like_lengths: float = LIKE_LENGTHS,
    ) -> None:
        self._rows, self._pad_id, self._joined = rows, pad_id, joined
        self.like_lengths = like_lengths

    def __call__(self, names: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Return `{"tasks": [...]}`: of each task `examples`, `size`, `targets` and one of `features`, `columns`, `vectors`."""
        return {
            "tasks": [
                self._part(rows, [row for task, row in names if task == number])
                for number, rows in enumerate(self._rows)
            ]
        }

    def _part(self, rows: TaskRows, numbers: list[int]) -> dict[str, Any]:
        config = rows.task.config
        part: dict[str, Any] = {"examples": len(numbers)}
        if rows.targets is not None and (config.needs_label or rows.task.teacher_vectors is not None):
            part["targets"] = rows.targets[numbers]
        if rows.vectors is not None:  # heads on fixed vectors are too small to share
            return {**part, "size": len(numbers), "vectors": [vectors[numbers] for vectors in rows.vectors]}
        size = len(numbers) // processes.count()  # each process encodes its part
        numbers = numbers[processes.number() * size :][:size]
        columns = [[column[i] for i in numbers] for column in rows.columns]
        if config.spec.cached:
            return {**part, "size": size, "columns": [features(column, self._pad_id) for column in columns]}
        return {**part, "size": size, "features": self._passes(config.name, columns)}

    def _passes(self, name: str, columns: Sequence[Sequence[Tokens]]) -> list[dict[str, Tensor]]:
        """Return the features of the forward passes: one for all texts, or one a column where they differ in length so much
        (titles and articles) that most of it would be padding.
        """
        widths = [max(len(tokens.ids) for tokens in column) for column in columns]
        if name not in self._joined and sum(widths) < self.like_lengths * max(widths) * len(widths):
            return [features(column, self._pad_id) for column in columns]
        return [features([tokens for column in columns for tokens in column], self._pad_id)]


def loader_of(sampler: BundleSampler, collator: Collator, examples: int) -> DataLoader[Any]:
    """Return a loader of the batches that `sampler` draws; `examples` is how many an epoch holds."""
    return DataLoader(_Names(examples), batch_sampler=sampler, collate_fn=collator)
