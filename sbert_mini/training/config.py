"""The fitter's settings and their rules. No torch.

`FitterConfig.check_tasks` has the rules that need the tasks, too; the reader of recipes adds file and line to its errors.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sbert_mini.errors import UsageError
from sbert_mini.training.fields import check, key
from sbert_mini.training.schedule import SCHEDULES
from sbert_mini.training.surgery_rules import SURGERY_RULES, check_surgery
from sbert_mini.training.task_config import LORA_TARGETS, TaskConfig

if TYPE_CHECKING:
    from torch import Tensor

ENCODERS = ("trained", "frozen")
OPTIMIZERS = ("adamw", "adam", "torch-adamw")
AVERAGES = ("ema", "checkpoints")


@dataclass(frozen=True)
class RegularizationConfig:
    """Which regularizers are added to the losses; see `smart` and `r_drop`.

    Attributes:
        r_drop: α of R-Drop; 0 for none. 1 to 5 are usual.
        smart: λ of SMART's adversarial regularization; 0 for none. 1 to 5 are usual.
        smart_radius: ε, the largest change of a component of the embeddings.
        smart_step_size: η, the length of SMART's steps uphill, 0 or more.
        smart_steps: the number of SMART's steps uphill, 1 or more.
        smart_noise: σ, the standard deviation of the random noise from which SMART's steps start, 0 or more.
        bregman: μ of SMART's proximal term; 0 for none. 1 is usual.
        bregman_momentum: the share of the old average of the weights that each step keeps for the proximal term, 0 to
            0.99999.
        tasks: the tasks that are regularized; by default all that have a head.

    Raises:
        UsageError: a value breaks a rule; `parameter` names it.
    """

    r_drop: float = key(0.0, low=0)
    smart: float = key(0.0, low=0)
    smart_radius: float = key(1e-5, low=0)
    smart_step_size: float = key(1e-3, low=0)
    smart_steps: int = key(1, low=1)
    smart_noise: float = key(1e-5, low=0)
    bregman: float = key(0.0, low=0)
    bregman_momentum: float = key(0.99, low=0, high=0.99999)
    tasks: list[str] = key([])

    def __post_init__(self) -> None:
        check(self, "regularization")

    @property
    def active(self) -> bool:
        """Whether there is any."""
        return bool(self.r_drop or self.smart or self.bregman)


@dataclass(frozen=True)
class AverageConfig:
    """Which average of the weights is measured and saved in place of them; see `averaging`.

    Attributes:
        kind: `none`; `ema`, a moving average over steps; or `checkpoints`, the mean over evaluations.
        decay: with `ema`: the share of the old average that each step keeps, 0 to 0.999999.
        start: with `checkpoints`: the share of the steps after which evaluations count, 0 to 1.

    Raises:
        UsageError: a value breaks a rule; `parameter` names it.
    """

    kind: str = key("none", choices=("none", *AVERAGES))
    decay: float = key(0.999, low=0, high=0.999999)
    start: float = key(0.5, low=0, high=1)

    def __post_init__(self) -> None:
        check(self, "average")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank updates in place of the encoder's own weights; see `lora`.

    Attributes:
        rank: the rank of the low-rank updates, 1 or more; a higher rank trains more parameters.
        alpha: the updates are multiplied by `alpha / rank`; 0 or more.
        dropout: the probability of dropout before the updates, 0 to 0.95.
        targets: the encoder's matrices that get updates: `query`, `key`, `value`, `dense`.

    Raises:
        UsageError: a value breaks a rule; `parameter` names it.
    """

    rank: int = key(8, low=1)
    alpha: float = key(16.0, low=0)
    dropout: float = key(0.0, low=0, high=0.95)
    targets: list[str] = key(["query", "value"])

    def __post_init__(self) -> None:
        check(self, "lora")
        unknown = [name for name in self.targets if name not in LORA_TARGETS]
        if unknown or not self.targets:
            shown = repr(unknown[0]) if unknown else "none"
            raise UsageError(f"lora.targets must be some of {', '.join(LORA_TARGETS)}; found {shown}", "targets")


@dataclass(frozen=True)
class FitterConfig:
    """What `MultiTaskTrainer` needs beside sentence-transformers' training arguments.

    Attributes:
        batch_size: examples of a step (of each of its micro-batches, where gradients are accumulated), all tasks together.
        schedule: how a batch is shared out among the tasks; one of `schedule.SCHEDULES`.
        floor: the fewest examples of a task in a step.
        surgery: how the tasks' gradients are combined: one of `SURGERY_RULES`; a function from a Gram matrix to weights; or None
            to add gradients up as autograd does, without looking at them. With `torchjd:PCD` the first task is the primary one.
        steps_per_epoch: batches of an epoch; None for as many as hold as many examples as all tasks together have.
        encoder: `trained`, or `frozen`: heads alone are trained, on vectors that are computed once, without dropout.
        head_learning_rate: of the heads; None for the encoder's.
        optimizer: `adamw` and `adam` are this project's, with rows of the word table alone and torch's fused kernel for the
            arithmetic; `torch-adamw` is torch's fused one.
        length_batches: whether examples of similar length share a batch.
        layer_decay: each layer learns at this share of the next one's rate; see `rates.parameter_groups`.
        unfreeze_every: steps after which one more layer is trained, from the last one down; 0 for all from the start.
        regularization: SMART, R-Drop and the like, and the tasks that they are for.
        average: of the weights, to be measured and saved in place of them.
        lora: low-rank updates in place of the encoder's own weights; None for none.
        train_rows: how many training rows of each task are measured beside the dev examples.

    Raises:
        UsageError: a value breaks a rule; `parameter` names it.
    """

    batch_size: int = key(48, low=1)
    schedule: str = key("round-robin", choices=SCHEDULES)
    floor: int = key(4, low=1)
    surgery: "str | Callable[[Tensor], Tensor] | None" = key("pcgrad", choices=SURGERY_RULES)
    steps_per_epoch: int | None = key(None, low=1)
    encoder: str = key("trained", choices=ENCODERS)
    head_learning_rate: float | None = key(None, low=0)
    optimizer: str = key("adamw", choices=OPTIMIZERS)
    length_batches: bool = True
    layer_decay: float = key(1.0, low=0.01, high=1)
    unfreeze_every: int = key(0, low=0)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    average: AverageConfig = field(default_factory=AverageConfig)
    lora: LoraConfig | None = None
    train_rows: int = key(0, low=0)

    def __post_init__(self) -> None:
        if isinstance(self.surgery, str):
            check_surgery(self.surgery)
        check(self)
        needs_training: dict[str, Any] = {
            "lora": self.lora,
            "regularization": self.regularization.active,
            "unfreeze_every": self.unfreeze_every,
        }
        asked = [name for name, value in needs_training.items() if value]
        if self.encoder == "frozen" and asked:
            raise UsageError(f"{asked[0]} needs an encoder that is trained, and it is frozen", asked[0])
        if self.lora and self.unfreeze_every:
            raise UsageError("unfreeze_every: with LoRA the encoder's own weights stay frozen", "unfreeze_every")

    def check_tasks(self, tasks: Sequence[TaskConfig], trained: Collection[str], measured: Collection[str]) -> None:
        """Refuse tasks that these settings do not fit.

        Args:
            tasks: all tasks.
            trained: the names of those with training rows.
            measured: the names of those with dev rows.

        Raises:
            UsageError: the text says what does not fit; `parameter` names the setting.
        """
        names = [task.name for task in tasks]
        if not names:
            raise UsageError("at least one task is needed", "tasks")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"two tasks are called {repeated[0]!r}", "name")
        if not trained:
            raise UsageError("no task has training data", "tasks")
        if self.floor * len(trained) > self.batch_size:
            raise UsageError(
                f"batch_size: {self.batch_size} examples cannot hold floor = {self.floor} of each of {len(trained)} tasks",
                "batch_size",
            )
        if self.encoder == "frozen":
            for task in (task for task in tasks if task.name in trained):
                _check_frozen(task)
        self._check_regularized(tasks, trained)
        if self.average.kind == "checkpoints" and not measured:
            raise UsageError(
                "average: checkpoints are averaged at evaluations, and no task has dev examples", "average"
            )

    def _check_regularized(self, tasks: Sequence[TaskConfig], trained: Collection[str]) -> None:
        by_name = {task.name: task for task in tasks if task.name in trained}
        for name in self.regularization.tasks:
            if name not in by_name:
                raise UsageError(f"regularization.tasks: there is no task {name!r}", "regularization.tasks")
            if self.regularization.active and not by_name[name].has_outputs:
                raise UsageError(
                    f"regularization.tasks: the loss {by_name[name].loss} of the task {name!r} has no outputs of its own to keep "
                    "in place",
                    "regularization.tasks",
                )


def needs_dropout(tasks: Sequence[TaskConfig], regularization: RegularizationConfig) -> str:
    """Return what compares two dropout masks of the encoder, in words; empty where nothing does.

    Args:
        tasks: the tasks that are trained.
        regularization: the regularizers.
    """
    if regularization.r_drop:
        return "R-Drop (regularization.r_drop)"
    twice = next((task.name for task in tasks if task.views > 1), None)
    return "" if twice is None else f"unsupervised SimCSE (the task {twice!r})"


def _check_frozen(task: TaskConfig) -> None:
    if not task.has_weights:
        raise UsageError(
            f"encoder: task {task.name!r}: the encoder is frozen, and the loss {task.loss} has no head to train",
            "encoder",
        )
    if task.adapter_size:
        raise UsageError(
            f"encoder: task {task.name!r}: an adapter needs an encoder that runs in training, and it is frozen",
            "encoder",
        )
