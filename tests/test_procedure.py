"""PROC-004 as its users read it: each call, command, option and answer in it is one of this tool's."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from mcp.shared.exceptions import MCPError

from scarlet_backup_mcp.cli.commands import main
from scarlet_backup_mcp.errors import BackupToolError, ConfigurationError
from scarlet_backup_mcp.models import results, verification
from scarlet_backup_mcp.models.common import Model
from scarlet_backup_mcp.server.tools import create_server
from scarlet_backup_mcp.settings import PREFIX, Settings, load_settings

from .conftest import PROJECT_ROOT, LocalDatabase
from .helpers.drill import SandboxServers
from .helpers.faces import ERAS, Agent, User, agent, content_of, jsonschema, local_settings, text_of
from .test_generated_docs import codes

PROCEDURE = {"it": "docs/it/proc-004.md", "en": "docs/proc-004.md"}
PAGES = [*PROCEDURE.values(), "docs/it/proc-003-backup.md"]
NOT_POWERSHELL_5 = ("&&", "||", "<", "?.", "??", "\\\n", "$(", "export ", "| grep")
"""What a bash or a newer PowerShell has."""
OTHER_COMMANDS = ("docker compose up -d ", "docker ps", "Start-Sleep ", "if ($LASTEXITCODE -eq 0) ")
OTHER_WORDS = {"not_proved", "pg_dump", "recreate_agents", "letta_backup_YYYYMMDD_HHMMSS"}
"""With an underline, and no name in this tool's answers."""
each_page = pytest.mark.parametrize("page", PAGES)


@dataclass
class Page:
    """What a page has its readers do, in its order."""

    headings: list[int] = field(default_factory=list[int])
    """The level of each."""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    commands: list[str] = field(default_factory=list[str])
    answers: list[tuple[int, dict[str, Any]]] = field(default_factory=list[tuple[int, dict[str, Any]]])
    """With the number of calls that came before."""
    outputs: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """With the command that printed it."""
    code: set[str] = field(default_factory=set[str])
    """Whatever else is marked as code."""


def read(page: str) -> Page:
    found = Page()
    text = (PROJECT_ROOT / page).read_text(encoding="utf-8")
    for part in re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL):
        language, _, block = part.removesuffix("\n```").removeprefix("```").partition("\n")
        if not part.startswith("```"):
            found.headings += [len(marks) for marks in re.findall(r"^(#+) ", part, re.MULTILINE)]
            for code in re.findall(r"`([^`]+)`", part):
                call = re.fullmatch(r"(\w+) (\{(?:\".*)?\})", code, re.DOTALL)
                if call:
                    found.calls.append((call[1], json.loads(call[2])))
                elif not re.fullmatch(r"\w+ \{\w+\}", code):  # which says how calls are written
                    found.code.add(code)
        elif language == "powershell":
            found.commands += block.splitlines()
        elif language == "json":
            found.answers.append((len(found.calls), json.loads(block)))
        else:
            assert language == "text", part
            found.outputs.append((found.commands[-1] if "if (" not in found.commands[-1] else "gate", block))
    return found


# -- what is written -------------------------------------------------------------------------------------------------


@each_page
async def test_each_tool_call_is_one_that_the_tool_takes(page: str) -> None:
    schemas = {tool.name: tool.input_schema for tool in await create_server(load_settings()).list_tools()}
    calls = read(page).calls
    assert calls
    for tool, arguments in calls:
        assert set(arguments) <= set(schemas[tool]["properties"]), (tool, arguments)
        jsonschema.Draft202012Validator(schemas[tool]).validate(arguments)


@each_page
def test_each_command_is_one_that_the_command_line_takes(page: str) -> None:
    read_page = read(page)
    inline = {code for code in read_page.code if code.startswith("scarlet-backup-mcp ")}
    commands = {line for line in read_page.commands if line.startswith("scarlet-backup-mcp ")} | inline
    assert len(commands) > 3
    for line in commands - {"scarlet-backup-mcp --version"}:
        _, name, *arguments = shlex.split(line)
        main.load(name).make_context(name, arguments)


@each_page
def test_each_command_runs_in_windows_powershell(page: str) -> None:
    for line in read(page).commands:
        assert not any(words in line for words in NOT_POWERSHELL_5), line
        assert line.startswith(("scarlet-backup-mcp ", *OTHER_COMMANDS)), line


def fields(model: type[Model]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


@each_page
async def test_each_code_and_field_and_setting_is_there(page: str) -> None:
    """Words with an underline, and settings; what has none may be any word."""
    models = [*vars(results).values(), *vars(verification).values()]
    known = {name for model in models if isinstance(model, type) and issubclass(model, Model) for name in fields(model)}
    known |= {error.code for error in codes(BackupToolError)} | {
        PREFIX + name.upper() for name in Settings.model_fields
    }
    known |= {tool.name for tool in await create_server(load_settings()).list_tools()}
    options = {option for name in main.commands for p in main.load(name).params for option in p.opts}
    for code in read(page).code:
        for word in re.findall(r"\b[A-Za-z]+(?:_[A-Za-z]+)+\b", code):
            assert word in known | OTHER_WORDS, code
        for option in re.findall(r"(?<!\S)--[a-z-]+", code):
            assert option in options | {"--version"}, code


def test_both_languages_have_the_same_steps() -> None:
    italian, english = (read(page) for page in PROCEDURE.values())

    def without_labels(calls: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
        return [(tool, {**arguments, **({"label": ""} if "label" in arguments else {})}) for tool, arguments in calls]

    def without_words(lines: list[str]) -> list[str]:
        return [re.sub(r'(--label|Write-Host) "[^"]*"', r"\1", line) for line in lines]

    assert italian.headings == english.headings
    assert without_labels(italian.calls) == without_labels(english.calls)
    assert without_words(italian.commands) == without_words(english.commands)
    assert italian.answers == english.answers
    assert [text for _, text in italian.outputs] == [text for _, text in english.outputs]
    assert italian.code - english.code == english.code - italian.code == set()


# -- what is answered ------------------------------------------------------------------------------------------------


def masked(value: Any) -> Any:
    """Without what differs from run to run and from server to server: numbers, names, versions."""
    if isinstance(value, Mapping):
        return {name: masked(item) for name, item in cast(Mapping[str, Any], value).items()}
    if isinstance(value, str):
        value = re.sub(r"PostgreSQL [\d.]+( \([^)]*\))?", "PostgreSQL", value)
        value = value.replace("local server", "abiogenesis-postgres running")
        value = re.sub(r"letta_[0-9a-f]{8}(?=_before|\b)", "letta", value)
        return re.sub(r"\d+", "0", value)
    return 0 if isinstance(value, int | float) and not isinstance(value, bool) else value


async def test_what_is_shown_is_what_the_tools_answer(
    local_database: LocalDatabase, shared: SandboxServers, tmp_path: Path
) -> None:
    """Their texts are what the commands print."""
    page, names = read(PROCEDURE["en"]), dict[str, str]()
    given: list[dict[str, Any]] = []
    lines: list[str] = []
    done = 0
    settings = local_settings(local_database, tmp_path / "backups").model_copy(update={"gate_level": "full"})
    async with agent(settings, "2026-07-28", User()) as it:
        for number, shown in page.answers:
            for tool, arguments in page.calls[done:number]:
                known = {name: names.get(str(value), value) for name, value in arguments.items()}
                result = await it.client.call_tool(tool, known)
                it.check(tool, result)
                given.append(content_of(result))
                lines += text_of(result).splitlines()
            answer = next(answer for answer in reversed(given) if set(shown) <= set(answer))
            found = {name: answer[name] for name in shown}
            names |= {shown[name]: found[name] for name in ("name", "undo_point") if name in shown}
            directory = {"directory": shown["directory"]} if "directory" in shown else {}
            assert masked(found | directory) == masked(shown)
            done = number
    outputs = [shown for command, shown in page.outputs if not command.startswith("docker ")]
    assert {masked(shown) for shown in outputs} <= {masked(line) for line in lines}


# -- where it is found -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", PROCEDURE)
def test_the_package_has_the_procedure_of_the_docs(language: str) -> None:
    """`docs/` is the source; `SCARLET_TEST_RENEW=1` copies it after a change."""
    packaged = PROJECT_ROOT / "scarlet_backup_mcp" / "documents" / f"proc-004.{language}.md"
    if os.environ.get("SCARLET_TEST_RENEW") == "1":
        shutil.copyfile(PROJECT_ROOT / PROCEDURE[language], packaged)
    assert packaged.read_bytes() == (PROJECT_ROOT / PROCEDURE[language]).read_bytes()


def test_wheel_and_source_distribution_have_it(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=PROJECT_ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    assert {f"scarlet_backup_mcp/documents/proc-004.{language}.md" for language in PROCEDURE} <= set(names)
    assert not [name for name in names if name.startswith("tests/")]
    listed = subprocess.run(["tar", "tzf", next(tmp_path.glob("*.tar.gz"))], check=True, capture_output=True, text=True)
    assert "/scarlet_backup_mcp/documents/proc-004.it.md\n" in listed.stdout


@pytest.mark.parametrize("era", ERAS)
async def test_it_is_a_resource_in_the_users_language_and_in_the_one_asked_for(
    era: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    texts = {name: (PROJECT_ROOT / page).read_text(encoding="utf-8") for name, page in PROCEDURE.items()}
    uri = "scarlet://procedure/proc-004"

    async def at(it: Agent, uri: str) -> str:
        [content] = (await it.client.read_resource(uri)).contents
        assert content.mime_type == "text/markdown"
        return getattr(content, "text", "")

    async with agent(load_settings(dir=tmp_path, lang="it"), era) as italian:
        assert await at(italian, uri) == texts["it"]
        assert await at(italian, f"{uri}?lang=en") == texts["en"]
    async with agent(load_settings(dir=tmp_path), era) as it:
        assert uri in [str(resource.uri) for resource in (await it.client.list_resources()).resources]
        assert await at(it, uri) == texts["en"]
        assert await at(it, f"{uri}?lang=it") == texts["it"]
        with pytest.raises(MCPError, match="lang=it and lang=en"):
            await it.client.read_resource(f"{uri}?lang=de")
        monkeypatch.setenv("LC_ALL", "it_IT.UTF-8")
        assert await at(it, uri) == texts["it"]


async def test_it_is_read_with_a_wrong_setting_too() -> None:
    async with agent(ConfigurationError("A setting is wrong."), "2026-07-28") as it:  # pyright: ignore
        assert (await it.client.read_resource("scarlet://procedure/proc-004")).contents
