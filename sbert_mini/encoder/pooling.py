"""Token vectors -> one vector a text. The graph of the torch-free runtime computes the same (`runtime.graph`)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbert_mini.errors import UsageError
from sbert_mini.model.choices import POOLING_MODES, PoolingMode
from sbert_mini.model.layout import DenseLayer, ModelLayout
from sbert_mini.model.weights import read_dense_weights

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": functional.relu,
    "gelu": functional.gelu,
}


def pool(token_embeddings: Tensor, attention_mask: Tensor, mode: PoolingMode) -> Tensor:
    """Return one vector a text.

    With `mₜ` the mask and `hₜ` the token vectors:

    * `cls`: `h₁`, the first token's.
    * `mean`: `Σ mₜ hₜ / Σ mₜ`.
    * `mean_sqrt_len_tokens`: `Σ mₜ hₜ / √Σ mₜ`.
    * `max`: the largest of each component over the tokens with `mₜ = 1`.
    * `weightedmean`: `Σ t mₜ hₜ / Σ t mₜ`, later tokens weigh more (Muennighoff 2022, arXiv 2202.08904, section 3.1.1).

    A text without any token (all `mₜ = 0`) gives zeros, or the first vector for `cls`.

    Args:
        token_embeddings: token vectors.
        attention_mask: 1 at a text's tokens, 0 at padding. Padding is to the right.
        mode: one of `POOLING_MODES`.

    Shapes:
        token_embeddings: (batch, seq, hidden); attention_mask: (batch, seq); the result: (batch, hidden).

    Source: Reimers and Gurevych 2019 (arXiv 1908.10084), section 3; modes as in sentence-transformers' `Pooling`.
    """
    if mode not in POOLING_MODES:
        raise UsageError(f"the pooling mode must be one of {', '.join(POOLING_MODES)}; found {mode!r}")
    if mode == "cls":
        return token_embeddings[:, 0]
    mask = attention_mask.to(token_embeddings.dtype)  # (batch, seq)
    if mode == "max":
        lowest = torch.finfo(token_embeddings.dtype).min
        largest = token_embeddings.masked_fill(mask[:, :, None] == 0, lowest).amax(dim=1)
        return torch.where(mask.any(dim=1, keepdim=True), largest, torch.zeros_like(largest))
    if mode == "weightedmean":
        mask = mask * torch.arange(1, mask.shape[1] + 1, dtype=mask.dtype, device=mask.device)
    total = torch.einsum("bs,bsh->bh", mask, token_embeddings)
    weight = mask.sum(dim=1, keepdim=True).clamp(min=1e-9)
    return total / (weight.sqrt() if mode == "mean_sqrt_len_tokens" else weight)


class SentenceHead(nn.Module):
    """Token vectors -> sentence vectors: pooling, projections, normalisation, as a model directory describes them.

    Args:
        layout: the model directory's description.

    Raises:
        CorruptModelError: a projection's weights are missing or misshapen.
    """

    def __init__(self, layout: ModelLayout) -> None:
        super().__init__()
        self.modes = layout.pooling
        self.normalize = layout.normalize
        self.dense = nn.ModuleList(self._projection(layer) for layer in layout.dense)
        self.activations = [_ACTIVATIONS[layer.activation] for layer in layout.dense]

    @staticmethod
    def _projection(layer: DenseLayer) -> nn.Linear:
        weight, bias = read_dense_weights(layer)
        linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)
        state = {"weight": torch.from_numpy(weight.copy())}
        if bias is not None:
            state["bias"] = torch.from_numpy(bias.copy())
        linear.load_state_dict(state)
        return linear

    def forward(self, token_embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the sentence vectors.

        Shapes:
            token_embeddings: (batch, seq, hidden); attention_mask: (batch, seq); the result: (batch, dim).
        """
        x = torch.cat([pool(token_embeddings, attention_mask, mode) for mode in self.modes], dim=-1)
        for linear, activation in zip(self.dense, self.activations, strict=True):
            x = activation(linear(x))
        return functional.normalize(x, dim=-1) if self.normalize else x
