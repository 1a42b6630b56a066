"""Plain settings of the fitter. No torch."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field
from typing import TYPE_CHECKING, Any

from sbert_mini.errors import UsageError

if TYPE_CHECKING:
    from sbert_mini.training.surgery import Rule

OPTIMIZERS = ("adamw", "adam", "torch-adamw")


def key(
    default: Any = MISSING, *, low: float | None = None, high: float | None = None, choices: Sequence[str] = ()
) -> Any:
    """Return a field that a recipe sets: its default, its range and its choices."""
    metadata = {"low": low, "high": high, "choices": tuple(choices)}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata) if default is not MISSING else field(metadata=metadata)


@dataclass(frozen=True)
class RegularizationPart:
    """`[regularization]`; see `smart` and `r_drop`.

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

    @property
    def active(self) -> bool:
        """Whether there is any."""
        return bool(self.r_drop or self.smart or self.bregman)


@dataclass(frozen=True)
class AveragePart:
    """`[average]`: of the weights, measured and saved in place of them; see `averaging`.

    Attributes:
        kind: `none`; `ema`, a moving average over steps; or `checkpoints`, the mean over evaluations.
        decay: with `ema`: the share of the old average that each step keeps, 0 to 0.999999.
        start: with `checkpoints`: the share of the steps after which evaluations count, 0 to 1.
    """

    kind: str = key("none", choices=("none", "ema", "checkpoints"))
    decay: float = key(0.999, low=0, high=0.999999)
    start: float = key(0.5, low=0, high=1)


@dataclass(frozen=True)
class LoraPart:
    """`[lora]`, where it stands: low-rank updates in place of the encoder's own weights; see `lora`.

    Attributes:
        rank: the rank of the low-rank updates, 1 or more; a higher rank trains more parameters.
        alpha: the updates are multiplied by `alpha / rank`; 0 or more.
        dropout: the probability of dropout before the updates, 0 to 0.95.
        targets: the encoder's matrices that get updates: `query`, `key`, `value`, `dense`.
    """

    rank: int = key(8, low=1)
    alpha: float = key(16.0, low=0)
    dropout: float = key(0.0, low=0, high=0.95)
    targets: list[str] = key(["query", "value"])


@dataclass(frozen=True)
class FitterConfig:
    """What `MultiTaskTrainer` needs beside sentence-transformers' training arguments.

    Attributes:
        batch_size: examples of a step (of each of its micro-batches, where gradients are accumulated), all tasks together.
        schedule: how they are shared out; one of `schedule.SCHEDULES`.
        floor: the fewest examples of a task in a step.
        surgery: one of `surgery.RULES`; a function from a Gram matrix to weights; or None to add gradients up as autograd does,
            without looking at them.
        steps_per_epoch: batches of an epoch; None for as many as hold as many examples as all tasks together have.
        encoder: `trained`, or `frozen`: heads alone are trained, on vectors that are computed once, without dropout.
        head_learning_rate: of the heads; None for the encoder's.
        optimizer: `adamw` and `adam` are this project's; `torch-adamw` is torch's fused one.
        length_batches: whether examples of similar length share a batch.
        layer_decay: each layer learns at this share of the next one's rate; see `rates.parameter_groups`.
        unfreeze_every: steps after which one more layer is trained, from the last one down; 0 for all from the start.
        regularization: SMART, R-Drop and the like, and the tasks that they are for; see `RegularizationPart`.
        average: of the weights, to be measured and saved in place of them; see `AveragePart`.
        lora: low-rank updates in place of the encoder's own weights; see `LoraPart`. None for none.
        train_rows: how many training rows of each task are measured beside the dev examples.
    """

    batch_size: int = 48
    schedule: str = "round-robin"
    floor: int = 1
    surgery: "str | Rule | None" = "pcgrad"
    steps_per_epoch: int | None = None
    encoder: str = "trained"
    head_learning_rate: float | None = None
    optimizer: str = "adamw"
    length_batches: bool = True
    layer_decay: float = 1.0
    unfreeze_every: int = 0
    regularization: RegularizationPart = field(default_factory=RegularizationPart)
    average: AveragePart = field(default_factory=AveragePart)
    lora: LoraPart | None = None
    train_rows: int = 0

    def __post_init__(self) -> None:
        if self.encoder == "frozen" and (self.lora or self.unfreeze_every or self.regularization.active):
            raise UsageError("LoRA, gradual unfreezing and the regularizers need an encoder that is trained")
        if self.lora and self.unfreeze_every:
            raise UsageError("with LoRA the encoder's own weights stay frozen: there is nothing to unfreeze")
        if not 0 < self.layer_decay <= 1 or self.unfreeze_every < 0:
            raise UsageError("layer_decay must be in (0, 1], and unfreeze_every at least 0")
        if self.encoder not in ("trained", "frozen"):
            raise UsageError(f"the encoder must be trained or frozen; found {self.encoder!r}")
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"the optimizer must be one of {', '.join(OPTIMIZERS)}; found {self.optimizer!r}")
        if self.batch_size < 1 or (self.steps_per_epoch is not None and self.steps_per_epoch < 1):
            raise UsageError("batch_size and steps_per_epoch must be at least 1")
