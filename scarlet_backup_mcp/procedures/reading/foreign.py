"""Foreign scripts: choose which dumps in one to read, and describe that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations

from ...models.manifest import Role
from ...postgres.dump.events import ScriptDamaged
from ...postgres.dump.parts import Dump, Layout, Name, Part, without_mark
from ...postgres.dump.script import ScriptReader
from ...progress import Progress
from ...store.directory import Entry
from ...store.powershell import Irreparable, Repair
from ...store.reading import CompressionDamaged, FileReader, decompress
from ...wording import shortened

Through = Callable[[Iterator[bytes]], Iterator[bytes]]
"""Takes a script's bytes, returns those to read."""


@dataclass(frozen=True)
class DumpChoice:
    """What to read of a script. `refused`: why it can't be restored, though nothing is wrong with it. `database` is the
    one that it names, if that is another one; `tables` is how many it creates; `roles` are those that it creates, but a
    restore does not. `uncommented`: it has no pg_dump comments, so that nothing shows whether its end is missing."""

    way: Through = without_mark
    notes: list[str] = field(default_factory=list[str])
    refused: str = ""
    database: str | None = None
    uncommented: bool = False
    roles: list[Role] = field(default_factory=list[Role])
    tables: int = 0


def choose(entry: Entry, repair: Repair | None, database: str, progress: Progress) -> DumpChoice:
    """Read a script to choose what is in it for `database`. A second reading reports damage."""
    progress.stage(f"reading the layout of {entry.name.name}", entry.bytes)
    layout = Layout()
    plain = decompress(iter(FileReader(entry.path, progress.report)), entry.name.compression)
    with suppress(ScriptDamaged, CompressionDamaged, Irreparable):
        reader = ScriptReader(layout, several=True)
        for chunk in without_mark(repair(plain) if repair else plain):
            reader.feed(chunk)
        reader.finish()
    return _choice(layout, database)


def _choice(layout: Layout, database: str) -> DumpChoice:
    wanted = {number: dump for number, dump in enumerate(layout.dumps) if dump.database in (None, database)}
    others = sorted({dump.database for dump in layout.dumps if dump.content and dump.database} - {database})
    named = None
    if not any(dump.content for dump in wanted.values()) and others:
        if len(others) > 1:
            return DumpChoice(refused=f"it contains the databases {shortened(others)}, but not {database}")
        named, others = others[0], []
        wanted = {number: dump for number, dump in enumerate(layout.dumps) if dump.database == named}
    if layout.cluster and not wanted:
        return DumpChoice(refused="it contains only roles and tablespaces, no database", roles=layout.roles)
    dumps = list(wanted.values())
    headed = any(dump.headed for dump in dumps)
    whole = headed and all(dump.complete or not dump.headed for dump in dumps)
    return DumpChoice(
        way=without_mark if layout.plain or not dumps else Part(frozenset(wanted), headed, whole),
        notes=_notes(layout, dumps, named or database, others),
        refused=_twice(dumps) or _lacks(dumps),
        database=named,
        uncommented=any(dump.tables for dump in dumps) and not layout.comments,
        roles=layout.roles,
        tables=len(set[Name]().union(*(dump.tables for dump in dumps))),
    )


def _notes(layout: Layout, dumps: list[Dump], database: str, others: list[str]) -> list[str]:
    notes: list[str] = []
    if layout.cluster:
        notes.append(f"It is a dump of a whole cluster (pg_dumpall); only the database {database} is read")
    elif len(dumps) > 1:
        alone = sum(dump.headed for dump in dumps) == 1
        contents = "a dump and statements outside of it" if alone else f"{len(dumps)} dumps"
        notes.append(f"It contains {contents}, which are read as one")
    if left_out := [statement for dump in dumps for statement in dump.left_out]:
        notes.append(f"Statements about the database itself are left out: {shortened(left_out)}")
    if others:
        notes.append(f"It also contains other databases, which are left out: {shortened(others)}")
    if layout.cluster and layout.roles:
        notes.append(f"Its roles are left out: {shortened(role.name for role in layout.roles)}")
    return notes


def _twice(dumps: list[Dump]) -> str:
    for one, other in combinations(dumps, 2):
        if both := (one.tables & other.tables) | (one.filled & other.filled):
            return (
                f"it contains the same tables twice ({_tables(both)}), in dumps that begin on lines {one.line} and "
                f"{other.line}: put the one you want into its own file"
            )
    return ""


def _lacks(dumps: list[Dump]) -> str:
    """Say what a partial dump needs but lacks; "" if nothing. An extension may create things that no script shows."""
    tables, schemas, filled, referred = set[Name](), set[str](), set[Name](), set[Name]()
    for dump in dumps:
        tables |= dump.tables
        schemas |= dump.schemas
        filled |= dump.filled
        referred |= dump.referred
    if filled and not tables:
        return f"it is a data-only dump: it fills {_tables(filled)}, but does not create them"
    if any(dump.extensions for dump in dumps):
        return ""
    if strange := {schema for schema, _ in tables} - schemas - {"", "public"}:
        return f"it is a dump of some tables only ({_tables(tables)}): it does not create the schema {min(strange)}"
    if missing := (filled | referred) - tables:
        return (
            f"it is a dump of some tables only ({_tables(tables)}): it needs {_tables(missing)}, but does not create "
            "them"
        )
    return ""


def _tables(names: Iterable[Name]) -> str:
    return shortened(sorted(".".join(filter(None, name)) for name in names))
