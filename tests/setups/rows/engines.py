"""Engines other than Docker's own on this machine."""

from __future__ import annotations

from ..table import Setup

ROWS: list[Setup] = []
