"""What a model is: checksums of what its graphs are made from, and the fingerprint made of them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sbert_mini.errors import CorruptModelError
from sbert_mini.files.reading import open_stream, read_whole
from sbert_mini.model.layout import ModelLayout
from sbert_mini.model.weights import weight_files


def sha256_of(*parts: bytes) -> str:
    """Return the sha256 of some parts, each with its length, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file of a model, in hexadecimal.

    Raises:
        CorruptModelError: it cannot be read.
    """
    try:
        with open_stream(path) as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise CorruptModelError(f"{path} cannot be read: {error.strerror or error}") from error


def _description(layout: ModelLayout) -> bytes:
    if layout.table is not None:
        sizes = [layout.table.tokens, layout.table.dimension, layout.max_seq_length]
        return json.dumps({"table": sizes}).encode()
    parts: dict[str, Any] = {
        "config": layout.config.to_json(),
        "max_seq_length": layout.max_seq_length,
        "pooling": layout.pooling,
        "include_prompt": layout.include_prompt,
        "lowercase": layout.lowercase,
        "dense": [{**asdict(layer), "path": layer.path.name} for layer in layout.dense],
    }
    return json.dumps(parts, sort_keys=True).encode()


def _tokenizer_digest(layout: ModelLayout) -> str:
    path = layout.encoder_path
    if (path / "tokenizer.json").is_file():
        return file_sha256(path / "tokenizer.json")
    if (path / "vocab.txt").is_file():  # with it, the settings decide how texts are split
        settings = path / "tokenizer_config.json"
        try:
            return sha256_of(read_whole(path / "vocab.txt"), read_whole(settings) if settings.is_file() else b"")
        except OSError as error:
            raise CorruptModelError(f"{path / 'vocab.txt'} cannot be read: {error.strerror or error}") from error
    raise CorruptModelError(f"{path} has neither tokenizer.json nor vocab.txt")


def source_files(layout: ModelLayout) -> list[Path]:
    """Return the files that hold the weights of a model: the encoder's, and those of its projections."""
    return weight_files(layout.encoder_path) + [file for layer in layout.dense for file in weight_files(layer.path)]


def size_and_time(file: Path) -> list[int]:
    """Return a file's size in bytes and its time of change in nanoseconds."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def source_digests(layout: ModelLayout) -> dict[str, str]:
    """Return checksums of what a graph is made from, the weights excepted."""
    return {"tokenizer": _tokenizer_digest(layout), "description": sha256_of(_description(layout))}


def fingerprint_of(weights: Sequence[str], sources: Mapping[str, str]) -> str:
    """Return the fingerprint of a model: sha256 over the checksums of its weights and of its other sources."""
    return sha256_of(json.dumps([weights, sources], sort_keys=True).encode())


def has_safetensors(layout: ModelLayout) -> bool:
    """Return whether a model directory has weights for other tools; a package may ship the int8 graph alone."""
    return any(layout.encoder_path.glob("*.safetensors"))
