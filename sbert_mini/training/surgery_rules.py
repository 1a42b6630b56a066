"""The names of the rules of gradient surgery, TorchJD's among them, and what a task's weight is to each. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sbert_mini.errors import UsageError

OWN_RULES = ("pcgrad", "pcgrad-normalized", "gradvac", "sum", "sum-normalized", "mean")
PREFIX = "torchjd:"
"""TorchJD's rules are named `torchjd:PCD` and the like."""


@dataclass(frozen=True)
class JacobianDescentRule:
    """A rule of TorchJD that needs nothing but the Gram matrix.

    Attributes:
        weight: what a task's weight does: `loss` multiplies the loss, so that the rule sees longer gradients; `preference` is the
            rule's own preference vector; `part` multiplies what the rule gave the task.
        scale_free: whether gradients that are all longer or shorter have the same weights.
        arguments: those that the rule has no default for.
        extra: the extra of TorchJD that brings the solver it needs, beside those of this project's extra `torchjd`.
    """

    weight: str
    scale_free: bool = False
    arguments: Mapping[str, float] = field(default_factory=dict)
    extra: str = ""


TORCHJD: Mapping[str, JacobianDescentRule] = {
    "AlignedMTL": JacobianDescentRule("preference", scale_free=True),
    "CAGrad": JacobianDescentRule("part", scale_free=True, arguments={"c": 0.4}, extra="cagrad"),
    "DualProj": JacobianDescentRule("preference", scale_free=True),
    "FairGrad": JacobianDescentRule("part", arguments={"alpha": 2.0}, extra="fairgrad"),
    "GradVac": JacobianDescentRule("loss"),
    "IMTLG": JacobianDescentRule("part", scale_free=True),
    "Krum": JacobianDescentRule("part", arguments={"n_byzantine": 0}),
    "MGDA": JacobianDescentRule("part", scale_free=True),
    "Mean": JacobianDescentRule("loss"),
    "PCD": JacobianDescentRule("part"),
    "PCGrad": JacobianDescentRule("loss"),
    "Random": JacobianDescentRule("loss"),
    "Sum": JacobianDescentRule("loss"),
    "UPGrad": JacobianDescentRule("preference", scale_free=True),
}
"""By TorchJD's names. Of the rules that would see a weighted loss as a longer gradient and take the factor out again, or turn it
round (MGDA), the weight multiplies the `part`."""

_BEYOND: Mapping[str, str] = {
    "ConFIG": "it needs the gradients themselves",
    "Constant": "its weights are the tasks' own: use sum, and weight in each task",
    "CRMOGM": "it smooths the weights of another rule, and has none of its own",
    "ExcessMTL": "it needs the gradients themselves, component by component",
    "GradDrop": "it needs the gradients themselves, component by component",
    "MoDo": "it needs the gradients of several independent batches",
    "NashMTL": "it needs the gradients themselves, and keeps the solver's state between steps",
    "SDMGrad": "it needs the gradients of several independent batches",
    "TrimmedMean": "it needs the gradients themselves, component by component",
}
"""TorchJD's rules that do not work on a Gram matrix alone, and why not."""

SURGERY_RULES = (*OWN_RULES, *(PREFIX + name for name in TORCHJD))


def check_surgery(rule: str, shown: str = "surgery") -> None:
    """Refuse a rule of TorchJD that the fitter cannot use, with the reason. Unknown names pass: `fields.check` refuses them.

    Args:
        rule: the name.
        shown: what the setting is called, for the text.

    Raises:
        UsageError: TorchJD has the rule, and it needs more than the Gram matrix of a step.
    """
    reason = _BEYOND.get(rule.removeprefix(PREFIX)) if rule.startswith(PREFIX) else None
    if reason:
        raise UsageError(
            f"{shown}: {rule} cannot be used here: {reason}; the fitter has the Gram matrix of the tasks' gradients",
            "surgery",
        )
