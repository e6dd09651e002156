"""What no setting names, and why it is this, for who wants to know all of it."""

from __future__ import annotations

from contextlib import suppress

from ..errors import BackupToolError
from .context import BackupContext
from .found_names import OF_CONTAINER, Named


def findings(context: BackupContext) -> dict[str, str]:
    """Return each thing that was found in words; {} with a connection string, or while the container is unknown."""
    info, settings = context.known_container_info, context.settings
    if settings.via == "local" or info is None:
        return {}
    found: dict[str, Named] = {"database": context.found_database}
    if "container" not in settings.model_fields_set:
        by = "the default" if info.container == settings.container else "Compose's labels"
        found["container"] = Named(
            info.container or "", "the only one that runs PostgreSQL" if info.only_candidate else by
        )
    by = f"PGDATA{OF_CONTAINER}" if "PGDATA" in info.environment else "the default"
    by = "the container's command" if "data_directory" in info.server_options else by
    found["data_directory"] = Named(info.data_directory or "", by)
    with suppress(BackupToolError):
        found["user"] = context.found_user
        if settings.port is None and (port := context.server.where.environment().get("PGPORT")):
            by = f"PGPORT{OF_CONTAINER}" if port == info.environment.get("PGPORT") else "postmaster.pid"
            found["port"] = Named(port, "the container's command" if port == info.server_options.get("port") else by)
    return {name: str(named) for name, named in found.items() if named.why}
