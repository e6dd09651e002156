"""What is found without being named."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ...conftest import IMAGE, PROJECT_ROOT
from ...helpers.containers import run_docker, run_docker_quietly
from ...helpers.part_of_engine import only_labelled
from ..running import LABEL
from ..table import SQL, VOLUME, Refusal, Server, Setup

PROJECT = f"setup-{secrets.token_hex(4)}"
STOCK = f"com.docker.compose.project={PROJECT}"
SECRETS = {"user": "app", "password": 'l\'è "x" $y', "database": "mind"}


def own(name: str) -> str:
    """A label of this run's own."""
    return f"scarlet-backup-mcp.alone={name}-{PROJECT}"


def alone(label: str, *others: str) -> Callable[[Path], AbstractContextManager[Mapping[str, str]]]:
    """On an engine with the containers of that label alone, of which there are `others`, each with its command."""

    @contextmanager
    def around(directory: Path) -> Generator[Mapping[str, str]]:
        before, names = os.environ.get("DOCKER_HOST"), [f"{PROJECT}-other{number}" for number in range(len(others))]
        for name, command in zip(names, others, strict=True):
            run_docker("create", "--name", name, *LABEL, "--label", label, IMAGE, command)
        try:
            with only_labelled(label, directory / "engine.sock") as address:
                os.environ["DOCKER_HOST"] = address
                yield {}
        finally:
            os.environ.pop("DOCKER_HOST")
            os.environ |= {"DOCKER_HOST": before} if before else {}
            run_docker_quietly("rm", "-fv", *names)

    return around


@contextmanager
def stock_letta(directory: Path) -> Generator[str]:
    """The example for Letta's own Compose file."""
    shutil.copytree(PROJECT_ROOT / "examples", directory / "examples")
    compose = ("compose", "-p", PROJECT, "-f", str(directory / "examples" / "letta" / "compose.yaml"))
    try:
        run_docker(*compose, "up", "-d", "--wait", "--pull", "never", "letta_db")
        yield f"{PROJECT}-letta_db-1"
    finally:
        run_docker(*compose, "down", "--volumes", "--timeout", "1")
        run_docker(
            "run", "--rm", "-v", f"{directory}:/it", "--entrypoint", "sh", IMAGE, "-c", "rm -rf /it/*/*/.persist"
        )


@contextmanager
def all_in_one(directory: Path) -> Generator[str]:
    """A script that starts PostgreSQL beside another program."""
    name = f"{PROJECT}-all-in-one"
    named = ("-e", "POSTGRES_USER=letta", "-e", "POSTGRES_PASSWORD=letta", "-e", "POSTGRES_DB=letta")
    script = "docker-entrypoint.sh postgres -c fsync=off & exec sleep infinity"
    try:
        label = ("--label", own("all-in-one"))
        run_docker("run", "-d", "--init", "--name", name, *LABEL, *label, *named, IMAGE, "sh", "-c", script)
        yield name
    finally:
        run_docker_quietly("rm", "-fv", name)


NAMED = Server(environment={"POSTGRES_USER": "app", "POSTGRES_DB": "mind"}, options=["--label", own("named")])
UNNAMED = Server(options=["--label", own("unnamed")])

ROWS = [
    Setup(
        name="stock-letta",
        setup="Letta's own Compose file: [examples/letta](../examples/letta/compose.yaml)",
        server=Server(start=stock_letta, environment={"POSTGRES_USER": "letta", "POSTGRES_PASSWORD": "letta"}),
        named=False,
        memory="",
        spoil="TRUNCATE letta.agents CASCADE",
        around=alone(STOCK),
        found=["Database letta (POSTGRES_DB), role letta (POSTGRES_USER)", "the only PostgreSQL"],
        works=[*SQL, *VOLUME],
    ),
    Setup(
        name="named-by-the-environment",
        setup="`POSTGRES_USER` and `POSTGRES_DB` of one's own; beside it a client of that image and a `pg_dump` job",
        server=NAMED,
        named=False,
        database="mind",
        around=alone(own("named"), "psql", "pg_dump"),
        found=["Database mind (POSTGRES_DB), role app (POSTGRES_USER)", "the only PostgreSQL"],
        works=["backup", "verify"],
        sample=True,
    ),
    Setup(
        name="named-by-files",
        setup="`POSTGRES_USER_FILE`, `POSTGRES_PASSWORD_FILE` and `POSTGRES_DB_FILE`",
        server=Server(
            environment={
                f"POSTGRES_{name}_FILE": f"/run/secrets/{file}"
                for name, file in (("USER", "user"), ("PASSWORD", "password"), ("DB", "database"))
            },
            files={f"/run/secrets/{name}": f"{text}\n" for name, text in SECRETS.items()},
            options=["--label", own("files")],
            psql=("-U", "app"),
        ),
        named=False,
        database="mind",
        around=alone(own("files")),
        found=["Database mind (POSTGRES_DB_FILE), role app (POSTGRES_USER_FILE)"],
    ),
    Setup(
        name="named-by-nothing",
        setup="No `POSTGRES_DB`, and a database `letta`",
        server=UNNAMED,
        named=False,
        around=alone(own("unnamed")),
        found=["Database letta (the default), container {container}"],
        works=["backup"],
    ),
    Setup(
        name="the-only-database",
        setup="No `POSTGRES_DB` and no `letta`, but one database with a table `agents`",
        server=UNNAMED,
        named=False,
        database="mind",
        around=alone(own("unnamed")),
        found=["Database mind (the only one with a table agents)"],
    ),
    Setup(
        name="all-in-one",
        setup="PostgreSQL started by a script, with other programs in the container, as in Letta's own image",
        server=Server(start=all_in_one, environment={"POSTGRES_USER": "letta", "POSTGRES_PASSWORD": "letta"}),
        named=False,
        around=alone(own("all-in-one"), "psql"),
        found=["Database letta (POSTGRES_DB), role letta (POSTGRES_USER)", "the only PostgreSQL"],
    ),
    Setup(
        name="two-postgresqls",
        setup="Two containers with PostgreSQL, one of them stopped",
        server=UNNAMED,
        named=False,
        around=alone(own("unnamed"), "postgres"),
        works=[],
        refused={
            verb: Refusal(
                "several_candidates",
                "Several containers could be meant, and no setting says which one:",
                "Choose one of these lines",
            )
            for verb in ("integrity", "backup")
        },
    ),
]
