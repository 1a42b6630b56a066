"""What is installed here, what computes, and whether what the environment asks for works: for `sbmini doctor`.

Nothing is fetched, converted or written, but for empty files that are gone at once.
"""

import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sbert_mini.errors import ModelNotFoundError, SbertMiniError, UsageError, install_command
from sbert_mini.model import registry
from sbert_mini.native.library import opened
from sbert_mini.runtime.engine import requested_backend, thread_count
from sbert_mini.runtime.graphs import is_converted
from sbert_mini.runtime.native_library import levels, library
from sbert_mini.version import __version__

NAME = "sbert-mini"
TOOLS = ("all", "docs", "fuzz", "mutants", "test")
"""Extras for work on this project."""
_FEATURES = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp")
_VARIABLES = (
    "SBMINI_MODEL",
    "SBMINI_BACKEND",
    "SBMINI_THREADS",
    "SBMINI_CACHE_DIR",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
)


def examine(model: str | None = None) -> dict[str, Any]:
    """Return what there is, as JSON can hold it; `problems` has a line for each thing that was asked for and does not work.

    Args:
        model: a model to try; None for the default one (`$SBMINI_MODEL`).
    """
    problems: list[str] = []
    threads = _noted(problems, thread_count)
    _noted(problems, requested_backend)
    return {
        "version": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(),
        "packages": _packages(),
        "processor": _processor(),
        "native": _native(),
        "threads": threads,
        "variables": {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)},
        "model": _model(model, problems),
        "models": list(_models()),
        "extras": list(_extras()),
        "network": "off" if registry.is_offline() else "for models of the hub that are not in the cache",
        "telemetry": _telemetry(),
        "caches": list(_caches()),
        "places": list(_places(problems)),
        "problems": problems,
    }


def _noted(problems: list[str], ask: Any) -> Any:
    """Return what a function gives; None where it raises an error of ours, whose text is noted once."""
    try:
        return ask()
    except SbertMiniError as error:
        if str(error) not in problems:
            problems.append(str(error))
        return None


def _packages() -> dict[str, str]:
    """Return the packages that every installation has, with their versions; "" for one that is missing."""
    return {name: _version(name) for name, extra in _required() if extra is None}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _required() -> Iterator[tuple[str, str | None]]:
    """Yield each package that this distribution names, with the extra that asks for it."""
    try:
        wanted = requires(NAME) or []
    except PackageNotFoundError:  # a folder that was not installed
        return
    for requirement in wanted:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"""extra == ["']([\w-]+)["']""", requirement)
        if name is not None:
            yield name[0], extra[1] if extra else None


def _processor() -> dict[str, Any]:
    name, features = platform.processor() or platform.machine(), []
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        text = ""
    if found := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
        name = found[1]
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    features = [flag for flag in _FEATURES if flags and flag in flags[1].split()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"name": name, "machine": platform.machine(), "cores": cores, "features": features}


def _native() -> dict[str, Any]:
    found, here = opened(), levels()
    if here:
        reason = f"the fastest that this processor has of {', '.join(here)}"
    elif found.library is not None and library() is None:
        reason = f"{found.file} is of another version of sbert-mini"
    else:
        reason = found.problem
    return {
        "file": str(found.file) if found.file else None,
        "level": here[-1] if here else None,
        "levels": list(here),
        "reason": reason,
    }


def _model(name: str | None, problems: list[str]) -> dict[str, Any]:
    """Return whether a model works here, tried with a text."""
    text = registry.name_of(name)
    result: dict[str, Any] = {"name": text, "works": False, "backend": None, "note": ""}
    try:
        path = registry.resolve(name, offline=True)
        if is_converted(path, "int8"):
            from sbert_mini.runtime.embedder import Embedder

            embedder = Embedder(name, offline=True, read_only=True)
            embedder.encode(["a cat sleeps"])
            return result | {"works": True, "backend": embedder.backend}
        missing = [package for package in ("onnx", "onnxruntime") if find_spec(package) is None]
        if missing:
            command = install_command("onnx")
            raise UsageError(f"the model must be converted first, which needs {' and '.join(missing)}: {command}")
        return result | {"works": True, "note": "it is converted at its first use, or by 'sbmini models convert'"}
    except ModelNotFoundError as error:
        if registry.is_hub_id(text) and not registry.is_offline():
            return result | {"works": None, "note": "it is not in the cache; its first use fetches it"}
        problems.append(str(error))
        return result | {"note": str(error)}
    except (SbertMiniError, OSError, MemoryError) as error:
        if str(error) not in problems:  # of a variable: noted already
            problems.append(f"the model {text!r} does not work: {error}")
        return result | {"note": str(error)}


def _models() -> Iterator[dict[str, Any]]:
    """Yield the built-in models, with the command that installs one that is not there."""
    for name, model in registry.BUILTIN.items():
        try:
            yield {"name": name, "path": str(registry.resolve(name, offline=True)), "command": None}
        except ModelNotFoundError:
            yield {"name": name, "path": None, "command": install_command(model.extra)}


def _extras() -> Iterator[dict[str, Any]]:
    """Yield the extras for users, with what each one lacks and the command that installs it."""
    wanted = list(_required())
    for extra in metadata(NAME).get_all("Provides-Extra", []) if wanted else []:
        if extra not in TOOLS:
            missing = [name for name, of in wanted if of == extra and not _version(name)]
            yield {"name": extra, "missing": missing, "command": install_command(extra) if missing else None}


def _telemetry() -> str:
    value = os.environ.get("ORT_DISABLE_TELEMETRY")
    if value not in (None, "", "1"):
        return f"sbert-mini sends nothing; ONNX Runtime does as ORT_DISABLE_TELEMETRY={value} says"
    return "off: sbert-mini sends nothing, and switches ONNX Runtime's off"


def _hub_cache() -> Path:
    """Return where huggingface_hub keeps models, as it finds it."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or Path(base, "huggingface")).expanduser() / "hub"


def _caches() -> Iterator[dict[str, Any]]:
    """Yield the folders that keep what was made or fetched, with their sizes in bytes."""
    for name, find in (("converted models", registry.cache_dir), ("models of the hub", _hub_cache)):
        try:
            folder = find()
        except (UsageError, RuntimeError):  # no home directory
            yield {"name": name, "path": None, "bytes": 0}
            continue
        sizes = (Path(parent, file).lstat().st_size for parent, _, files in os.walk(folder) for file in files)
        yield {"name": name, "path": str(folder), "bytes": sum(sizes)}


def _places(problems: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the folders that files are written to, and whether that is possible."""
    try:
        cache: Path | None = registry.cache_dir()
    except UsageError:
        cache = None
    try:
        temporary: Path | None = Path(tempfile.gettempdir())
    except OSError:
        temporary = None
        problems.append("no folder for temporary files can be written: set TMPDIR to one")
    for name, folder in (("this folder", Path.cwd()), ("temporary files", temporary), ("cache", cache)):
        can = folder is not None and _is_writable(folder)
        if name == "cache" and not can and os.environ.get("SBMINI_CACHE_DIR"):
            problems.append(f"SBMINI_CACHE_DIR={folder} cannot be written")
        yield {"name": name, "path": None if folder is None else str(folder), "writable": can}


def _is_writable(folder: Path) -> bool:
    """Return whether files can be made in a folder, or the folder itself where it is not there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def said(problems: Sequence[str]) -> str:
    """Return the problems as one line."""
    return f"what was asked for does not work: {'; '.join(problems)}"
