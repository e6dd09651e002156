from __future__ import annotations

import pytest

from scarlet_backup_mcp.postgres.dump.rewriting import without_transaction_timeout

HEAD = b"""--
-- PostgreSQL database dump
--

-- Dumped by pg_dump version 18.6

SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
"""
TABLE = b"CREATE TABLE t (x text DEFAULT '\nSET transaction_timeout = 0;\n');\n"


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_the_time_out_at_the_head_goes_and_nothing_else(size: int) -> None:
    script = HEAD + TABLE
    chunks = [script[at : at + size] for at in range(0, len(script), size)]
    wanted = HEAD.replace(b"SET transaction_timeout = 0;", b"") + TABLE
    assert b"".join(without_transaction_timeout(chunks)) == wanted


@pytest.mark.parametrize("script", [b"", b"SET statement_timeout = 0;\n" + TABLE, TABLE])
def test_what_has_none_stays(script: bytes) -> None:
    assert b"".join(without_transaction_timeout([script])) == script
