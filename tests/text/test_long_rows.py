"""A row that goes on within quotation marks is bounded in two ways: by its bytes, and by its lines."""

import pytest

from sbert_mini.text.records import read_records


@pytest.mark.parametrize(
    ("quoted", "limit"),
    [
        ("\n" * 1001, 10_000),  # many lines, few bytes
        ("\n".join(["x" * 90] * 12), 1_000),  # few lines, many bytes; no line is too long
    ],
)
def test_a_row_of_too_many_lines_or_bytes_is_a_reject_and_the_next_ones_are_read(tmp_path, quoted, limit):
    file = tmp_path / "rows.csv"
    file.write_text(f'text,n\n"{quoted}",1\nlast,2\n', "utf-8")
    rejects = []
    rows = list(read_records(file, max_row_bytes=limit, on_reject=rejects.append))
    assert rejects
    assert rows[-1].text == "last"
    assert quoted not in [row.text for row in rows]


def test_a_row_within_both_bounds_is_read(tmp_path):
    file = tmp_path / "rows.csv"
    quoted = "\n".join(["x" * 9] * 90)
    file.write_text(f'text,n\n"{quoted}",1\nlast,2\n', "utf-8")
    assert [row.text for row in read_records(file, max_row_bytes=1_000)] == [quoted, "last"]
