"""Settings that do not fit the tasks, or each other, are refused with their name."""

import pytest
import torch
from sentence_transformers import SentenceTransformerTrainingArguments

from sbert_mini.errors import InputError, UsageError
from sbert_mini.training.config import FitterConfig, RegularizationConfig, needs_dropout
from sbert_mini.training.examples import Examples
from sbert_mini.training.losses import FixedMargin, HardNegativeMargin, ScheduledMargin, margin_of
from sbert_mini.training.regularization import regularizers
from sbert_mini.training.regularizers import Pass
from sbert_mini.training.setup import check_arguments
from sbert_mini.training.smart import Bregman
from sbert_mini.training.surgery import GradVac
from sbert_mini.training.task_config import MarginConfig, TaskConfig
from sbert_mini.training.tasks import Task
from sbert_mini.training.telemetry import Telemetry

MOOD, RANK = TaskConfig("mood", "single", "cross-entropy"), TaskConfig("rank", "siamese", "multiple-negatives-ranking")
ADAPTED = TaskConfig("mood", "single", "cross-entropy", adapter_size=8)


@pytest.mark.parametrize(
    ("config", "tasks", "parameter", "text"),
    [
        (
            FitterConfig(regularization=RegularizationConfig(smart=1.0, tasks=["rank"])),
            [MOOD, RANK],
            "regularization.tasks",
            "the loss multiple-negatives-ranking of the task 'rank' has no outputs",
        ),
        (FitterConfig(encoder="frozen"), [ADAPTED], "encoder", "task 'mood': an adapter needs an encoder that runs"),
        (FitterConfig(), [], "tasks", "at least one task is needed"),
    ],
)
def test_tasks_that_the_settings_do_not_fit(config, tasks, parameter, text):
    names = [task.name for task in tasks]
    with pytest.raises(UsageError, match=text) as error:
        config.check_tasks(tasks, names, names)
    assert error.value.parameter == parameter


@pytest.mark.parametrize("name", ["batch_size", "floor", "steps_per_epoch"])
def test_numbers_of_examples_and_steps_are_at_least_1(name):
    with pytest.raises(UsageError, match=f"{name} must be at least 1; found 0") as error:
        FitterConfig(**{name: 0})
    assert error.value.parameter == name


def test_no_trained_task_is_refused():
    with pytest.raises(UsageError, match="no task has training data"):
        FitterConfig().check_tasks([RANK], [], ["rank"])


def test_a_task_is_regularized_where_it_is_named_and_has_outputs(caplog):
    caplog.set_level("INFO", logger="sbert_mini")
    named = TaskConfig("sts", "siamese", "cosent")
    assert set(regularizers(RegularizationConfig(r_drop=1.0), [MOOD, RANK, named])) == {"mood", "sts"}
    assert "task rank: the loss multiple-negatives-ranking has no outputs to regularize" in caplog.text
    assert set(regularizers(RegularizationConfig(r_drop=1.0, tasks=["sts"]), [MOOD, RANK, named])) == {"sts"}
    assert regularizers(RegularizationConfig(), [MOOD]) == {}


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (MarginConfig(value=0.3), FixedMargin),
        (MarginConfig("scheduled", start=0.3), ScheduledMargin),
        (MarginConfig("hard-negatives", 0.3), HardNegativeMargin),
    ],
)
def test_a_margin_is_of_its_rule_and_begins_at_its_value(config, kind):
    margin = margin_of(config)
    assert (type(margin), margin.value) == (kind, 0.3)


def test_a_margin_that_follows_hard_negatives_begins_within_its_bounds():
    with pytest.raises(UsageError, match=r"between low and high, 0\.1 and 0\.4; found 0\.5") as error:
        MarginConfig("hard-negatives", 0.5, low=0.1, high=0.4)
    assert error.value.parameter == "value"
    assert MarginConfig("fixed", 0.5, low=0.1, high=0.4).value == 0.5


def test_a_margin_is_for_one_loss():
    with pytest.raises(UsageError, match=r"task\.margin is for the loss cosine-embedding; found cosent"):
        Task(TaskConfig("t", "siamese", "cosent"), Examples((("a", "b"),), (1.0,)), margin=FixedMargin(0.2))


@pytest.mark.parametrize("which", ["train", "dev"])
def test_a_set_of_which_no_row_is_left_is_named(which):
    rows = Examples((("a", "b"), ("c", "d")), (0.0, 1.0))
    left = {"train": rows, "dev": rows, which: rows.kept([False, False], "in the dev set")}
    with pytest.raises(InputError, match=f"task 't': no {which} row is left"):
        Task(TaskConfig("t", "siamese", "cosent"), **left)


def test_arguments_that_the_fitter_cannot_do(tmp_path):
    def arguments(**options):
        return SentenceTransformerTrainingArguments(str(tmp_path), use_cpu=True, report_to="none", **options)

    check_arguments(arguments(), 7, is_sharded=False)
    with pytest.raises(UsageError, match="FSDP and DeepSpeed, which shard them, are not for it"):
        check_arguments(arguments(), 8, is_sharded=True)
    with pytest.raises(UsageError, match="fp16 needs its losses scaled; use bf16"):
        check_arguments(arguments(fp16=True), 8, is_sharded=False)


def test_rules_by_themselves_refuse_what_they_lack():
    with pytest.raises(UsageError, match=r"beta must be in \[0, 1\]; found 1\.5"):
        GradVac(beta=1.5)
    clean = Pass(torch.zeros(2, 3), torch.zeros(()), None, (2, 1, 1), lambda further: torch.zeros(2, 3), True)
    with pytest.raises(UsageError, match="needs the outputs under a moving average of the weights"):
        Bregman(1.0)(clean)


def test_a_gradient_that_is_zero_has_no_cosine_in_the_log():
    telemetry = Telemetry(["a", "b", "c"], clock=lambda: 0.0)
    gram = torch.tensor([[4.0, 0.0, -2.0], [0.0, 0.0, 0.0], [-2.0, 0.0, 9.0]])
    telemetry.note_surgery(gram, torch.tensor([1.0, 1.0, 0.5]))
    noted = {name: values for name, values in telemetry.state().items() if name.startswith(("cosine", "grad_norm"))}
    assert noted == {
        "grad_norm_a": [2.0],
        "grad_norm_b": [0.0],
        "grad_norm_c": [3.0],
        "cosine_a/c": [pytest.approx(-1 / 3)],
    }


def test_a_task_with_outputs_may_be_named_for_regularization_beside_one_without():
    config = FitterConfig(regularization=RegularizationConfig(smart=1.0, tasks=["mood"]))
    config.check_tasks([MOOD, RANK], ["mood", "rank"], [])
    with pytest.raises(UsageError, match=r"regularization\.tasks: there is no task 'rank'"):
        FitterConfig(regularization=RegularizationConfig(tasks=["mood", "rank"])).check_tasks(
            [MOOD, RANK], ["mood"], []
        )


def test_what_compares_two_dropout_masks_needs_dropout():
    simcse = TaskConfig("simcse", "single", "multiple-negatives-ranking")
    assert needs_dropout([MOOD, simcse], RegularizationConfig()) == "unsupervised SimCSE (the task 'simcse')"
    assert needs_dropout([MOOD], RegularizationConfig(r_drop=1.0)).startswith("R-Drop")
    assert needs_dropout([MOOD], RegularizationConfig(smart=1.0)) == ""
