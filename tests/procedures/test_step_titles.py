"""The titles of steps in the user's language."""

from __future__ import annotations

import ast
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from scarlet_backup_mcp.language import language_of_the_system
from scarlet_backup_mcp.models.common import Step
from scarlet_backup_mcp.models.results import Backup, Integrity, Listing, Restore
from scarlet_backup_mcp.procedures.step_titles import ITALIAN, in_language
from scarlet_backup_mcp.settings import load_settings

from ..conftest import PROJECT_ROOT, LocalDatabase
from ..helpers.command_line import CommandLine
from ..helpers.faces import agent, local_settings

NAMES = ("LC_ALL", "LC_MESSAGES", "LANG")


@pytest.mark.parametrize(
    ("values", "language"),
    [
        ((None, None, None), "en"),
        ((None, None, "it_IT.UTF-8"), "it"),
        ((None, None, "it"), "it"),
        ((None, None, "it_CH@euro"), "it"),
        ((None, None, "ita_special"), "en"),
        ((None, "it_IT.UTF-8", "en_US.UTF-8"), "it"),
        (("C.UTF-8", "it_IT.UTF-8", "it_IT.UTF-8"), "en"),
        (("", "", "it_IT"), "it"),
        ((None, None, "de_DE.UTF-8"), "en"),
    ],
)
def test_the_system_s_language_is_that_of_the_environment(
    values: tuple[str | None, ...], language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(NAMES, values, strict=True):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert language_of_the_system() == language
    assert load_settings().language == language
    assert load_settings(lang="it").language == "it"
    assert load_settings(lang="en").language == "en"


@pytest.mark.parametrize(("identifier", "language"), [(0x0410, "it"), (0x0810, "it"), (0x0409, "en"), (0xFFFF, "en")])
def test_on_windows_the_user_interface_counts_where_no_variable_is_set(
    identifier: int, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Windows' function mocked: there is none here. The numbers are Windows' own for it-IT, it-CH and en-US."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    kernel = SimpleNamespace(GetUserDefaultUILanguage=lambda: identifier)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert language_of_the_system() == language
    monkeypatch.setenv("LANG", "en_US.UTF-8")
    assert language_of_the_system() == "en"


def text_of(node: ast.expr) -> str | None:
    """A string as a title has it, with {} for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # pyright: ignore
    return None


def titles_in(path: Path) -> Iterator[str]:
    """What a module of procedures gives as titles of steps."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            given = node.args[:1] if node.func.attr in ("did", "titled") else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ProcedureStep":
            given = node.args[1:2]
        elif isinstance(node, ast.For) and isinstance(node.target, ast.Name) and node.target.id == "title":
            given = [part for part in ast.walk(node.iter) if isinstance(part, ast.expr)]
        elif isinstance(node, ast.FunctionDef) and node.name == "_would_do":
            whole = {id(part) for it in ast.walk(node) if isinstance(it, ast.JoinedStr) for part in ast.walk(it)}
            given = [part for part in ast.walk(node) if isinstance(part, ast.expr)]
            given = [part for part in given if isinstance(part, ast.JoinedStr) or id(part) not in whole]
        yield from filter(None, map(text_of, given))


def test_every_title_has_an_italian_one_and_no_other_has() -> None:
    procedures = PROJECT_ROOT / "scarlet_backup_mcp" / "procedures"
    titles = {title for path in procedures.rglob("*.py") for title in titles_in(path)}
    assert titles - {"SELECT count(*) FROM {}"} == set(ITALIAN)


def test_what_is_put_into_a_title_stays() -> None:
    steps = [
        Step(step="Restore", title="Keep the current database as letta_before_restore_{1}", ok=None),
        Step(step="Passo 5", title="SELECT count(*) FROM agents", ok=True, detail="2"),
    ]
    italian = in_language(steps, "it")
    assert [step.title for step in italian] == [
        "Conserva il database attuale come letta_before_restore_{1}",
        "SELECT count(*) FROM agents",
    ]
    assert [step.step for step in italian] == ["Restore", "Passo 5"]
    assert in_language(steps, "en") == steps


@pytest.mark.long
def test_results_of_the_command_line_have_italian_titles(local_database: LocalDatabase, tmp_path: Path) -> None:
    line = CommandLine(local_settings(local_database, tmp_path / "backups"), tmp_path)
    line.environment |= {"LC_ALL": "it_IT.UTF-8"}
    made = line.answer(Backup, 0, "backup")
    assert [(step.step, step.title) for step in made.steps] == [
        ("Prerequisiti", "Docker e PostgreSQL sono attivi"),
        ("Passo 1", "Vai nella directory di Scarlet"),
        ("Passo 2", "Crea la directory dei backup"),
        ("Passo 3", "Esegui il backup SQL"),
        ("Passo 4", "Verifica il backup"),
    ]
    rehearsed = line.answer(Restore, 0, "restore", made.name, "--dry-run")
    assert {step.title for step in rehearsed.steps}.isdisjoint(ITALIAN)
    assert "Caricalo in un nuovo database accanto a quello attivo" in [step.title for step in rehearsed.steps]
    assert line.answer(Listing, 0, "list").steps[0].title == "Elenca i backup più recenti"
    english = line.answer(Integrity, 0, "integrity", "--lang", "en")
    assert english.steps[0].title == "Docker and PostgreSQL are running"


async def test_results_of_tools_have_italian_titles(local_database: LocalDatabase, tmp_path: Path) -> None:
    settings = local_settings(local_database, tmp_path).model_copy(update={"lang": "it"})
    async with agent(settings, "2026-07-28") as it:
        listed, checked, made = await it.call("list_backups"), await it.call("db_integrity"), await it.call("backup")
    assert listed["steps"][0]["title"] == "Elenca i backup più recenti"
    assert checked["steps"][0]["title"] == "Docker e PostgreSQL sono attivi"
    assert made["steps"][3]["title"] == "Esegui il backup SQL"
