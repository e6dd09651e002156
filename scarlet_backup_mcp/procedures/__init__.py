"""One module per tool. The steps read top to bottom. Knows no MCP."""
