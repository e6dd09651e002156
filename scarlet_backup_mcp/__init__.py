"""Backup, verification and restore of Scarlet's PostgreSQL memory, as MCP tools and as a command line."""

__version__ = "0.1.0"
