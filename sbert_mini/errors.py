"""The exceptions that this package raises on purpose: one tree, so that `except SbertMiniError` catches them all.

    SbertMiniError
    ├── UsageError               an invalid argument or option (exit code 2)
    ├── MissingExtraError        an optional package is not installed; the text says which extra brings it
    ├── InputError               a text, row or file that cannot be read
    │   └── TextTooLongError     a text is longer than the model reads, and truncation was forbidden
    ├── ModelError
    │   ├── ModelNotFoundError   a model's name leads nowhere
    │   ├── UnsupportedModelError the model is sound, but of a kind that this package does not run
    │   └── CorruptModelError    a file of the model is damaged or refused
    ├── TrainingError            a training run cannot go on
    └── SearchIndexError
        ├── IndexNotFoundError   there is no index in the directory
        ├── IndexExistsError     there is one already
        ├── IndexLockedError     another process writes to it
        ├── CorruptIndexError    a stored block does not match its checksum
        ├── ModelMismatchError   the index was built with another model
        └── RemoteIndexError     the server that holds it is not there, or refuses

Every text names what was required, what was found and the way out. The command line prints it after `sbmini: error: `
and leaves with the class' `exit_code`.
"""

import os

EXTRA_OF = {
    **dict.fromkeys(("torch", "sentence_transformers", "transformers", "accelerate"), "train"),
    **dict.fromkeys(("scipy", "sklearn", "matplotlib", "pandas", "pytrec_eval", "datasets"), "bench"),
    **dict.fromkeys(("onnx", "onnxruntime"), "onnx"),
    "pyarrow": "parquet",
    "pypdf": "documents",
    "docx": "documents",
    "lxml": "documents",
    "watchfiles": "documents",
    **dict.fromkeys(("starlette", "uvicorn", "orjson", "prometheus_client"), "serve"),
    **dict.fromkeys(("mcp", "mcp_types", "pydantic"), "mcp"),
    "pymilvus": "milvus",
    "ray": "ray",
    "openTSNE": "map",
    "torchjd": "torchjd",
}
"""Optional packages, by their import name -> the extra of this distribution that installs them."""


def install_command(extra: str | None = None) -> str:
    """Return the command that installs this distribution, or an extra of it, quoted as the system's shell takes it."""
    mark = '"' if os.name == "nt" else "'"
    return f"pip install {mark}sbert-mini[{extra}]{mark}" if extra else "pip install sbert-mini"


class SbertMiniError(Exception):
    """Base of every exception raised on purpose by this package."""

    exit_code = 1


class UsageError(SbertMiniError, ValueError):
    """An invalid argument or option.

    Args:
        text: what is wrong.
        parameter: the argument's name in Python, where the text holds it; the command line puts its option there.
    """

    exit_code = 2

    def __init__(self, text: str, parameter: str | None = None) -> None:
        super().__init__(text)
        self.parameter = parameter


class MissingExtraError(SbertMiniError, ImportError):
    """An optional package is not installed.

    Args:
        what: the thing that was asked for, as a noun phrase.
        package: the package that it needs.
        extra: the extra of this distribution that installs it.
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs the package {package}, which is not installed: {install_command(extra)}")


class InputError(SbertMiniError, ValueError):
    """A text, row or file that cannot be read."""


class TextTooLongError(InputError):
    """A text is longer than the model reads, and truncation was forbidden."""


class ModelError(SbertMiniError):
    """Base of what can be wrong with a model."""


class ModelNotFoundError(ModelError):
    """A model's name leads nowhere."""


class UnsupportedModelError(ModelError):
    """The model is of a kind that this package does not run."""


class CorruptModelError(ModelError):
    """A file of the model is damaged, or of a format that is refused."""


class TrainingError(SbertMiniError):
    """A training run cannot go on."""


class SearchIndexError(SbertMiniError):
    """Base of what can be wrong with an index."""


class IndexNotFoundError(SearchIndexError):
    """There is no index in the directory."""


class IndexExistsError(SearchIndexError):
    """There is an index, or something else, in the directory already."""


class IndexLockedError(SearchIndexError):
    """Another process is writing to the index."""


class CorruptIndexError(SearchIndexError):
    """A stored block does not match its checksum."""


class ModelMismatchError(SearchIndexError):
    """The index was built with another model than the one that would search it."""


class RemoteIndexError(SearchIndexError):
    """The server that holds an index is not there, or refuses what is asked."""
