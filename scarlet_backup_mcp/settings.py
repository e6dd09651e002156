"""Settings that locate the database, its container and the backups: environment variables and command line options."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from . import wsl
from .errors import ConfigurationError
from .language import Language, language_of_the_system
from .models.common import Scope
from .nearest import nearest
from .stores.choice import choice_of

PREFIX = "SCARLET_BACKUP_"
TOOLS = ("backup", "verify_backup", "list_backups", "restore", "db_integrity", "prune_backups")
"""Of the MCP server."""
CHANGING = ("backup", "restore", "prune_backups")
SECRET = ("password",)
"""Settings that are no options: other users can read a command line."""
SERVING = ("read_only", "tools", "exclude_tools")
"""Settings of the MCP server alone."""


class Settings(BaseModel):
    """All settings. If `dir` is unset, it is `backups` in the directory that Compose's label names. `BackupContext`
    finds the container, the database and the role if they are unset."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    dir: Path | None = Field(None, description="Backup directory, as an absolute path.")
    via: Literal["docker", "local"] = Field("docker", description="Where PostgreSQL's client programs run.")
    container: str = Field(
        "abiogenesis-postgres", description="Container name; unset, the only one that runs PostgreSQL may stand in."
    )
    service: str = Field("postgres", description="Compose service, used if no container has that name.")
    project: str = Field("scarlet", description="Compose project, used if no container has that name.")
    database: str = Field("letta", description="Database name; unset, the container's POSTGRES_DB comes first.")
    user: str = Field("postgres", description="Role to connect as; unset, the container's POSTGRES_USER comes first.")
    password: SecretStr | None = Field(
        None, description="The role's password; default: the one in the container's environment, or in the DSN."
    )
    port: int | None = Field(
        None, ge=1, le=65535, description="Port of the server; default: what it says itself, or the DSN's."
    )
    socket: str | None = Field(
        None, description="Directory of the server's socket, or its address; default: as for the port."
    )
    dsn: SecretStr | None = Field(None, description="With via=local: connection URI of the server.")
    bin_dir: Path | None = Field(None, description="With via=local: directory of pg_dump and psql; default: PATH.")
    prefix: str = Field("letta_backup", description="First part of a backup's file name.")
    integrity_table: str = Field("agents", description="Table that must not be empty, found through search_path.")
    stores: str | None = Field(
        None,
        description="Services that keep data beside the database, as `service` or `service:/path`, besides those of "
        "Qdrant's, Redis' and Valkey's images; `-service` leaves one out. Separated by commas.",
    )
    scope: Scope = Field(
        "database",
        description="What an SQL backup is of: the database; or the whole memory, with an archive of each store beside "
        "it as one set, for which those stores and what uses them are stopped.",
    )
    pause: bool = Field(
        True,
        description="Stop what uses the database or a store while a set is made; else its members may be some seconds "
        "apart.",
    )
    on_failure: str | None = Field(
        None, description="Command to run if a scheduled run fails; it gets the error as JSON on stdin."
    )
    ask: Literal["dialog", "conversation"] = Field(
        "dialog",
        description="Where an MCP client's user is asked: in the host's dialog, or in the conversation, for hosts that "
        "decline dialogs by themselves.",
    )
    lang: Literal["auto", "en", "it"] = Field(
        "auto", description="Language of steps' titles and of the procedure: English, Italian, or the system's (auto)."
    )
    read_only: bool = Field(False, description=f"Serve no tool that changes anything: no {', '.join(CHANGING)}.")
    tools: str | None = Field(None, description="Serve these tools only, separated by commas.")
    exclude_tools: str | None = Field(None, description="Serve all tools but these, separated by commas.")
    gate_minutes: int = Field(
        60, ge=1, le=100_000, description="Maximum age in minutes of a backup that opens the gate to PROC-003."
    )
    gate_level: Literal["full", "proved", "unproved"] = Field(
        "full",
        description="What such a backup must have passed: a full read, with its definitions proved by a drill (full); "
        "its own drill (proved); or a full read only (unproved).",
    )
    drill_bytes: int = Field(
        1_000_000_000, ge=0, description="Dump size above which `backup` drills new definitions with a sample of rows."
    )
    drill_days: int = Field(7, ge=0, le=10_000, description="Days after which `backup` runs a full drill again.")
    sandbox_cache: bool = Field(True, description="Keep an empty cluster for drills in a Docker volume.")
    keep_last: int = Field(3, ge=1, le=10_000, description="How many of the newest backups retention always keeps.")
    keep_daily: int = Field(7, ge=0, le=10_000, description="For how many days retention keeps one backup a day.")
    keep_weekly: int = Field(4, ge=0, le=10_000, description="For how many weeks retention keeps one backup a week.")
    keep_monthly: int = Field(3, ge=0, le=10_000, description="For how many months retention keeps one a month.")

    @property
    def language(self) -> Language:
        """The language that `lang` means here."""
        return language_of_the_system() if self.lang == "auto" else self.lang

    @field_validator("dir", "bin_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            value = Path(wsl.here(str(value.expanduser())))
        except RuntimeError as error:
            raise ValueError(f"an absolute path is needed ({error})") from None
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise ValueError("its name is not UTF-8, which results could not show: rename it") from None
        if not value.is_absolute():
            raise ValueError("an absolute path is needed, because an IDE's current directory is arbitrary")
        return value

    @field_validator("prefix")
    @classmethod
    def _plain_prefix(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", value) or value.startswith("postgres_volume"):
            raise ValueError("1 to 41 letters, digits, '_' or '-', not beginning with 'postgres_volume'")
        return value

    @field_validator("container", "service", "project")
    @classmethod
    def _docker_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
            raise ValueError("a Docker name: letters, digits, '_', '.' or '-'")
        return value

    @field_validator("socket")
    @classmethod
    def _one_socket(cls, value: str | None) -> str | None:
        if value is not None and ("," in value or any(ord(c) < 32 for c in value)):
            raise ValueError("one directory or address")
        return value

    @field_validator("database", "user", "integrity_table")
    @classmethod
    def _identifier(cls, value: str) -> str:
        if not 1 <= len(value.encode()) <= 63 or any(ord(c) < 32 for c in value):
            raise ValueError("a PostgreSQL name: 1 to 63 bytes, no control characters")
        return value

    @field_validator("database")
    @classmethod
    def _no_template(cls, value: str) -> str:
        if value in ("template0", "template1"):
            raise ValueError("an ordinary database, not a template")
        return value

    @field_validator("tools", "exclude_tools")
    @classmethod
    def _known_tools(cls, value: str | None) -> str | None:
        for name in names(value):
            if name not in TOOLS:
                raise ValueError(f"there is no tool {name!r}; the nearest: {nearest(name, TOOLS)}")
        return value

    @field_validator("stores")
    @classmethod
    def _known_stores(cls, value: str | None) -> str | None:
        choice_of(value)
        return value

    @property
    def served(self) -> tuple[str, ...]:
        """The MCP server's tools by these settings. Raises ConfigurationError if none is left."""
        excluded = {*names(self.exclude_tools), *(CHANGING if self.read_only else ())}
        found = tuple(name for name in TOOLS if name in (names(self.tools) or TOOLS) and name not in excluded)
        if not found:
            raise ConfigurationError(
                f"{' and '.join(PREFIX + name.upper() for name in SERVING)} together leave no tool to serve."
            )
        return found

    @model_validator(mode="after")
    def _dsn_is_for_local(self) -> Settings:
        if self.via == "local" and self.dsn is None:
            raise ValueError("via=local needs a DSN (for example postgresql://postgres@127.0.0.1:5432/letta)")
        if self.via == "docker" and self.dsn is not None:
            raise ValueError(
                "only via=local uses a DSN; with Docker the server is found by its container, and USER, PASSWORD, PORT "
                "and SOCKET say how to connect there"
            )
        return self


def names(listed: str | None) -> list[str]:
    """Return the names in a list with commas."""
    return [name.strip() for name in (listed or "").split(",") if name.strip()]


def load_settings(**options: Any) -> Settings:
    """Read the settings from the environment, where an empty variable counts as unset, overridden by the `options` that
    are not None. An option via=docker also overrides a DSN of the environment. Raises ConfigurationError, naming each
    wrong variable, its value and what is allowed."""
    variables = {name: name.upper().removeprefix(PREFIX) for name in os.environ if name.upper().startswith(PREFIX)}
    settings = {name.upper(): name for name in Settings.model_fields}
    if unknown := sorted(variable for variable, name in variables.items() if name not in settings):
        raise ConfigurationError(
            f"There is no setting {', '.join(unknown)}.",
            f"Correct or unset it. The settings are {', '.join(sorted(PREFIX + name for name in settings))}.",
        )
    environment = {settings[name]: os.environ[variable] for variable, name in variables.items() if os.environ[variable]}
    given = {name: value for name, value in options.items() if value is not None}
    if given.get("via") == "docker":
        given.setdefault("dsn", None)
    try:
        return Settings.model_validate({**environment, **given})
    except ValidationError as error:
        raise ConfigurationError("; ".join(_explain(dict(problem)) for problem in error.errors())) from None


def _explain(problem: dict[str, Any]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else ""
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not name:
        return f"{PREFIX}VIA / {PREFIX}DSN: {message}"
    shown = "(not shown)" if name in ("dsn", *SECRET) else repr(str(problem["input"]))
    return f"{PREFIX}{name.upper()}={shown}: {message}"
