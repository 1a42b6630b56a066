"""What the body of each request must be. The OpenAPI document is made from the same schemas."""

from typing import Any

from sbert_mini.files.json_schema import (
    Anything,
    Either,
    Flag,
    Integer,
    ListOf,
    MapOf,
    Number,
    Object,
    OneOf,
    Required,
    Schema,
    Text,
    check,
    optional,
)
from sbert_mini.search.fusion import SEARCH_BY
from sbert_mini.serve.problems import BadBodyError
from sbert_mini.serve.settings import Limits

_TEXT = Text(name="a text, with no half of a surrogate pair")


def embeddings(limits: Limits) -> Object:
    """Return the schema of OpenAI's request for vectors."""
    return Object(
        {
            "input": Required(Either((_TEXT, ListOf(_TEXT, 1, limits.texts)))),
            "model": _TEXT,
            "encoding_format": OneOf(("float", "base64")),
            "dimensions": optional(Integer(1, 1 << 16)),
            "user": optional(_TEXT),
        }
    )


def search(limits: Limits) -> Object:
    """Return the schema of a request for hits; the keys are the options of `SearchIndex.search`."""
    return Object(
        {
            "index": _TEXT,
            "query": Either((_TEXT, ListOf(_TEXT, 1, limits.queries))),
            "like": _TEXT,
            "k": Integer(1, limits.hits),
            "filter": optional(_TEXT),
            "by": optional(OneOf(SEARCH_BY)),
            "hybrid": Flag(),
            "weight": optional(Number(0, 1)),
            "min_score": optional(Number(-1, 1)),
            "exact": Flag(),
            "passages": Flag(),
            "with_text": Flag(),
            "excerpts": Flag(),
        }
    )


def upsert(limits: Limits) -> Object:
    """Return the schema of a request that writes rows."""
    row = MapOf(Anything())
    return Object({"rows": Required(ListOf(row, 1, limits.rows))})


def delete(limits: Limits) -> Object:
    """Return the schema of a request that deletes rows."""
    return Object({"ids": ListOf(_TEXT, 1, limits.rows), "filter": _TEXT})


def checked(value: Any, schema: Object) -> dict[str, Any]:
    """Return a body that fits its schema.

    Raises:
        BadBodyError: it does not, or has a key that is not known: it may be a misspelt one.
    """
    check(value, schema, "the body", BadBodyError)
    if unknown := [key for key in value if key not in schema.keys]:
        raise BadBodyError(f"the body has the unknown key {unknown[0][:80]!r}; known are {', '.join(schema.keys)}")
    result: dict[str, Any] = value
    return result


def json_schema(schema: Schema | Required) -> dict[str, Any]:
    """Return a schema as JSON Schema writes it."""
    if isinstance(schema, Required):
        return json_schema(schema.schema)
    if isinstance(schema, Either):
        return {"anyOf": [json_schema(part) for part in schema.schemas]}
    if isinstance(schema, OneOf):
        return {"enum": list(schema.values)}
    if isinstance(schema, Integer | Number):
        kind = "integer" if isinstance(schema, Integer) else "number"
        return {"type": kind, "minimum": schema.least, "maximum": schema.greatest}
    if isinstance(schema, ListOf):
        return {
            "type": "array",
            "items": json_schema(schema.items),
            "minItems": schema.least,
            "maxItems": schema.most,
        }
    if isinstance(schema, MapOf):
        return {"type": "object", "additionalProperties": json_schema(schema.values)}
    if isinstance(schema, Object):
        required = [key for key, part in schema.keys.items() if isinstance(part, Required)]
        return {
            "type": "object",
            "properties": {key: json_schema(part) for key, part in schema.keys.items()},
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }
    simple = {Text: "string", Flag: "boolean"}
    if type(schema) in simple:
        return {"type": simple[type(schema)]}
    return {"type": "null"} if schema.name == "null" else {}
