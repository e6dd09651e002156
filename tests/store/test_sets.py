"""Sets in the directory: published whole, judged by what is there, and removed so that no half of one counts."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import BackupMissing, StoreError
from scarlet_backup_mcp.models.memory import SetManifest, StoreFile, StoreManifest, StoreMember
from scarlet_backup_mcp.store import names, sets
from scarlet_backup_mcp.store.directory import BackupDirectory
from scarlet_backup_mcp.store.writing import PartialFile

STAMP, NOW = "20261130_031500", datetime(2026, 11, 30, 2, 15, tzinfo=UTC)
BACKUP = f"letta_backup_{STAMP}.sql"


def put(directory: Path, *services: str, stamp: str = STAMP) -> SetManifest:
    """Publish a set of archives of these services."""
    (directory / f"letta_backup_{stamp}.sql").write_bytes(b"dump")
    archives = list[tuple[PartialFile, StoreManifest]]()
    for service in services:
        partial = PartialFile(directory / names.store_name(service, stamp))
        partial.write(service.encode())
        partial.finish()
        member = StoreMember(
            name=partial.final.name,
            service=service,
            container=f"scarlet-{service}-1",
            image=service,
            image_id="sha256:0",
            directory="/data",
            place=f"volume {service}",
            bytes=partial.bytes,
            sha256=partial.sha256,
            files=1,
            began_at=NOW,
            finished_at=NOW,
            stopped_seconds=1.5,
        )
        files = [StoreFile(name="one", bytes=0, sha256="0")]
        of_set = names.set_name(stamp)
        manifest = StoreManifest(set_name=of_set, member=member, tar_bytes=1, directories=1, links=0, members=files)
        archives.append((partial, manifest))
    made = SetManifest(
        name=names.set_name(stamp),
        created_at=NOW,
        finished_at=NOW,
        tool_version="1",
        backup=f"letta_backup_{stamp}.sql",
        backup_sha256="0",
        stores=[manifest.member for _, manifest in archives],
        paused=True,
        stopped=["scarlet-letta-1"],
        paused_seconds=2.5,
        not_seen="",
    )
    sets.publish(directory, made, archives)
    return made


def test_names() -> None:
    assert names.store_name("redis", STAMP) == f"redis_volume_{STAMP}.tar.zst"
    assert names.is_store("my-redis.2_volume_20261130_031500.tar.zst")
    for other in (
        "postgres_volume_20261130_031500.tar.zst",
        "redis_volume_1.tar.zst",
        "../a_volume_20261130_031500.tar.zst",
    ):
        assert not names.is_store(other)
    assert names.is_set(names.set_name(STAMP))
    assert not names.is_set("memory.journal.json")
    assert names.parse(names.store_name("redis", STAMP)) is None
    kind = names.parse("postgres_volume_20261130_031500.tar.zst")
    assert kind is not None
    assert kind.kind == "volume"


def test_a_set_is_what_was_published(tmp_path: Path) -> None:
    made = put(tmp_path, "redis", "qdrant")
    [found] = sets.sets(tmp_path)
    assert (found.name, found.manifest, found.fault, found.bytes) == (made.name, made, "", 11)
    assert sets.find(tmp_path, made.name) == found
    assert sets.archive_manifest(tmp_path, made.stores[0]).members[0].name == "one"
    assert sets.alone(tmp_path, sets.sets(tmp_path)) == []
    assert [entry.name.name for entry in BackupDirectory(tmp_path).entries()] == [BACKUP]
    assert sets.sweep(tmp_path).removed == []


@pytest.mark.parametrize(
    ("gone", "fault"),
    [
        (BACKUP, "is missing"),
        (f"redis_volume_{STAMP}.tar.zst", "is missing"),
        (f"redis_volume_{STAMP}.tar.zst.manifest.json", "manifest"),
    ],
)
def test_a_set_without_a_member_has_a_fault(tmp_path: Path, gone: str, fault: str) -> None:
    put(tmp_path, "redis")
    (tmp_path / gone).unlink()
    assert fault in sets.sets(tmp_path)[0].fault


def test_a_damaged_set_is_not_relied_on(tmp_path: Path) -> None:
    made = put(tmp_path, "redis")
    path = tmp_path / made.name
    path.write_bytes(path.read_bytes().replace(b"scarlet-letta-1", b"scarlet-other-1"))
    [found] = sets.sets(tmp_path)
    assert found.manifest is None
    assert "damaged" in found.fault
    with pytest.raises(StoreError, match="damaged"):
        sets.find(tmp_path, made.name)
    with pytest.raises(BackupMissing):
        sets.find(tmp_path, "memory_20010101_000000.json")
    assert sets.alone(tmp_path, sets.sets(tmp_path)) == []
    path.unlink()
    assert sets.alone(tmp_path, sets.sets(tmp_path)) == [made.stores[0].name]


def test_an_archive_of_another_set_is_noticed(tmp_path: Path) -> None:
    made, other = put(tmp_path, "redis"), put(tmp_path, "redis", stamp="20261130_040000")
    sidecar = f"{made.stores[0].name}{names.MANIFEST}"
    (tmp_path / sidecar).write_bytes((tmp_path / f"{other.stores[0].name}{names.MANIFEST}").read_bytes())
    with pytest.raises(StoreError, match="not the one"):
        sets.archive_manifest(tmp_path, made.stores[0])


def test_removal_leaves_the_sql_backup_alone(tmp_path: Path) -> None:
    put(tmp_path, "redis", "qdrant")
    later = put(tmp_path, "redis", stamp="20261130_040000")
    assert sets.remove(tmp_path, sets.sets(tmp_path)[1]) == []
    assert [found.name for found in sets.sets(tmp_path)] == [later.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [BACKUP, later.backup, later.name, later.stores[0].name, f"{later.stores[0].name}{names.MANIFEST}"]
    )


def test_what_failed_or_was_killed_is_swept(tmp_path: Path) -> None:
    made = put(tmp_path, "redis")
    with pytest.raises(StoreError, match="appeared"):
        put(tmp_path, "qdrant", "redis")
    assert sets.sets(tmp_path)[0].manifest == made
    for left in ("graph_volume_20261130_050000.tar.zst.partial", "graph_volume_20261130_050000.tar.zst.manifest.json"):
        (tmp_path / left).write_bytes(b"")
    foreign = tmp_path / "other.tar.zst.partial"
    foreign.write_bytes(b"")
    swept = sets.sweep(tmp_path).removed
    assert {name for name in swept if name.startswith("graph")} == {
        "graph_volume_20261130_050000.tar.zst.partial",
        "graph_volume_20261130_050000.tar.zst.manifest.json",
    }
    assert foreign.exists()
    assert sets.sets(tmp_path)[0].fault == ""
