"""The models of a comparison: ours in each of its runtimes, and peers run by sentence-transformers itself.

| runtime | what computes |
| --- | --- |
| `int8`, `fp32` | `sbert_mini.Embedder`, without torch |
| `torch` | `sbert_mini.load`: MiniBert in torch |
| `sentence-transformers` | `sentence_transformers.SentenceTransformer`, its own code on the same weights |
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.cosine import unit_rows
from sbert_mini.errors import MissingExtraError, ModelError, ModelNotFoundError, UsageError
from sbert_mini.evaluation.choices import OWN_RUNTIMES, PEER_RUNTIME
from sbert_mini.evaluation.sets import trained_on
from sbert_mini.model import registry
from sbert_mini.model.choices import GRAPHS
from sbert_mini.shapes import FloatArray


@dataclass(frozen=True)
class Contestant:
    """A model under test.

    Attributes:
        name: as it was named.
        runtime: what runs it.
        encode: texts -> vectors, (texts, dim) float32.
        encode_query: the same for queries, where the model has a prompt for them.
        encode_document: the same for documents.
        truncated: how many of some texts are longer than it reads.
        trained_on: the STS sets that its card names as training data, and why.
        path: its directory, where it has one.
        dimension: components of a vector.
    """

    name: str
    runtime: str
    encode: Callable[[Sequence[str]], FloatArray]
    encode_query: Callable[[Sequence[str]], FloatArray]
    encode_document: Callable[[Sequence[str]], FloatArray]
    truncated: Callable[[Sequence[str]], int] = lambda texts: 0  # noqa: ARG005
    trained_on: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None
    dimension: int = 0

    @property
    def label(self) -> str:
        """The name with the runtime, as tables show it."""
        return f"{self.name} ({self.runtime})"


def short_name(name: str) -> str:
    """Return how a model is called in tables: a directory's last part, any other name as it is."""
    path = registry.directory(name)
    return name if path is None else path.name


def open_contestant(
    name: str,
    runtime: str,
    threads: int,
    *,
    offline: bool = False,
    trust_tokenizer: bool = False,
    progress: bool = False,
) -> Contestant:
    """Return a model, opened.

    Args:
        name: a model directory, a built-in name or a hub id.
        runtime: what runs it.
        threads: for everything that it does.
        offline: open no socket.
        trust_tokenizer: see `Embedder`; a peer's is sentence-transformers' own matter.
        progress: draw progress bars on stderr.

    Raises:
        ModelNotFoundError: the name leads nowhere.
        MissingExtraError: the runtime needs a package that is not installed.
        UsageError: the runtime is unknown.
    """
    if runtime in GRAPHS:
        return _embedder(name, runtime, threads, offline=offline, trust_tokenizer=trust_tokenizer, progress=progress)
    if runtime not in ("torch", PEER_RUNTIME):
        raise UsageError(f"the runtime must be one of {', '.join((*OWN_RUNTIMES, PEER_RUNTIME))}; found {runtime!r}")
    try:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the runtime {runtime}", (error.name or "torch").partition(".")[0], "train") from error
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(threads)
    path: Path | None = registry.resolve(name, offline=offline) if runtime == "torch" else _peer_path(name, offline)
    if runtime == "torch":
        from sbert_mini.encoder.module import load

        model = load(path, device="cpu", trust_tokenizer=trust_tokenizer)
    else:
        model = _sentence_transformer(SentenceTransformer, name, path, offline)

    def run(method: Callable[..., Any]) -> Callable[[Sequence[str]], FloatArray]:
        def encode(texts: Sequence[str]) -> FloatArray:
            return np.asarray(method(list(texts), show_progress_bar=progress, convert_to_numpy=True), np.float32)

        return encode

    return Contestant(
        name=short_name(name),
        runtime=runtime,
        encode=run(model.encode),
        encode_query=run(model.encode_query),
        encode_document=run(model.encode_document),
        truncated=lambda texts: _too_long(model, texts),
        trained_on=trained_on(path or _cached_card(name)),
        path=path,
        dimension=int(model.get_embedding_dimension() or 0),
    )


def open_contestants(
    names: Sequence[str],
    runtimes: Sequence[str],
    peers: Sequence[str] = (),
    dims: Sequence[int] = (),
    *,
    threads: int,
    offline: bool = False,
    trust_tokenizer: bool = False,
    progress: bool = False,
) -> list[Contestant]:
    """Return the models of a comparison, opened: each of ours in each runtime, the peers, and ours with fewer components.

    Models whose short names are the same keep the names that they were given.

    Args:
        names: our models; see `open_contestant`.
        runtimes: of our models; of `choices.OWN_RUNTIMES`.
        peers: models that sentence-transformers runs.
        dims: numbers of first components that each of ours is cut to as well (`beginning`).
        threads: see `open_contestant`.
        offline: see `open_contestant`.
        trust_tokenizer: see `open_contestant`.
        progress: see `open_contestant`.

    Raises:
        UsageError: a runtime is unknown, or a model has fewer components than one of `dims`.
    """
    entries = [(name, runtime) for name in names for runtime in runtimes] + [(name, PEER_RUNTIME) for name in peers]
    options = {"offline": offline, "trust_tokenizer": trust_tokenizer, "progress": progress}
    opened = [open_contestant(name, kind, threads, **options) for name, kind in entries]
    labels = [contestant.label for contestant in opened]
    opened = [
        replace(contestant, name=name) if labels.count(contestant.label) > 1 else contestant
        for contestant, (name, _) in zip(opened, entries, strict=True)
    ]
    ours = [contestant for contestant in opened if contestant.runtime != PEER_RUNTIME]
    return opened + [beginning(contestant, dim) for contestant in ours for dim in dims]


def beginning(contestant: Contestant, dim: int) -> Contestant:
    """Return a model whose vectors are cut to their first `dim` components, and scaled to length 1 again.

    Raises:
        UsageError: the vectors have fewer components.
    """
    if not 1 <= dim <= contestant.dimension:
        raise UsageError(
            f"dim must be from 1 to {contestant.dimension}, the components of {contestant.name}; found {dim}", "dim"
        )

    def cut(encode: Callable[[Sequence[str]], FloatArray]) -> Callable[[Sequence[str]], FloatArray]:
        def encode_and_cut(texts: Sequence[str]) -> FloatArray:
            return unit_rows(encode(texts)[:, :dim])

        return encode_and_cut

    return replace(
        contestant,
        name=f"{contestant.name}[:{dim}]",
        dimension=dim,
        encode=cut(contestant.encode),
        encode_query=cut(contestant.encode_query),
        encode_document=cut(contestant.encode_document),
    )


def _cached_card(name: str) -> Path:
    """Return the folder of the Hugging Face cache where the card of a hub model lies, once it has been loaded."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = name.partition("@")
    card = try_to_load_from_cache(repository, "README.md", revision=revision or None)
    return Path(card).parent if isinstance(card, str) else Path("no-card")


def _embedder(
    name: str, runtime: str, threads: int, *, offline: bool, trust_tokenizer: bool, progress: bool
) -> Contestant:
    from sbert_mini.model.layout import read_layout
    from sbert_mini.runtime.embedder import Embedder
    from sbert_mini.text.tokenizer import open_tokenizer

    options: dict[str, Any] = {"threads": threads, "offline": offline, "trust_tokenizer": trust_tokenizer}
    embedder = Embedder(name, graph=runtime, **options)  # type: ignore[arg-type]
    tokenizer = open_tokenizer(read_layout(embedder.path), trust=trust_tokenizer)
    return Contestant(
        name=short_name(name),
        runtime=runtime,
        encode=lambda texts: embedder.encode(texts, show_progress_bar=progress),
        encode_query=lambda texts: embedder.encode_query(texts, show_progress_bar=progress),
        encode_document=lambda texts: embedder.encode_document(texts, show_progress_bar=progress),
        truncated=lambda texts: sum(tokens.truncated for tokens in tokenizer.encode(texts)),
        trained_on=trained_on(embedder.path),
        path=embedder.path,
        dimension=embedder.dimension,
    )


def _peer_path(name: str, offline: bool) -> Path | None:
    """Return a peer's directory; None for a hub id, which sentence-transformers fetches in its own way."""
    if registry.directory(name) is not None or name in registry.BUILTIN or offline or registry.is_offline():
        return registry.resolve(name, offline=offline)
    return None


def _sentence_transformer(kind: Any, name: str, path: Path | None, offline: bool) -> Any:
    repository, _, revision = name.partition("@")
    options = {"device": "cpu", "model_kwargs": {"use_safetensors": True}}  # a pickle is never loaded
    try:
        if path is not None:
            return kind(str(path), local_files_only=True, **options)
        return kind(repository, revision=revision or None, local_files_only=offline, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        kind_of_error = ModelError if path is not None else ModelNotFoundError
        raise kind_of_error(f"sentence-transformers cannot load {name!r}: {reason}") from error


def _too_long(model: Any, texts: Sequence[str]) -> int:
    """Return how many texts have more tokens than a SentenceTransformer reads."""
    tokenizer, limit = model.tokenizer, model.max_seq_length
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if limit is None or not hasattr(backend, "encode_batch"):
        return 0
    from tokenizers import Tokenizer

    whole = Tokenizer.from_str(backend.to_str())
    whole.no_truncation()
    whole.no_padding()
    return sum(len(encoded.ids) > limit for encoded in whole.encode_batch(list(texts)))
