"""The files beside a model's graphs: what the graphs were made from (`sbmini.json`), and the ranges of 8-bit vectors."""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from sbert_mini.errors import CorruptModelError
from sbert_mini.files.durable import write_durably
from sbert_mini.files.json_files import GRAPH_RECORD as RECORD
from sbert_mini.files.json_files import RANGES
from sbert_mini.files.json_schema import read_json
from sbert_mini.files.names import has_link
from sbert_mini.model.layout import GRAPH_FILES, GRAPH_RANGES, GRAPH_RECORD, ModelLayout
from sbert_mini.runtime.fingerprint import file_sha256, has_safetensors, size_and_time, source_files
from sbert_mini.runtime.precision import ComponentRanges

FORMAT = 1

log = logging.getLogger("sbert_mini")


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the folder's record, or None where there is none, or none that can be used."""
    file = folder / GRAPH_RECORD
    if not file.exists():
        return None
    try:
        record = read_json(file, RECORD, CorruptModelError)
        graphs = record["graphs"]
        usable = record["format"] == FORMAT and bool(graphs) and set(graphs) <= set(GRAPH_FILES)
        for kind, name in GRAPH_FILES.items():
            if kind in graphs:
                usable = usable and graphs[kind]["file"] == name
                usable = usable and (folder / name).stat().st_size == graphs[kind]["bytes"]
    except (OSError, CorruptModelError):
        usable = False
    if not usable:
        log.warning("%s or a graph beside it is missing, damaged or of another version", file)
    return dict(record) if usable else None


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a folder's record, crash-safely."""
    write_durably(folder / GRAPH_RECORD, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())


def is_fresh(record: Mapping[str, Any], sources: Mapping[str, str], layout: ModelLayout, folder: Path) -> bool:
    """Return whether the record's graphs were made from what the model directory holds now.

    Weights of the size and time of change that were recorded are taken as the same. Others are read whole; where they are
    the same all the same (a copy of the directory), the record is brought up to date, if it can be.
    """
    source = record["source"]
    if any(source.get(key) != value for key, value in sources.items()):
        return False
    if folder.parent == layout.path and not has_safetensors(layout):
        return True  # as a package may ship it: the record is taken at its word
    files = source_files(layout)
    stats = [size_and_time(file) for file in files]
    if stats == source["weight_stats"]:
        return True
    if [file_sha256(file) for file in files] != source["weights"]:
        return False
    source["weight_stats"] = stats
    if not has_link(folder, layout.path):
        with suppress(OSError):
            write_record(folder, record)
    return True


def read_ranges(folder: Path, fingerprint: str, dimension: int) -> ComponentRanges | None:
    """Return the ranges in the folder, or None where there are none, or none of this model that can be used."""
    try:
        if not (folder / GRAPH_RANGES).exists():
            return None
        stored = read_json(folder / GRAPH_RANGES, RANGES, CorruptModelError)
        if stored["fingerprint"] != fingerprint:
            return None
        low, high, growth = (np.array(stored[name], np.float64) for name in ("low", "high", "growth"))
        usable = low.shape == high.shape == growth.shape == (dimension,) and bool(
            np.isfinite([low, high, growth]).all()
        )
        usable = usable and bool((low < high).all()) and bool((growth >= 1).all())
    except CorruptModelError:
        usable = False
    if not usable:
        log.warning("%s is damaged: the ranges are measured again", folder / GRAPH_RANGES)
        return None
    return ComponentRanges(low, high, growth)


def write_ranges(folder: Path, ranges: ComponentRanges, fingerprint: str) -> None:
    """Write the ranges of the vectors of the model with this fingerprint into its folder, crash-safely."""
    lists = {name: array.tolist() for name, array in vars(ranges).items()}
    data = {"fingerprint": fingerprint, **lists}
    write_durably(folder / GRAPH_RANGES, (json.dumps(data) + "\n").encode())
