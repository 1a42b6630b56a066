"""The OpenAPI document of a server: made from the schemas that check the bodies."""

from collections.abc import Mapping
from typing import Any

from sbert_mini.files.json_schema import Schema
from sbert_mini.serve.schemas import json_schema
from sbert_mini.version import __version__

_NUMBERS = {"type": "array", "items": {"type": "number"}}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "null"},
            },
        }
    },
}
_ROW = {
    "type": "object",
    "required": ["id", "text", "columns"],
    "properties": {"id": {"type": "string"}, "text": {"type": "string"}, "columns": {"type": "object"}},
}
_INDEX = {
    "type": "object",
    "required": ["name", "rows", "generation", "model", "dimension", "columns", "writable"],
    "properties": {
        "name": {"type": "string"},
        "rows": {"type": "integer"},
        "generation": {"type": "integer"},
        "created": {"type": "string"},
        "model": {"type": "string"},
        "dimension": {"type": "integer"},
        "columns": {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
        "writable": {"type": "boolean"},
    },
}
_HIT = {
    "type": "object",
    "required": ["rank", "id", "score", "cosine", "bm25"],
    "properties": {
        "rank": {"type": "integer"},
        "id": {"type": "string"},
        "score": {"type": "number"},
        "text": {"type": "string"},
        "passage": {"type": "string"},
        "columns": {"type": "object"},
        "start": {"type": "integer"},
        "end": {"type": "integer"},
        "cosine": {"type": "number"},
        "bm25": {"type": ["number", "null"]},
        "rank_by_meaning": {"type": ["integer", "null"]},
        "rank_by_words": {"type": ["integer", "null"]},
        "place": {"type": "object"},
        "excerpt": {"type": "object"},
    },
}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def document(bodies: Mapping[str, Schema], *, with_key: bool) -> dict[str, Any]:
    """Return the document.

    Args:
        bodies: the schemas of the bodies, by `embeddings`, `search`, `upsert` and `delete`.
        with_key: whether requests need a key.
    """
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    ids = {
        "name": "id",
        "in": "query",
        "required": True,
        "description": "The id of a row; repeated for several.",
        "schema": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    }
    embedding = _object(
        object={"const": "embedding"}, index={"type": "integer"}, embedding={"anyOf": [_NUMBERS, {"type": "string"}]}
    )
    usage = _object(prompt_tokens={"type": "integer"}, total_tokens={"type": "integer"})
    listed = _object(object={"const": "list"}, data={"type": "array", "items": {"type": "object"}})
    answer = _object(query={"type": "string"}, hits={"type": "array", "items": _HIT})
    paths: dict[str, Any] = {
        "/v1/embeddings": {
            "post": _operation(
                "Vectors of texts, as OpenAI's API gives them",
                _object(
                    object={"const": "list"},
                    model={"type": "string"},
                    data={"type": "array", "items": embedding},
                    usage=usage,
                    truncated={"type": "integer"},
                ),
                bodies["embeddings"],
            )
        },
        "/v1/models": {"get": _operation("The model", listed)},
        "/search": {
            "post": _operation(
                "The rows closest to a query, or to a row",
                _object(index={"type": "string"}, model={"type": "string"}, results={"type": "array", "items": answer}),
                bodies["search"],
            )
        },
        "/indexes": {"get": _operation("The indexes", _object(indexes={"type": "array", "items": _INDEX}))},
        "/indexes/{name}": {"parameters": [name], "get": _operation("An index", _INDEX)},
        "/indexes/{name}/rows": {
            "parameters": [name],
            "get": {
                **_operation(
                    "Rows by their ids", _object(rows={"type": "array", "items": {"anyOf": [_ROW, {"type": "null"}]}})
                ),
                "parameters": [ids],
            },
            "post": _operation(
                "Add rows, and replace those with the same ids",
                _object(**{key: {"type": "integer"} for key in ("written", "replaced", "unchanged")}),
                bodies["upsert"],
            ),
            "delete": _operation("Delete rows", _object(deleted={"type": "integer"}), bodies["delete"]),
        },
        "/health": {"get": _operation("Whether the process answers", _object(status={"type": "string"}))},
        "/ready": {"get": _operation("Whether it takes requests", _object(status={"type": "string"}))},
        "/metrics": {"get": _text_operation("Counts for Prometheus", "text/plain")},
        "/openapi.json": {"get": _operation("This document", {"type": "object"})},
        "/": {"get": _text_operation("A page to search with", "text/html")},
    }
    key = {
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}],
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "sbert-mini", "version": __version__, "description": "Vectors and search."},
        "paths": paths,
        **(key if with_key else {}),
    }


def _operation(summary: str, answer: Any, body: Schema | None = None) -> dict[str, Any]:
    error = {"description": "What was wrong, in one line", "content": {"application/json": {"schema": _ERROR}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": answer}}},
            "4XX": error,
            "5XX": error,
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": json_schema(body)}}}
    return operation


def _text_operation(summary: str, kind: str) -> dict[str, Any]:
    answer = {"description": "Done", "content": {kind: {"schema": {"type": "string"}}}}
    return {"summary": summary, "responses": {"200": answer}}
