"""All kinds of hostile cases, and what they start from."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.hostile import filters, kinds, large, requests, small, tables

KINDS: Mapping[str, Callable[[Path, Path, random.Random], kinds.Case]] = {
    **kinds.KINDS,
    **large.CASES,
    **small.CASES,
    "filter": filters.filter_case,
    "table": tables.table_case,
    "request": requests.request_case,
}


def make_bases(folder: Path) -> None:
    """Write the files of which the cases are damaged copies."""
    from sbert_mini import Embedder

    kinds.make_bases(folder)
    large.make_bases(folder, Embedder(folder / "model", threads=1))
    small.make_bases(folder)
