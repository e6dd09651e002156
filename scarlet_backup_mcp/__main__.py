"""`python -m scarlet_backup_mcp`."""

from .schedules import without_console

without_console()

from .cli.commands import main  # noqa: E402 - what it imports looks at the streams

main(prog_name="scarlet-backup-mcp")
