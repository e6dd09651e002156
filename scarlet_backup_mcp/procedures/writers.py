"""What is connected to the database, by the names that stop it."""

from __future__ import annotations

from ..errors import BackupToolError
from ..postgres.server.activity import connected
from ..postgres.server.session import Session
from ..wording import shortened
from .context import BackupContext


def how_to_stop(context: BackupContext, session: Session) -> str:
    """Say how to stop the programs that hold sessions in the database of `session`: containers by their Compose service
    or name, as their addresses tell, and others by what they call themselves."""
    try:
        programs = connected(session)
        found = context.host.containers_at({program.address for program in programs if program.address})
    except BackupToolError:
        return "Stop what writes to it"
    containers = [found[program.address] for program in programs if program.address in found]
    services = sorted({container.service for container in containers if container.service})
    names = sorted({container.name for container in containers if not container.service})
    others = [program for program in programs if program.address not in found]
    ways = [f"`docker compose stop {' '.join(services)}`"] if services else []
    ways += [f"`docker stop {' '.join(names)}`"] if names else []
    ways += [f"end the sessions of {shortened(others)}"] if others else []
    return f"Stop what writes to it: {', '.join(ways) if ways else 'no other program is connected now'}"
