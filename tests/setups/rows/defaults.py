"""What is found without being named."""

from __future__ import annotations

from ..table import Setup

ROWS: list[Setup] = []
