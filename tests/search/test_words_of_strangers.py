"""A words file that somebody else made, with right checksums: wrong ranks or an error, and never without end."""

import sqlite3

import pytest

from sbert_mini.errors import CorruptIndexError
from sbert_mini.search.words import Words, WordsWriter

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x AS id, x AS sz FROM c"


@pytest.fixture
def file(tmp_path):
    with WordsWriter(tmp_path / "words.sqlite") as words:
        for text in ("the cat", "a dog", "the dog runs"):
            words.write(text)
    return tmp_path / "words.sqlite"


def _changed(file, *statements):
    db = sqlite3.connect(file, isolation_level=None)
    db.execute("PRAGMA writable_schema = ON")
    for statement in statements:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize(
    "statements",
    [
        (f"CREATE VIEW endless AS {ENDLESS}",),
        ("DROP TABLE words_docsize", f"CREATE VIEW words_docsize AS {ENDLESS}"),
        ("CREATE TABLE more (x)",),
        ("CREATE TRIGGER t AFTER INSERT ON words_data BEGIN SELECT 1; END",),
        (f"UPDATE sqlite_master SET sql = 'CREATE VIEW words_docsize AS {ENDLESS}' WHERE name = 'words_docsize'",),
    ],
    ids=["view", "view of FTS5", "table", "trigger", "schema"],
)
def test_other_tables_than_those_of_fts5_are_refused(file, statements):
    _changed(file, *statements)
    with pytest.raises(CorruptIndexError, match=r"words\.sqlite"):
        Words(file, 3)


def test_damage_is_an_error_of_ours(file):
    _changed(file, "DELETE FROM words_data WHERE id > 10")
    words = Words(file, 3)
    with pytest.raises(CorruptIndexError, match=r"words\.sqlite is damaged"):
        words.frequencies(["cat", "dog"])
    with pytest.raises(CorruptIndexError, match=r"words\.sqlite is damaged"):
        words.ranked({"dog": ("dog", 1.0)}, 3)


def test_positions_that_the_segment_does_not_have_are_left_out(file):
    words = Words(file, 3)
    assert {position for position, _ in words.ranked({"dog": ("dog", 1.0)}, 3)} == {1, 2}
    fewer = Words(file, 2)
    assert {position for position, _ in fewer.ranked({"dog": ("dog", 1.0)}, 3)} == {1}
