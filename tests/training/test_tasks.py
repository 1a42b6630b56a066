"""What a task accepts, and which rows it is trained on."""

import pytest

from sbert_mini.errors import InputError, UsageError
from sbert_mini.training.examples import Examples
from sbert_mini.training.task_config import TaskConfig
from sbert_mini.training.tasks import Task


def test_tasks_check_what_they_are_given():
    def task(loss="cross-entropy", structure="single", texts=(("a",), ("b",)), labels=("1", "2"), **options):
        return Task(TaskConfig("t", structure, loss, **options), Examples(texts, labels))

    assert task(texts=(("a",), ("b",), ("c",)), labels=("10", "9", "x")).labels == ("9", "10", "x")
    for make, kind, match in (
        (lambda: task(structure="siamese"), UsageError, "has 2 texts a row; the train rows have 1"),
        (lambda: task(labels=None), UsageError, "needs labels, and the train rows have none"),
        (lambda: task(labels=("2", "2")), InputError, "needs at least two labels; found \\('2',\\)"),
        (
            lambda: task("cosent", "siamese", (("a", "b"),), (7.0,), high=5.0),
            InputError,
            r"7.0 is outside \[0.0, 5.0\]",
        ),
        (
            lambda: TaskConfig("t", "single", "cosent"),
            UsageError,
            "cosent is for the structures siamese; found 'single'",
        ),
        (lambda: TaskConfig("a b", "single", "cross-entropy"), UsageError, "letters, digits"),
        (lambda: TaskConfig("t", "single", "hinge"), UsageError, "task.loss must be one of"),
        (
            lambda: TaskConfig("t", "siamese", "cosent", metric="accuracy"),
            UsageError,
            "has pearson, spearman, average_precision; found 'accuracy'",
        ),
    ):
        with pytest.raises(kind, match=match):
            make()
    config = TaskConfig("t", "single", "cross-entropy", labels=("a", "b"))
    with pytest.raises(InputError, match="task 't', dev row 2: the label 'c' is not one of 'a', 'b'"):
        Task(config, Examples((("x",),), ("a",)), Examples((("x",), ("y",)), ("a", "c")))


def test_a_ranking_loss_takes_positive_rows_only():
    rows = (("a", "b"), ("c", "d"), ("e", "f"))
    config = TaskConfig("t", "siamese", "multiple-negatives-ranking")
    kept = Task(config, Examples(rows, (1.0, 0.0, 1.0)), Examples(rows, (0.0, 0.0, 1.0))).trained()
    assert kept.dev.texts == (rows[2],)
    assert kept.train.texts == (rows[0], rows[2])
    assert kept.train.counts == {"dropped: label below 1": 1}
