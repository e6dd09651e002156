"""What a host of bundles starts, with uv: the MCP server over stdio."""

from scarlet_backup_mcp.cli.commands import main

main(["serve"])
