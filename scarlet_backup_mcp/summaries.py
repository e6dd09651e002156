"""Results in a few plain lines, for the text part of a tool's answer and for a terminal that is piped."""

from __future__ import annotations

import json
from collections.abc import Callable

from .errors import NextCall
from .models.audit import AuditEntry
from .models.common import Model, Verdict
from .models.memory import SetManifest
from .models.results import (
    Backup,
    ErrorReport,
    Gate,
    Integrity,
    Kept,
    Listed,
    ListedSet,
    Listing,
    Prune,
    Repaired,
    Restore,
    Running,
    Safety,
    Week,
)
from .models.verification import Drill, Verification
from .redaction import printable
from .wording import number_of, size


def age(seconds: float) -> str:
    """A span for people: "40 s", "3 h", "12 days"."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if abs(seconds) < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86400:.0f} days"


def as_tool_call(call: NextCall) -> str:
    """A call as agents read it: `restore(backup="letta_20261130.sql", dry_run=true)`."""
    arguments = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
    return f"{call.tool}({', '.join(arguments)})"


def describe(result: Model, spell: Callable[[NextCall], str] = as_tool_call) -> str:
    """A result in words: what happened first, then what to know, then what to do. `spell` writes a call as the caller
    would make it."""
    lines = _LINES[type(result)](result)  # type: ignore[arg-type]
    if server := getattr(result, "server", ""):
        lines.insert(1, f"{server[0].upper()}{server[1:]}.")
    lines.append(_next(getattr(result, "next_call", None), spell))
    return printable("\n".join(line for line in lines if line))


def describe_error(report: ErrorReport, spell: Callable[[NextCall], str] = as_tool_call) -> str:
    """An error in words, with what to do."""
    lines = [report.message, f"What to do: {report.remedy}", _next(report.next_call, spell), f"({report.code})"]
    return printable("\n".join(line for line in lines if line))


def _next(call: NextCall | None, spell: Callable[[NextCall], str]) -> str:
    return f"Next: {spell(call)}" if call else ""


def _running(result: Running) -> list[str]:
    return [f"Still running after {result.elapsed_seconds:.0f} s: {result.stage}.", result.remedy]


def _backup(result: Backup) -> list[str]:
    verdict = "PROC-003 may go ahead." if result.safe_to_proceed else "PROC-003 must NOT go ahead."
    rows = (
        "a cold copy of a whole volume"
        if result.rows is None
        else f"{number_of(result.rows, 'row')} in {number_of(result.total_tables, 'table')}"
    )
    if result.kind == "volume" and not result.cold:
        rows = f"{number_of(len(result.databases), 'database')}, {rows} of {result.database}"
    return [
        f"Backup {result.name}: {size(result.bytes)}, {rows}, read back in full, {result.duration_seconds:.1f} s.",
        result.path,
        *(_memory(result.memory) if result.memory else []),
        verdict,
        *result.reasons,
        result.remedy or "",
        *(_drill(result.drill) if result.drill else []),
        *(_prune(result.pruned) if result.pruned else []),
        f"The backup was made, but pruning failed: {result.not_pruned}" if result.not_pruned else "",
        *_warnings(result.warnings),
    ]


def _memory(made: SetManifest) -> list[str]:
    """Say what a set holds, and what was stopped for how long."""
    seconds = "" if made.paused_seconds is None else f" for {made.paused_seconds:.1f} s"
    users = f"{', '.join(made.stopped)}{seconds}" if made.stopped else "nothing else"
    return [
        f"Set {made.name}, with",
        *(
            f"- {member.service}: {member.name}, {size(member.bytes)}, {number_of(member.files, 'file')}, "
            + ("not running" if member.stopped_seconds is None else f"stopped for {member.stopped_seconds:.1f} s")
            for member in made.stores
        ),
        f"Stopped besides: {users}. {made.not_seen}",
        *([] if made.paused else ["What uses them went on: its members may be some seconds apart."]),
    ]


def _verification(result: Verification) -> list[str]:
    verdict = _verdict(result)
    if result.proved is not None:
        how = "proved by a restore drill" if result.proved else "but a restore drill did NOT bring the same data back,"
        if result.verdict in ("will_not_load", "constraint_violated"):
            verdict, how = "intact", f"but in a restore drill {_VERDICTS[result.verdict]},"
        verdict += f", {how} on {result.proved_at:%Y-%m-%d %H:%M} UTC"
    failed = [
        f"- {check.check}: {check.detail or f'expected {check.expected}, found {check.found}'}"
        for check in result.checks
        if check.ok is False and not (check.check == "encoding" and check.detail)
    ]
    encoding = next((check.detail for check in result.checks if check.check == "encoding"), "")
    return [
        f"{result.name} is {verdict} (level {result.level}, {number_of(len(result.checks), 'check')}).",
        "But it is of a database that had shrunk: the list shows the last full one." if result.shrunk else "",
        encoding,
        *failed,
        *(f"as code page {c.code_pages[0]}: {', '.join(c.samples)}" for c in result.code_pages),
        *(_drill(result.drill) if result.drill else []),
        *_warnings(result.warnings),
        result.remedy or "",
    ]


def _verdict(result: Verification) -> str:
    wrong = {check.check for check in result.checks if check.ok is False} - {"manifest"}
    if result.valid:
        return "valid"
    if result.code_pages and wrong == {"encoding"}:
        return "undecided: its code page is needed"
    if wrong or not result.foreign:
        return "NOT valid"
    if any(check.check == "form" and check.ok is None for check in result.checks):
        return "an archive without a manifest, which was not read by pg_restore"
    if result.level == "quick":
        return "correct at both ends, without a manifest"
    if any(check.check == "files" and check.ok is None for check in result.checks):
        return "of the right sizes, without a manifest or checksums that could be compared"
    return "intact, without a manifest"


_VERDICTS: dict[Verdict, str] = {
    "proved": "the same data came back",
    "sound": "nothing speaks against it, but it is not proved",
    "differs": "NOT the same data came back",
    "damaged": "NOT the same data came back: the file is damaged",
    "will_not_load": "it could NOT be loaded as it is",
    "constraint_violated": "its rows violate constraints of their database",
    "unknown": "the drill was inconclusive",
}


def _drill(drill: Drill) -> list[str]:
    compared = f"Compared: {number_of(drill.rows_compared, 'row')} and {number_of(drill.objects_compared, 'object')}"
    if not drill.rows_compared and not drill.objects_compared:
        compared = "Nothing was compared"
    sample = drill.proved_by == "sample"
    verdict = drill.detail if sample else _VERDICTS[drill.verdict]
    head = (
        f"Drill in {drill.where}, PostgreSQL {drill.server_version}: {verdict}. "
        f"{compared}, {drill.duration_seconds:.1f} s."
    )
    differences = [f"- {d.what}: in the backup {d.backup}, restored {d.restored}" for d in drill.differences]
    violations = [
        f"- {found.constraint} of {found.table}: rows that violate it: "
        + ("?" if found.rows is None else f"{found.rows:,}")
        + (f", the first with the keys {', '.join(found.keys)}" if found.keys else "")
        for found in drill.violations
    ]
    normalised = [f"same meaning, spelled differently: {d.what}" for d in drill.normalised]
    estimate = f"A restore should take about {drill.restore_seconds:.0f} s." if drill.restore_seconds else ""
    return [
        head,
        "" if sample else drill.detail,
        *violations,
        *differences,
        *normalised,
        estimate,
        *_warnings(drill.warnings),
    ]


def _prune(result: Prune) -> list[str]:
    verb = "would be removed" if result.dry_run else "were removed"
    undo = f", and {size(result.undo_bytes_freed)} on the server" if result.undo_bytes_freed else ""
    return [
        f"{result.removed} of {len(result.items)} {verb} ({size(result.bytes_freed)}{undo}), {result.kept} kept, "
        f"{result.left_alone} left alone, in {result.directory}. Policy: {result.policy}.",
        *(
            f"{item.name}  {'size unknown' if item.bytes is None else size(item.bytes)}  {item.action}: {item.reason}"
            for item in result.items
        ),
        result.older_than_30_days,
        *_warnings(result.warnings),
        result.remedy or "",
        f"(confirmation: {result.confirmation})" if result.confirmation else "",
    ]


def question_before_pruning(would: Prune) -> str:
    """Write the question that a user is asked before a prune, from its dry run: every name that would be removed."""
    going = [item for item in would.items if item.action == "would be removed"]
    files = [f"{item.name} ({item.created_at:%Y-%m-%d %H:%M} UTC)" for item in going if item.what != "undo_point"]
    undo = [item.name for item in going if item.what == "undo_point"]
    what = [f"{number_of(len(files), 'backup')} from {would.directory}: {', '.join(files)}"] if files else []
    what += (
        [f"{number_of(len(undo), 'undo point')} of {would.server}, and with them the way back: {', '.join(undo)}"]
        if undo
        else []
    )
    volumes = ", and the space of a volume's old contents" if any(item.bytes is None for item in going) else ""
    freed = f"{would.bytes_freed + would.undo_bytes_freed:,} bytes{volumes}"
    return (
        f"Permanently remove {'; and '.join(what)}? This frees {freed}; "
        f"{would.kept + would.left_alone} stay. Policy: {would.policy}."
    )


def _kept(result: Kept) -> list[str]:
    return [f"{result.name} is {'marked to be kept' if result.keep else 'no longer marked to be kept'}."]


def _gate(result: Gate) -> list[str]:
    return ["PROC-003 may go ahead." if result.safe_to_proceed else "PROC-003 must NOT go ahead.", *result.reasons]


def _repaired(result: Repaired) -> list[str]:
    return [
        f"{result.name}: a clean copy of {result.repaired_from}, {size(result.bytes)}, "
        f"{number_of(result.rows, 'row')}.",
        result.path,
        result.found,
        result.remedy,
    ]


def _listing(result: Listing) -> list[str]:
    head = f"{number_of(result.total_backups, 'backup')}, {size(result.total_bytes)}, in {result.directory}"
    undo = [
        f"undo point {point.name}{f': {size(point.bytes)}' if point.bytes is not None else ', of the whole volume'}"
        for point in result.undo_points or []
    ]
    jobs = [f"running: {job.job}: {job.stage}" for job in result.jobs]
    sets = [_set(item) for item in result.sets if not item.fault]
    shown = [*(listed(item) for item in result.backups), *sets, *undo, *jobs, *calls(result.log)]
    return [head, *shown, *_warnings(result.warnings), *timeline(result.weeks)]


def _set(item: ListedSet) -> str:
    return f"set {item.name}: {item.backup} with {', '.join(item.stores)}, {size(item.bytes)}"


_DAYS: dict[Safety, str] = {"proved": "#", "good": "+", "missing": ".", "to come": " "}


def timeline(weeks: list[Week]) -> list[str]:
    """Draw the memory's safety, a line for each week."""
    lines = [f"{week.week}  {''.join(_DAYS[day] for day in week.days)}  {_best(week)}" for week in weeks]
    return ["Usable backups by week, Monday to Sunday (# proved, + good, . none):", *lines] if lines else []


def _best(week: Week) -> str:
    best = next((safety for safety in ("proved", "good") if safety in week.days), "missing")
    return "none yet" if best == "missing" and "to come" in week.days else best


def calls(log: list[AuditEntry]) -> list[str]:
    """Each call of the audit log on one line."""
    return [
        f"{call.time:%Y-%m-%d %H:%M:%S} UTC  {call.tool}{_of(call)} by {call.client.name}: {call.code or call.outcome}"
        f"{'' if call.duration_seconds is None else f', {call.duration_seconds:.1f} s'}  {call.message}".rstrip()
        for call in log
    ]


def _of(call: AuditEntry) -> str:
    """What it was about, and what it made."""
    told = [*call.before.items(), *call.after.items()]
    names = [
        value if name in ("backup", "set", "source", "undo_point") else name for name, value in told if name != "sha256"
    ]
    return f" ({', '.join(names)})" if names else ""


def listed(item: Listed) -> str:
    """One backup on one line."""
    told = "; ".join([item.state, *marks(item)])
    return f"{item.name}  {age(item.age_seconds)} old  {size(item.bytes)}  {told}"


def marks(item: Listed) -> list[str]:
    """List what there is to say of a backup besides its state."""
    marks = [f"proved {item.proved_at:%Y-%m-%d}"] if item.proved_at else []
    marks += [item.slot] if item.slot else []
    marks += ["keep"] if item.keep else []
    marks += ["shrunk"] if item.shrunk else []
    marks += [f"repaired from {item.repaired_from}"] if item.repaired_from else []
    marks += [f"other database {item.database} of {item.project}"] if item.other_database else []
    marks += [f'"{item.label}"'] if item.label else []
    marks += [item.detail] if item.detail else []
    return marks


def _restore(result: Restore) -> list[str]:
    services = [f"{d.name}: {d.action} {d.detail}".strip() for d in result.dependents]
    what = f"as {result.database}" if result.kind == "sql" else "with every database of the cluster"
    if result.dry_run:
        inside = (
            ""
            if result.source_kind == "undo_point" or result.kind == "volume"
            else f" ({number_of(result.rows_compared, 'row')})"
        )
        head = f"Dry run: {result.source}{inside} can be restored {what}. Nothing was changed."
        steps = [f"- {step.title}{' (done now)' if step.ok else ''}" for step in result.steps]
        return [head, result.comparison, *steps, *services, *_warnings(result.warnings), result.remedy or ""]
    compared = (
        f"{number_of(result.rows_compared, 'row')} compared, "
        if result.source_kind == "backup" and result.rows_compared
        else ""
    )
    compared = f"{number_of(result.files_compared, 'file')} compared, " if result.files_compared else compared
    away = "" if result.unavailable_seconds is None else f", no connections for {result.unavailable_seconds:.2f} s"
    head = f"Restored {result.source} {what}: {compared}{result.duration_seconds:.1f} s{away}."
    if result.source_proved_at is not None:
        head += f" Its source was proved by a drill on {result.source_proved_at:%Y-%m-%d %H:%M} UTC."
    return [head, *services, *_warnings(result.warnings), result.remedy or ""]


def _integrity(result: Integrity) -> list[str]:
    agents = "could not be counted" if result.agents is None else str(result.agents)
    findings = [f"{f.severity}: {f.message} {f.remedy}".strip() for f in result.findings]
    codes = {finding.code for finding in result.findings}
    without = "the container was not found" if "container_missing" in codes else "the container could not be inspected"
    container = f"{result.container} {result.container_state}" if result.container else ""
    seen = [container or ("local server" if result.via == "local" else without)]
    seen += [f"PostgreSQL {result.server_version}"] if result.server_version else []
    seen += [f"database {result.database} of {size(result.database_bytes)}"] if result.database_bytes else []
    return [
        f"{'Healthy' if result.healthy else 'NOT healthy'}: {', '.join(seen)}; agents: {agents}.",
        *findings,
        *_gate(result.gate),
    ]


def _warnings(warnings: list[str]) -> list[str]:
    return [f"Warning: {warning}" for warning in warnings]


_LINES = {
    Running: _running,
    Backup: _backup,
    Verification: _verification,
    Listing: _listing,
    Repaired: _repaired,
    Restore: _restore,
    Prune: _prune,
    Kept: _kept,
    Gate: _gate,
    Integrity: _integrity,
}
