"""The OpenAPI document of the admin API, made from its operations."""

import types
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum, IntEnum
from importlib.metadata import version
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from limbeck.guard.admin.operations import Operation
from limbeck.guard.plain import SECRET, TIMES

_Schema = dict[str, Any]
_ERRORS: Final = {
    "400": "The body is no JSON, or the query cannot be read.",
    "401": "There is no good admin key.",
    "403": "The admin key's role does not suffice.",
    "404": "There is no such thing.",
    "409": "The thing is not in a state in which this can be done.",
    "413": "The body is too long.",
    "415": "The body is not sent as application/json.",
    "422": "A field is unknown, missing or wrong.",
    "503": "The database, the counters or the ledger cannot be reached.",
}
_SCALARS: Final[Mapping[Any, _Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}


def document(operations: Sequence[Operation], prefix: str) -> _Schema:
    """Return the OpenAPI 3.1 document of some operations under a prefix."""
    paths: dict[str, _Schema] = {}
    for operation in operations:
        paths.setdefault(prefix + operation.path, {})[operation.method.lower()] = _one(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Limbeck guard: admin API", "version": version("limbeck")},
        "security": [{"admin_key": []}],
        "components": {
            "securitySchemes": {"admin_key": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}},
                    "required": ["error"],
                }
            },
        },
        "paths": paths,
    }


def _one(operation: Operation) -> _Schema:
    content = {"application/json": {"schema": schema_of(operation.out)}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    described: _Schema = {
        "summary": operation.summary,
        "description": f"Needs the role {operation.role.value}.",
        "parameters": [*_path_parameters(operation), *_query_parameters(operation)],
        "responses": {
            str(operation.status): {"description": operation.summary, "content": content},
            **{code: {"description": why, "content": error} for code, why in _ERRORS.items()},
        },
    }
    if operation.body is not None:
        body = {"application/json": {"schema": _flat(operation.body)}}
        described["requestBody"] = {"required": True, "content": body}
    return described


def _path_parameters(operation: Operation) -> list[_Schema]:
    if "{id}" not in operation.path:
        return []
    pattern = "^[a-z0-9][a-z0-9._-]{0,62}$"
    schema = {"type": "string", "pattern": pattern}
    return [{"name": "id", "in": "path", "required": True, "schema": schema}]


def _query_parameters(operation: Operation) -> list[_Schema]:
    found = _flat(operation.query)["properties"]
    return [{"name": name, "in": "query", "schema": schema} for name, schema in found.items()]


def _flat(model: type[BaseModel]) -> _Schema:
    """Return a model's schema with its definitions written in place."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    schema.setdefault("properties", {})
    return _resolved(schema, definitions)


def _resolved(schema: Any, definitions: Mapping[str, Any]) -> Any:
    match schema:
        case {"$ref": str() as name}:
            return _resolved(definitions[name.rsplit("/", 1)[1]], definitions)
        case dict():
            return {k: _resolved(v, definitions) for k, v in schema.items()}
        case list():
            return [_resolved(item, definitions) for item in schema]
        case _:
            return schema


def schema_of(kind: Any, name: str = "") -> _Schema:
    """Return the JSON Schema of a value's type, as `plain` writes it."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(part, name) for part in inside]}
    if kind is float and name in TIMES:
        return {"type": "string", "format": "date-time"}
    if kind in _SCALARS:
        return dict(_SCALARS[kind])
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object"}
    if origin is not None and issubclass(origin, Sequence | AbstractSet):
        return {"type": "array", "items": schema_of(inside[0])}
    if issubclass(kind, IntEnum):
        return {"type": "string", "enum": [member.name.lower() for member in kind]}
    if issubclass(kind, Enum):
        return {"type": "string", "enum": [member.value for member in kind]}
    assert is_dataclass(kind), kind  # noqa: S101
    return _schema_of_dataclass(kind)


def _schema_of_dataclass(kind: Any) -> _Schema:
    hints = get_type_hints(kind)
    shown = [field.name for field in fields(kind) if field.name not in SECRET]
    return {
        "type": "object",
        "properties": {name: schema_of(hints[name], name) for name in shown},
        "required": shown,
        "additionalProperties": False,
    }
