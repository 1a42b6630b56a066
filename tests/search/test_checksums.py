"""Checksums by block: a part of a file is checked by the blocks that it lies in."""

import pytest

from sbert_mini.errors import (
    CorruptIndexError,
)
from sbert_mini.files.json_files import ANY_OBJECT
from sbert_mini.search.checksums import CheckedFile, file_checksums, read_checked_json


def test_a_part_of_a_file_is_checked_by_its_blocks_alone(tmp_path, rng):
    file = tmp_path / "file"
    data = rng.bytes(64 * 5 + 9)
    file.write_bytes(data)
    checksums = file_checksums(file, block_bytes=64)
    assert len(checksums["sha256"]) == 6
    with CheckedFile(file, checksums) as checked:
        for _ in range(200):
            start, stop = sorted(rng.integers(0, len(data) + 1, 2).tolist())
            if stop > start:
                assert checked.read(start, stop) == data[start:stop]
        assert b"".join(checked.blocks(13)) == data[13:]
    damaged = bytearray(data)
    damaged[64 * 3 + 5] ^= 4
    file.write_bytes(damaged)
    with CheckedFile(file, checksums) as checked:
        assert checked.read(0, 64 * 3) == data[: 64 * 3]
        with pytest.raises(CorruptIndexError, match="block 3 of 64 bytes"):
            checked.read(64 * 3 - 1, 64 * 3 + 1)


def test_a_file_that_is_missing_or_was_cut_while_it_is_open_is_damaged(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(bytes(100))
    checksums = file_checksums(file, block_bytes=64)
    with CheckedFile(file, checksums) as checked:
        assert checked.read_all() == bytes(100)
        file.write_bytes(bytes(70))
        with pytest.raises(CorruptIndexError, match="file ends at byte 70, and must hold 100"):
            checked.read_all()
    file.unlink()
    with pytest.raises(CorruptIndexError, match="file cannot be opened: No such file"):
        CheckedFile(file, checksums)
    with pytest.raises(CorruptIndexError, match="file cannot be read: No such file"):
        read_checked_json(file, "0" * 64, ANY_OBJECT)
