"""Tables in docs/ that are made from the code. `SCARLET_TEST_RENEW=1` writes them anew."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from scarlet_backup_mcp import errors
from scarlet_backup_mcp.errors import BackupToolError
from scarlet_backup_mcp.server.tools import create_server
from scarlet_backup_mcp.settings import PREFIX, SECRET, Settings, load_settings

from .conftest import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs"


def compare(page: str, rows: Iterable[tuple[str, ...]]) -> None:
    """The table between the page's markers is that one."""
    path = DOCS / page
    text = path.read_text(encoding="utf-8")
    lines = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows]
    table = "\n".join([lines[0], "|---" * lines[0].count(" | ") + "|---|", *lines[1:]])
    before, _, rest = text.partition("<!-- from the code -->\n")
    _, _, after = rest.partition("\n<!-- end -->")
    renewed = f"{before}<!-- from the code -->\n{table}\n<!-- end -->{after}"
    if os.environ.get("SCARLET_TEST_RENEW") == "1":
        path.write_text(renewed, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == renewed, f"docs/{page} is stale: SCARLET_TEST_RENEW=1"


def test_settings() -> None:
    def rows() -> Iterator[tuple[str, ...]]:
        yield "variable", "option", "default", "meaning"
        for name, field in Settings.model_fields.items():
            default = "none" if field.default is None else f"`{field.default}`"
            option = "" if name in SECRET else f"`--{name.replace('_', '-')}`"
            yield f"`{PREFIX}{name.upper()}`", option, default, field.description or ""

    compare("settings.md", rows())


def codes(of: type[BackupToolError]) -> Iterator[type[BackupToolError]]:
    yield of
    for below in of.__subclasses__():
        if below.__module__.startswith(errors.__name__):
            yield from codes(below)


def test_errors() -> None:
    def rows() -> Iterator[tuple[str, ...]]:
        yield "code", "meaning", "remedy, unless a more fitting one is known"
        for error in [*codes(BackupToolError)][1:]:
            yield (
                f"`{error.code}`",
                (inspect.getdoc(error) or "").partition("\n\n")[0].replace("\n", " "),
                error.default_remedy,
            )

    compare("errors.md", rows())


async def test_tools() -> None:
    tools = await create_server(load_settings()).list_tools()

    def rows() -> Iterator[tuple[str, ...]]:
        yield "tool", "parameter", "default", "meaning"
        for tool in tools:
            properties: dict[str, dict[str, Any]] = tool.input_schema["properties"]
            for name, schema in properties.items():
                default = f"`{schema['default']!r}`" if "default" in schema else "needed"
                yield f"`{tool.name}`", f"`{name}`", default, " ".join(schema["description"].split())

    compare("tools.md", rows())


@pytest.mark.parametrize("page", sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    path = DOCS / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)?(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert not target or (path.parent / target).exists(), target


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    assert text.count("\n") <= 150
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", text):
        assert (PROJECT_ROOT / target).exists(), target
