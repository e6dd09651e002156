"""Versions, mounts and hardened containers."""

from __future__ import annotations

from ..table import SQL, VOLUME, Server, Setup

HARDENED = [
    *["--read-only", "--tmpfs", "/tmp", "--tmpfs", "/var/run/postgresql:uid=999"],
    *["--user", "999:999", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
    *["--pids-limit", "100", "--network", "none"],
]
NAMED = ["-v", "{volume}:/var/lib/postgresql/data"]

ROWS = [
    Setup(
        name="named-volume",
        setup="Data in a named volume, PostgreSQL 15",
        server=Server(options=NAMED, in_memory=False),
        works=[*SQL, *VOLUME],
    ),
    Setup(
        name="17",
        setup="PostgreSQL 17, named volume",
        server=Server(image="pgvector/pgvector:pg17", options=NAMED, in_memory=False),
        found=["PostgreSQL 17"],
        works=[*SQL, *VOLUME],
    ),
    Setup(
        name="18",
        setup="PostgreSQL 18, named volume one directory higher, as its image wants it",
        server=Server(image="pgvector/pgvector:pg18", options=["-v", "{volume}:/var/lib/postgresql"], in_memory=False),
        found=["PostgreSQL 18"],
        works=[*SQL, *VOLUME],
    ),
    Setup(
        name="bind-mount",
        setup="Data in a directory of this machine (bind mount)",
        server=Server(options=["-v", "{directory}:/var/lib/postgresql/data"], in_memory=False),
        works=[*SQL, *VOLUME],
    ),
    Setup(
        name="anonymous-volume",
        setup="No volume named: the image's anonymous one",
        server=Server(in_memory=False),
        works=[*SQL, *VOLUME],
    ),
    Setup(
        name="pgdata-below-the-mount",
        setup="`PGDATA` in a subdirectory of the volume",
        server=Server(
            environment={"PGDATA": "/var/lib/postgresql/data/pgdata"},
            options=NAMED,
            in_memory=False,
        ),
        works=[*SQL, *VOLUME],
    ),
    Setup(
        name="hardened",
        setup="Hardened: read-only root, user 999, no capabilities, no new privileges, 24 processes, no network",
        server=Server(
            options=[*HARDENED, "--tmpfs", "/var/lib/postgresql/data:uid=999,mode=700,size=2g"],
            in_memory=False,
            then=["update", "--pids-limit", "24"],  # a first start needs more
        ),
        works=[*SQL, "volume backup", "volume drill"],
    ),
    Setup(
        name="small",
        setup="256 MB of memory, half a processor, `--init`",
        server=Server(options=["--memory", "256m", "--cpus", "0.5", "--init", *NAMED], in_memory=False),
    ),
]
