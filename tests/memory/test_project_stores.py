"""What a listing, an inspection and `doctor` say of the stores beside the database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.doctor import doctor
from scarlet_backup_mcp.procedures.integrity import db_integrity
from scarlet_backup_mcp.procedures.listing import list_backups
from scarlet_backup_mcp.procedures.memory.project_stores import ProjectStores, project_stores, stores_soon
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings
from scarlet_backup_mcp.summaries import describe

from ..conftest import LocalDatabase, require_image
from ..helpers.containers import run_docker
from ..helpers.memory import REDIS, Project, project


@pytest.fixture(scope="module")
def scarlet_project(require_docker: None) -> Iterator[Project]:
    require_image(REDIS)
    with project() as made:
        made.add_database()
        made.add("redis", REDIS, "-v", f"{made.volume('redis')}:/data")
        made.add("cache", REDIS)
        yield made


def test_what_no_backup_holds_is_said(
    scarlet_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run_docker("exec", scarlet_project.container("redis"), "sh", "-c", "head -c 2000000 /dev/zero > /data/zeros")
    volume = scarlet_project.volume("redis")
    with scarlet_project.context(tmp_path, stores="lost") as context:
        looked = db_integrity(context, Progress())
        listing = list_backups(context)
        checks = doctor(context, Progress(), tmp_path, environment={}).checks

    found = {finding.code: finding for finding in looked.findings}
    message = f"redis ({REDIS}) holds 2.0 MB in the volume {volume}, and is in no backup."
    assert (found["store_not_backed_up"].severity, found["store_not_backed_up"].message) == ("warning", message)
    assert found["store_not_backed_up"].evidence["bytes"] > 2_000_000
    assert found["store_unsaved"].severity == "info"
    assert "No backup could hold cache" in found["store_unsaved"].message
    assert "lost" in found["store_missing"].message
    assert message in describe(looked)
    assert {store.service: store.unsaved == "" for store in looked.stores} == {"redis": True, "cache": False}

    assert [store.service for store in listing.stores] == ["cache", "redis"]
    assert f"No backup holds the project's other stores: redis (volume {volume})." in describe(listing)
    assert "lost" in describe(listing)

    said = [(check.status, check.message) for check in checks if check.check == "stores"]
    assert ("warn", message) in said
    assert [status for status, _ in said] == ["warn", "fail"]


@pytest.mark.long
def test_left_out_on_purpose(scarlet_project: Project, tmp_path: Path) -> None:
    with scarlet_project.context(tmp_path, stores="-redis,-cache") as context:
        looked, listing = db_integrity(context, Progress()), list_backups(context)
    assert [finding.code for finding in looked.findings if finding.code.startswith("store")] == []
    assert "other stores" not in describe(listing)


def test_a_server_without_docker_has_none(local_database: LocalDatabase, tmp_path: Path) -> None:
    settings = load_settings(via="local", dsn=local_database.dsn, bin_dir=local_database.bin_dir, dir=tmp_path)
    with BackupContext(settings) as context:
        assert project_stores(context) == stores_soon(context) == ProjectStores()
