"""The journal of an unfinished sync: what was written is read, what is damaged is cut off."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbert_mini.search.journal import FILE, Journal, JournalingEncoder, journal_folder, remove_journal
from sbert_mini.search.store import ModelIdentity

DIM = 5
MODEL = ModelIdentity("m", "f", "int8", DIM)
RECORD_BYTES = 16 + 4 * DIM + 4


def opened(path, model=MODEL):
    journal = Journal(path, model)
    journal.open()
    return journal


def digests(*numbers):
    return [bytes([number]) * 16 for number in numbers]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 7), max_size=4), st.integers(0, 400), st.booleans())
def test_a_journal_cut_anywhere_holds_the_records_before(tmp_path_factory, sizes, cut, flip):
    path = tmp_path_factory.mktemp("x") / "index"
    vectors = np.random.default_rng(3).standard_normal((sum(sizes), DIM)).astype(np.float32)
    journal, first = opened(path), 0
    for size in sizes:
        journal.append(digests(*range(first, first + size)), vectors[first : first + size])
        first += size
    journal.close()
    file = journal_folder(path) / FILE
    data = file.read_bytes()
    assert len(data) == 40 + first * RECORD_BYTES
    cut = min(cut, len(data))
    file.write_bytes(data[: cut - 1] + bytes([data[cut - 1] ^ 1]) + data[cut:] if flip and cut else data[:cut])
    kept = (
        max(cut - 40, 0) // RECORD_BYTES
        if not (flip and cut)
        else max((cut - 41) // RECORD_BYTES, 0)
        if cut > 40
        else 0
    )
    again = opened(path)
    assert len(again) == kept
    for number, vector in enumerate(again.vectors(digests(*range(first)))):
        assert (vector is None) == (number >= kept)
        assert vector is None or np.array_equal(vector, vectors[number])
    again.append(digests(200), np.ones((1, DIM), np.float32))
    again.close()
    last = opened(path)
    assert len(last) == kept + 1
    last.remove()
    assert not journal_folder(path).exists()


def test_vectors_of_another_model_or_prompt_are_not_taken(tmp_path):
    path = tmp_path / "index"
    journal = opened(path)
    journal.append(digests(1), np.ones((1, DIM), np.float32))
    journal.close()
    for other in (
        ModelIdentity("m", "g", "int8", DIM),
        ModelIdentity("m", "f", "fp32", DIM),
        ModelIdentity("m", "f", "int8", DIM, "query: "),
        ModelIdentity("m", "f", "int8", DIM + 1),
    ):
        again = opened(path, other)
        assert len(again) == 0
        again.close()


@dataclass(frozen=True)
class Passage:
    text: str


class Counting:
    """An encoder whose vector of a text is made of its length; it counts the texts."""

    tokenizer = None

    def __init__(self):
        self.texts = []

    def encode_records(self, records, **options):
        for record in records:
            self.texts.append(record.text)
            yield [record], np.full((1, DIM), len(record.text), np.float32)


def test_only_what_the_journal_lacks_is_encoded(tmp_path):
    texts = ["a", "bb", "a", "ccc", "dddd"]
    journal, model = opened(tmp_path / "index"), Counting()
    encoder = JournalingEncoder(model, journal)
    (first,) = encoder.encode_records([Passage(text) for text in texts[:3]])
    (second,) = encoder.encode_records([Passage(text) for text in texts])
    assert first[1][:, 0].tolist() == [1, 2, 1]
    assert second[1][:, 0].tolist() == [1, 2, 1, 3, 4]
    assert model.texts == ["a", "bb", "a", "ccc", "dddd"]
    assert journal.taken == 3
    journal.close()


def test_foreign_files_stay(tmp_path):
    folder = journal_folder(tmp_path / "index")
    folder.mkdir()
    (folder / "mine").touch()
    remove_journal(tmp_path / "index")
    assert (folder / "mine").exists()
    (tmp_path / "other.partial").symlink_to(folder)
    with pytest.raises(OSError, match="symbolic link"):
        opened(tmp_path / "other")
