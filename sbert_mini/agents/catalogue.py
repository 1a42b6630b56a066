"""The tools' names, descriptions and schemas, from which arguments are checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sbert_mini.errors import InputError
from sbert_mini.files.json_schema import Flag, Integer, ListOf, Number, Object, OneOf, Required, Schema, Text, check
from sbert_mini.search.fusion import SEARCH_BY
from sbert_mini.serve.schemas import json_schema

MOST_HITS, MOST_ROWS, MOST_TEXTS = 50, 20, 16
QUERY_CHARACTERS, TEXT_CHARACTERS = 4_000, 20_000
_WORDS = Text(name="a text, with no half of a surrogate pair")
_STRING, _INTEGER, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_INDEX = "Name of the index; leave it out where there is only one (list_indexes)."
_FILTER = "SQL condition on columns, such as year >= 2020 and lang = 'en' (list_indexes names the columns)."


class ToolError(InputError):
    """A call of a tool that cannot be met."""


@dataclass(frozen=True)
class Answer:
    """What a tool answers.

    Attributes:
        text: for a reader.
        data: the same as JSON.
    """

    text: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Tool:
    """A tool as an agent sees it.

    Attributes:
        title: for people.
        description: what it does, and when to call it.
        keys: its arguments: what each may be, and what it means.
        answer: the JSON Schema of the properties of its answer.
        is_read_only: whether it changes nothing.
    """

    title: str
    description: str
    keys: Mapping[str, tuple[Schema | Required, str]]
    answer: Mapping[str, Any]
    is_read_only: bool = True

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of its arguments."""
        schema = json_schema(self.schema)
        for key, (_, description) in self.keys.items():
            schema["properties"][key]["description"] = description
        return schema

    @property
    def output_schema(self) -> dict[str, Any]:
        """The JSON Schema of its answer."""
        return {"type": "object", "properties": dict(self.answer)}

    @property
    def schema(self) -> Object:
        """What its arguments must be."""
        return Object({key: part for key, (part, _) in self.keys.items()})


def _list(of: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


_HITS = {
    "index": _STRING,
    "hits": _list(
        _object(
            rank=_INTEGER,
            id=_STRING,
            place={**_STRING, "description": "path:line, or the id of a row without a file"},
            score=_NUMBER,
            text={**_STRING, "description": "the closest passage"},
            is_cut={"type": "boolean", "description": "the passage goes on: call get"},
            headings=_STRING,
            columns={"type": "object"},
        )
    ),
}
_ROWS = _list(
    _object(
        id=_STRING,
        is_there={"type": "boolean"},
        place=_STRING,
        text=_STRING,
        start=_INTEGER,
        characters={**_INTEGER, "description": "of the whole text"},
        next_start={**_INTEGER, "description": "pass it as start to read on"},
        columns={"type": "object"},
    )
)
_DESCRIBED = _list(
    _object(
        name=_STRING,
        rows=_INTEGER,
        generation=_INTEGER,
        created=_STRING,
        model=_STRING,
        dimension=_INTEGER,
        columns={"type": "object"},
        is_writable={"type": "boolean"},
    )
)
TOOLS: Mapping[str, Tool] = {
    "search": Tool(
        "Search",
        "Find passages of the user's documents that answer a question or are about a subject. Returns short passages with "
        "their places (path:line). Write the query as a question or a phrase; make it specific.",
        {
            "query": (Required(_WORDS), f"What to find, at most {QUERY_CHARACTERS} characters."),
            "index": (_WORDS, _INDEX),
            "k": (Integer(1, MOST_HITS), "How many hits; 5 by default."),
            "filter": (_WORDS, _FILTER),
            "by": (OneOf(SEARCH_BY), "What ranks: meaning, words (exact names and numbers), or both, the default."),
            "min_score": (Number(-1, 1), "Leave out hits of a lower cosine."),
        },
        _HITS,
    ),
    "similar": Tool(
        "Similar rows",
        "Find the rows that are closest in meaning to a row, by its id from search.",
        {
            "id": (Required(_WORDS), "The row's id."),
            "index": (_WORDS, _INDEX),
            "k": (Integer(1, MOST_HITS), "How many hits; 5 by default."),
            "filter": (_WORDS, _FILTER),
        },
        _HITS,
    ),
    "get": Tool(
        "Get rows",
        "Read the text of rows by their ids from search. A long text comes in parts: pass next_start as start to read on.",
        {
            "ids": (Required(ListOf(_WORDS, 1, MOST_ROWS)), "The rows' ids."),
            "index": (_WORDS, _INDEX),
            "start": (Integer(0), "The first character, from 0."),
            "characters": (Integer(1, TEXT_CHARACTERS), "How many characters of each text; 4000 by default."),
        },
        {"index": _STRING, "rows": _ROWS},
    ),
    "list_indexes": Tool(
        "List indexes",
        "List the indexes with the number of rows and the columns that filters may name.",
        {},
        {"indexes": _DESCRIBED},
    ),
    "embed": Tool(
        "Sentence vectors",
        "Compute sentence vectors of length 1 and their cosines, to compare texts that are not in an index.",
        {
            "texts": (Required(ListOf(_WORDS, 1, MOST_TEXTS)), f"Texts of at most {TEXT_CHARACTERS} characters each."),
            "dimensions": (Integer(1, 1 << 16), "Keep this many first components; all by default."),
        },
        {"model": _STRING, "vectors": _list(_list(_NUMBER)), "cosines": _list(_list(_NUMBER))},
    ),
    "sync": Tool(
        "Sync folders",
        "Bring an index up to date with the user's folders of documents: read what is new or changed, remove what is gone.",
        {
            "index": (_WORDS, _INDEX),
            "dry_run": (Flag(), "Only say what would change."),
        },
        {
            "index": _STRING,
            **dict.fromkeys(("added", "changed", "removed", "unchanged", "failed", "changes"), _INTEGER),
            "failures": _list(_object(id=_STRING, why=_STRING)),
            "actions": _list(_object(action=_STRING, id=_STRING)),
            "refusal": _STRING,
        },
        is_read_only=False,
    ),
}
"""`sync` is there only where an index may be changed."""


def checked(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the arguments of a tool, which fit its schema.

    Raises:
        ToolError: they do not; the text names the argument.
    """
    schema, given = TOOLS[name].schema, dict(arguments)
    check(given, schema, "the arguments", ToolError)
    if unknown := [key for key in given if key not in schema.keys]:
        raise ToolError(f"{name} has no argument {unknown[0][:80]!r}; it has: {', '.join(schema.keys) or 'none'}")
    if len(given.get("query", "")) > QUERY_CHARACTERS:
        raise ToolError(f"query may have {QUERY_CHARACTERS} characters; found {len(given['query'])}")
    if any(len(text) > TEXT_CHARACTERS for text in given.get("texts", ())):
        raise ToolError(f"a text may have {TEXT_CHARACTERS} characters; found more: call embed with parts of it")
    return given
