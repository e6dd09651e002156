"""What a host of bundles starts, with uv: the MCP server over stdio."""

import sys

from scarlet_backup_mcp.__main__ import main

sys.argv[1:] = ["serve"]
main()
