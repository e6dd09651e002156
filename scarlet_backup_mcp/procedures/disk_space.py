"""Space on the server's own disk: watch it during a load, and free it without a checkpoint.

A checkpoint that finds no space ends in a PANIC, which crashes the live server, and DROP DATABASE begins with one. DROP
TABLE needs none: its files are truncated as soon as it is committed. (Both seen on 15.20, with the data directory on a
full tmpfs.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from ..errors import BackupToolError, DiskFull, HostError, PermissionDenied, QueryFailed, ServerError, ServerUnreachable
from ..postgres.server import catalogue as pg
from ..postgres.server import databases, wal
from ..postgres.server.session import Server, Session
from ..progress import Progress
from .own_names import GOING

CHECKPOINT_BYTES = 32 << 20
"""Free space needed for a checkpoint, and so for DROP DATABASE: two WAL segments of the default size, one of which may
have to be created, and small files."""
WAL_BYTES = 1 << 20
"""What dropping a table may write: 70 KB were seen."""
LOOK_SECONDS = 1.0
"""Time between two checks of the free space."""
PATIENCE_SECONDS = 5.0
"""How long to wait for a server that has just failed: after a crash it recovers by itself."""
FREE_SOME = (
    "Free some space on the disk of the database's volume (with Docker, `docker system df` shows what is used), then "
    "try again."
)


def needed(database_bytes: int, margin: float, facts: pg.ServerFacts) -> int:
    """Return how many bytes must be free to load a database of that size next to the live one: `margin` times its size,
    what WAL may grow to, and the reserve below which a load is stopped."""
    return int(database_bytes * margin) + facts.max_wal_bytes + CHECKPOINT_BYTES


def require_checkpoint(server: Server, facts: pg.ServerFacts, what: str) -> None:
    """Raise DiskFull if the checkpoint that `what` begins with might find no space."""
    free = server.host.free_bytes(facts.data_directory) if facts.data_directory else None
    if free is not None and free < CHECKPOINT_BYTES:
        raise DiskFull(
            f"The server's disk has only {free:,} bytes free, and {what} begins with a checkpoint, which may need "
            f"{CHECKPOINT_BYTES:,}: without that space it would crash the server.",
            f"{FREE_SOME} An SQL backup needs no checkpoint.",
        )


@contextmanager
def watched(server: Server, database: str, progress: Progress) -> Generator[Callable[[], None]]:
    """Yield a function to call again and again during a load: it checks the free space every second.

    It raises DiskFull once less is left than WAL may still grow by (up to `max_wal_size`) plus what a checkpoint takes.
    If that is unknown, it does nothing. `database` is one that is not being loaded.
    """
    with server.session(database, progress=progress) as session:
        directory = pg.server_facts(session).data_directory
        free = server.host.free_bytes(directory) if directory else None
        last = time.monotonic()

        def check() -> None:
            nonlocal last
            if directory is None or free is None or time.monotonic() < last + LOOK_SECONDS:
                return
            left = server.host.free_bytes(directory)
            last = time.monotonic()
            if left is not None and left < (reserve := _reserve(session)):
                raise DiskFull(
                    f"The load was stopped: the server's disk has only {left:,} bytes left, and its WAL and a "
                    f"checkpoint may still need {reserve:,}. The live database is unchanged.",
                    FREE_SOME,
                )

        yield check


def _reserve(session: Session) -> int:
    with suppress(ServerError):  # the role may not see it: then only what a checkpoint takes
        return CHECKPOINT_BYTES + wal.growth(session)
    return CHECKPOINT_BYTES


def drop(server: Server, session: Session, name: str) -> None:
    """Drop a database of ours, or an undo point. If the checkpoint might find no space, drop its tables first, the
    largest ones before the others.

    `session` is in another database. Raises DiskFull if there is still too little space: the database then stays,
    marked so that the next call drops it.
    """
    directory = pg.server_facts(session).data_directory

    def short() -> bool:
        free = server.host.free_bytes(directory) if directory else None
        return free is not None and free < CHECKPOINT_BYTES

    if short() and name in pg.databases(session, sizes=False):
        databases.set_comment(session, name, GOING)
        _drop_tables(server, session, name)
        if short():
            raise DiskFull(
                f"The database {name} can't be dropped now: DROP DATABASE makes a checkpoint, which would find no "
                "space on the server's disk and crash the server. It is marked, and the next call drops it.",
                FREE_SOME,
            )
    databases.drop(session, name)


def _drop_tables(server: Server, session: Session, name: str) -> None:
    databases.open_doors(session, name)
    databases.end_connections(session, name)
    options = {"lock_timeout": "5s", **databases.quietly(session.version)}
    with server.session(name, options) as inside:
        for table in pg.stored(inside):
            if wal.room(inside) < WAL_BYTES:
                return
            with suppress(QueryFailed, PermissionDenied):
                databases.drop_table(inside, table)


def drop_after(error: BaseException, server: Server, maintenance: str, name: str) -> None:
    """Drop a scratch database after its load, or what followed, failed with `error`; add to that why it can't be
    dropped."""
    problem = give_back(server, maintenance, name)
    if problem is not None and isinstance(error, BackupToolError):
        error.message = f"{error.message.rstrip()} {problem.message}"
        error.remedy = f"{error.remedy} {problem.remedy}"


def give_back(server: Server, maintenance: str, name: str) -> BackupToolError | None:
    """Drop a scratch database, if it exists; return why it can't be dropped: the next call that writes then does it."""
    try:
        with _patient_session(server, maintenance) as session:
            drop(server, session, name)
    except (ServerUnreachable, HostError) as problem:
        message = f"The server does not answer now, so {name} is still there: {problem.message}"
        first = "If its disk is full (see `df` in the container), free some space first."
        return ServerUnreachable(message, f"{first} {problem.remedy} The next call that writes then drops {name}.")
    except DiskFull as problem:
        return problem
    except BackupToolError as problem:
        return ServerError(f"{name} could not be dropped: {problem.message}", "The next call that writes drops it.")
    return None


def _patient_session(server: Server, maintenance: str) -> Session:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return databases.session_in(server, maintenance)
        except ServerUnreachable:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
