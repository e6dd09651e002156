"""Schemas of tools as agents need them: short, and what every host takes.

Hosts of Gemini refuse a list of tools with an enum that is not of strings, and some models send a null for whatever
may be null; so an argument that may be absent is absent, and has no null in its schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel

_COMMON: dict[str, Any] = {
    "job": {"type": "string"},
    "code": {"type": "string"},
    "message": {"type": "string"},
    "remedy": {"type": ["string", "null"]},
    "next_call": {"type": ["object", "null"]},
}
"""What an answer that goes on, or an error, has; `remedy` and `next_call` are in results, too."""


def input_schema(arguments: type[BaseModel]) -> dict[str, Any]:
    """Describe a tool's arguments."""
    schema = arguments.model_json_schema(by_alias=True)
    properties = {name: _argument(value) for name, value in schema["properties"].items()}
    required = {"required": schema["required"]} if "required" in schema else {}
    return {"type": "object", "properties": properties, **required, "additionalProperties": False}


def output_schema(answer: type[BaseModel], fields: tuple[str, ...]) -> dict[str, Any]:
    """Describe the `fields` of an answer that an agent branches on. Other fields may come with them."""
    properties = answer.model_json_schema(mode="serialization")["properties"]
    told = {name: _field(properties[name]) for name in fields}
    return {"type": "object", "properties": {**told, **_COMMON}}


def _argument(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An argument without a title, and without the null that stands for its absence."""
    found = {key: value for key, value in schema.items() if key not in ("title", "anyOf")}
    for choice in schema.get("anyOf", ()):
        if choice != {"type": "null"}:
            found = {**choice, **found}
    if found.get("default", ...) is None:
        del found["default"]
    return found


def _field(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Its type and description; what is in an object is not described."""
    choices = cast(list[Mapping[str, Any]], schema.get("anyOf", [schema]))
    types = ["object" if "$ref" in choice else cast(str, choice["type"]) for choice in choices]
    described = {"description": schema["description"]} if "description" in schema else {}
    return {"type": types[0] if len(types) == 1 else types, **described}
