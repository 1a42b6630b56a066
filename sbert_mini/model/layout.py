"""What stands in a model directory: the file format between training (torch) and use (no torch).

It is the ordinary Hugging Face BERT + sentence-transformers layout:

| file | what is read from it |
| --- | --- |
| `config.json` | the encoder's sizes (`BertConfig`) |
| `model.safetensors` | the weights, under the Hugging Face BERT names |
| `tokenizer.json`, or `vocab.txt` | the word pieces |
| `tokenizer_config.json` | `model_max_length`, `do_lower_case`, `split_special_tokens` |
| `modules.json` | the modules after the encoder: Pooling, Dense, Normalize |
| `sentence_bert_config.json` | `max_seq_length` |
| `config_sentence_transformers.json` | prompts, similarity, `truncate_dim` |
| `onnx/` | the graphs of the torch-free runtime (`runtime.graphs`) |
| `heads/` | task heads (`model.heads`) |

A static model has no encoder: its `modules.json` names StaticEmbedding of sentence-transformers, and the folder of that module
holds a table of token vectors (`model.token_table`) and `tokenizer.json`.

A directory without `modules.json` is a bare BERT checkpoint: it is mean-pooled, as sentence-transformers does.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sbert_mini.errors import CorruptModelError, UnsupportedModelError
from sbert_mini.files import json_schema
from sbert_mini.files.json_files import (
    ANY_OBJECT,
    CONFIG,
    DENSE_CONFIG,
    MODULES,
    POOLING_CONFIG,
    SENTENCE_BERT_CONFIG,
    SENTENCE_TRANSFORMERS_CONFIG,
    TOKENIZER_CONFIG,
)
from sbert_mini.files.json_schema import Schema
from sbert_mini.files.names import MODULE, TASK, path_in
from sbert_mini.model.choices import POOLING_MODES, Graph, PoolingMode
from sbert_mini.model.token_table import TableFile, find_table

GRAPH_FILES: Mapping[Graph, str] = {"fp32": "model.onnx", "int8": "model_int8.onnx"}
GRAPH_RECORD = "sbmini.json"
GRAPH_RANGES = "ranges.json"
GRAPHS_FOLDER = "onnx"
HEADS_FOLDER = "heads"

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
"""`hidden_act` as checkpoints spell it -> which of the three functions it is."""

_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ORDER = ("Pooling", "Dense", "Normalize")
_SNAKE = {"StaticEmbedding": "static_embedding"}
MODULE_TYPES: Mapping[str, str] = {
    f"sentence_transformers.{place}": kind
    for kind, home in (
        ("Transformer", "base"),
        ("Pooling", "sentence_transformer"),
        ("Dense", "base"),
        ("Normalize", "base"),
        ("StaticEmbedding", "sentence_transformer"),
    )
    for file in [_SNAKE.get(kind, kind.lower())]
    for place in (
        f"models.{kind}",
        f"models.{kind}.{kind}",
        f"{home}.modules.{kind}",
        f"{home}.modules.{file}.{kind}",
    )
} | {"sbert_mini.encoder.module.MiniBertModule": "Transformer"}
"""Types in `modules.json`, as sentence-transformers 2 to 6 spells them -> the module that is run. Nothing is imported by them."""
_DENSE_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
}


STATIC_LENGTH = 1 << 16
"""Tokens that a static model reads where its directory states no fewer."""
QUANTIZED, SCALE, SMOOTH = "/q", "/scale", "/smooth"
"""Suffixes of the names of an int8 graph's constants (`model.int8_weights`)."""
_LAYER = re.compile(r"encoder\.layer\.([0-9]{1,9})\.")

_GREATEST = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 16,
    "num_hidden_layers": 1000,
    "num_attention_heads": 1 << 16,
    "intermediate_size": 1 << 20,
    "max_position_embeddings": 1 << 20,
    "type_vocab_size": 1 << 16,
}
"""The greatest sizes that are taken: far above those of any encoder, and small enough to be counted in 32 bits everywhere."""


def _check_size(name: str, value: Any, least: int, greatest: int) -> int:
    """Return a size if it is a whole number in its range, and raise `CorruptModelError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= greatest:
        raise CorruptModelError(f"{name} must be a whole number from {least} to {greatest}; found {value!r}")
    return value


def _check_number(name: str, value: Any, greatest: float) -> None:
    """Raise `CorruptModelError` unless the value is a finite number from 0 to `greatest`."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (0 <= value <= greatest and value < math.inf)
    ):
        raise CorruptModelError(f"{name} must be a number from 0 to {greatest}; found {value!r}")


class SizesDifferError(CorruptModelError):
    """A graph's constants have other sizes than `config.json` gives."""


@dataclass(frozen=True)
class BertConfig:
    """The sizes of a BERT encoder, under the names of `config.json`.

    Attributes:
        vocab_size: word pieces.
        hidden_size: components of a token vector; a multiple of `num_attention_heads`.
        num_hidden_layers: transformer layers.
        num_attention_heads: attention heads a layer.
        intermediate_size: components between the two feed-forward products.
        hidden_act: one of `ACTIVATIONS`.
        hidden_dropout_prob: dropout after embeddings, attention output and feed-forward output, in training.
        attention_probs_dropout_prob: dropout on the attention probabilities, in training.
        max_position_embeddings: the longest sequence, in tokens.
        type_vocab_size: segment ids.
        initializer_range: standard deviation of fresh weights.
        layer_norm_eps: added to the variance in LayerNorm.
        pad_token_id: the word piece that fills up a batch.

    Source: Devlin et al. 2018 (arXiv 1810.04805), section 3; names as in google-research/bert.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        for name, greatest in _GREATEST.items():
            _check_size(f"config.json: {name}", getattr(self, name), 1, greatest)
        _check_size("config.json: pad_token_id", self.pad_token_id, 0, self.vocab_size - 1)
        for name in ("layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob"):
            _check_number(f"config.json: {name}", getattr(self, name), 1.0)
        _check_number("config.json: initializer_range", self.initializer_range, math.inf)
        if self.hidden_size % self.num_attention_heads:
            raise UnsupportedModelError(
                f"hidden_size must be a multiple of num_attention_heads, and {self.hidden_size} is not one of "
                f"{self.num_attention_heads}"
            )
        if not isinstance(self.hidden_act, str) or self.hidden_act not in ACTIVATIONS:
            raise UnsupportedModelError(
                f"hidden_act must be one of {', '.join(ACTIVATIONS)}; found {self.hidden_act!r}"
            )

    def parameter_shapes(self, *, pooler: bool = False) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of every parameter of the encoder, under `BertModel`'s names."""
        hidden, wide = self.hidden_size, self.intermediate_size
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocab_size, hidden),
            "embeddings.position_embeddings.weight": (self.max_position_embeddings, hidden),
            "embeddings.token_type_embeddings.weight": (self.type_vocab_size, hidden),
            "embeddings.LayerNorm.weight": (hidden,),
            "embeddings.LayerNorm.bias": (hidden,),
        }
        for layer in range(self.num_hidden_layers):
            prefix = f"encoder.layer.{layer}."
            for name, rows, columns in (
                ("attention.self.query", hidden, hidden),
                ("attention.self.key", hidden, hidden),
                ("attention.self.value", hidden, hidden),
                ("attention.output.dense", hidden, hidden),
                ("intermediate.dense", wide, hidden),
                ("output.dense", hidden, wide),
            ):
                shapes[f"{prefix}{name}.weight"] = (rows, columns)
                shapes[f"{prefix}{name}.bias"] = (rows,)
            for name in ("attention.output.LayerNorm", "output.LayerNorm"):
                shapes[f"{prefix}{name}.weight"] = (hidden,)
                shapes[f"{prefix}{name}.bias"] = (hidden,)
        if pooler:
            shapes["pooler.dense.weight"] = (hidden, hidden)
            shapes["pooler.dense.bias"] = (hidden,)
        return shapes

    def check_constants(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Make sure that a graph's constants have the sizes of this configuration, as far as they bear the weights' names.

        Args:
            shapes: name -> shape; int8 matrices and their scales bear the name of their weight and a suffix
                (`model.int8_weights`).

        Raises:
            SizesDifferError: they have not.
        """
        layers = {int(match[1]) for name in shapes if (match := _LAYER.match(name))}
        if layers and layers != set(range(self.num_hidden_layers)):
            raise SizesDifferError(
                f"config.json gives {self.num_hidden_layers} layers (num_hidden_layers), and its graph has {len(layers)}"
            )
        for name, shape in self.parameter_shapes().items():
            stored = shape[::-1] if name.startswith("encoder.") else shape  # a graph multiplies (in, out)
            scale = (shape[0],) if name.startswith("encoder.") else (shape[0], 1)
            for constant, expected in ((name, shape), (f"{name}{QUANTIZED}", stored), (f"{name}{SCALE}", scale)):
                if shapes.get(constant, expected) != expected:
                    raise SizesDifferError(
                        f"config.json asks for {constant} of the shape {expected}, and its graph has it in {shapes[constant]}"
                    )

    @property
    def head_dim(self) -> int:
        """Components of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def activation(self) -> str:
        """`gelu`, `gelu_tanh` or `relu`."""
        return ACTIVATIONS[self.hidden_act]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "BertConfig":
        """Return the configuration that a parsed `config.json` describes.

        Raises:
            UnsupportedModelError: the file describes something else than a BERT encoder with learned absolute positions.
            CorruptModelError: a size or a rate is not a number in its range.
        """
        kind = data.get("model_type", "bert")
        if kind != "bert":
            raise UnsupportedModelError(f"config.json has model_type {kind!r}; this package runs 'bert' encoders only")
        position = data.get("position_embedding_type") or "absolute"
        if position != "absolute":
            raise UnsupportedModelError(f"config.json has position_embedding_type {position!r}; only 'absolute' is run")
        if data.get("is_decoder") or data.get("add_cross_attention"):
            raise UnsupportedModelError("config.json describes a decoder; only encoders are run")
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in data.items() if k in known and v is not None})

    def to_json(self) -> dict[str, Any]:
        """Return `config.json`'s content, as transformers' `BertModel` reads it."""
        return {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "position_embedding_type": "absolute",
            **asdict(self),
        }


@dataclass(frozen=True)
class DenseLayer:
    """A projection after pooling: `activation(weight @ x + bias)`.

    Attributes:
        path: the module's folder, with its `model.safetensors`.
        in_features: components in.
        out_features: components out.
        bias: whether a bias is added.
        activation: `identity`, `tanh`, `relu` or `gelu`.
    """

    path: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str


@dataclass(frozen=True)
class ModelLayout:
    """What a model directory says about its model.

    Attributes:
        path: the directory.
        encoder_path: the folder of the encoder's own files: the directory itself, or a folder in it in old layouts.
        bert: the encoder's sizes; None for a static model.
        max_seq_length: the longest input in tokens, special tokens included.
        lowercase: whether texts are lower-cased before they are tokenized.
        pooling: how token vectors become one vector; several modes are concatenated.
        include_prompt: whether a prompt's own tokens are pooled too.
        dense: projections after the pooling, in order.
        normalize: whether the model itself ends with a normalisation to length 1.
        prompts: name -> text put before each input.
        default_prompt_name: the prompt used when none is named.
        similarity: the similarity that the model was trained for, as sentence-transformers names it.
        truncate_dim: components kept by default, or None for all.
        followers: the modules after the encoder, in order: each one's kind and its folder; None for a bare checkpoint, without
            `modules.json`.
        table: the token vectors of a static model; None for an encoder.
    """

    path: Path
    encoder_path: Path
    bert: BertConfig | None
    max_seq_length: int
    lowercase: bool = False
    pooling: tuple[PoolingMode, ...] = ("mean",)
    include_prompt: bool = True
    dense: tuple[DenseLayer, ...] = ()
    normalize: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str = "cosine"
    truncate_dim: int | None = None
    followers: tuple[tuple[str, str], ...] | None = None
    table: TableFile | None = None

    @property
    def config(self) -> BertConfig:
        """The encoder's sizes.

        Raises:
            UnsupportedModelError: a static model has no encoder.
        """
        if self.bert is None:
            raise UnsupportedModelError(
                f"{self.path} is a static model, a table of token vectors: it has no encoder, and so no layers, graphs, heads or "
                "training"
            )
        return self.bert

    def require_encoder(self) -> None:
        """Raise `UnsupportedModelError` where the model is static."""
        _ = self.config

    @property
    def vocab_size(self) -> int:
        """Word pieces."""
        return self.config.vocab_size if self.table is None else self.table.tokens

    @property
    def dimension(self) -> int:
        """Components of a whole sentence vector."""
        if self.table is not None:
            return self.table.dimension
        return self.dense[-1].out_features if self.dense else self.config.hidden_size * len(self.pooling)

    @property
    def output_dimension(self) -> int:
        """Components of a vector by default: `truncate_dim`, or all."""
        return self.truncate_dim or self.dimension


def module_folder(path: Path, module: Mapping[str, Any]) -> Path:
    """Return the folder of a module, which its entry in the `modules.json` of the model directory `path` names.

    Raises:
        CorruptModelError: its path leads out of the directory, or is not made of plain names.
    """
    return path_in(path, module.get("path", ""), MODULE, path / "modules.json", CorruptModelError)


def graphs_folder(path: Path) -> Path:
    """Return where the graphs of a model directory, or of a task's folder in it, lie."""
    return path / GRAPHS_FOLDER


def head_folder(path: Path, task: str) -> Path:
    """Return where a model directory keeps the head of a task.

    Raises:
        CorruptModelError: the task has a name that no task can have.
    """
    return path_in(path / HEADS_FOLDER, task, TASK, path / HEADS_FOLDER, CorruptModelError)


def read_json(path: Path, schema: Schema = ANY_OBJECT) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        CorruptModelError: it is not JSON, not UTF-8, or does not fit the schema.
    """
    return dict(json_schema.read_json(path, schema, CorruptModelError))


def read_modules(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a model directory's `modules.json`; none where there is no such file.

    Raises:
        CorruptModelError: it is not a list of JSON objects, each with a type and a path.
    """
    file = path / "modules.json"
    return list(json_schema.read_json(file, MODULES, CorruptModelError)) if file.is_file() else []


def _optional(path: Path, schema: Schema) -> dict[str, Any]:
    return read_json(path, schema) if path.is_file() else {}


def _pooling_modes(data: Mapping[str, Any], path: Path) -> tuple[PoolingMode, ...]:
    modes = data.get("pooling_mode") or [mode for key, mode in _LEGACY_POOLING.items() if data.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list):
        raise CorruptModelError(f"{path}: pooling_mode must be a name or a list of names; found {modes!r}")
    for mode in modes:
        if mode not in POOLING_MODES:
            raise UnsupportedModelError(f"{path} asks for the pooling {mode!r}; known are {', '.join(POOLING_MODES)}")
    if len(set(modes)) != len(modes):
        raise CorruptModelError(f"{path}: pooling_mode must name each pooling once; found {len(modes)} names")
    return tuple(modes)


def _dense_layer(path: Path) -> DenseLayer:
    data = read_json(path / "config.json", DENSE_CONFIG)
    name = data.get("activation_function", "torch.nn.modules.activation.Tanh")
    if name not in _DENSE_ACTIVATIONS:
        raise UnsupportedModelError(f"{path} has the activation {name!r}; known are {', '.join(_DENSE_ACTIVATIONS)}")
    if data.get("use_residual") or data.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise UnsupportedModelError(f"{path} is not a plain projection of the sentence vector; only those are run")
    return DenseLayer(
        path=path,
        in_features=_check_size(f"{path}: in_features", data.get("in_features"), 1, _GREATEST["intermediate_size"]),
        out_features=_check_size(f"{path}: out_features", data.get("out_features"), 1, _GREATEST["intermediate_size"]),
        bias=bool(data.get("bias", True)),
        activation=_DENSE_ACTIVATIONS[name],
    )


def _check_widths(path: Path, width: int, dense: Sequence[DenseLayer], truncate_dim: int | None) -> None:
    """Raise `CorruptModelError` where a projection does not read what comes before it, or the vectors cannot be so long."""
    for layer in dense:
        if layer.in_features != width:
            raise CorruptModelError(f"{layer.path}: in_features must be {width}; found {layer.in_features}")
        width = layer.out_features
    if truncate_dim is not None and truncate_dim > width:
        raise CorruptModelError(
            f"{path / 'config_sentence_transformers.json'}: truncate_dim must be at most {width}; found {truncate_dim}"
        )


def _static_layout(path: Path, modules: Sequence[Mapping[str, Any]], folder: Path) -> ModelLayout:
    """Return what a directory says about its static model: a table of token vectors, and maybe a normalisation.

    Raises:
        UnsupportedModelError: another module follows.
        CorruptModelError: a file is missing or damaged.
    """
    followers = tuple((MODULE_TYPES.get(module["type"], module["type"]), str(module["path"])) for module in modules[1:])
    if [kind for kind, _ in followers] not in ([], ["Normalize"]):
        raise UnsupportedModelError(
            f"{path / 'modules.json'} lists {followers[0][0]!r} after StaticEmbedding; only Normalize is run there"
        )
    table = find_table(folder)
    sentence_bert = _optional(path / "sentence_bert_config.json", SENTENCE_BERT_CONFIG)
    sentence_transformers = _optional(path / "config_sentence_transformers.json", SENTENCE_TRANSFORMERS_CONFIG)
    _check_widths(path, table.dimension, (), sentence_transformers.get("truncate_dim"))
    return ModelLayout(
        path=path,
        encoder_path=folder,
        bert=None,
        max_seq_length=min(sentence_bert.get("max_seq_length") or STATIC_LENGTH, STATIC_LENGTH),
        normalize=bool(followers),
        prompts=dict(sentence_transformers.get("prompts") or {}),
        default_prompt_name=sentence_transformers.get("default_prompt_name"),
        similarity=sentence_transformers.get("similarity_fn_name") or "cosine",
        truncate_dim=sentence_transformers.get("truncate_dim"),
        followers=followers,
        table=table,
    )


def read_layout(path: str | Path) -> ModelLayout:
    """Return what the model directory `path` says about its model. No weights are read.

    Raises:
        UnsupportedModelError: a module, pooling or architecture that this package does not run.
        CorruptModelError: a file is missing or is not what it should be.
    """
    path = Path(path)
    modules = read_modules(path)
    folders = [module_folder(path, module) for module in modules]
    if modules and MODULE_TYPES.get(modules[0]["type"]) == "StaticEmbedding":
        return _static_layout(path, modules, folders[0])
    encoder_path = folders[0] if modules else path
    if not (encoder_path / "config.json").is_file():
        raise CorruptModelError(f"{encoder_path} has no config.json, so {path} is not a model directory")
    config = BertConfig.from_json(read_json(encoder_path / "config.json", CONFIG))
    tokenizer = _optional(encoder_path / "tokenizer_config.json", TOKENIZER_CONFIG)
    sentence_bert = _optional(encoder_path / "sentence_bert_config.json", SENTENCE_BERT_CONFIG)
    sentence_transformers = _optional(path / "config_sentence_transformers.json", SENTENCE_TRANSFORMERS_CONFIG)
    limits = [
        limit
        for limit in (sentence_bert.get("max_seq_length"), tokenizer.get("model_max_length"))
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0
    ]
    max_seq_length = min([*limits[:1], config.max_position_embeddings])

    pooling: tuple[PoolingMode, ...] = ("mean",)
    include_prompt, normalize = True, False
    dense: list[DenseLayer] = []
    followers: list[tuple[str, str]] = []
    stage = 0
    for position, module in enumerate(modules):
        kind = MODULE_TYPES.get(module["type"])
        folder = folders[position]
        if position == 0:
            if kind != "Transformer":
                raise UnsupportedModelError(
                    f"{path / 'modules.json'} starts with {module['type']!r}, not with sentence-transformers' Transformer"
                )
            continue
        if kind is None or kind not in _ORDER:
            raise UnsupportedModelError(
                f"{path / 'modules.json'} lists a module of type {module['type']!r}; "
                f"known are sentence-transformers' Transformer, {', '.join(_ORDER)}"
            )
        if _ORDER.index(kind) < stage - 1 or (kind == "Pooling" and stage):
            raise UnsupportedModelError(
                f"{path / 'modules.json'} has {kind} after {modules[position - 1].get('type')!r}; the order that is run is "
                f"{', '.join(_ORDER)}"
            )
        stage = _ORDER.index(kind) + 1
        followers.append((kind, str(module.get("path", ""))))
        if kind == "Pooling":
            data = read_json(folder / "config.json", POOLING_CONFIG)
            pooling, include_prompt = _pooling_modes(data, folder), bool(data.get("include_prompt", True))
        elif kind == "Dense":
            dense.append(_dense_layer(folder))
        else:
            normalize = True
    _check_widths(path, config.hidden_size * len(pooling), dense, sentence_transformers.get("truncate_dim"))
    return ModelLayout(
        path=path,
        encoder_path=encoder_path,
        bert=config,
        max_seq_length=max_seq_length,
        lowercase=bool(sentence_bert.get("do_lower_case")),
        pooling=pooling,
        include_prompt=include_prompt,
        dense=tuple(dense),
        normalize=normalize,
        prompts=dict(sentence_transformers.get("prompts") or {}),
        default_prompt_name=sentence_transformers.get("default_prompt_name"),
        similarity=sentence_transformers.get("similarity_fn_name") or "cosine",
        truncate_dim=sentence_transformers.get("truncate_dim"),
        followers=tuple(followers) if modules else None,
    )
