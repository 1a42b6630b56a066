"""Which files of a folder are ignored: by `.gitignore` and `.sbminiignore`, and by the patterns of the command line."""

import codecs
import logging
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sbert_mini.errors import UsageError
from sbert_mini.files.reading import read_whole

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILES = (".gitignore", ".sbminiignore")
"""In the order of their weight: a pattern of the last one wins."""
_MOST_BYTES = 1 << 20
_MOST_STARS = 3
"""Runs of stars in a pattern: the time to match one grows with the length of a path to the power of this number."""
_STARS = re.compile(r"\*+")
log = logging.getLogger("sbert_mini")


class IgnoreRules:
    """The patterns of a folder's ignore files, and of those in the folders above it, up to the folder that is read.

    Args:
        rules: for each folder that has patterns, its path below the root, with a / at the end, or "", and its patterns.
    """

    def __init__(self, rules: "Sequence[tuple[str, GitIgnoreSpec]]" = ()) -> None:
        self._rules = tuple(rules)

    def below(self, folder: Path, path: str, names: Iterable[str]) -> "IgnoreRules":
        """Return the rules inside a folder.

        Args:
            folder: the folder.
            path: below the root, with a / at the end, or "" for the root.
            names: of the files in it.
        """
        present = set(names)
        lines = [line for name in IGNORE_FILES if name in present for line in _lines(folder / name)]
        return IgnoreRules([*self._rules, (path, _spec(tuple(lines)))]) if lines else self

    def ignores(self, path: str) -> bool:
        """Return whether a file is ignored, or a folder, whose path ends in /. What an outer rule ignores is not asked for."""
        for base, spec in reversed(self._rules):
            included = spec.check_file(path[len(base) :]).include
            if included is not None:
                return included
        return False


class Globs:
    """The patterns of `--include` or `--exclude`: as in `.gitignore`, from the folder that is read.

    Args:
        patterns: the patterns.
        option: for an error.

    Raises:
        UsageError: a pattern is none.
    """

    def __init__(self, patterns: Sequence[str], option: str) -> None:
        for pattern in patterns:
            if not pattern.strip() or pattern.startswith(("#", "!")) or not _is_simple(pattern):
                raise UsageError(
                    f"{option} takes a pattern as in .gitignore, such as '*.md' or 'drafts/', with at most {_MOST_STARS} "
                    f"stars; found {pattern!r}"
                )
        try:
            self._spec = _spec(tuple(patterns)) if patterns else None
        except (ValueError, re.error) as error:
            raise UsageError(f"{option}: {error}") from error

    def __bool__(self) -> bool:
        return self._spec is not None

    def match(self, path: str) -> bool:
        """Return whether a path below the folder matches a pattern; that of a folder ends in /."""
        return self._spec is not None and self._spec.match_file(path)


@lru_cache(maxsize=64)
def _spec(lines: tuple[str, ...]) -> "GitIgnoreSpec":
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(map(_inside, lines))


def _inside(line: str) -> str:
    """Return a pattern that ends in `/**` as one of what lies inside alone: to git it does not match the folder itself."""
    stripped = line.rstrip()
    return f"{stripped}/*" if stripped.endswith("/**") else line


def _lines(file: Path) -> list[str]:
    """Return the patterns of an ignore file; what is no pattern is left out, as git does, and a warning says so."""
    try:
        data = read_whole(file, _MOST_BYTES).removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        log.warning("%s cannot be read, and ignores nothing: %s", file, error.strerror or error)
        return []
    if b"\0" in data:
        log.warning("%s is not text in UTF-8 (a NUL byte), and ignores nothing: save it as UTF-8", file)
        return []
    # names of files that are not UTF-8 come in the same way from `os.scandir`
    lines = [line.removesuffix("\r") for line in data.decode("utf-8", "surrogateescape").split("\n")]
    usable = [line for line in lines if _is_usable(line)]
    if refused := len(lines) - len(usable):
        are = "1 line is no pattern" if refused == 1 else f"{refused} lines are no patterns"
        log.warning("%s: %s of at most %d stars, and ignores nothing", file, are, _MOST_STARS)
    return usable


def _is_usable(line: str) -> bool:
    if not _is_simple(line):
        return False
    try:
        _spec((line,))
    except (ValueError, re.error):
        return False
    return True


def _is_simple(pattern: str) -> bool:
    """Return whether a pattern has few enough runs of stars."""
    runs = len(_STARS.findall(pattern))
    return len(pattern) <= 1000 and (pattern.startswith("#") or runs <= _MOST_STARS)
