"""Room on the server's own disk: watched while something is loaded, and given back without a checkpoint.

A checkpoint that finds no room ends in a PANIC, which takes the live server down, and DROP DATABASE begins with one.
DROP TABLE needs none: its files are cut to nothing as soon as it is committed. (Both seen on 15.20, with the data
directory on a tmpfs that was full.)
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
"""What has to be free for a checkpoint, and a DROP DATABASE with it: two WAL segments of the usual size, of which one
may have to be made, and small files."""
WAL_BYTES = 1 << 20
"""What dropping a table may write: 70 KB were seen."""
LOOK_SECONDS = 1.0
"""Between two looks at the room there is."""
PATIENCE_SECONDS = 5.0
"""How long a server that has just failed is waited for: after a crash it recovers by itself."""
FREE_SOME = (
    "Free space on the disk of the database's volume (with Docker, `docker system df` shows what is used), then call "
    "again."
)


def needed(database_bytes: int, margin: float, facts: pg.ServerFacts) -> int:
    """Bytes that have to be free to load a database of that size beside the live one: so many times its size, what WAL
    may grow to, and the reserve below which a load is stopped."""
    return int(database_bytes * margin) + facts.max_wal_bytes + CHECKPOINT_BYTES


def require_checkpoint(server: Server, facts: pg.ServerFacts, what: str) -> None:
    """Raises DiskFull where the checkpoint that `what` begins with might find no room."""
    free = server.host.free_bytes(facts.data_directory) if facts.data_directory else None
    if free is not None and free < CHECKPOINT_BYTES:
        raise DiskFull(
            f"The server's disk has only {free:,} bytes free, and {what} begins with a checkpoint, which may need "
            f"{CHECKPOINT_BYTES:,}: without room it would take the server down.",
            f"{FREE_SOME} An SQL backup needs no checkpoint.",
        )


@contextmanager
def watched(server: Server, database: str, progress: Progress) -> Generator[Callable[[], None]]:
    """Gives what is to be called again and again while something is loaded: it looks at the room every second.

    It raises DiskFull once less is left than WAL may still grow by (`max_wal_size` less what there is of it), and a
    checkpoint takes. Where that can't be told it does nothing. `database` is one that is not being loaded.
    """
    with server.session(database, progress=progress) as session:
        directory = pg.server_facts(session).data_directory
        free = server.host.free_bytes(directory) if directory else None
        last = time.monotonic()

        def look() -> None:
            nonlocal last
            if directory is None or free is None or time.monotonic() < last + LOOK_SECONDS:
                return
            left = server.host.free_bytes(directory)
            last = time.monotonic()
            if left is not None and left < (reserve := _reserve(session)):
                raise DiskFull(
                    f"The load was stopped, since the server's disk has only {left:,} bytes left, and its WAL and a "
                    f"checkpoint may still need {reserve:,}. The live database is as it was.",
                    FREE_SOME,
                )

        yield look


def _reserve(session: Session) -> int:
    with suppress(ServerError):  # a role that may not see it: then only what a checkpoint takes
        return CHECKPOINT_BYTES + wal.growth(session)
    return CHECKPOINT_BYTES


def drop(server: Server, session: Session, name: str) -> None:
    """Drop a database of ours, or an undo point that may go. Where its checkpoint might find no room, its tables go
    first, from the largest on.

    `session` is in another database. Raises DiskFull when there is no room even so: then the database stays, and is
    marked, so that the next call takes it up.
    """
    directory = pg.server_facts(session).data_directory

    def short() -> bool:
        free = server.host.free_bytes(directory) if directory else None
        return free is not None and free < CHECKPOINT_BYTES

    if short() and name in pg.databases(session):
        databases.set_comment(session, name, GOING)
        _drop_tables(server, session, name)
        if short():
            raise DiskFull(
                f"The database {name} can't be dropped now: DROP DATABASE makes a checkpoint, which would find no room "
                "on the server's disk and take the server down. It is marked, and the next call drops it.",
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
    """Drop a scratch database whose load, or what came after it, failed with `error`; what hinders that is told there,
    too."""
    hindered = give_back(server, maintenance, name)
    if hindered is not None and isinstance(error, BackupToolError):
        error.message = f"{error.message.rstrip()} {hindered.message}"
        error.remedy = f"{error.remedy} {hindered.remedy}"


def give_back(server: Server, maintenance: str, name: str) -> BackupToolError | None:
    """Drop a scratch database, if it is there. Gives what hinders that: then the next call that writes does it."""
    try:
        with _patient_session(server, maintenance) as session:
            drop(server, session, name)
    except (ServerUnreachable, HostError) as problem:
        said = f"The server does not answer now, so {name} is still there: {problem.message}"
        first = "If its disk is full (`df` in the container tells), free space there first."
        return ServerUnreachable(said, f"{first} {problem.remedy} The next call that writes then drops {name}.")
    except DiskFull as problem:
        return problem
    except BackupToolError as problem:
        return ServerError(f"{name} could not be dropped: {problem.message}", "The next call that writes drops it.")
    return None


def _patient_session(server: Server, maintenance: str) -> Session:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return server.session(maintenance)
        except ServerUnreachable:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
