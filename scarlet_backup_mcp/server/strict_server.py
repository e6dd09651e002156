"""A server that answers for unknown names as each version of the protocol wants it, and says what there is instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, CallToolResult, GetPromptResult, InputRequiredResult
from pydantic import AnyUrl

from ..errors import BackupToolError
from ..nearest import nearest
from .tool_calls import MODERN, App

RESOURCE_NOT_FOUND = -32002
"""In versions before 2026-07-28, which has -32602 (SEP-2164). The SDK has that one in every version (mcp 2.3.0)."""


class NoSuchItem(ResourceNotFoundError):
    """The URI is one of ours, but what it names does not exist."""


class StrictServer(MCPServer[App]):
    """An MCP server whose errors for unknown tools, prompts and resources are the specification's."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[App, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool. Raises MCPError for one that does not exist."""
        _require("tool", name, [tool.name for tool in await self.list_tools()])
        return await super().call_tool(name, arguments, context)

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Context[App, Any] | None = None
    ) -> GetPromptResult | InputRequiredResult:
        """Write a prompt out. Raises MCPError for one that does not exist."""
        _require("prompt", name, [prompt.name for prompt in await self.list_prompts()])
        return await super().get_prompt(name, arguments, context)

    async def read_resource(
        self, uri: AnyUrl | str, context: Context[App, Any] | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        """Read a resource. Raises MCPError for one that does not exist, or that can't be read now."""
        try:
            return await super().read_resource(uri, context)
        except NoSuchItem as error:
            message = str(error)
        except ResourceNotFoundError:
            uris = [str(resource.uri) for resource in await self.list_resources()]
            uris += [template.uri_template for template in await self.list_resource_templates()]
            message = _there_is_no("resource", str(uri), uris)
        except ResourceError as error:
            why = error.__cause__ if isinstance(error.__cause__, BackupToolError) else "It failed unexpectedly."
            raise MCPError(INTERNAL_ERROR, f"{uri} can't be read now. {why}", {"uri": str(uri)}) from error
        version = context.protocol_version if context else None
        code = INVALID_PARAMS if version is not None and version >= MODERN else RESOURCE_NOT_FOUND
        raise MCPError(code, message, {"uri": str(uri)})


def _require(kind: str, name: str, names: list[str]) -> None:
    if name not in names:
        raise MCPError(INVALID_PARAMS, _there_is_no(kind, name, names))


def _there_is_no(kind: str, name: str, names: Iterable[str]) -> str:
    return f"There is no {kind} {name!r}. The nearest: {nearest(name, names)}."
