"""Seeded changes of the structure of JSON files, and a small model and index to make them in."""

import copy
import hashlib
import json
import math
import random
from pathlib import Path

from sbert_mini.errors import SbertMiniError
from sbert_mini.files.durable import json_bytes

VALUES = [
    None, True, False, 0, -1, 1, 2, 3.5, -0.0, 1e308, math.nan, math.inf, -math.inf, 2**31, 2**32 + 1, 2**53, 2**63, 2**64,
    -(2**63), 10**400, "", "x", "0", "../../x", "a\0b", "\ud800", "ü" * 300, [], {}, [[]], [None], [0], {"a": {}}, [[[[[[1]]]]]],
]  # fmt: skip
TEXTS = ["{", "[]", "null", "1", '"x"', "", "[" * 3000, '{"a": 1, "a": 2}', "\ufeff{}", "1" * 5000]


def places(value, path=()):
    """Return where a JSON value has parts: the keys that lead to each."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(*path, key) for key, _ in entries] + [p for key, part in entries for p in places(part, (*path, key))]


def mutated(value, rng):
    """Return a JSON text that differs in one to three parts from what a value would be written as."""
    if rng.random() < 0.03:
        return rng.choice(TEXTS)
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        where = places(value)
        if not where:
            break
        *before, last = rng.choice(where)
        holder = value
        for key in before:
            holder = holder[key]
        action = rng.random()
        if action < 0.25:
            del holder[last]
        elif action < 0.8:
            holder[last] = copy.deepcopy(rng.choice(VALUES))
        elif action < 0.9:
            holder[last] = [holder[last]]
        elif isinstance(holder, dict):
            holder[rng.choice(["new", "format_version", "a" * 300, ""])] = rng.choice(VALUES)
        else:
            holder.insert(last, copy.deepcopy(rng.choice([holder[last], *VALUES])))
    text = json.dumps(value)
    if rng.random() < 0.1 and text.startswith("{") and isinstance(value, dict) and value:
        key = rng.choice(list(value))
        text = text[:-1] + f", {json.dumps(key)}: {json.dumps(rng.choice(VALUES))}" + "}"  # a key a second time
    return text


def sealed(text):
    """Return JSON with its checksum in the last line, as `write_sealed_json` writes it."""
    body = text.encode("utf-8", "surrogatepass") + b"\n"
    return body + hashlib.sha256(body).hexdigest().encode() + b"\n"


class Restored:
    """Replaces files for a while: on leaving it, they are what they were."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before: dict[Path, bytes] = {}

    def __enter__(self):
        return self

    def write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        if path not in self._before:
            self._before[path] = path.read_bytes()
        path.unlink()  # file systems flush a file that is cut to nothing and written again
        path.write_bytes(data)

    def __exit__(self, *_):
        for path, data in self._before.items():
            path.unlink()
            path.write_bytes(data)


def reseal(files: Restored, manifest: dict) -> None:
    """Write a manifest, and a `CURRENT` that fits it."""
    data = json_bytes(manifest) if isinstance(manifest, dict) else manifest
    files.write("generations/000001.json", data)
    pointer = json.loads((files.folder / "CURRENT").read_bytes().rsplit(b"\n", 2)[0])
    pointer["sha256"] = hashlib.sha256(data).hexdigest()
    files.write("CURRENT", sealed(json.dumps(pointer)))


def refused(call) -> str | None:
    """Return the text of the error of ours that a call ends with; None where it ends well. Anything else is raised."""
    try:
        call()
    except SbertMiniError as error:
        return str(error)
    return None


def cases(count, seed):
    """Yield numbers and a random generator of its own for each."""
    for number in range(count):
        yield number, random.Random(f"{seed}/{number}")
