"""Task heads in torch: trained beside the encoder, saved with the model, read back here or without torch (`model.heads`)."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbert_mini.files.durable import save_file
from sbert_mini.model.heads import WEIGHTS, HeadConfig, read_head
from sbert_mini.model.layout import head_folder


def siamese_features(u: Tensor, v: Tensor) -> Tensor:
    """Return `u, v, |u - v|, u * v` side by side, as `runtime.predictor.siamese_features`.

    Shapes: u, v (batch, dim); the result (batch, 4 dim).
    """
    return torch.cat([u, v, (u - v).abs(), u * v], dim=-1)


def head_features(vectors: Sequence[Tensor]) -> Tensor:
    """Return what a head reads: x, the Siamese features of u and v, or, of x, u and v, both side by side.

    Shapes: vectors (batch, dim) each; the result (batch, 1, 4 or 5 times dim).
    """
    x = vectors[:-2] if len(vectors) > 1 else vectors
    return torch.cat([*x, *([siamese_features(*vectors[-2:])] if len(vectors) > 1 else [])], dim=-1)


class Head(nn.Module):
    """Sentence vectors -> a task's outputs; what it reads and computes is said in `model.heads`.

    Args:
        config: what it is.

    Fresh weights are drawn from N(0, 0.02²), biases are 0.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden = nn.Linear(config.inputs, config.hidden) if config.hidden and config.outputs else None
        self.output = nn.Linear(config.hidden or config.inputs, config.outputs) if config.outputs else None
        for layer in (self.hidden, self.output):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, *vectors: Tensor) -> Tensor:
        """Return logits; for a similarity the cosines.

        Args:
            vectors: x for the structures `single` and `pair`, u and v for `siamese`, x, u and v for `pair+siamese`. Their length
                does not matter.

        Shapes: vectors (batch, dim) each; the result (batch, outputs), or (batch,) for a similarity.
        """
        units = [functional.normalize(x, dim=-1) for x in vectors]
        if self.output is None:
            return (units[0] * units[1]).sum(dim=-1)
        scaled = [x * math.sqrt(self.config.dimension) for x in units]
        x = head_features(scaled)
        if self.hidden is not None:
            x = functional.gelu(self.hidden(functional.dropout(x, self.config.dropout, self.training)))
        result: Tensor = self.output(functional.dropout(x, self.config.dropout, self.training))
        return result

    def save(self, model: Path) -> None:
        """Write the head into `heads/<task>/` of the model directory `model`."""
        folder = head_folder(model, self.config.task)
        self.config.write(folder)
        if self.config.outputs:
            save_file({name: t.detach().cpu().contiguous() for name, t in self.state_dict().items()}, folder / WEIGHTS)

    @classmethod
    def load(cls, model: Path, task: str) -> "Head":
        """Return a head of a model directory, in evaluation mode.

        Raises:
            ModelNotFoundError: the model has no such head.
            CorruptModelError: a file of it is damaged.
        """
        config, weights = read_head(model, task)
        head = cls(config)
        head.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
        return head.eval()
