"""Tools that refuse arguments which they do not have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations
from pydantic import ValidationError

from ..errors import ArgumentsInvalid
from .tool_calls import begin, failed


class StrictTool(Tool):
    """A tool that refuses arguments it does not know: the SDK would ignore them (seen with mcp 2.3.0), and a misspelt
    `dry_run` must not become a restore. What is wrong with arguments is told like any other error."""

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:
        """As `Tool.run`."""
        begin(self.name, arguments)
        try:
            self.fn_metadata.validate_arguments(arguments)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
            known = ", ".join(self.parameters["properties"])
            return failed(
                ArgumentsInvalid(
                    f"{self.name} was not called, since its arguments are wrong: {wrong}.",
                    f"Correct them; its parameters are {known}.",
                )
            )
        return await super().run(arguments, context, convert_result)


def strict_tool(function: Callable[..., Any], title: str, annotations: ToolAnnotations) -> StrictTool:
    """Make a tool of a function; some clients guess that a label of digits is a number, which is read as text."""
    tool = StrictTool.from_function(function, title=title, annotations=annotations)
    assert isinstance(tool, StrictTool)
    arguments = tool.fn_metadata.arg_model
    arguments.model_config["extra"] = "forbid"
    arguments.model_config["coerce_numbers_to_str"] = True
    arguments.model_rebuild(force=True)
    tool.parameters = arguments.model_json_schema(by_alias=True)
    return tool
