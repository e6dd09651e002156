"""Tools that read arguments as hosts really send them, and refuse what they do not know."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..errors import ArgumentsInvalid, BackupToolError, ConfirmationNeeded, InternalError, again
from ..nearest import nearest
from .schemas import input_schema, output_schema
from .tool_calls import app_of, begin, failed

log = logging.getLogger(__name__)

_ABSENT = (None, "", "null")
"""What hosts send for an argument that was left empty."""


class StrictTool(Tool):
    """A tool that refuses arguments it does not know: the SDK would ignore them (seen with mcp 2.3.0), and a misspelled
    `dry_run` must not become a restore. What is wrong with arguments is reported like any other error."""

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:
        """Read the arguments, then run as any tool does."""
        arguments = {name: value for name, value in arguments.items() if value not in _ABSENT}
        begin(self.name, arguments, app_of(context))
        try:
            return await super().run(arguments, context, convert_result)
        except UnexpectedToolError as error:
            log.exception("%s failed", self.name)
            return failed(InternalError(f"{self.name} failed unexpectedly ({type(error.__cause__).__name__})."))
        except ToolError as error:
            return failed(self._misused(error))

    def _misused(self, error: ToolError) -> BackupToolError:
        """Tell which of the SDK's two errors it is, since nothing of ours raises a ToolError: wrong arguments, which it
        raises from their ValidationError, or an accepted question whose answer is not the one asked for."""
        if not isinstance(error.__cause__, ValidationError):
            return ConfirmationNeeded(
                "The answer to the question was empty or malformed; nothing was changed.", "Ask again.", again()
            )
        properties: Mapping[str, Any] = self.parameters["properties"]
        wrong = "; ".join(_in_words(details, properties) for details in error.__cause__.errors())
        return ArgumentsInvalid(
            f"{self.name} was not called, because its arguments are wrong: {wrong}.",
            f"Correct them; its parameters are {', '.join(properties)}.",
        )


def strict_tool(
    function: Callable[..., Any],
    title: str,
    annotations: ToolAnnotations,
    answer: type[BaseModel],
    fields: tuple[str, ...],
) -> StrictTool:
    """Make a tool of a function. Of its `answer` the `fields` are described."""
    description = inspect.cleandoc(function.__doc__ or "").replace("\n", " ")
    tool = StrictTool.from_function(function, title=title, annotations=annotations, description=description)
    assert isinstance(tool, StrictTool)
    arguments = tool.fn_metadata.arg_model
    arguments.model_config["extra"] = "forbid"
    arguments.model_config["coerce_numbers_to_str"] = True
    arguments.model_rebuild(force=True)
    tool.parameters = input_schema(arguments)
    tool.fn_metadata.output_schema = output_schema(answer, fields)
    return tool


def _in_words(details: ErrorDetails, properties: Mapping[str, Any]) -> str:
    """Say what is wrong with an argument, and what is allowed."""
    name = str(details["loc"][0]) if details["loc"] else "arguments"
    if name not in properties:
        return f"there is no parameter {name} (the nearest is {nearest(name, properties)})"
    if details["type"] == "missing":
        return f"{name} is missing"
    given, allowed = details["input"], _allowed(properties[name])
    return f"{name} is {given!r}, but has to be {allowed}"


def _allowed(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return _either(cast(list[str], schema["enum"]))
    kind = {"boolean": "true or false", "integer": "a whole number", "number": "a number"}.get(schema["type"], "text")
    if "minimum" in schema:
        return f"{kind} from {schema['minimum']} to {schema['maximum']}"
    if "maxLength" in schema:
        return f"{kind} of at most {schema['maxLength']} characters"
    return kind


def _either(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
