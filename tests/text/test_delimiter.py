"""Which of comma and tab divides the columns of a file that is called .csv: the header decides."""

import pytest

from sbert_mini.errors import InputError
from sbert_mini.text.records import read_records


def rows(tmp_path, text, **options):
    (tmp_path / "rows.csv").write_text(text, "utf-8")
    return list(read_records(tmp_path / "rows.csv", **options))


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("text\nhello; there\n", "text", "hello; there"),
        ("id\ttext\n1\thello, there\n", "text", "hello, there"),
        ('"te\txt",note\nhello,there\n', "te\txt", "hello"),
        ('text,"no\tte"\n"hello, you",there\n', "text", "hello, you"),
    ],
)
def test_the_header_decides(tmp_path, text, column, expected):
    (record,) = rows(tmp_path, text, text_column=column)
    assert record.text == expected


def test_a_file_of_one_column_is_divided_by_commas(tmp_path):
    """A comma that is not quoted then makes a second field: said, and not read as one text."""
    (record,) = rows(tmp_path, 'text\n"hello, there"\n', text_column="text")
    assert record.text == "hello, there"
    with pytest.raises(InputError, match="line 2: 2 columns, and the header names 1"):
        rows(tmp_path, "text\nhello, there\n", text_column="text")


def test_another_delimiter_is_hinted_at(tmp_path):
    with pytest.raises(InputError, match="there are: id;text; if ';' divides the columns, give --delimiter ';'"):
        rows(tmp_path, "id;text\n1;hello\n")
    (record,) = rows(tmp_path, "id;text\n1;hello\n", delimiter=";")
    assert record.text == "hello"
    with pytest.raises(InputError, match=r"there are: id, a;b$"):
        rows(tmp_path, "id,a;b\n1,hello\n")
