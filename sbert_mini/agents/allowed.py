"""What an agent may use: the indexes, and the folders that it may bring them up to date with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sbert_mini.errors import IndexNotFoundError, UsageError


@dataclass(frozen=True)
class AgentIndex:
    """An index that an agent may search.

    Attributes:
        path: the directory.
        folders: that the tool `sync` reads into it; none where it may not be changed.
    """

    path: Path
    folders: tuple[Path, ...] = ()


def agent_indexes(paths: Mapping[str, Path], folders: Sequence[str]) -> dict[str, AgentIndex]:
    """Return the indexes that an agent may use, each with the folders that may be synced into it.

    Args:
        paths: the indexes' directories by their names.
        folders: `FOLDER`, or `NAME=FOLDER` where there are several indexes.

    Raises:
        UsageError: a folder does not exist, or its index is not clear.
        IndexNotFoundError: a directory holds no index.
    """
    of: dict[str, list[Path]] = {name: [] for name in paths}
    for given in folders:
        name, equals, folder = given.partition("=")
        if not equals or name not in of:
            if len(of) > 1:
                raise UsageError(f"say which index {given!r} belongs to: NAME={given}; there are: {', '.join(of)}")
            name, folder = next(iter(of)), given
        if not Path(folder).is_dir():
            raise UsageError(f"there is no folder {folder!r} to sync")
        of[name].append(Path(folder))
    for path in paths.values():
        if not (
            path / "CURRENT"
        ).is_file():  # an error now; what is wrong with an index that is there, the first call says
            raise IndexNotFoundError(
                f"there is no index in {path}: make one with 'sbmini index create' or 'sbmini index sync'"
            )
    return {name: AgentIndex(path, tuple(of[name])) for name, path in paths.items()}
