"""psql's errors are found in every language of a server."""

from __future__ import annotations

import pytest

from scarlet_backup_mcp.procedures.loading import psql


@pytest.mark.parametrize("word", ["ERROR", "ERRORE", "ERREUR ", "FEHLER", "错误"])
def test_an_error_is_known_by_its_sqlstate(word: str) -> None:
    stderr = (
        f"psql:<stdin>:3: WARNING:  01000: beware\npsql:<stdin>:7: {word}:  42P01: la relazione non c'è\nLINE 1: x\n"
    )
    found = psql._REFUSED.search(stderr)  # pyright: ignore[reportPrivateUsage]
    assert found is not None
    assert (found["line"], found["sqlstate"], found["message"]) == ("7", "42P01", "la relazione non c'è")
