"""MiniBert inside sentence-transformers: the first module of a Siamese or triplet network, and how it is loaded and saved.

    model = sbert_mini.load("dir")         # a SentenceTransformer whose encoder is MiniBert
    model.encode(["a text"]); trainer(model, ...); model.save("other-dir")
    SentenceTransformer("other-dir")       # in any process, without this package: the same vectors

sentence-transformers 6 refuses modules of other packages in a directory unless the reader trusts its code. So what is
saved is the plain Hugging Face + sentence-transformers layout, in which `modules.json` names sentence-transformers' own
`Transformer`: MiniBert has BERT's parameter names and computes BERT's function.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, InputModule, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from tokenizers import Tokenizer
from torch import nn

from sbert_mini.encoder.bert import MiniBert
from sbert_mini.errors import UsageError
from sbert_mini.files.durable import give_usual_mode
from sbert_mini.model.layout import DenseLayer, ModelLayout, module_folder, read_layout, read_modules
from sbert_mini.model.registry import resolve
from sbert_mini.model.token_table import TableFile, read_table
from sbert_mini.model.weights import read_dense_weights
from sbert_mini.text.batching import pad
from sbert_mini.text.tokenizer import TextTokenizer, open_tokenizer

_TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
_ACTIVATIONS = {"identity": nn.Identity, "tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}


class MiniBertModule(InputModule):
    """MiniBert as sentence-transformers' first module: texts -> ids -> token vectors.

    A `SentenceTransformer` that is built on it becomes a `MiniSentenceTransformer`, which saves the standard layout.

    Args:
        model: the encoder.
        text_tokenizer: its tokenizer; its `max_seq_length` is the model's.
    """

    config_file_name = "config.json"
    save_in_root = True

    def __init__(self, model: MiniBert, text_tokenizer: TextTokenizer) -> None:
        super().__init__()
        self.model = model
        self.text_tokenizer = text_tokenizer
        self._prompt_lengths: dict[str, int] = {}

    @property
    def tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer`."""
        return self.text_tokenizer.backend

    @property
    def max_seq_length(self) -> int:
        """The longest input in tokens, special tokens included; longer ones are cut."""
        return self.text_tokenizer.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        limit = self.model.config.max_position_embeddings
        if not isinstance(value, int) or not 4 <= value <= limit:
            raise UsageError(f"max_seq_length must be from 4 to {limit}, the model's positions; found {value}")
        self.text_tokenizer = self.text_tokenizer.with_max_seq_length(value)
        self._prompt_lengths.clear()

    def get_embedding_dimension(self) -> int:
        """Return the components of a token vector."""
        return self.model.config.hidden_size

    def preprocess(
        self, inputs: Sequence[str | tuple[str, str]], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the features of a batch of texts, or of pairs (`[CLS] a [SEP] b [SEP]`).

        Args:
            inputs: the texts, or pairs of texts.
            prompt: put before each text, and before the first one of each pair.
            kwargs: `max_length`, a limit for this batch; others are not for this module.

        Shapes:
            input_ids, attention_mask, token_type_ids: (batch, seq).
        """
        prompt = prompt or ""
        limit = kwargs.get("max_length")
        tokenizer = self.text_tokenizer
        if limit is not None and limit < tokenizer.max_seq_length:
            tokenizer = tokenizer.with_max_seq_length(int(limit))
        texts = [prompt + item if isinstance(item, str) else (prompt + item[0], item[1]) for item in inputs]
        arrays = pad(tokenizer.encode(texts), tokenizer.pad_id)
        names = ("input_ids", "attention_mask", "token_type_ids")
        features: dict[str, Any] = {n: torch.from_numpy(a) for n, a in zip(names, arrays, strict=True)}
        if prompt:
            if prompt not in self._prompt_lengths:
                self._prompt_lengths[prompt] = len(self.text_tokenizer.encode([prompt])[0].ids) - 1  # without [SEP]
            features["prompt_length"] = self._prompt_lengths[prompt]
        return features

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:  # noqa: ARG002
        """Add `token_embeddings`, (batch, seq, hidden), to the features.

        `perturbation` and `adapter` among the features are for `MiniBert.forward`.
        """
        output = self.model(
            features["input_ids"],
            features.get("attention_mask"),
            features.get("token_type_ids"),
            perturbation=features.get("perturbation"),
            adapter=features.get("adapter"),
        )
        return {**features, "token_embeddings": output.last_hidden_state}

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:  # noqa: ARG002
        """Write `config.json`, `model.safetensors`, `sentence_bert_config.json` and the tokenizer's files."""
        if not safe_serialization:
            raise UsageError("safe_serialization=False would write a pickle; only safetensors is written")
        path = Path(output_path)
        self.model.save_pretrained(path)
        self.text_tokenizer.save(path)
        settings = {"max_seq_length": self.max_seq_length, "do_lower_case": self.text_tokenizer.lowercase}
        (path / "sentence_bert_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> "MiniBertModule":
        """Return the encoder and tokenizer of a model directory (a name is resolved as everywhere).

        Raises:
            UsageError: another backend than torch is asked for.
        """
        if kwargs.get("backend", "torch") != "torch":
            raise UsageError(f"MiniBertModule runs in torch; for {kwargs['backend']!r} use sbert_mini.Embedder")
        return cls.of(read_layout(resolve(model_name_or_path, offline=bool(kwargs.get("local_files_only")))))

    @classmethod
    def of(cls, layout: ModelLayout, *, trust_tokenizer: bool = False) -> "MiniBertModule":
        """Return the encoder and tokenizer of a model directory whose layout is read; `trust_tokenizer` as in `load`."""
        tokenizer = open_tokenizer(layout, trust=trust_tokenizer)
        return cls(MiniBert.from_pretrained(layout.encoder_path, config=layout.config), tokenizer)

    def on_model_ready(self, model: nn.Module) -> None:
        """Turn the `SentenceTransformer` built on this module into a `MiniSentenceTransformer`."""
        if type(model) is SentenceTransformer:
            model.__class__ = MiniSentenceTransformer


class MiniSentenceTransformer(SentenceTransformer):
    """A `SentenceTransformer` on MiniBert, whose `save` writes a directory that any `SentenceTransformer` loads."""

    def save(self, path: str, *args: Any, **kwargs: Any) -> None:
        """Save as `SentenceTransformer.save` does, naming sentence-transformers' own class for the encoder."""
        super().save(path, *args, **kwargs)
        file = Path(path) / "modules.json"
        modules = read_modules(file.parent)
        for entry, module in zip(modules, self._modules.values(), strict=True):
            if isinstance(module, MiniBertModule):
                entry["type"] = _TRANSFORMER
        file.write_text(json.dumps(modules, indent=2) + "\n", "utf-8")
        first = next(iter(self._modules.values()))
        if isinstance(first, StaticEmbedding) and first.tokenizer.truncation is not None:
            special = first.tokenizer.num_special_tokens_to_add(False)
            settings = {"max_seq_length": first.tokenizer.truncation["max_length"] + special}
            (file.parent / "sentence_bert_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
        for entry in modules:
            for weights in module_folder(file.parent, entry).glob("*.safetensors"):  # sentence-transformers' own saves
                give_usual_mode(weights)

    @classmethod
    def _load_with_module_classes(
        cls,
        model_name_or_path: str,
        module_classes: Mapping[str, type[nn.Module]],  # noqa: ARG003
        **kwargs: Any,  # noqa: ARG003
    ) -> "MiniSentenceTransformer":
        # The stock trainer comes back to its own checkpoints through this: their tokenizer is one that it started with.
        return load(model_name_or_path, trust_tokenizer=True)


def _static_module(layout: ModelLayout, table: TableFile, *, trust_tokenizer: bool = False) -> StaticEmbedding:
    """Return the table of a static model as sentence-transformers' own module, which reads as many tokens of a text.

    The tokens that the tokenizer puts around texts elsewhere are not text here, and have no row that counts.
    """
    tokenizer = Tokenizer.from_str(open_tokenizer(layout, trust=trust_tokenizer).backend.to_str())
    tokenizer.enable_truncation(layout.max_seq_length - tokenizer.num_special_tokens_to_add(False))
    return StaticEmbedding(tokenizer, embedding_weights=read_table(table).floats())


def _follower(kind: str, layout: ModelLayout, layer: DenseLayer | None) -> nn.Module:
    """Return a module after the encoder, made of what the layout says of it: sentence-transformers' own `load` reads pickles."""
    if layer is not None:
        weight, bias = read_dense_weights(layer)
        dense = Dense(layer.in_features, layer.out_features, layer.bias, _ACTIVATIONS[layer.activation]())
        state = {"linear.weight": weight} | ({} if bias is None else {"linear.bias": bias})
        dense.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})
        return dense
    if kind == "Pooling":
        return Pooling(layout.config.hidden_size, layout.pooling, layout.include_prompt)
    return Normalize()


def load(
    name: str | Path | None = None, *, device: str | None = None, offline: bool = False, trust_tokenizer: bool = False
) -> MiniSentenceTransformer:
    """Return the trainable model: a `SentenceTransformer` whose encoder is `MiniBert`.

    A static model has no encoder: its first module is sentence-transformers' `StaticEmbedding`, with a table of float32. This
    project's fitter does not train it; `save` writes a directory that any `SentenceTransformer` loads.

    Args:
        name: a model directory, a built-in name or a hub id; see `sbert_mini.model.registry`.
        device: where it runs, as torch spells it; None for what sentence-transformers chooses.
        offline: open no socket.
        trust_tokenizer: take a `tokenizer.json` that is not BERT's, with the rules that it holds.

    Raises:
        ModelNotFoundError: the name leads nowhere.
        UnsupportedModelError: the directory describes neither a BERT encoder with pooling, projections and normalisation, nor
            a static model.
    """
    path = resolve(name, offline=offline)
    layout = read_layout(path)
    modules: list[nn.Module] = (
        [MiniBertModule.of(layout, trust_tokenizer=trust_tokenizer)]
        if layout.table is None
        else [_static_module(layout, layout.table, trust_tokenizer=trust_tokenizer)]
    )
    dense = iter(layout.dense)
    for kind, _ in layout.followers or ():
        modules.append(_follower(kind, layout, next(dense) if kind == "Dense" else None))
    if layout.followers is None:
        modules.append(Pooling(layout.config.hidden_size, "mean"))
    model = MiniSentenceTransformer(
        modules=modules,
        device=device,
        prompts=dict(layout.prompts) or None,
        default_prompt_name=layout.default_prompt_name,
        similarity_fn_name=layout.similarity,
        truncate_dim=layout.truncate_dim,
        local_files_only=True,
    )
    model.eval()
    return model
