"""Whether the client programs fit the server. In a container they are its own, unless its PATH finds others first."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from ...errors import ServerError, WrongPrograms
from ...postgres.server import programs
from ...postgres.server.installation import installation
from ...postgres.server.session import Session
from ..context import BackupContext

QUERY_SECONDS = 10.0


def require_pg_dump(context: BackupContext, session: Session, version: str) -> None:
    """Raise WrongPrograms unless the server in `session` can load what pg_dump of that `version` writes."""
    if not programs.writes_for(version, session.version):
        raise _wrong(context, session, "pg_dump", version, "might not load what that writes")


def require_pg_basebackup(context: BackupContext, session: Session, version: str) -> None:
    """Raise WrongPrograms unless pg_basebackup of that `version` can copy the server in `session`."""
    if not programs.copies(version, session.version):
        raise _wrong(context, session, "pg_basebackup", version, "can't be copied by it")


def _wrong(context: BackupContext, session: Session, program: str, version: str, why: str) -> WrongPrograms:
    number = session.version
    of_server = f"{number // 10000}.{number % 10000}"
    own = ""
    with suppress(ServerError):
        own = installation(session, QUERY_SECONDS).bin_dir
    if context.settings.via == "docker":
        place = "that the container's PATH finds first"
        remedy = f"Let the container's PATH begin with the server's own programs{f', {own}' if own else ''}."
    else:
        bin_dir = context.settings.bin_dir
        place = f"in {bin_dir or Path(shutil.which(program) or program).parent}"
        there = f", {own} for example" if own and own != str(bin_dir) and (Path(own) / program).is_file() else ""
        remedy = (
            f"Set SCARLET_BACKUP_BIN_DIR to the directory of the programs of PostgreSQL {of_server}{there}, or a later "
            "version; or update those on this machine."
        )
    message = f"The {program} {place} is {version}, and the server, which is {of_server}, {why}."
    return WrongPrograms(message, remedy)
