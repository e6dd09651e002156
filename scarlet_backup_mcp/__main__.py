"""`python -m scarlet_backup_mcp`."""

from .cli import main

main(prog_name="scarlet-backup-mcp")
