"""Databases to be dumped."""

from __future__ import annotations

import subprocess

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer

from ..conftest import Stack
from ..helpers.containers import run_docker
from ..helpers.contents import Place


@pytest.fixture(scope="session")
def local(embedded: EmbeddedServer) -> Place:
    def run(program: str, database: str, *arguments: str, stdin: bytes = b"") -> bytes:
        command = [str(embedded.bin_dir / program), "-d", embedded.dsn(database), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout

    def psql(database: str, statements: bytes) -> bytes:
        return run("psql", database, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-", stdin=statements)

    def pg_dump(database: str, *options: str) -> bytes:
        return run("pg_dump", database, *options)

    return Place(psql, pg_dump)


@pytest.fixture(scope="session")
def old(stack: Stack) -> Place:
    """PostgreSQL 15."""

    def pg_dump(database: str, *options: str) -> bytes:
        return run_docker("exec", stack.container, "pg_dump", "-U", "postgres", *options, database).encode()

    return Place(lambda database, script: stack.psql(script.decode(), database).encode(), pg_dump)
