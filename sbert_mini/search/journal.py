"""Vectors of passages that an unfinished creation, sync or migration encoded: the next one takes them from here.

    INDEX.partial/passages.bin     a header, then a record a passage, of one size; of a creation or a sync
    INDEX.migrating/passages.bin   the same, of a migration

The header is 8 letters and a blake2b digest of what the vectors depend on: model, graph, prompt, and what happens to long texts
that are not split. A journal of another header is begun anew. A record is a blake2b digest of the passage's text (16 bytes), its
vector (float32) and a CRC-32 of both. Records are appended and never changed. What was cut short by a crash does not fit its
CRC-32 and is cut off.
"""

import hashlib
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Unpack

import numpy as np

from sbert_mini.files import system
from sbert_mini.files.reading import open_stream
from sbert_mini.runtime.choices import LongTexts
from sbert_mini.runtime.embedder import Embedder
from sbert_mini.runtime.stream import RowT, StreamOptions
from sbert_mini.search.store import ModelIdentity
from sbert_mini.shapes import AnyArray, FloatArray
from sbert_mini.text.tokenizer import TextTokenizer

_MAGIC = b"SBMJRNL1"
_DIGEST_BYTES = 16
_HEADER_BYTES = len(_MAGIC) + 32
_WINDOW = 512
_READ_RECORDS = 4096
FILE = "passages.bin"
_FLAGS = system.flags("O_RDWR", "O_CREAT", "O_NOFOLLOW", "O_CLOEXEC")
PARTIAL, MIGRATING = ".partial", ".migrating"


def journal_folder(index: Path, suffix: str = PARTIAL) -> Path:
    """Return the folder of the journal of an index: beside it."""
    index = Path(os.path.abspath(index)) if index.name in ("", "..") else index  # noqa: PTH100
    return index.with_name(f"{index.name}{suffix}")


class Journal:
    """The file of vectors, opened by the one process that holds the index's lock.

    Args:
        index: the index directory.
        model: of the index.
        truncation: what happens to long texts (`runtime.choices.LongTexts`).
        suffix: of its folder: `PARTIAL`, or `MIGRATING`.

    Attributes:
        taken: vectors that were read from it.
    """

    def __init__(
        self, index: Path, model: ModelIdentity, truncation: LongTexts = "passages", suffix: str = PARTIAL
    ) -> None:
        self._folder = journal_folder(index, suffix)
        self._dtype = np.dtype([("digest", f"V{_DIGEST_BYTES}"), ("vector", "<f4", (model.dimension,)), ("crc", "<u4")])
        others = () if truncation == "passages" else (truncation,)
        content = "\0".join((model.fingerprint, model.graph, model.prompt, str(model.dimension), *others))
        self._header = _MAGIC + hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        self._place_of: dict[bytes, int] = {}
        self._count = 0
        self._handle = -1
        self.taken = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_of_others(self) -> bool:
        """Whether there is a journal whose vectors were made with another model, graph, prompt or way with long texts."""
        try:
            with open_stream(self._folder / FILE) as stream:
                header: bytes = stream.read(_HEADER_BYTES)
        except OSError:
            return False
        return len(header) == _HEADER_BYTES and header != self._header

    @property
    def is_empty(self) -> bool:
        """Whether the open file holds no record; one counts, too, after whose writing an interrupt came."""
        return os.fstat(self._handle).st_size <= _HEADER_BYTES

    def open(self) -> None:
        """Read what an earlier process left, and cut off what is damaged.

        Raises:
            OSError: the file cannot be written, or its folder is a symbolic link.
        """
        if self._folder.is_symlink():
            raise OSError(f"{self._folder} is a symbolic link, which is not followed")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._folder / FILE, _FLAGS, 0o666)
        if system.read_at(self._handle, _HEADER_BYTES, 0) != self._header:
            os.ftruncate(self._handle, 0)
            system.write_at(self._handle, self._header, 0)
        for block in self._blocks():
            digests = [record["digest"].tobytes() for record in block]
            self._place_of.update(zip(digests, range(self._count, self._count + len(block)), strict=True))
            self._count += len(block)
        os.ftruncate(self._handle, _HEADER_BYTES + self._count * self._dtype.itemsize)

    def _blocks(self) -> Iterator[AnyArray]:
        """Yield the sound records, up to the first one that is not."""
        while True:
            start = _HEADER_BYTES + self._count * self._dtype.itemsize
            data = system.read_at(self._handle, _READ_RECORDS * self._dtype.itemsize, start)
            block = np.frombuffer(data[: len(data) - len(data) % self._dtype.itemsize], self._dtype)
            sound = _checksums(block) == block["crc"]
            good = len(block) if sound.all() else int(np.argmin(sound))
            if good:
                yield block[:good]
            if good < _READ_RECORDS:
                return

    def vectors(self, digests: Sequence[bytes]) -> list[FloatArray | None]:
        """Return the vectors of some passages; None for one that it does not hold."""
        places = [self._place_of.get(digest) for digest in digests]
        return [None if place is None else self._vector(place) for place in places]

    def _vector(self, place: int) -> FloatArray:
        size = self._dtype.itemsize
        data = system.read_at(self._handle, size, _HEADER_BYTES + place * size)
        self.taken += 1
        return np.asarray(np.frombuffer(data, self._dtype)[0]["vector"])

    def append(self, digests: Sequence[bytes], vectors: FloatArray) -> None:
        """Add vectors. Shapes: vectors: (digests, dim)."""
        block = np.empty(len(digests), self._dtype)
        block["digest"] = np.frombuffer(b"".join(digests), f"V{_DIGEST_BYTES}")
        block["vector"] = vectors
        block["crc"] = _checksums(block)
        system.write_at(self._handle, block.tobytes(), _HEADER_BYTES + self._count * self._dtype.itemsize)
        self._place_of.update(zip(digests, range(self._count, self._count + len(block)), strict=True))
        self._count += len(block)

    def close(self) -> None:
        """Close the file; it stays for the next process."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def remove(self) -> None:
        """Close the file and remove it: what it holds is in the index."""
        self.close()
        if not self._folder.is_symlink():
            (self._folder / FILE).unlink(missing_ok=True)
            with suppress(OSError):
                self._folder.rmdir()


def remove_journal(index: Path, suffix: str = PARTIAL) -> None:
    """Remove what a creation, sync or migration of an index that was not finished left."""
    folder = journal_folder(index, suffix)
    if folder.is_dir() and not folder.is_symlink() and {entry.name for entry in folder.iterdir()} <= {FILE}:
        shutil.rmtree(folder, ignore_errors=True)


class JournalingEncoder:
    """Encodes passages as an `Embedder` does; it takes from a journal what that holds, and adds the others to it.

    Args:
        embedder: the model.
        journal: opened.
    """

    def __init__(self, embedder: Embedder, journal: Journal) -> None:
        self._embedder = embedder
        self._journal = journal

    @property
    def tokenizer(self) -> TextTokenizer:
        """The model's."""
        return self._embedder.tokenizer

    def encode_records(
        self, records: Iterable[RowT], **options: Unpack[StreamOptions]
    ) -> Iterator[tuple[list[RowT], FloatArray]]:
        """Yield passages with their vectors, window by window; see `Embedder.encode_records`.

        Shapes: each array: (passages, dim).
        """
        stream = iter(records)
        while window := list(islice(stream, _WINDOW)):
            digests = [_digest(passage.text) for passage in window]
            vectors = self._journal.vectors(digests)
            missing = [i for i, vector in enumerate(vectors) if vector is None]
            done = 0
            for _, block in self._embedder.encode_records([window[i] for i in missing], **options):
                places = missing[done : done + len(block)]
                self._journal.append([digests[i] for i in places], block)
                for i, vector in zip(places, block, strict=True):
                    vectors[i] = vector
                done += len(block)
            yield window, np.stack([vector for vector in vectors if vector is not None]).astype(np.float32, copy=False)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()


def _checksums(block: AnyArray) -> AnyArray:
    """Return the CRC-32 of each record's digest and vector. Shapes: block, the result: (records,)."""
    size = block.dtype.itemsize - 4
    raw = block.view(np.uint8).reshape(len(block), block.dtype.itemsize)[:, :size] if len(block) else ()
    return np.fromiter((zlib.crc32(record.tobytes()) for record in raw), np.uint32, len(block))
