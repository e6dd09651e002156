"""Calls for the audit log."""

from __future__ import annotations

import os

import pytest

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files, limits or signals.")

PASSWORD = "Tr0ub4dor3"
