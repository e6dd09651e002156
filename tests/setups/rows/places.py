"""File systems and other places for backups."""

from __future__ import annotations

from ..table import Setup

ROWS: list[Setup] = []
