"""Several indexes of one model -> a new one, without encoding again (`sbmini index merge`)."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from sbert_mini.errors import InputError, ModelMismatchError, UsageError
from sbert_mini.runtime.engine import thread_count
from sbert_mini.search.columns import Schema
from sbert_mini.search.compaction import build_new, copy_rows
from sbert_mini.search.creation import creating_index
from sbert_mini.search.index import SearchIndex
from sbert_mini.search.segment import SegmentWriter, digests_of
from sbert_mini.search.store import Store, publish
from sbert_mini.search.word_writer import write_generation
from sbert_mini.shapes import AnyArray

OnConflict: TypeAlias = Literal["error", "first", "last"]
ON_CONFLICT: tuple[str, ...] = get_args(OnConflict)
_NAMED = 3
"""Ids that an error names."""


@dataclass
class JoinCounts:
    """Counts of a merge.

    Attributes:
        rows: rows of the new index.
        left_out: rows that were left out, because another index has a row with the same id.
    """

    rows: int = 0
    left_out: int = 0


def merge_indexes(
    path: str | Path,
    inputs: Sequence[str | Path],
    *,
    on_conflict: OnConflict = "error",
    counts: JoinCounts | None = None,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SearchIndex:
    """Make a new index of the rows of several, and return it, opened. Nothing is encoded.

    Rows are in the order of the inputs. Kind, and way with long texts, are those of the first one.

    Args:
        path: the new index directory, absent or empty.
        inputs: two index directories or more, made with the same model, graph and prompt. They are not changed.
        on_conflict: where several have a row with the same id: `error`, or take the row of the `first` or of the `last`.
        counts: filled in, if given.
        threads: for FAISS and the index of words; None for the usual choice.
        on_progress: called with the rows written so far and the number of all rows.

    Raises:
        UsageError: fewer than two inputs are named, or `on_conflict` is unknown.
        IndexNotFoundError: an input is no index.
        IndexExistsError: the directory holds an index or something else.
        ModelMismatchError: two inputs were made with different models, graphs or prompts.
        InputError: an id stands in several inputs, or a column has different types.
        CorruptIndexError: a stored block does not match its checksum.
    """
    if on_conflict not in ON_CONFLICT:
        raise UsageError(f"on_conflict must be {', '.join(ON_CONFLICT)}; found {on_conflict!r}", "on_conflict")
    if len(inputs) < 2:
        raise UsageError("name two indexes or more to merge")
    counts = JoinCounts() if counts is None else counts
    path, number = Path(path), thread_count(threads)
    if any(Path(entry).resolve() in path.resolve().parents for entry in inputs):
        raise UsageError(f"{path} lies in one of the indexes to merge: name a directory outside of them")
    with ExitStack() as stack:
        stores = [stack.enter_context(closing(Store(entry))) for entry in inputs]
        _check_models(stores)
        schema = Schema(_columns(stores))
        stack.enter_context(creating_index(path))
        wanted = _wanted(stores, on_conflict)
        total = sum(int(np.count_nonzero(mask)) for masks in wanted for mask in masks)
        counts.rows, counts.left_out = total, sum(store.rows for store in stores) - total
        first = stores[0]
        with SegmentWriter(path / "segments", "000001", first.model.dimension, schema) as target:
            report = None if on_progress is None else lambda: on_progress(target.rows, total)
            for store, masks in zip(stores, wanted, strict=True):
                for segment, mask in zip(store.segments, masks, strict=True):
                    copy_rows(target, segment, first.model.dimension, mask, report, renumbered=True)
        build_new(path, target.entry, first.model.dimension, first.kind, number)
        write_generation(path, 1, [target.entry], np.empty(0, np.int64), None, number)
        publish(
            *(path, 1, first.model, [target.entry], total, None, first.kind),
            columns=schema.described(),
            long_texts=first.long_texts,
        )
    index = SearchIndex(path, threads=threads)
    index.prepare()
    return index


def _check_models(stores: Sequence[Store]) -> None:
    """Raise `ModelMismatchError` where vectors of two indexes cannot be compared."""
    first = stores[0]
    for store in stores[1:]:
        one, other = first.model, store.model
        for what, values in {
            "models": (one.name, other.name) if one.fingerprint != other.fingerprint else (),
            "graphs of a model": (one.graph, other.graph),
            "dimensions": (one.dimension, other.dimension),
            "prompts": (repr(one.prompt), repr(other.prompt)),
        }.items():
            if values and (what == "models" or values[0] != values[1]):
                raise ModelMismatchError(
                    f"{first.path} and {store.path} were made with different {what}, {values[0]} and {values[1]}, and cannot be "
                    "merged"
                )


def _columns(stores: Sequence[Store]) -> list[dict[str, Any]]:
    """Return the columns of all indexes, as a manifest describes them.

    Raises:
        InputError: a column has different types in two of them.
    """
    columns: dict[str, dict[str, Any]] = {}
    origin: dict[str, Path] = {}
    for store in stores:
        for entry in store.columns:
            name, type = entry["name"], entry["type"]
            known: Mapping[str, Any] = columns.get(name, {"type": None, "declared": False})
            if known["type"] is not None and type not in (None, known["type"]):
                raise InputError(
                    f"the column {name!r} is {known['type']} in {origin[name]} and {type} in {store.path}: indexes are merged "
                    "where the types agree"
                )
            if type is not None and known["type"] is None:
                origin[name] = store.path
            declared = bool(known["declared"]) or bool(entry["declared"])
            columns[name] = {"name": name, "type": known["type"] or type, "declared": declared}
    return list(columns.values())


def _wanted(stores: Sequence[Store], on_conflict: OnConflict) -> list[list[AnyArray]]:
    """Return for each segment of each index which rows go into the new one, (rows,) bool.

    Raises:
        InputError: an id stands in several indexes, and `on_conflict` is `error`.
    """
    masks: list[list[AnyArray]] = []
    digests, places = [], []
    for i, store in enumerate(stores):
        masks.append([])
        for j, segment in enumerate(store.segments):
            present = store.present_rows(segment)
            masks[i].append(np.ones(segment.rows, bool) if present is None else present.copy())
            of_rows, positions = digests_of(segment)
            here = masks[i][j][positions]
            digests.append(of_rows[here])
            places.append(np.stack([np.full(int(here.sum()), i), np.full(int(here.sum()), j), positions[here]], axis=1))
    every, rows = np.concatenate(digests), np.concatenate(places)
    order = np.argsort(every, kind="stable")
    same = np.flatnonzero(np.diff(every[order]) == 0)
    found: dict[str, list[tuple[int, int, int]]] = {}
    for place in rows[order[np.unique(np.concatenate([same, same + 1]))]].tolist():
        i, j, position = place
        found.setdefault(stores[i].segments[j].row(position).id, []).append((i, j, position))
    conflicts = {identity: sorted(where) for identity, where in found.items() if len(where) > 1}
    if conflicts and on_conflict == "error":
        some = ", ".join(map(repr, sorted(conflicts)[:_NAMED]))
        ids = f"the id {some} is" if len(conflicts) == 1 else f"{len(conflicts)} ids, such as {some}, are"
        raise InputError(
            f"{ids} in several of the indexes; to take one of the rows, say which: on_conflict='first' or 'last' "
            "(--on-conflict first, --on-conflict last)"
        )
    for where in conflicts.values():
        for i, j, position in where[1:] if on_conflict == "first" else where[:-1]:
            masks[i][j][position] = False
    return masks
