"""Compare what no dump contains and every load recomputes: stored generated columns and materialised views.

They are read by a function that exists only in the transaction that creates it. Everything that planning and running
its query evaluates, such as an index predicate, runs with the rights of the table's owner, or for a superuser's table
with those of `pg_read_all_data`. In a SECURITY DEFINER function no code can change the role back, and once the
transaction is read-only none can leave anything behind that runs later (seen on 15.20 with a predicate that tried; it
would have undone a mere `SET ROLE`). Creating the function parses its body, which locks the table, so that what was
looked up about it stays true. In the end everything is rolled back, including settings changed meanwhile.

Creating the function fires event triggers, whose code would run with our rights: if one would fire, nothing is created.

A virtual generated column (18 and newer) is not stored and can only use PostgreSQL's own functions, so its definition
says it all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import PermissionDenied, QueryFailed, ServerError, TableLocked
from ...models.manifest import Recomputed
from ...progress import Progress
from .catalogue import ServerFacts
from .counting import LOCK_WAIT
from .databases import quietly
from .quoting import identifier, literal, qualified
from .session import Server, Session

KEPT = 100
"""Number of rows of each table, chosen by their keys, to keep with their own digests, so that differing ones can be
named."""
SHOWN = 3
_KEY_LENGTH = 80
_PATIENCE = {**LOCK_WAIT, "statement_timeout": "1min"}
"""For catalogue queries; those that read rows get the time that is left."""
_GRACE_SECONDS = 10
"""After this, a statement that ignores statement_timeout (its code can catch that) is ended with its session."""
_FORMATS: Mapping[str, str] = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "lc_monetary": "C",
    "extra_float_digits": "1",
}
"""Settings that a value's text depends on, besides those of all our sessions."""
_WHOLE = ""
"""Stands in for a column's name: all columns together, for a materialised view, whose rows have no key."""
_NONE = "0" * 32


@dataclass(frozen=True)
class _Computed:
    """A table or materialised view with computed columns. `schema` and `name` are those of its topmost partitioned
    table `root`, if it has one. `reader` is the role that reads it. `has_primary`: the key is the primary one."""

    oid: int
    root: int
    schema: str
    name: str
    own_schema: str
    own_name: str
    view: bool
    owner: int
    reader: str
    columns: list[str]
    key: list[str]
    has_primary: bool

    @property
    def quoted(self) -> str:
        """Its own name, quoted: in a function's body, psql counts a bare `begin` or `case` and waits for its `end`."""
        return qualified(self.own_schema, self.own_name)


def recomputed(
    server: Server,
    database: str,
    facts: ServerFacts,
    progress: Progress,
    seconds: float,
    snapshot: str | None = None,
) -> list[Recomputed]:
    """Digest the computed columns in an exported snapshot (None: as they are now); partitions count as one table.
    `facts` are those of the server and the connecting role; `seconds` is the time for all of it. Results say why
    something could not be read. Raises ServerError or HostError only if nothing could be."""
    # The function must not count in statistics, which show what was written since a backup.
    until = time.monotonic() + seconds
    options = {
        **_PATIENCE,
        **_FORMATS,
        **({**quietly(facts.version_num), "track_counts": "off"} if facts.superuser else {}),
    }
    merged: dict[int, Recomputed] = {}
    try:
        with server.session(database, options, progress) as session:
            fires = _event_trigger(session, facts)
            for one in _computed(session):
                left = until - time.monotonic()
                if fires:
                    found = _named(one, f"reading it would run the event trigger {fires}")
                elif left <= 0:
                    found = _named(one, "it was not reached in time")
                else:
                    found = _read(session, one, snapshot, left)
                merged[one.root] = _merged(merged[one.root], found) if one.root in merged else found
    except ValueError as error:
        raise ServerError(f"The server's answer can't be read: {error}.") from error
    return list(merged.values())


def unlike(before: Iterable[Recomputed], after: Iterable[Recomputed]) -> list[str]:
    """Describe what a load computed differently than in the backed-up database, and what could not be compared."""
    restored = {(one.schema_, one.name): one for one in after}
    found: list[str] = []
    for one in before:
        other = restored.get((one.schema_, one.name))
        what = f"{'materialised view ' if one.view else ''}{one.schema_}.{one.name}"
        if why := one.why_not or ("it does not exist" if other is None else other.why_not):
            found.append(f"{what}: not compared, because {why}")
        elif other is not None and (difference := _unlike(one, other)):
            found.append(f"{what}{difference}")
    return found


def _unlike(one: Recomputed, other: Recomputed) -> str:
    stale = " (it may not have been refreshed since its tables changed)" if one.view else ""
    if one.rows != other.rows:
        return f": {one.rows:,} rows in the backup, {other.rows:,} in the restored copy{stale}"
    columns = [column for column, digest in one.digests.items() if other.digests.get(column) != digest]
    if not columns:
        return ""
    named = [column for column in columns if column != _WHOLE]
    what = f"column{'s' if len(named) > 1 else ''} {', '.join(named)}" if named else "the combination of its columns"
    rows = [hashed for hashed in other.sample if _differs(one, hashed, other.sample[hashed])]
    keys = [other.keys[hashed] for hashed in rows if hashed in other.keys]
    where = f", in {len(rows):,} of {len(other.sample):,} rows compared one by one" if rows else ""
    where = f", e.g. where {other.key} is {', '.join(keys[:SHOWN])}" if keys and other.key else where
    return f", {what}: different values{where}{stale}"


def _differs(one: Recomputed, hashed: str, digest: str) -> bool:
    """Tell whether a sampled row of the restored copy is known to differ in the backup.

    A view's rows are their own keys: such a row is one that the backup's sample would have included, too."""
    if not one.view:
        return one.sample.get(hashed, digest) != digest
    return hashed not in one.sample and (len(one.sample) < KEPT or int(hashed) < max(map(int, one.sample)))


# -- reading ---------------------------------------------------------------------------------------------------------


def _computed(session: Session) -> list[_Computed]:
    """List the tables and views with computed columns.

    The key is the primary one, if that has no generated columns, else all columns that are not generated."""
    rows = session.rows(
        """SELECT c.oid::bigint AS oid, r.oid::bigint AS root, n.nspname AS schema, r.relname AS name,
                  own.nspname AS own_schema, c.relname AS own_name, c.relkind = 'm' AS view,
                  c.relowner::bigint AS owner,
                  CASE WHEN o.rolsuper THEN 'pg_read_all_data' ELSE o.rolname END AS reader,
                  a.columns, coalesce(k.key, a.others, '{}') AS key, k.key IS NOT NULL AS has_primary
           FROM pg_class c JOIN pg_namespace own ON own.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner
           JOIN pg_class r ON r.oid = coalesce(pg_partition_root(c.oid)::oid, c.oid)
           JOIN pg_namespace n ON n.oid = r.relnamespace
           CROSS JOIN LATERAL (
               SELECT array_agg(attname ORDER BY attnum) FILTER (WHERE c.relkind = 'm' OR attgenerated = 's')
                          AS columns,
                      array_agg(attname ORDER BY attname) FILTER (WHERE attgenerated = '') AS others
               FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS a
           LEFT JOIN LATERAL (
               SELECT array_agg(attname ORDER BY at) AS key
               FROM pg_index CROSS JOIN unnest(indkey) WITH ORDINALITY AS u (num, at)
               JOIN pg_attribute ON attrelid = indrelid AND attnum = num
               WHERE indrelid = c.oid AND indisprimary HAVING bool_and(attgenerated = '')) AS k ON true
           WHERE (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated) AND a.columns IS NOT NULL
             AND c.relpersistence <> 't' AND own.nspname !~ '^pg_' AND own.nspname <> 'information_schema'
             AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                             AND d.deptype = 'e')
           ORDER BY n.nspname, r.relname, c.oid"""
    )
    return [_Computed(**row) for row in rows]


def _event_trigger(session: Session, facts: ServerFacts) -> str:
    """Name an event trigger that creating a function would fire in this session, whose settings are those of `quietly`;
    "" if there is none."""
    if facts.superuser and facts.version_num >= 170000:
        return ""
    found = session.rows(
        f"""SELECT evtname AS name FROM pg_event_trigger
            WHERE evtenabled IN ('A', 'R'{"" if facts.superuser else ", 'O'"}) AND evtevent ~ '^ddl_command_'
              AND (evttags IS NULL OR evttags && '{{CREATE FUNCTION,ALTER FUNCTION}}')
            ORDER BY evtname LIMIT 1"""
    )
    return found[0]["name"] if found else ""


def _named(one: _Computed, why_not: str = "") -> Recomputed:
    """Return the result for a table of which nothing was read yet."""
    key = f"({', '.join(one.key)})" if one.has_primary else ""
    return Recomputed(schema=one.schema, name=one.name, view=one.view, key=key, why_not=why_not)


def _read(session: Session, one: _Computed, snapshot: str | None, seconds: float) -> Recomputed:
    session.execute(f"SET statement_timeout = '{max(1, round(seconds * 1000))}ms'")
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    try:
        if snapshot is not None:
            session.execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")
        found = _found(one, _answer(session, one, seconds + _GRACE_SECONDS))
    except (QueryFailed, PermissionDenied, TableLocked) as error:
        found = _named(one, error.message.removesuffix("."))
    except ValueError:  # no JSON: the server did not understand the query as intended
        found = _named(one, "the server's answer can't be read")
    session.execute("ROLLBACK")
    return found


def _found(one: _Computed, answer: dict[str, Any]) -> Recomputed:
    columns = [*one.columns, *([_WHOLE] if one.view else [])]
    sample: list[tuple[str, str | None, str]] = answer["sample"] or []
    return _named(one).model_copy(
        update={
            "rows": answer["rows"],
            "digests": {column: _hex(sums) for column, sums in zip(columns, answer["digests"], strict=True)},
            "sample": {hashed: digest for hashed, _, digest in sample},
            "keys": {hashed: key for hashed, key, _ in sample if key is not None},
        }
    )


def _answer(session: Session, one: _Computed, timeout: float) -> dict[str, Any]:
    function = "pg_temp.scarlet_backup_recomputed()"
    session.execute(
        f"CREATE FUNCTION {function} RETURNS pg_catalog.text SECURITY DEFINER BEGIN ATOMIC {_query(one)}; END"
    )
    now = session.rows(
        f"""SELECT relowner = {one.owner} AND relfilenode = pg_relation_filenode(oid) AS same FROM pg_class
            WHERE oid = {one.oid} AND oid = to_regclass({literal(one.quoted)})"""
    )
    if not now or not now[0]["same"]:
        raise QueryFailed("it was changed in the meantime", sqlstate="55006")  # "object not in prerequisite state"
    session.execute(f"ALTER FUNCTION {function} OWNER TO {identifier(one.reader)}")
    session.execute("SET TRANSACTION READ ONLY")
    return json.loads(session.execute(f"SELECT {function}", timeout))


def _query(one: _Computed) -> str:
    """Return a query with all results in a JSON object. Each column is hashed with the row's key, in text form.

    The digests are an ARRAY because functions, including json_build_array, take at most 100 arguments. Only a primary
    key is shown: other columns may hold secrets.
    """
    key, values = (_row(one.columns),) * 2 if one.view else (_row(one.key), _row(one.columns))
    hashed = [_row([column] if one.view else [*one.key, column]) for column in one.columns]
    hashed += [key] if one.view else []
    sums = ", ".join(f"[sum({_hash(part, 0)}), sum({_hash(part, 1)})]" for part in hashed)
    shown = f"left({key}::text, {_KEY_LENGTH})" if one.has_primary else "NULL::text"
    return f"""SELECT json_build_object(
            'rows', count(*), 'digests', to_json(ARRAY[{sums}]),
            'sample', (SELECT json_agg(json_build_array(hash::text, shown, digest::text))
                       FROM (SELECT {_hash(key, 0)} AS hash, {shown} AS shown, {_hash(values, 0)} AS digest
                             FROM ONLY {one.quoted} ORDER BY 1, 3 LIMIT {KEPT}) AS kept))::text
        FROM ONLY {one.quoted}"""


def _row(columns: list[str]) -> str:
    return f"ROW({', '.join(map(identifier, columns))})"


def _hash(row: str, seed: int) -> str:
    return f'hashtextextended({row}::text COLLATE "C", {seed})'


def _hex(sums: list[int | None]) -> str:
    return "".join(f"{(each or 0) % 2**64:016x}" for each in sums)


def _merged(one: Recomputed, other: Recomputed) -> Recomputed:
    """Merge the results of two partitions."""
    if one.why_not or other.why_not:
        return one if one.why_not else other
    columns = sorted({*one.digests, *other.digests})
    kept = dict(sorted({**one.sample, **other.sample}.items(), key=lambda item: int(item[0]))[:KEPT])
    return one.model_copy(
        update={
            "key": one.key if one.key == other.key else "",
            "rows": one.rows + other.rows,
            "digests": {c: _sum(one.digests.get(c, _NONE), other.digests.get(c, _NONE)) for c in columns},
            "sample": kept,
            "keys": {**one.keys, **other.keys},
        }
    )


def _sum(one: str, other: str) -> str:
    return _hex([int(one[part], 16) + int(other[part], 16) for part in (slice(16), slice(16, 32))])
