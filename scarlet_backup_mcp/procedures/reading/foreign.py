"""Scripts that others made: which of the dumps in one is meant, and what there is to say of it."""

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
"""A script's bytes in, what is read of it out."""


@dataclass(frozen=True)
class DumpChoice:
    """What is read of a script. `refused`: why it can't be restored, though nothing is wrong with it.

    `database` is the one that it names, where that is another one; `tables` is how many it makes; `roles` are those
    that it makes, but a restore does not. `uncommented`: without pg_dump's comments, so that nothing tells whether its
    end is there.
    """

    way: Through = without_mark
    told: list[str] = field(default_factory=list[str])
    refused: str = ""
    database: str | None = None
    uncommented: bool = False
    roles: list[Role] = field(default_factory=list[Role])
    tables: int = 0


def choose(entry: Entry, repair: Repair | None, database: str, progress: Progress) -> DumpChoice:
    """Read such a script to see what is in it for `database`. What is damaged is told by a second reading."""
    progress.stage(f"looking what {entry.name.name} holds", entry.bytes)
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
            return DumpChoice(refused=f"it holds the databases {shortened(others)}, none of which is {database}")
        named, others = others[0], []
        wanted = {number: dump for number, dump in enumerate(layout.dumps) if dump.database == named}
    if layout.cluster and not wanted:
        return DumpChoice(refused="it holds roles and tablespaces only, no database", roles=layout.roles)
    dumps = list(wanted.values())
    headed = any(dump.headed for dump in dumps)
    whole = headed and all(dump.complete or not dump.headed for dump in dumps)
    return DumpChoice(
        way=without_mark if layout.plain or not dumps else Part(frozenset(wanted), headed, whole),
        told=_told(layout, dumps, named or database, others),
        refused=_twice(dumps) or _lacks(dumps),
        database=named,
        uncommented=any(dump.tables for dump in dumps) and not layout.comments,
        roles=layout.roles,
        tables=len(set[Name]().union(*(dump.tables for dump in dumps))),
    )


def _told(layout: Layout, dumps: list[Dump], database: str, others: list[str]) -> list[str]:
    told: list[str] = []
    if layout.cluster:
        told.append(f"It is a dump of a whole cluster (pg_dumpall), of which the database {database} is taken")
    elif len(dumps) > 1:
        alone = sum(dump.headed for dump in dumps) == 1
        held = "a dump and statements outside of it" if alone else f"{len(dumps)} dumps"
        told.append(f"It holds {held}, which are taken as one")
    if left_out := [statement for dump in dumps for statement in dump.left_out]:
        told.append(f"What it says of the database itself is left out: {shortened(left_out)}")
    if others:
        told.append(f"It holds other databases, too, which are left out: {shortened(others)}")
    if layout.cluster and layout.roles:
        told.append(f"Its roles are left out: {shortened(role.name for role in layout.roles)}")
    return told


def _twice(dumps: list[Dump]) -> str:
    for one, other in combinations(dumps, 2):
        if both := (one.tables & other.tables) | (one.filled & other.filled):
            return (
                f"it holds the same tables twice ({_tables(both)}), in dumps that begin on lines {one.line} and "
                f"{other.line}: put the one that is meant into a file of its own"
            )
    return ""


def _lacks(dumps: list[Dump]) -> str:
    """What a part of a database needs that is not in it. An extension may make what nobody can tell from the script."""
    tables, schemas, filled, referred = set[Name](), set[str](), set[Name](), set[Name]()
    for dump in dumps:
        tables |= dump.tables
        schemas |= dump.schemas
        filled |= dump.filled
        referred |= dump.referred
    if filled and not tables:
        return f"it is a data-only dump: it fills {_tables(filled)}, and does not make them"
    if any(dump.extensions for dump in dumps):
        return ""
    if strange := {schema for schema, _ in tables} - schemas - {"", "public"}:
        return f"it is a dump of some tables only ({_tables(tables)}): it does not make the schema {min(strange)}"
    if missing := (filled | referred) - tables:
        return (
            f"it is a dump of some tables only ({_tables(tables)}): it needs {_tables(missing)}, and does not make them"
        )
    return ""


def _tables(names: Iterable[Name]) -> str:
    return shortened(sorted(".".join(filter(None, name)) for name in names))
