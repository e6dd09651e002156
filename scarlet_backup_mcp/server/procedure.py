"""PROC-004 itself as a resource, so that an agent reads the version of the tools that it calls."""

from __future__ import annotations

from importlib.resources import files
from typing import get_args

from mcp.server.mcpserver import MCPServer

from ..errors import ConfigurationError
from ..language import Language, language_of_the_system
from ..settings import Settings
from .strict_server import NoSuchItem
from .tool_calls import App

URI = "scarlet://procedure/proc-004"


def add_procedure(server: MCPServer[App], settings: Settings | ConfigurationError) -> None:
    """Offer the procedure in the user's language, and with `?lang=it` or `?lang=en` in that one."""

    def in_users_language() -> str:
        return _text(language_of_the_system() if isinstance(settings, ConfigurationError) else settings.language)

    def in_language(lang: str = "") -> str:
        if not lang:
            return in_users_language()
        for language in get_args(Language):
            if language == lang:
                return _text(language)
        raise NoSuchItem(f"PROC-004 is there with lang=it and lang=en, not {lang!r}.")

    for uri, name, function in (
        (URI, "proc-004", in_users_language),
        (URI + "{?lang}", "proc-004-by-language", in_language),
    ):
        server.resource(
            uri,
            name=name,
            title="PROC-004: Backup Database",
            description="The backup procedure, step by step: what to call, what to expect, what to do if it fails.",
            mime_type="text/markdown",
        )(function)


def _text(language: Language) -> str:
    return files("scarlet_backup_mcp").joinpath("documents", f"proc-004.{language}.md").read_text(encoding="utf-8")
