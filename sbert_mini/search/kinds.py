"""Kinds of FAISS index: which one a segment gets by its number of vectors, and which ones FAISS can make.

A row has one vector, or one a passage: what is said of rows here holds for vectors. A segment of up to `EXACT_ROWS` is searched
exactly and needs no FAISS index. Above, the kind is the one that the index
names, by default one that depends on the number of rows (`automatic`).
"""

import math
import re
from dataclasses import dataclass

from sbert_mini.errors import UsageError
from sbert_mini.search.faiss_threads import faiss_with

AUTOMATIC, EXACT = "auto", "exact"
EXACT_ROWS, LARGE_ROWS = 50_000, 10_000_000
"""Up to EXACT_ROWS: exact search; up to LARGE_ROWS: inverted lists of 1-bit vectors; above: HNSW finds the lists."""
TRAINING_ROWS_A_LIST = 40
LEAST_TRAINED = 1000
_LEAST_LINKS = {"HNSW": 2, "NSG": 8}
"""Links of a row. With fewer, FAISS ends the process or never returns."""
_MOST = {"HNSW": 512, "NSG": 256, "IVF": 1 << 22, "IMI": 16, "LSQ": 16, "PLSQ": 16, "RQ": 64, "PRQ": 64, "x": 16}
"""The greatest number after a name. Larger ones, which no index has a use for, take memory and time without a limit."""
_MOST_OTHERS, _MOST_CHARACTERS = 1024, 100
_FLAT = r"(?:Flat|SQ4|SQ6|SQ8|SQfp16|SQbf16|RaBitQ)"
_FAST = re.compile(
    rf"(?:PCA[WR]?\d+,)?(?:(?:IVF(?P<lists>\d+)(?:_HNSW\d+)?,)?{_FLAT}|HNSW\d+(?:[,_]{_FLAT})?)(?:,RFlat|,Refine\({_FLAT}\))?"
)
"""Kinds whose time to train and memory are known from their numbers."""
_FAST_LINKS, _FAST_COMPONENTS, _FAST_LISTS = 64, 4096, 2
"""The most links of a row, and components for a PCA; the most lists, as a multiple of `lists_for`."""
_EXAMPLES = "auto, exact, or a FAISS factory string such as SQ8, HNSW32_SQ8 or IVF,SQ8"


@dataclass(frozen=True)
class SearchKind:
    """How an index's rows are searched. Each segment gets the kind that fits its number of rows (`kind_of`).

    Attributes:
        factory: `auto`, `exact` or a FAISS factory string.
        pca: components that FAISS indexes, or None for all.
    """

    factory: str = AUTOMATIC
    pca: int | None = None


def requested_kind(kind: str | None, pca: int | None) -> SearchKind | None:
    """Return the kind that an index is to have from now on; None where it keeps its present one.

    Args:
        kind: see `SearchKind.factory`; None for the present kind.
        pca: see `SearchKind.pca`: a part of a kind.

    Raises:
        UsageError: `pca` is given without a kind.
    """
    if kind is None and pca is not None:
        raise UsageError("pca goes with a kind: name it too, such as kind='auto' (--kind auto)", "pca")
    return None if kind is None else SearchKind(kind, pca)


def automatic(rows: int) -> str:
    """Return the kind for a segment of so many rows: `exact`, or a FAISS factory string."""
    if rows <= EXACT_ROWS:
        return EXACT
    if rows <= LARGE_ROWS:
        return f"IVF{lists_for(rows)},RaBitQ"
    return f"IVF{lists_for(rows)}_HNSW32,RaBitQ"


def lists_for(rows: int) -> int:
    """Return the number of inverted lists for so many rows: 2 √rows, as a power of two, the nearest."""
    return 1 << round(math.log2(2 * math.sqrt(rows)))


def kind_of(kind: str, rows: int, pca: int | None = None) -> str:
    """Return what a segment of so many rows is searched by: `exact`, or a FAISS factory string.

    Args:
        kind: `auto`, `exact`, or a factory string, in which `IVF,` stands for a fitting number of lists.
        rows: of the segment. FAISS needs some rows to train a kind on: fewer are searched exactly.
        pca: components that FAISS indexes, or None for all.
    """
    factory = automatic(rows) if kind == AUTOMATIC else kind
    if pca is not None and factory == EXACT and kind == AUTOMATIC:
        factory = "SQ8"
    if factory == EXACT or rows <= LEAST_TRAINED:
        return EXACT
    factory = re.sub(r"\bIVF(?=[,_])", f"IVF{lists_for(rows)}", factory)
    lists = re.search(r"\bIVF(\d+)", factory)
    if lists and int(lists[1]) * TRAINING_ROWS_A_LIST > rows:
        return EXACT
    return factory if pca is None else f"PCA{pca},{factory}"


def check_kind(kind: str, dimension: int, pca: int | None = None) -> None:
    """Raise where a kind is not one that FAISS can make.

    Raises:
        UsageError: FAISS does not know it, or one of its numbers is out of its range.
    """
    factory = check_factory(kind, dimension, pca)
    if factory == EXACT:
        return
    faiss = faiss_with()
    try:
        faiss.index_factory(dimension, factory, faiss.METRIC_L2)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"the kind must be {_EXAMPLES}; FAISS does not know {factory!r}: {faiss_reason(error)}"
        ) from error


def check_factory(kind: str, dimension: int, pca: int | None = None) -> str:
    """Return the factory string of a kind for a large segment, whose numbers are in their ranges; FAISS is not asked.

    What FAISS does with a number out of range is a crash, a hang, or an allocation of any size.

    Raises:
        UsageError: a number is out of its range, or the string is too long or not ASCII.
    """
    if pca is not None and not 1 <= pca < dimension:
        raise UsageError(f"pca must be at least 1 and below the {dimension} components of a vector; found {pca}", "pca")
    factory = kind_of(kind, LARGE_ROWS, pca)
    if not factory.isascii() or len(factory) > _MOST_CHARACTERS:
        raise UsageError(
            f"the kind must be {_EXAMPLES}, which is ASCII, of at most {_MOST_CHARACTERS} characters; found {factory[:200]!r}"
        )
    for name, number in re.findall(r"([A-Za-z]+)(\d+)", factory):
        least, most = _LEAST_LINKS.get(name, 1), _MOST.get(name, max(_MOST_OTHERS, dimension))
        if not least <= int(number) <= most:
            bound = f"at least {least}" if int(number) < least else f"at most {most}"
            raise UsageError(f"the number after {name} in the kind {factory!r} must be {bound}; found {number}")
    return factory


def is_fast_to_train(factory: str, rows: int, dimension: int) -> bool:
    """Return whether FAISS makes an index of this kind in a time near that of the automatic kind.

    Others (product and residual quantizers, OPQ, many lists) may take hours, whatever the number of rows.

    Args:
        factory: what `kind_of` returned.
        rows: of the segment.
        dimension: components of a vector.
    """
    match = _FAST.fullmatch(factory)
    if match is None or ("PCA" in factory and dimension > _FAST_COMPONENTS):
        return False
    links = max(map(int, re.findall(r"HNSW(\d+)", factory)), default=0)
    return links <= _FAST_LINKS and int(match["lists"] or 0) <= _FAST_LISTS * lists_for(rows)


def faiss_reason(error: Exception) -> str:
    """Return what FAISS says is wrong, on one line, without the function, the place and the expression in its source."""
    text = " ".join(str(error).split())
    placed = re.search(r"\.(?:cpp|h):\d+: (.*)", text)
    failed = re.search(r"'(.*?)' failed(?:: )?(.*)", placed[1] if placed else text)
    if failed:
        return (failed[2] or f"it needs {failed[1]}")[:200]
    if text.startswith("C++ exception"):
        return "one of its numbers is too large"
    return (placed[1] if placed else text)[:200]


def proposals_for(kind: str, k: int) -> int:
    """Return how many vectors a FAISS index of this kind proposes where the k nearest are asked for.

    A coarse kind proposes 20 for each of the first 10, and 4 for each further one: of 100 it finds 97.5 % of a million sentences'
    nearest ones with 570 proposals, and 98.1 % with 2,010 (EXPERIMENTS.md). Each is read and scored again.
    """
    coarse = ("RaBitQ", "PQ", "LSH", "SQ4", "SQ6", "PCA", "RQ", "LSQ")
    if any(word in kind for word in coarse) and "Refine" not in kind and "RFlat" not in kind:
        return 20 * min(k, 10) + 4 * max(k - 10, 0) + 10
    return 3 * k + 10
