"""What kind of document a file is, by the suffix of its name."""

from pathlib import PurePosixPath
from typing import Literal, TypeAlias, get_args

DocumentFormat: TypeAlias = Literal["text", "markdown", "rst", "html", "code", "jsonl", "csv", "tsv", "pdf", "docx"]
DOCUMENT_FORMATS: tuple[DocumentFormat, ...] = get_args(DocumentFormat)
ROW_FORMATS = frozenset({"jsonl", "csv", "tsv"})
"""Formats of which each row is a row of the index."""
CONVERTED_FORMATS = frozenset({"html", "pdf", "docx"})
"""Formats whose text is extracted by a child process (`documents.converter`)."""

_SUFFIXES: dict[DocumentFormat, str] = {
    "text": "txt text log org adoc asciidoc tex srt vtt toml yaml yml ini cfg conf xml json",
    "markdown": "md markdown mdown mkd mdx qmd rmd",
    "rst": "rst rest",
    "html": "html htm xhtml",
    "code": "py pyi js mjs cjs jsx ts tsx java kt kts scala groovy c h cc cpp cxx hh hpp hxx cs go rs rb php swift m mm "
    "sh bash zsh fish pl pm lua r jl sql hs ml mli ex exs erl clj el dart zig nim f90 proto css scss less vue svelte ps1 vim tf",
    "jsonl": "jsonl ndjson",
    "csv": "csv",
    "tsv": "tsv",
    "pdf": "pdf",
    "docx": "docx",
}
_FORMAT_OF: dict[str, DocumentFormat] = {
    suffix: format for format, suffixes in _SUFFIXES.items() for suffix in suffixes.split()
}
_BINARY_SUFFIXES = (
    "png jpg jpeg gif bmp ico webp tif tiff heic psd svgz mp3 wav flac ogg m4a mp4 m4v mov avi mkv webm zip gz bz2 "
    "xz zst 7z rar tar tgz jar war whl egg deb rpm dmg iso exe dll so dylib a o obj lib class pyc pyo wasm bin dat "
    "db sqlite sqlite3 parquet arrow feather npy npz pkl pt pth onnx safetensors gguf h5 hdf5 mat ttf otf woff "
    "woff2 eot doc xls xlsx ppt pptx odt ods odp epub mobi faiss swp"
)
_BINARY = frozenset(_BINARY_SUFFIXES.split())


def format_of(path: str) -> DocumentFormat | None:
    """Return the format of a file by its name; None where the suffix tells none, so that its content must."""
    return _FORMAT_OF.get(_suffix(path))


def is_binary_name(path: str) -> bool:
    """Return whether a file's suffix is that of a format without text."""
    return _suffix(path) in _BINARY


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix[1:].lower()
