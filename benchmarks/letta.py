"""A container with a database of Letta's shape, of the size that a benchmark wants."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

IMAGE = "pgvector/pgvector:pg15"
MEMORY = Path(__file__).parent.parent / "examples" / "init" / "memory.sql"
MESSAGES, PASSAGES = 800, 40
"""How many make a megabyte of plain dump, half of it each."""
GROW = """
SET search_path TO letta;
INSERT INTO messages (id, agent_id, organization_id, role, text, content, tool_calls, tool_call_id, created_at)
SELECT 'message-' || md5('grown ' || n)::uuid, agent_id, organization_id, role, text, content, tool_calls, tool_call_id,
       created_at + n * interval '1 second'
FROM generate_series(1, {messages}) AS n
JOIN (SELECT *, row_number() OVER (ORDER BY id) AS turn FROM messages) AS m ON turn = 1 + n % 300;
INSERT INTO archival_passages (id, agent_id, organization_id, text, embedding, embedding_config, metadata_, tags)
SELECT 'passage-' || md5('grown ' || n)::uuid, agent_id, organization_id, text,
       (SELECT array_agg(CASE WHEN d <= 384 THEN hashint8(n * 4096::bigint + d) / 2147483648.0 ELSE 0 END
                         ORDER BY d) FROM generate_series(1, 4096) AS d)::real[]::vector,
       embedding_config, metadata_, tags
FROM generate_series(1, {passages}) AS n
JOIN (SELECT *, row_number() OVER (ORDER BY id) AS turn FROM archival_passages) AS p ON turn = 1 + n % 200;
"""
# Every vector differs, so that the index is as dear as a real one.
HNSW = """
SET search_path TO letta;
SET maintenance_work_mem = '1GB';
CREATE TABLE neighbours AS SELECT n AS id,
    (SELECT array_agg(hashint8(n * 4096::bigint + d) / 2147483648.0 ORDER BY d)
     FROM generate_series(1, 1024) AS d)::real[]::vector(1024) AS embedding FROM generate_series(1, {rows}) AS n;
CREATE INDEX ON neighbours USING hnsw (embedding vector_l2_ops);
"""


@contextmanager
def filled_container(megabytes: int, vectors: int = 0) -> Generator[str]:
    """Name a container with a database `letta` whose plain dump has about that size, and besides so many `vectors` of
    1,024 with an HNSW index over them, 11 kB each. The container and its volume are removed in the end."""
    container = f"scarlet-benchmark-{secrets.token_hex(4)}"
    shm = ("--shm-size", "2g") if vectors else ()
    docker("run", "-d", "--pull", "never", *shm, "--name", container, "-e", "POSTGRES_PASSWORD=benchmark", IMAGE)
    try:
        psql = ("exec", "-i", container, "psql", "-q", "-U", "postgres", "-v", "ON_ERROR_STOP=1")
        wait_for(container)
        docker(*psql, stdin=b"CREATE DATABASE letta")
        grow = GROW.format(messages=megabytes * MESSAGES, passages=megabytes * PASSAGES)
        more = HNSW.format(rows=vectors) if vectors else ""
        docker(*psql, "-d", "letta", stdin=MEMORY.read_bytes() + (grow + more + "VACUUM ANALYZE;").encode())
        yield container
    finally:
        docker("rm", "-f", "-v", container)


def wait_for(container: str) -> None:
    """Wait until the server accepts connections over TCP, which it does only when it is set up."""
    ready = ["docker", "exec", container, "pg_isready", "-q", "-h", "127.0.0.1"]
    for _ in range(300):
        if subprocess.run(ready, check=False).returncode == 0:
            return
        time.sleep(0.1)
    sys.exit("The server did not start.")


def docker(*arguments: str, stdin: bytes = b"") -> None:
    """Run a docker command."""
    subprocess.run(["docker", *arguments], input=stdin, stdout=subprocess.DEVNULL, check=True)
