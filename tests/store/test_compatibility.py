"""Files of other versions of this tool, kept in tests/data/files.

`older` were written by this tool when its manifests were of version 1 and had fewer fields, `version-2` when those of
SQL backups had just become version 2. Those in `newer-fields` have fields and words that
only a newer version knows, those in `newer-version` are of a higher version; both were made by hand.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.cli.demo.embedded import EmbeddedServer
from scarlet_backup_mcp.errors import NewerVersion, RestoreInterrupted
from scarlet_backup_mcp.models.manifest import Manifest, ManifestHead, TableData, VolumeManifest
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.catalog import records
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.gate import gate
from scarlet_backup_mcp.procedures.prune import keep, prune
from scarlet_backup_mcp.procedures.recovery import journal
from scarlet_backup_mcp.procedures.restore.service import dry_run
from scarlet_backup_mcp.procedures.verify.sql import full
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings
from scarlet_backup_mcp.store import audit, remembered
from scarlet_backup_mcp.store.directory import BackupDirectory
from scarlet_backup_mcp.store.names import JOURNAL, MANIFEST, VERIFIED

from ..conftest import PROJECT_ROOT
from ..helpers.store import Shelf

DATA = PROJECT_ROOT / "tests" / "data" / "files"
OLDER_SQL = "letta_backup_20261130_100043.sql"
OLDER_VOLUME = "postgres_volume_20261130_100052.tar.gz"
VERSION_2 = "letta_backup_20261130_200950.sql"
SQL = "letta_backup_20261130_100318.sql"
VOLUME = "postgres_volume_20261130_100321.tar.gz"
NO_SERVER = "postgresql://postgres@127.0.0.1:1/letta"


def shelf_of(version: str, tmp_path: Path, dsn: str = NO_SERVER, **more: Any) -> Shelf:
    """A directory with these files, as old as their outcomes say that they are."""
    directory = tmp_path / "backups"
    shutil.copytree(DATA / version, directory)
    directory.chmod(0o700)
    for outcome in directory.glob(f"*{VERIFIED}"):
        told, name = json.loads(outcome.read_bytes()), outcome.name.removesuffix(VERIFIED)
        for path, moment in ((name, told["mtime_ns"]), (name + MANIFEST, told["manifest_mtime_ns"])):
            os.utime(directory / path, ns=(moment, moment))
    for manifest in directory.glob(f"postgres_volume_*{MANIFEST}"):
        manifest.with_name(manifest.name.removesuffix(MANIFEST)).write_bytes(b"what no test reads")
    return Shelf(load_settings(**{"via": "local", "dsn": dsn, "dir": directory, **more}))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith(".")}


def leave_journal(directory: Path, version: str, kind: str) -> bytes:
    text = (DATA / version / f"{kind}.journal.json").read_bytes()
    (directory / JOURNAL).write_bytes(text)
    return text


def kept_outcome(here: Shelf) -> dict[str, Any]:
    return json.loads(here.outcome(SQL).read_bytes())


# Older ones


def test_older_backup_is_what_it_was(tmp_path: Path) -> None:
    here = shelf_of("older", tmp_path)
    listed = here.listed(OLDER_SQL)
    assert (listed.state, listed.rows, listed.proved_at is not None) == ("good", 6, True)
    report = here.verify(OLDER_SQL)
    assert (report.valid, report.proved, report.rows) == (True, True, 6)
    assert here.latest(for_restore=True) == OLDER_SQL


def test_older_manifest_of_a_volume_is_read(tmp_path: Path) -> None:
    here = shelf_of("older", tmp_path)
    found = BackupDirectory(here.directory).volume_manifest(OLDER_VOLUME)
    assert found is not None
    assert (found.rows, found.quiet, found.databases[0]) == (6, True, "letta")


@pytest.mark.parametrize("version", ["older", "newer-fields"])
@pytest.mark.parametrize("kind", ["sql", "volume"])
def test_journal_of_another_version_is_read(version: str, kind: str, tmp_path: Path) -> None:
    leave_journal(tmp_path, version, kind)
    found = journal.read(tmp_path)
    assert isinstance(found, journal.VolumeJournal if kind == "volume" else journal.Journal)
    assert [container.name for container in found.dependents] == ["scarlet-letta-server-1"]


@pytest.mark.parametrize(("version", "name"), [("older", OLDER_SQL), ("version-2", VERSION_2)])
def test_content_is_compared_with_a_manifest_of_either_version(version: str, name: str, tmp_path: Path) -> None:
    here = shelf_of(version, tmp_path)
    with BackupContext(here.settings) as context:
        record = records.sql_record(context, context.directory.find(name))
        assert full(context, record, Progress()).failed == []
    here.file(name).write_bytes(here.file(name).read_bytes().replace(b"message 1", b"message 7"))
    failed = {check.check: check.detail for check in here.verify(name).checks if check.ok is False}
    assert failed == {"sha256": "", "tables": "letta.messages has the right number of rows, but different data"}


def test_backup_of_version_2_is_what_it_was(tmp_path: Path) -> None:
    here = shelf_of("version-2", tmp_path)
    assert here.listed(VERSION_2).state == "good"
    report = here.verify(VERSION_2)
    assert (report.valid, report.tables, report.rows) == (True, 2, 6)


def test_only_what_an_older_version_can_read_is_of_an_older_version() -> None:
    """Without SHA-256 of tables, an older version would call a manifest damaged; of a higher version it is `newer`."""
    assert TableData.model_fields.keys() == {"schema_", "name", "columns", "rows", "bytes", "digest"}
    versions = [model.model_fields["manifest_version"].default for model in (ManifestHead, Manifest, VolumeManifest)]
    assert versions == [1, 2, 1]


# Newer ones with fields that are unknown here


def test_newer_fields_are_passed_over(tmp_path: Path) -> None:
    here = shelf_of("newer-fields", tmp_path)
    before = here.manifest(SQL).read_bytes()
    listed = here.listed(SQL)
    assert (listed.state, listed.keep, listed.proved_at is not None) == ("good", True, True)
    for level in ("quick", "full"):
        assert here.verify(SQL, level).valid
    assert here.latest(for_restore=True) == SQL
    assert here.manifest(SQL).read_bytes() == before
    found = BackupDirectory(here.directory).volume_manifest(VOLUME)
    assert found is not None
    assert found.identity is not None
    assert found.site is not None
    assert (found.identity.via, found.site.volume, found.site.model_extra or {}) == ("podman", "pgdata", {})


def test_newer_fields_stay_out_of_results(tmp_path: Path) -> None:
    here = shelf_of("newer-fields", tmp_path)
    text = here.listing().model_dump_json() + here.verify(SQL).model_dump_json()
    for word in ("signed_by", "a key", "rehearsal", "schema_qualified", "half", "offsite", "tags"):
        assert word not in text


def test_newer_word_of_a_drill_proves_nothing_here(tmp_path: Path) -> None:
    here = shelf_of("newer-fields", tmp_path)
    with BackupContext(here.settings) as context:
        found = records.head_record(context, context.directory.find(SQL)).verification
    assert found is not None
    assert found.drilled is not None
    assert (found.drilled.by, found.search_path, found.level) == (None, None, "quick")


def test_verification_keeps_what_a_newer_version_has_written(tmp_path: Path) -> None:
    here = shelf_of("newer-fields", tmp_path)
    before = kept_outcome(here)
    assert here.verify(SQL).valid
    after = kept_outcome(here)
    for name in ("signed_by", "search_path", "drilled", "proved_at", "proved_on"):
        assert after[name] == before[name]
    assert (after["level"], after["verified_at"] > before["verified_at"]) == ("full", True)


def test_verification_of_other_content_keeps_nothing_of_it(tmp_path: Path) -> None:
    here = shelf_of("newer-fields", tmp_path)
    here.file(SQL).write_bytes(here.file(SQL).read_bytes().replace(b"message 1", b"message 7"))
    assert not here.verify(SQL).valid
    assert "signed_by" not in kept_outcome(here)


def test_what_a_newer_drill_found_wrong_is_not_made_good(tmp_path: Path) -> None:
    here = shelf_of("newer-fields", tmp_path)
    wrong = {"proved": False, "valid": False, "verdict": "differs_a_little", "failed_checks": ["drill"]}
    here.outcome(SQL).write_text(json.dumps(kept_outcome(here) | wrong), encoding="utf-8")
    assert here.state(SQL) == "differs"
    here.verify(SQL)
    assert here.state(SQL) == "differs"
    assert kept_outcome(here)["verdict"] == "differs_a_little"


def test_mark_of_a_newer_version_stays_as_it_is(tmp_path: Path) -> None:
    here = shelf_of("newer-fields", tmp_path)
    mark = here.directory / f"{SQL}.keep"
    before = mark.read_bytes()
    with BackupContext(here.settings) as context:
        assert keep(context, SQL, True).keep
    assert mark.read_bytes() == before


@pytest.mark.parametrize("kind", ["sql", "volume"])
def test_journal_that_is_written_again_keeps_what_a_newer_version_has_written(kind: str, tmp_path: Path) -> None:
    before = json.loads(leave_journal(tmp_path, "newer-fields", kind))
    found = journal.read(tmp_path)
    assert found is not None
    journal.write(tmp_path, found.model_copy(update={"checked": True} if kind == "volume" else {}))
    after = json.loads((tmp_path / JOURNAL).read_bytes())
    assert {name: after[name] for name in before} == before | ({"checked": True} if kind == "volume" else {})


def test_newer_lines_of_the_audit_log_are_shown(tmp_path: Path) -> None:
    here = shelf_of("newer-fields", tmp_path)
    tail = audit.read(here.directory, 10)
    assert [(entry.call, entry.outcome) for entry in tail.entries] == [("00000002", "bad"), ("00000001", "ok")]
    assert tail.unreadable == 1


def test_newer_entries_of_remembered_directories_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def state(*_: object, **__: object) -> Path:
        return tmp_path

    monkeypatch.setattr(remembered, "user_state_path", state)
    (tmp_path / remembered.FILE).write_text('{"other": {"directory": "/backups"}}', encoding="utf-8")
    remembered.remember("unix:///engine", "a/postgres", tmp_path)
    assert (remembered.recall("unix:///engine"), remembered.recall("other")) == (tmp_path, None)
    kept = json.loads((tmp_path / remembered.FILE).read_bytes())
    assert kept["other"] == {"directory": "/backups"}


# Newer ones of a higher version


def test_backup_of_a_higher_version_is_listed_as_that(tmp_path: Path) -> None:
    here = shelf_of("newer-version", tmp_path)
    for name in (SQL, VOLUME):
        listed = here.listed(name)
        assert listed.state == "newer"
        assert listed.detail.startswith(f"{name} was made by a newer version of this tool")
    assert here.listing().newest_good is None


@pytest.mark.parametrize("level", ["quick", "full", "drill"])
@pytest.mark.parametrize("name", [SQL, VOLUME])
def test_verification_of_a_higher_version_is_refused(level: Any, name: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"via": "docker", "dsn": None} if name == VOLUME else {}
    here = shelf_of("newer-version", tmp_path, **given)
    before = contents(here.directory)
    with pytest.raises(NewerVersion, match="newer version of this tool") as raised:
        here.verify(name, level)
    assert raised.value.remedy.startswith("Update scarlet-backup-mcp")
    assert contents(here.directory) == before


def test_backup_of_a_higher_version_is_never_pruned_and_opens_no_gate(tmp_path: Path) -> None:
    here = shelf_of("newer-version", tmp_path, keep_last=1, keep_daily=0, keep_weekly=0, keep_monthly=0)
    before = contents(here.directory)
    with BackupContext(here.settings) as context:
        report = prune(context, Progress(), dry_run=False)
        assert not gate(context).safe_to_proceed
    assert [(item.action, item.reason.partition(" ")[0]) for item in report.items] == [("left alone", "newer")] * 2
    assert contents(here.directory) == before


def test_restore_of_a_higher_version_is_refused(embedded: EmbeddedServer, tmp_path: Path) -> None:
    here = shelf_of("newer-version", tmp_path, embedded.dsn("postgres"), bin_dir=embedded.bin_dir)
    with BackupContext(here.settings) as context, pytest.raises(NewerVersion):
        dry_run(context, Progress(), SQL)


def test_latest_for_a_restore_passes_over_no_later_one(tmp_path: Path) -> None:
    here = shelf_of("newer-version", tmp_path)
    for path in (DATA / "older").glob(f"{OLDER_SQL}*"):
        shutil.copy(path, here.directory)
    assert here.latest() == OLDER_SQL
    with pytest.raises(NewerVersion, match=SQL) as raised:
        here.latest(for_restore=True)
    assert OLDER_SQL in raised.value.remedy


def test_damage_to_the_version_is_damage(tmp_path: Path) -> None:
    here = shelf_of("older", tmp_path)
    text = here.manifest(OLDER_SQL).read_bytes()
    here.manifest(OLDER_SQL).write_bytes(text.replace(b'"manifest_version": 1', b'"manifest_version": 3'))
    report = here.verify(OLDER_SQL)
    assert not report.valid
    assert "damaged" in next(check.detail for check in report.checks if check.check == "manifest")


@pytest.mark.parametrize("kind", ["sql", "volume"])
def test_journal_of_a_higher_version_stops_every_writer_and_stays(
    kind: str, embedded: EmbeddedServer, tmp_path: Path
) -> None:
    here = shelf_of("newer-version", tmp_path, embedded.dsn("postgres"), bin_dir=embedded.bin_dir)
    before = leave_journal(here.directory, "newer-version", kind)

    def take(context: BackupContext) -> object:
        return backup(context, Progress())

    for call in (journal.waiting, take):
        with BackupContext(here.settings) as context, pytest.raises(RestoreInterrupted, match="newer") as raised:
            call(context)
        assert "update scarlet-backup-mcp" in raised.value.remedy
        assert "remove" not in raised.value.remedy
    assert (here.directory / JOURNAL).read_bytes() == before
