"""What agents and hooks read without calling a tool, and the prompt that prepares PROC-003."""

from __future__ import annotations

from mcp.server.mcpserver import Context, MCPServer

from ..errors import BackupMissing, ConfigurationError, NameRefused
from ..procedures.catalog import records
from ..procedures.gate import gate
from ..settings import Settings
from .strict_server import NoSuchItem
from .tool_calls import App, app_of, in_thread


def add_resources(server: MCPServer[App], settings: Settings | ConfigurationError) -> None:
    """Add the resources: manifests, and the gate."""
    server.resource(
        "scarlet://backups/{name}/manifest",
        title="Manifest of a backup",
        description="Everything recorded about a backup when it was made, as JSON.",
        mime_type="application/json",
    )(manifest)

    async def gate_now() -> str:
        """Whether PROC-003 may go ahead now."""
        return (await in_thread(settings, gate)).model_dump_json(indent=1)

    server.resource(
        "scarlet://gate",
        title="Gate to PROC-003",
        description="Whether PROC-003 (agent recreation) may go ahead now, with reasons, as JSON: for hooks.",
        mime_type="application/json",
    )(gate_now)


async def manifest(name: str, ctx: Context[App]) -> str:
    """The manifest of one backup."""
    try:
        found = await in_thread(
            app_of(ctx).settings, lambda context: records.manifest_of(context, context.directory.find(name))
        )
    except (BackupMissing, NameRefused) as error:
        raise NoSuchItem(error.message) from None
    if found is None:
        raise NoSuchItem(f"{name} has no manifest.")
    return found.model_dump_json(indent=1, by_alias=True)


def prepare_for_proc_003() -> str:
    """Take and check the backup that PROC-003 (agent recreation) demands."""
    return (
        "Prepare PROC-003. Call db_integrity; if it has errors, follow their remedies. Call backup with the label "
        "'before PROC-003' and verify 'drill'. If safe_to_proceed is false, stop and tell me the reasons. If it is "
        "true, tell me the backup's name, size, rows and agents, and only then go on with PROC-003."
    )
