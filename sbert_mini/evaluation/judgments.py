"""A user's own queries and judgments, in the layouts of BEIR, TREC and CSV, with counts of what cannot be used.

| layout | queries | judgments |
| --- | --- | --- |
| BEIR | JSON lines with `_id` and `text` | a header, then query, document and grade, tab separated |
| TREC | id and text, tab separated, without a header | query, iteration, document and grade, separated by blanks |
| CSV | any table with a column of ids and one of texts | any table with a header that names query and document |
"""

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sbert_mini.errors import InputError
from sbert_mini.text.limits import MAX_ROW_BYTES
from sbert_mini.text.lines import Line, read_lines
from sbert_mini.text.records import open_file, read_records
from sbert_mini.text.tables import listed, read_table

QUERY_COLUMNS = ("query-id", "query_id", "query", "qid", "topic")
DOCUMENT_COLUMNS = ("corpus-id", "corpus_id", "doc-id", "doc_id", "document", "docid", "docno", "id")
GRADE_COLUMNS = ("score", "relevance", "grade", "rel", "label", "judgment")
_ID_COLUMNS = (*QUERY_COLUMNS, "id", "_id", "number")


@dataclass(frozen=True)
class Queries:
    """The queries of a file.

    Attributes:
        texts: id -> text, in the order of the file.
        repeated: rows that repeat a query, its id and its text.
    """

    texts: Mapping[str, str]
    repeated: int = 0


@dataclass
class Judgments:
    """The judgments of a file.

    Attributes:
        grades: query -> document -> grade; above 0 means relevant, more means more so.
        repeated: judgments of a query and a document that were judged before, with the same grade.
        conflicting: the same with another grade; the highest counts.
    """

    grades: dict[str, dict[str, int]] = field(default_factory=dict)
    repeated: int = 0
    conflicting: int = 0

    def add(self, query: str, document: str, grade: int) -> None:
        """Add a judgment."""
        of_query = self.grades.setdefault(query, {})
        if document in of_query:
            self.repeated += grade == of_query[document]
            self.conflicting += grade != of_query[document]
        of_query[document] = max(grade, of_query.get(document, grade))


def read_queries(
    path: Path, *, text_column: str | Sequence[str] | None = None, id_column: str | None = None
) -> Queries:
    """Return the queries of a file: a table or JSON lines with ids, or TREC's lines of id, tab and text.

    A .tsv file counts as TREC's if no column is named here and its first line is no header.

    Args:
        path: the file; gzipped or not.
        text_column: the column of the texts; see `text.records.read_records`.
        id_column: the column of the ids.

    Raises:
        InputError: the file cannot be read, a query has no id or no text, an id has two texts, or there is no query.
    """
    if text_column is None and id_column is None and _is_headerless(path):
        rows: Iterator[tuple[str, str | None, str]] = _trec_queries(path)
    else:
        records = read_records(path, text_column=text_column, id_column=id_column)
        rows = ((record.place, record.id, record.text) for record in records)
    texts: dict[str, str] = {}
    repeated = 0
    for place, identity, text in rows:
        if not identity:
            raise InputError(f"{place}: the query has no id: name the column of the ids with --id-column (id_column)")
        if texts.setdefault(identity, text) != text:
            raise InputError(f"{place}: the query {identity!r} stands in an earlier line with another text")
        repeated += 1
    if not texts:
        raise InputError(f"{path} holds no query")
    return Queries(texts, repeated - len(texts))


def _is_headerless(path: Path) -> bool:
    """Return whether a file holds TREC's queries: lines of id, tab and text, of which the first is no header."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if suffixes and suffixes[-1] in (".csv", ".jsonl", ".ndjson", ".parquet"):
        return False
    names = [name.strip() for name in _first_line(path).lower().split("\t", 2)]
    return len(names) == 2 and "text" not in names and names[0] not in _ID_COLUMNS


def _lines(path: Path) -> Iterator[Line]:
    """Yield the lines that are not blank.

    Raises:
        InputError: a line cannot be read.
    """
    with open_file(path) as stream:
        for line in read_lines(stream, str(path), MAX_ROW_BYTES, by_itself=True):
            if line.problem:
                raise InputError(f"{path}, line {line.number}: {line.problem}")
            if line.text.strip():
                yield line


def _first_line(path: Path) -> str:
    return next((line.text.rstrip("\r\n") for line in _lines(path)), "")


def _trec_queries(path: Path) -> Iterator[tuple[str, str | None, str]]:
    for line in _lines(path):
        identity, tab, text = line.text.strip().partition("\t")
        if not tab or not text.strip():
            raise InputError(f"{path}, line {line.number}: an id, a tab and a text are required")
        yield f"{path}, line {line.number}", identity.strip(), text.strip()


def read_judgments(path: Path) -> Judgments:
    """Return the judgments of a file, whose first line tells its layout.

    TREC: four fields, separated by blanks: query, iteration (not used), document, grade. Otherwise a table, separated by tabs
    or commas, whose header names the query (one of `QUERY_COLUMNS`), the document (`DOCUMENT_COLUMNS`) and the grade
    (`GRADE_COLUMNS`); without a column of grades each document counts as relevant. BEIR's three columns may lack their header.

    Raises:
        InputError: the file cannot be read, a line has another form, a grade is not a whole number, or there is no judgment.
    """
    first = _first_line(path)
    fields = first.split(maxsplit=4)
    judgments = Judgments()
    if len(fields) == 4 and _grade(fields[3]) is not None:
        rows = _trec_judgments(path)
    elif len(tabbed := first.split("\t", 3)) == 3 and _grade(tabbed[2]) is not None:
        rows = _headerless_judgments(path)
    else:
        rows = _table_judgments(path, "\t" if "\t" in first else ",")
    for place, query, document, grade in rows:
        number = _grade(grade)
        if number is None:
            raise InputError(f"{place}: the grade must be a whole number; found {grade[:40]!r}")
        if not query or not document:
            raise InputError(f"{place}: the {'document' if query else 'query'} has no id")
        judgments.add(query, document, number)
    if not judgments.grades:
        raise InputError(f"{path} holds no judgment")
    return judgments


def _grade(text: str) -> int | None:
    """Return a grade: a whole number, perhaps with a point and zeros; None where it is none."""
    try:
        number = float(text)
        return int(number) if number == int(number) else None
    except (ValueError, OverflowError):
        return None


def _trec_judgments(path: Path) -> Iterator[tuple[str, str, str, str]]:
    for line in _lines(path):
        fields = line.text.split(maxsplit=4)
        if len(fields) != 4:
            found = "more" if len(fields) > 4 else len(fields)
            raise InputError(
                f"{path}, line {line.number}: four fields are required (query, iteration, document, grade); found {found}"
            )
        yield f"{path}, line {line.number}", fields[0], fields[2], fields[3]


def _headerless_judgments(path: Path) -> Iterator[tuple[str, str, str, str]]:
    for line in _lines(path):
        fields = line.text.rstrip("\r\n").split("\t", 3)
        if len(fields) != 3:
            found = "more" if len(fields) > 3 else len(fields)
            raise InputError(
                f"{path}, line {line.number}: query, document and grade are required, tab separated; found {found} fields"
            )
        yield f"{path}, line {line.number}", fields[0].strip(), fields[1].strip(), fields[2]


def _table_judgments(path: Path, delimiter: Literal[",", "\t"]) -> Iterator[tuple[str, str, str, str]]:
    csv.field_size_limit(sys.maxsize)
    try:
        header = next(csv.reader([_first_line(path)], delimiter=delimiter), [])
    except csv.Error as error:
        raise InputError(f"{path}, line 1: the header cannot be read: {error}") from error
    name_of = {name.strip().lower(): name for name in header}
    query, document, grade = (
        next((name_of[name] for name in names if name in name_of), None)
        for names in (QUERY_COLUMNS, DOCUMENT_COLUMNS, GRADE_COLUMNS)
    )
    if query is None or document is None:
        raise InputError(
            f"{path}, line 1: neither a judgment of TREC (query, iteration, document, grade) nor a header that names the query "
            f"({', '.join(QUERY_COLUMNS)}) and the document ({', '.join(DOCUMENT_COLUMNS)}); found: {listed(header)}"
        )
    with open_file(path) as stream:
        lines = read_lines(stream, str(path), MAX_ROW_BYTES, by_itself=False)
        for row in read_table(lines, str(path), MAX_ROW_BYTES, delimiter, lambda _: ""):
            place = f"{path}, line {row.line}"
            if row.values is None:
                raise InputError(f"{place}: {row.problem}{row.lines}")
            yield place, row.values[query].strip(), row.values[document].strip(), row.values[grade] if grade else "1"
