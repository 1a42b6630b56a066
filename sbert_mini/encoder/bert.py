"""The BERT encoder (Devlin et al. 2018, arXiv 1810.04805), on top of the transformer of Vaswani et al. 2017 (1706.03762).

Post-LayerNorm, learned absolute positions, as published. Parameters carry the Hugging Face names, so that a checkpoint's
names are the module tree's names. Shapes in comments use the words of `sbert_mini.shapes`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbert_mini.encoder.adapters import ProjectedAttention
from sbert_mini.errors import UsageError
from sbert_mini.model.layout import BertConfig, read_json
from sbert_mini.model.weights import WEIGHTS, read_bert_weights


class BertOutput(NamedTuple):
    """What `MiniBert` returns.

    Attributes:
        last_hidden_state: (batch, seq, hidden), token vectors after the last layer.
        pooler_output: (batch, hidden), `tanh(W h₀ + b)` of the first token, or None for a model without a pooler.
        hidden_states: the embeddings' output and each layer's, (batch, seq, hidden) each, if asked for.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


def gelu(x: Tensor) -> Tensor:
    """Return `x · Φ(x) = x · ½ (1 + erf(x / √2))`, the exact GELU.

    Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2.
    """
    return functional.gelu(x)


def gelu_tanh(x: Tensor) -> Tensor:
    """Return `½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))`, GELU's tanh approximation.

    Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2; what google-research/bert computes.
    """
    return functional.gelu(x, approximate="tanh")


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "gelu_tanh": gelu_tanh, "relu": functional.relu}


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Return `dropout(softmax(Q Kᵀ / √head_dim + bias)) V`, written out.

    The encoder computes the same through `torch.nn.functional.scaled_dot_product_attention`, which is faster; a test holds
    the two against each other.

    Args:
        query: queries.
        key: keys.
        value: values.
        bias: added to the scores; 0 where a key may be seen, and the dtype's lowest number where not. None for all seen.
        dropout: probability with which an attention weight is dropped.

    Shapes:
        query, key, value and the result: (batch, heads, seq, head_dim); bias: (batch, 1, 1, seq).

    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 1.
    """
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (batch, heads, seq, seq)
    if bias is not None:
        scores = scores + bias
    return functional.dropout(scores.softmax(dim=-1), dropout) @ value


class Embeddings(nn.Module):
    """Word + position + segment embeddings, normalised: `dropout(LayerNorm(E[id] + P[position] + T[segment]))`.

    Source: Devlin et al. 2018 (arXiv 1810.04805), figure 2.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the normalised sum. Shapes: both arguments (batch, seq); the result (batch, seq, hidden)."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        summed = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)  # (batch, seq, hidden)
        return self.dropout(self.LayerNorm(summed + self.position_embeddings(positions)))


class SelfAttention(nn.Module):
    """Multi-head self-attention, without the output projection.

    `head_i = softmax(Q_i K_iᵀ / √head_dim + mask) V_i`, heads joined.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.2.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the joined heads. Shapes: x and the result (batch, seq, hidden); bias (batch, 1, 1, seq)."""
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (batch, heads, seq, head_dim)
            for projection in (self.query, self.key, self.value)
        )
        joined = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=self.dropout if self.training else 0.0
        )
        return joined.transpose(1, 2).flatten(2)  # (batch, seq, hidden)


class AddAndNorm(nn.Module):
    """A sublayer's end: `LayerNorm(residual + dropout(W x + b))`.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.1 and, for the dropout, 5.4.
    """

    def __init__(self, in_features: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the sum, normalised. Shapes: x (batch, seq, in_features); residual and result (batch, seq, hidden)."""
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)


class Attention(nn.Module):
    """The attention sublayer: self-attention, output projection, residual, LayerNorm."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = AddAndNorm(config.hidden_size, config)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the sublayer's output. Shapes: x and the result (batch, seq, hidden); bias (batch, 1, 1, seq)."""
        return self.output(self.self(x, bias), x)


class Intermediate(nn.Module):
    """The feed-forward sublayer's wide half: `activation(W₁ x + b₁)`."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = _ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """Return the wide vectors. Shapes: x (batch, seq, hidden); the result (batch, seq, intermediate)."""
        return self.activation(self.dense(x))


class TransformerLayer(nn.Module):
    """One encoder layer: attention sublayer, then `LayerNorm(x + W₂ activation(W₁ x + b₁) + b₂)`.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), sections 3.1 and 3.3, equation 2; GELU for ReLU as in Devlin et al. 2018.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = AddAndNorm(config.intermediate_size, config)

    def forward(self, x: Tensor, bias: Tensor | None, extra: Tensor | None = None) -> Tensor:
        """Return the layer's output; `extra` is added before the last LayerNorm (`encoder.adapters`).

        Shapes: x, extra and the result (batch, seq, hidden); bias (batch, 1, 1, seq).
        """
        x = self.attention(x, bias)
        return self.output(self.intermediate(x), x if extra is None else x + extra)


class Encoder(nn.Module):
    """The stack of transformer layers."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, bias: Tensor | None, adapter: ProjectedAttention | None = None) -> tuple[Tensor, ...]:
        """Return x and each layer's output, the last one last; (batch, seq, hidden) each."""
        states = [x]
        for number, layer in enumerate(self.layer):
            extra = None if adapter is None else adapter(states[-1], bias, number)
            states.append(layer(states[-1], bias, extra))
        return tuple(states)


class Pooler(nn.Module):
    """`tanh(W h₀ + b)` of the first token: BERT's own input to its next-sentence head.

    Source: google-research/bert, `modeling.py`, `BertModel.__init__`.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled vector. Shapes: x (batch, seq, hidden); the result (batch, hidden)."""
        return torch.tanh(self.dense(x[:, 0]))


class MiniBert(nn.Module):
    """A BERT encoder: ids -> token vectors.

    Args:
        config: its sizes.
        pooler: whether it has BERT's pooler.

    Fresh weights are drawn from N(0, `initializer_range`²), biases 0, LayerNorm 1 and 0, as in google-research/bert.
    """

    def __init__(self, config: BertConfig, *, pooler: bool = True) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config) if pooler else None
        self.apply(self._initialize)

    def _initialize(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, dtype: torch.dtype = torch.float32, config: BertConfig | None = None
    ) -> "MiniBert":
        """Return the encoder of a model directory, in evaluation mode, its weights converted to `dtype`.

        Args:
            path: a model directory; resolve names with `sbert_mini.model.registry.resolve`.
            dtype: of the parameters.
            config: the directory's `config.json`, where it is read already.

        Raises:
            UnsupportedModelError: `config.json` describes something else than a BERT encoder.
            CorruptModelError: weights are missing, misshapen, or only there as a pickle.
        """
        config = BertConfig.from_json(read_json(Path(path) / "config.json")) if config is None else config
        weights = read_bert_weights(path, config)
        with torch.device("meta"):
            model = cls(config, pooler="pooler.dense.weight" in weights)
        state = {name: torch.from_numpy(array.copy()).to(dtype) for name, array in weights.items()}
        model.load_state_dict(state, strict=True, assign=True)
        return model.requires_grad_(True).eval()

    def keep_layers(self, layers: Sequence[int]) -> None:
        """Keep some of the layers alone, in the order given: a shallower encoder, to be trained (by distillation, say).

        Args:
            layers: their numbers, from 0.

        Raises:
            UsageError: there is no such layer, one is named twice, or none is named.

        Source: Sanh et al. 2019 (DistilBERT, arXiv 1910.01108), section 3.
        """
        count = len(self.encoder.layer)
        if not layers or len(set(layers)) < len(layers) or not all(0 <= number < count for number in layers):
            raise UsageError(f"layers must be some of 0 to {count - 1}, each once; found {list(layers)}")
        self.encoder.layer = nn.ModuleList(self.encoder.layer[number] for number in layers)
        self.config = replace(self.config, num_hidden_layers=len(layers))

    def save_pretrained(self, path: str | Path) -> None:
        """Write `config.json` and `model.safetensors` into the directory `path`, as `BertModel.from_pretrained` reads them."""
        import json

        from sbert_mini.files.durable import save_file

        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        dtype = str(self.embeddings.word_embeddings.weight.dtype).removeprefix("torch.")
        config = {**self.config.to_json(), "dtype": dtype}
        (path / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, path / WEIGHTS, metadata={"format": "pt"})

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        output_hidden_states: bool = False,
        perturbation: Tensor | None = None,
        adapter: ProjectedAttention | None = None,
    ) -> BertOutput:
        """Return the token vectors of a batch.

        Args:
            input_ids: word-piece ids.
            attention_mask: 1 at a text's tokens, 0 at padding; None for no padding.
            token_type_ids: segment ids; None for all 0.
            output_hidden_states: whether to return the inner states too.
            perturbation: added to the embeddings' output (adversarial training).
            adapter: a task's projected attention layers, to run beside the encoder's.

        Shapes:
            input_ids, attention_mask, token_type_ids: (batch, seq), `seq` at most `max_position_embeddings`;
            perturbation: (batch, seq, hidden);
            the result: see `BertOutput`. Vectors at padding hold nothing of use.

        Raises:
            UsageError: the sequence is longer than the model has positions, or the mask's shape is another.
        """
        if input_ids.shape[1] > self.config.max_position_embeddings:
            raise UsageError(
                f"the model has {self.config.max_position_embeddings} positions, and the batch is "
                f"{input_ids.shape[1]} tokens long: truncate the texts"
            )
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            raise UsageError(
                f"attention_mask must have the shape of input_ids, {tuple(input_ids.shape)}; "
                f"found {tuple(attention_mask.shape)}"
            )
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        x = self.embeddings(input_ids, token_type_ids)  # (batch, seq, hidden)
        bias = None
        if attention_mask is not None:
            bias = torch.zeros(attention_mask.shape, dtype=x.dtype, device=x.device)
            bias = bias.masked_fill(attention_mask == 0, torch.finfo(x.dtype).min)[:, None, None, :]
        states = self.encoder(x if perturbation is None else x + perturbation, bias, adapter)
        return BertOutput(
            last_hidden_state=states[-1],
            pooler_output=None if self.pooler is None else self.pooler(states[-1]),
            hidden_states=states if output_hidden_states else None,
        )

    def with_dropout(self, probability: float) -> "MiniBert":
        """Set every dropout probability, those of the attention included, and return the model."""
        self.config = replace(self.config, hidden_dropout_prob=probability, attention_probs_dropout_prob=probability)
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability
            elif isinstance(module, SelfAttention):
                module.dropout = probability
        return self
