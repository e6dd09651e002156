"""What tests of restores start from, made once for all of them."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scarlet_backup_mcp.models.results import Backup

from ..conftest import Stack
from ..helpers.restore import Mind, take
from ..helpers.volume import Rig, a_stack, undo_of


@pytest.fixture(scope="session")
def saved(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mind]:
    """A small database on Scarlet's server, backed up once."""
    directory = tmp_path_factory.mktemp("saved") / "backups"
    mind = Mind(stack.container, f"mind_{secrets.token_hex(4)}", directory)
    mind.make()
    made = take(mind)
    yield replace(mind, saved=made.name, saved_fingerprint=mind.fingerprint())
    stack.bring_up()
    mind.drop()


@pytest.fixture
def mind(stack: Stack, saved: Mind, tmp_path: Path) -> Mind:
    """That database, made anew and changed since its backup, with a copy of the backup for this test alone."""
    fresh = replace(saved, directory=tmp_path / "backups")
    shutil.copytree(saved.directory, fresh.directory)
    try:
        fresh.make_changed()
    except AssertionError:  # a test that failed has left the server stopped
        stack.bring_up()
        fresh.make_changed()
    return fresh


@pytest.fixture(scope="session")
def saved_volume(require_docker: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Backup]]:
    """Scarlet's Compose project, and a backup of it."""
    with a_stack(tmp_path_factory.mktemp("volume") / "scarlet") as rig:
        yield rig, rig.take()


@pytest.fixture
def changed_volume(saved_volume: tuple[Rig, Backup]) -> tuple[Rig, Backup]:
    """That project, running on contents that differ from what was saved, with whatever undo point there is."""
    rig, saved = saved_volume
    assert rig.stack is not None
    rig.settle()  # another test may have failed
    rig.stack.bring_up()
    rig.make_live()
    return rig, saved


@pytest.fixture
def undoable_volume(changed_volume: tuple[Rig, Backup]) -> tuple[Rig, str]:
    """With an undo point: its restore goes the same way, but for the unpacking."""
    rig, saved = changed_volume
    undo = undo_of(rig) or rig.restore(saved.name).undo_point
    assert undo is not None
    rig.psql(f"UPDATE marker SET was = '{secrets.token_hex(4)}'")
    return rig, undo
