"""The gate before PROC-003: decide whether a backup is good enough for Scarlet's memory to be destroyed."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

from ..errors import BackupToolError, BackupUnreadable
from ..models.common import State
from ..models.manifest import ManifestHead
from ..models.results import Gate
from ..postgres.cluster.replication import unlogged_tables
from ..postgres.server import catalogue as pg
from ..postgres.server.activity import written_since
from ..wording import number_of
from .catalog import proved_definitions, recorded, records
from .catalog.records import BackupRecord
from .context import BackupContext
from .loss import loss, restore_it
from .recovery import journal
from .writers import how_to_stop

ON_A_STANDBY = (
    "The server is a standby, and only its primary knows what was written since a backup: take the backup, and ask "
    "whether PROC-003 may go ahead, on its primary."
)
NOT_PROVED = "not_proved:"
"""Prefix of a reason that a drill can remove."""
_AFTER_A_DRILL: dict[State, tuple[str, str]] = {
    "will_not_load": ("could not be loaded", "Fix that in the live database, then take a new backup."),
    "constraint_violated": (
        "could not be loaded as it is",
        "Fix those rows in the live database, then take a new backup.",
    ),
    "differs": (
        "did not bring the same data back",
        "Take a new backup; a drill shows what differs.",
    ),
}
"""What a drill showed about such a backup, and what to do: verifying the file again changes nothing."""


def gate(context: BackupContext) -> Gate:
    """Decide whether PROC-003 may go ahead, on which backup, and why (not). If something is wrong with the server or
    the backups, it may not; that raises nothing."""
    now = datetime.now(UTC)
    try:
        everything = records.all_backups(context)
        mine = [item for item in everything if item.manifest and context.is_ours(item.manifest)]
        if not mine and (closed := records.unread(item for item in everything if item.manifest is None)):
            return _closed(context, [closed, BackupUnreadable.default_remedy], now)
        if not mine:
            return _closed(context, [f"There is no backup of the database {context.database}: take a new backup."], now)
        young = [item for item in mine if not _against_its_age(context, item, now)] or mine[:1]
        newest, *older = sorted(young, key=_is_cold)
        first = judge(context, newest)
        for item in older if not first.safe_to_proceed else []:
            with suppress(BackupToolError):
                if (verdict := judge(context, item)).safe_to_proceed:
                    return verdict
        return first if first.safe_to_proceed else _after_a_loss(context, first)
    except BackupToolError as error:
        return _closed(context, [f"{error.message} {error.remedy}"], now)


def _after_a_loss(context: BackupContext, closed: Gate) -> Gate:
    """Say what brings a lost memory back, in place of what would open the gate without it."""
    lost = loss(context)
    return closed.model_copy(update={"reasons": [f"{lost.what} {lost.remedy}"]}) if lost else closed


def judge(context: BackupContext, item: BackupRecord[ManifestHead]) -> Gate:
    """Decide whether PROC-003 may go ahead on that backup of the configured database. Raises whatever prevents querying
    the server."""
    now = datetime.now(UTC)
    waiting = journal.waiting(context)
    against = [waiting] if waiting else [*_against_its_age(context, item, now), *_against_the_file(context, item)]
    held: list[str] = []
    if not against:
        held, against = _look_at_the_server(context, item)
    age = max(0.0, (now - item.created_at).total_seconds())
    proof = f"a restore drill on {item.proved_at:%Y-%m-%d %H:%M} UTC" if item.proved_at else "full verification"
    return Gate(
        safe_to_proceed=not against,
        server=context.about,
        reasons=against or [f"{item.name}, {number_of(round(age / 60), 'minute')} old, passed {proof}.", *held],
        backup=item.name,
        age_seconds=round(age, 1),
        checked_at=now,
    )


def _against_its_age(context: BackupContext, item: BackupRecord[ManifestHead], now: datetime) -> list[str]:
    minutes = context.settings.gate_minutes
    if item.in_future:
        return [f"{item.name} says it was made in the future: check the clock, then take a new backup."]
    if now - item.created_at > timedelta(minutes=minutes):
        old = number_of(round((now - item.created_at).total_seconds() / 60), "minute")
        return [f"{item.name} is {old} old, more than {minutes}: take a new backup."]
    return []


def _against_the_file(context: BackupContext, item: BackupRecord[ManifestHead]) -> list[str]:
    manifest, found = item.manifest, list[str]()
    assert manifest is not None
    if item.state in _AFTER_A_DRILL:
        shown, remedy = _AFTER_A_DRILL[item.state]
        detail = f": {item.detail.rstrip('.;')}" if item.detail != records.DRILL_FAILED else ""
        found.append(f"In a restore drill {item.name} {shown}{detail}. {remedy}")
    elif item.state == "unreadable":
        found += [records.unread([item]), BackupUnreadable.default_remedy]
    elif item.state != "good":
        found.append(f"{item.name} is {item.state}{f' ({item.detail})' if item.detail else ''}: verify it.")
    if context.settings.gate_level == "proved" and item.proved_at is None and item.state not in _AFTER_A_DRILL:
        found.append(f"{NOT_PROVED} No restore drill has proved {item.name}: {proved_definitions.HOW}")
    if manifest.shrunk:
        found.append(f"The database had shrunk: {'; '.join(manifest.shrunk_reasons)}.")
        found += [f"If that was not intended, {restore_it(manifest.last_full)}."] if manifest.last_full else []
    elif unread := records.unread_before(context, item):
        found.append(
            f"Whether rows were lost since {unread.name} is unknown: {unread.detail}. {BackupUnreadable.default_remedy}"
        )
    elif _is_cold(item):
        found.append(f"{item.name} is a cold copy, whose rows nobody counted: start the server and take a new one.")
    elif not manifest.integrity_rows:
        found.append(f"{item.name} records no row in {context.settings.integrity_table}.")
    return found


def _look_at_the_server(context: BackupContext, item: BackupRecord[ManifestHead]) -> tuple[list[str], list[str]]:
    """Return what speaks for the backup, and what against it."""
    manifest = records.manifest_of(context, item.entry)
    if manifest is None:
        return [], [f"The manifest of {item.name} is damaged: take a new backup."]
    if manifest.identity is None or manifest.activity is None:
        return [], [f"{item.name} does not record the server's activity at the time: take a new backup."]
    if manifest.integrity_table != context.settings.integrity_table:
        return [], [f"{item.name} has counted {manifest.integrity_table}, not {context.settings.integrity_table}."]
    if lacking := recorded.not_dumped(manifest):
        return [], lacking
    identity = manifest.identity
    with context.server.session(context.database) as session:
        facts = pg.server_facts(session)
        if facts.in_recovery:
            return [], [ON_A_STANDBY]
        now = (facts.system_identifier, pg.databases(session, sizes=False)[context.database].oid)
        if now != (identity.system_identifier, identity.database_oid):
            return [], [
                f"{item.name} is of another database of that name, since restored or created again: take a new backup."
            ]
        if manifest.kind == "volume" and unlogged_tables(session):
            return [], [f"Unlogged tables are empty in {item.name}: take a backup of kind sql."]
        since = written_since(session, manifest.activity)
        if since.written is not False:
            stop = f"{how_to_stop(context, session)}. Then take" if since.by_writers else "Take"
            return [], [f"{since.how} {stop} a new backup."]
    proof, against = _proof_of_definitions(context, item, facts.version)
    if against:
        return [], against
    rows = f"{manifest.integrity_table} holds {number_of(manifest.integrity_rows, 'row')} in it; nothing has shrunk."
    own = item.verification and item.verification.drilled
    but = [f"In its own drill {own.detail.removesuffix('.')}."] if own and own.by and own.detail else []
    return [f"It contains the database {context.database} as it is now.", rows, *proof, *but, since.how], []


def _proof_of_definitions(
    context: BackupContext, item: BackupRecord[ManifestHead], server_version: str
) -> tuple[list[str], list[str]]:
    """Return what proves that the backup's definitions load on the server's image, and what speaks against it. A
    volume's archive needs no proof: its files come back as they are. A backup made before manifests recorded
    definitions needs its own drill."""
    manifest = item.manifest
    assert manifest is not None
    if context.settings.gate_level == "unproved":
        return ["SCARLET_BACKUP_GATE_LEVEL=unproved: full verification is enough, no drill is required."], []
    if context.settings.gate_level != "full" or manifest.kind == "volume":
        return [], []
    if manifest.definitions_sha256 is None and item.proved_at is not None:
        return [], []
    on = proved_definitions.image(context, server_version)
    found = proved_definitions.proof(context, manifest.definitions_sha256 or "", on)
    if found is not None and (own := item.verification and item.verification.drilled) and own.on == on:
        found = own if own.by is None else found
    if found is not None and found.by is None:
        when = f"{found.at:%Y-%m-%d %H:%M} UTC"
        then = "take a new backup." if found.verdict not in (None, "unknown") else proved_definitions.HOW
        return [], [
            f"{NOT_PROVED} A restore drill on {when} did not prove {item.name} or another backup with the same "
            f"definitions: {found.detail.removesuffix('.')}. Fix that, then {then}"
        ]
    if found is None:
        return [], [
            f"{NOT_PROVED} No restore drill has proved {item.name}, or another backup with the same definitions, on "
            f"{on[:19]}: {proved_definitions.HOW}"
        ]
    of = "a sample of the rows" if found.by == "sample" else "all rows"
    return [f"A drill with {of} proved on {found.at:%Y-%m-%d %H:%M} UTC that these definitions load here."], []


def _is_cold(item: BackupRecord[ManifestHead]) -> bool:
    return item.manifest is not None and item.manifest.rows is None


def _closed(context: BackupContext, reasons: list[str], now: datetime) -> Gate:
    return Gate(
        safe_to_proceed=False, server=context.about, reasons=reasons, backup=None, age_seconds=None, checked_at=now
    )
