"""Projected attention layers: a small module for each task, beside the encoder that all tasks share."""

from torch import Tensor, nn
from torch.nn import functional


class ProjectedAttention(nn.Module):
    """Projected attention layers (PALs) of one task: a narrow attention beside each layer of the encoder.

    In layer l, with h its input, the end `LN(x + FFN(x))` becomes `LN(x + FFN(x) + TS_l(h))`, and
    `TS_l(h) = gelu(V^D · MultiHead_l(V^E h))`. V^E and V^D are shared by all layers, query, key and value are each layer's own.

    Args:
        hidden: components of the encoder's token vectors.
        layers: of the encoder.
        size: components of the narrow vectors.
        heads: of the narrow attention; they divide `size`.

    V^D starts at 0: a fresh adapter changes nothing. The other weights are drawn from N(0, 0.02²).

    Source: Stickland and Murray 2019 (arXiv 1902.02671), section 3; the activation and the absence of an output projection as in
    the authors' program. Differs from it: V^D starts at 0, not small.
    """

    def __init__(self, hidden: int, layers: int, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.down = nn.Linear(hidden, size)
        self.up = nn.Linear(size, hidden)
        self.layer = nn.ModuleList(
            nn.ModuleDict({part: nn.Linear(size, size) for part in ("query", "key", "value")}) for _ in range(layers)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor, bias: Tensor | None, layer: int) -> Tensor:
        """Return what is added in a layer.

        Args:
            x: the layer's input.
            bias: the attention's, as everywhere in the encoder.
            layer: its number, from 0.

        Shapes: x and the result (batch, seq, hidden); bias (batch, 1, 1, seq).
        """
        parts = self.layer[layer]
        assert isinstance(parts, nn.ModuleDict)  # noqa: S101
        narrow = self.down(x)  # (batch, seq, size)
        query, key, value = (
            parts[part](narrow).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in ("query", "key", "value")
        )  # (batch, heads, seq, size / heads)
        joined = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return functional.gelu(self.up(joined.transpose(1, 2).flatten(2)))
