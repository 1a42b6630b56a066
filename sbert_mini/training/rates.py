"""Learning rates by layer, and gradual unfreezing of layers."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")


def depth(name: str, layers: int) -> int:
    """Return how deep a parameter of a model lies: 0 for the embeddings, l + 1 for layer l, `layers` for what comes after it.

    Args:
        name: the parameter's, as `named_parameters` gives it.
        layers: of the encoder.
    """
    if layer := _LAYER.search(name):
        return int(layer[1]) + 1
    return 0 if "embeddings." in name else layers


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], rate: float, decay: float, weight_decay: float, layers: int
) -> list[dict[str, Any]]:
    """Return an optimizer's groups: a parameter of depth d of L learns at `rate · decay^(L - d)`.

    Biases and LayerNorm do not decay (Devlin et al. 2018, google-research/bert `optimization.py`).

    Args:
        named: the parameters that are trained, by name.
        rate: of the last layer.
        decay: in (0, 1]; 1 for one rate.
        weight_decay: of weights.
        layers: L, of the encoder.

    Source: Howard and Ruder 2018 (arXiv 1801.06146), section 3.2 ("discriminative fine-tuning"; there `decay` is 1 / 2.6);
    for BERT Sun et al. 2019 (arXiv 1905.05583), section 5.3.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        bare = name.endswith("bias") or "LayerNorm" in name
        level = depth(name, layers) if decay != 1 else layers
        groups.setdefault((level, bare), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rate * decay ** (layers - level),
            "weight_decay": 0.0 if bare else weight_decay,
        }
        for (level, bare), parameters in groups.items()
    ]


def unfrozen_depth(step: int, every: int, layers: int) -> int:
    """Return the least depth that is trained at a step: the last layer at first, one more every `every` steps, at last all.

    Source: Howard and Ruder 2018 (arXiv 1801.06146), section 3.3 ("gradual unfreezing"; there an epoch each).
    """
    return max(layers - step // every, 0)


def set_trained(named: Mapping[str, nn.Parameter], least: int, layers: int) -> bool:
    """Train the parameters from a depth on, and no others. Returns whether that changed anything."""
    changed = False
    for name, parameter in named.items():
        trained = depth(name, layers) >= least
        changed |= parameter.requires_grad != trained
        parameter.requires_grad_(trained)
        if not trained:
            parameter.grad = None
    return changed
