"""Paths made of names that stand in a file. A stranger may have written the file, so no other module makes such a path.

Each kind of name has a `NameRule`: what it names, and the pattern that it must match. No pattern lets an absolute path, "..", a
NUL, a line break or a character of a shell's pattern through. So a path that `path_in` returns is below the folder.
`tests/files/test_names.py` reads the source: a module that joins or globs with a value that was read from a file fails it.

Links are a second way out of a folder. They are followed for reading, because caches consist of links. Before writing or
deleting, `has_link` tells whether a path goes through one.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from sbert_mini.errors import SbertMiniError


@dataclass(frozen=True)
class NameRule:
    """A kind of name that stands in files.

    Attributes:
        subject: what it names, with an article.
        rule: what it must be, in words.
        pattern: what the whole name must match.
    """

    subject: str
    rule: str
    pattern: re.Pattern[str]

    def allows(self, name: object) -> bool:
        """Return whether a value is such a name."""
        return isinstance(name, str) and self.pattern.fullmatch(name) is not None


_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}"
SEGMENT = NameRule("a segment's name", "six digits or more", re.compile(r"[0-9]{6,18}"))
MANIFEST = NameRule(
    "a manifest's name", "generations/, six digits or more, .json", re.compile(r"generations/[0-9]{6,18}\.json")
)
SEGMENT_FILE = NameRule(
    "a file of a segment", "small letters and _, a dot, letters", re.compile(r"[a-z_]{1,40}\.[a-z]{1,10}")
)
WORDS_FILE = NameRule(
    "a file of an index of words",
    "32 hexadecimal digits, perhaps a number, and a kind",
    re.compile(r"[0-9a-f]{32}(?:\.[0-9]{1,19})?\.[a-z]{2,10}"),
)
TASK = NameRule("a task's name", "1 to 200 letters, digits, - and _", re.compile(r"[A-Za-z0-9_-]{1,200}"))
MODULE = NameRule(
    "a module's path", "empty, or folders of letters, digits, -, _ and .", re.compile(rf"(?:{_PART}(?:/{_PART})*)?")
)
WEIGHTS = NameRule(
    "a file of weights", "letters, digits, -, _ and ., ending in .safetensors", re.compile(rf"{_PART}\.safetensors")
)


def path_in(
    folder: Path, name: object, rule: NameRule, source: Path, damaged: type[SbertMiniError], suffix: str = ""
) -> Path:
    """Return the path in a folder that a name from a file stands for.

    Args:
        folder: where it lies.
        name: as it was read.
        rule: what it must be.
        source: the file that the name is from, for the message.
        damaged: the exception to raise where the name breaks the rule.
        suffix: put after the name.
    """
    if not isinstance(name, str) or not rule.allows(name):
        raise damaged(f"{source} is damaged: {rule.subject} must be {rule.rule}, and one is {name!r}")
    return folder / (name + suffix)


def has_link(path: Path, root: Path) -> bool:
    """Return whether a path below a root, or a folder between the two, is a symbolic link; False for a path elsewhere.

    The root itself may be a link: the user named it.
    """
    if not path.is_relative_to(root):
        return False
    parts = path.relative_to(root).parts
    return any(root.joinpath(*parts[: count + 1]).is_symlink() for count in range(len(parts)))
