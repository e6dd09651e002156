"""What a row of the table is made of: a server, how the tool is told of it, and what comes of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..conftest import IMAGE

Verb = Literal[
    "integrity", "backup", "verify", "drill", "restore", "volume backup", "volume drill", "volume restore"
]  # fmt: skip

SQL: tuple[Verb, ...] = ("backup", "verify", "drill", "restore")
"""The whole loop: back up, verify, drill, destroy, restore, and the rows are what they were."""
VOLUME: tuple[Verb, ...] = ("volume backup", "volume drill", "volume restore")
"""The same loop with a copy of the whole server. Only on a server with `in_memory=False`."""

MEMORY = """
CREATE TABLE agents (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO agents VALUES (1, 'Scarlet'), (2, E'perché\\\\ no\\n');
CREATE TABLE notes (id int PRIMARY KEY, agent int NOT NULL REFERENCES agents, body text);
INSERT INTO notes SELECT n, 1 + n % 2, repeat(md5(n::text), 20) FROM generate_series(1, 50) AS n;
"""
"""What a database holds unless its row says otherwise; it fits into every encoding that has an é."""
SPOIL = "DROP TABLE notes; DELETE FROM agents;"


@dataclass(frozen=True, kw_only=True, eq=False)
class Server:
    """A container with PostgreSQL. Rows that name the same object share one running server, a database each: what a
    row made (databases, roles, ALTER SYSTEM) is gone before the next row. Everything else is new for every object."""

    image: str = IMAGE
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """Beside a random POSTGRES_PASSWORD, which a value here replaces."""
    command: Sequence[str] = ()
    """After `postgres`, for example `-p 5433`."""
    options: Sequence[str] = ()
    """Of `docker run`. `{volume}` is a new named volume, `{directory}` a new empty directory of this machine."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """Path in the container → text, mounted read-only; what lies in /docker-entrypoint-initdb.d runs at the start."""
    in_memory: bool = True
    """PGDATA is a tmpfs, which is fast. Not for rows about mounts, nor for volume restores."""
    psql: Sequence[str] = ()
    """How the test itself reaches it if not by the usual socket and port, for example ("-h", "/tmp", "-p", "5433")."""
    then: Sequence[str] = ()
    """A docker command that follows once it is ready; the container's name comes last."""
    start: Callable[[Path], AbstractContextManager[str]] | None = None
    """Starts it in another way (Compose, another engine, …), and gives the container's name; the fields above except
    `environment` and `psql`, which the test's own psql needs, are unused then."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Local:
    """A PostgreSQL 18 of this machine's own, on loopback, for `via=local`. In `configuration` and `files` all that
    `Setup.settings` knows can be named."""

    configuration: Mapping[str, str] = field(default_factory=dict[str, str])
    hba: str = ""
    """Replaces pg_hba.conf. The test itself comes over TCP as the role `postgres`, with the password."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name in the server's `{directory}` → text, readable for us alone."""


@dataclass(frozen=True)
class Refusal:
    """What an error, or a finding of `integrity`, says: phrases that are in it word by word. Of a drill that proves
    nothing the verdict is the code, its reason the message."""

    code: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Setup:
    """One row. Write what differs from the defaults, no more."""

    name: str
    """Of the test: short, with hyphens."""
    setup: str
    """What a user would call it, as Markdown."""
    server: Server | Local
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of the tool, by the names of docs/settings.md without the prefix. Names in braces are known: of a local server
    `{user}`, `{password}`, `{port}`, `{database}`, `{directory}` (of its data, and perhaps a socket), of one in a
    container `{container}`, `{address}`, `{password}`, `{database}`, of both `{bin_dir}`."""
    named: bool = True
    """Whether the tool is told the names of the container and of the database."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of the tool's process, for example PGPASSFILE; with the same names in braces."""
    database: str = "letta"
    """Created unless it is there."""
    create: str = ""
    """Options of CREATE DATABASE."""
    memory: str = MEMORY
    sql: str = ""
    """Run in the database after `memory`, as the superuser: what makes it this set-up."""
    around: Callable[[Path], AbstractContextManager[Mapping[str, str]]] | None = None
    """Whatever else is needed around the tool, for example a file system for its backups; gives more settings."""
    spoil: str = SPOIL
    """What is done to the database between backup and restore."""
    found: Sequence[str] = ()
    """Phrases that are in the answers of `integrity` or of a call that works; `{container}` is its name."""
    works: Sequence[Verb] = SQL
    refused: Mapping[Verb, Refusal] = field(default_factory=dict[Verb, Refusal])
    sample: bool = False
    """Whether `.ci/run` has it; the others are for `.ci/long`."""
