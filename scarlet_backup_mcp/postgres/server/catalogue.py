"""Query the catalogue about a server, a database and its tables.

Columns that some versions lack are read through `to_jsonb(row) ->> 'column'`, which is then NULL.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ...errors import PermissionDenied
from ...models.manifest import DatabaseProperties, Role
from .quoting import literal
from .session import Session

FIRST_OF_USERS = 16384
"""Objects that initdb makes have lower OIDs (FirstNormalObjectId in transam.h)."""
SIZED = 2000
"""Up to so many tables their sizes are those of their files."""


@dataclass(frozen=True)
class ServerFacts:
    """Facts about a server. `data_directory` is None if the role may not read it."""

    version: str
    version_num: int
    system_identifier: str
    data_directory: str | None
    max_wal_bytes: int
    superuser: bool
    in_recovery: bool


@dataclass(frozen=True)
class DatabaseFacts:
    """Facts about a database. `bytes` is None if the role may not query its size."""

    name: str
    oid: int
    bytes: int | None
    comment: str | None


@dataclass(frozen=True)
class Table:
    """A table with data of its own (`kind` r) or a partitioned one (p). `root` is the OID of its topmost partitioned
    table, or its own. `in_extension`: pg_dump writes only what the extension marked as configuration."""

    oid: int
    schema: str
    name: str
    kind: str
    root: int
    bytes: int
    estimated_rows: int | None
    in_extension: bool


def server_facts(session: Session) -> ServerFacts:
    """Query the facts about the server that a session is connected to."""
    row = session.rows(
        """SELECT current_setting('server_version') AS version,
                  current_setting('server_version_num')::int AS version_num,
                  (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
                  pg_size_bytes(current_setting('max_wal_size')) AS max_wal_bytes,
                  (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
                  CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE')
                       THEN current_setting('data_directory') END AS data_directory,
                  pg_is_in_recovery() AS in_recovery"""
    )[0]
    return ServerFacts(**row)


def clock(session: Session) -> float:
    """Read the server's clock, in seconds since 1970."""
    return float(session.rows("SELECT extract(epoch FROM clock_timestamp()) AS now")[0]["now"])


def databases(session: Session, *, sizes: bool = True) -> dict[str, DatabaseFacts]:
    """List every database of the server by name. For `sizes` the server looks at every file of each."""
    rows = session.rows(_facts_of_databases("true" if sizes else "false"))
    return {row["name"]: DatabaseFacts(**row) for row in rows}


def connected_database(session: Session) -> DatabaseFacts:
    """Query the facts about the connected database, with its size."""
    query = f"{_facts_of_databases('true')} WHERE datname = current_database()"
    return DatabaseFacts(**session.rows(query)[0])


def _facts_of_databases(sized: str) -> str:
    return f"""SELECT datname AS name, oid::bigint AS oid, shobj_description(oid, 'pg_database') AS comment,
                      CASE WHEN {sized} AND (has_database_privilege(oid, 'CONNECT')
                                             OR pg_has_role('pg_read_all_stats', 'USAGE'))
                           THEN pg_database_size(oid) END AS bytes
               FROM pg_database"""


def tables(session: Session, *, sizes: bool = True) -> list[Table]:
    """List every table of the connected database that pg_dump would dump: no temporary ones, none of PostgreSQL's own.
    With `sizes`, of their rows only, it waits for locks of sessions that change a table, unless there are more than
    SIZED tables: their sizes are those of the last VACUUM or ANALYZE."""
    # pg_table_size would also look at maps and at the index of each TOAST table. pg_relation_size opens the relation,
    # which takes a server longer than all the rest of the query (seen on 18.3 with 20,000 tables).
    size = f"""CASE WHEN (SELECT count(*) FROM pg_class WHERE relkind = 'r') > {SIZED}
                    THEN c.relpages::bigint * current_setting('block_size')::int
                    ELSE pg_relation_size(c.oid) + coalesce(pg_relation_size(nullif(c.reltoastrelid, 0)), 0) END"""
    size = size if sizes else "0"
    rows = session.rows(
        f"""SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
                  coalesce(pg_partition_root(c.oid)::oid, c.oid)::bigint AS root,
                  coalesce(CASE c.relkind WHEN 'r' THEN {size} END, 0) AS bytes,
                  CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint END AS estimated_rows,
                  EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                          AND d.objid = c.oid AND d.deptype = 'e') AS in_extension
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
           ORDER BY n.nspname, c.relname"""
    )
    return [Table(**row) for row in rows]


def stored(session: Session) -> list[str]:
    """List the quoted names of the connected database's tables with files of their own, the largest first."""
    rows = session.rows(
        """SELECT format('%I.%I', n.nspname, c.relname) AS name
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
           ORDER BY pg_total_relation_size(c.oid) DESC"""
    )
    return [row["name"] for row in rows]


def undumped_tables(session: Session) -> dict[Table, bool]:
    """List the tables of which pg_dump leaves out some or all rows, and whether this role may read them.

    These are members of extensions, of which it dumps configuration only, and tables that somebody created in schemas
    named like PostgreSQL's own (`selectDumpableTable`, `selectDumpableNamespace` and `processExtensionTables` in
    pg_dump.c; seen on 18)."""
    rows = session.rows(
        f"""SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
                  c.oid::bigint AS root, 0 AS bytes, NULL AS estimated_rows, m.is AS in_extension,
                  coalesce(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), false)
                    AND NOT row_security_active(c.oid) AS readable
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
                LATERAL (SELECT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                                        AND d.objid = c.oid AND d.deptype = 'e') AS is) AS m
           WHERE c.relkind = 'r' AND c.oid >= {FIRST_OF_USERS} AND c.relpersistence <> 't'
             AND (m.is OR n.nspname ~ '^pg_' OR n.nspname = 'information_schema')
           ORDER BY n.nspname, c.relname"""
    )
    readable = [row.pop("readable") for row in rows]
    return {Table(**row): may for row, may in zip(rows, readable, strict=True)}


def rewritten_tables(session: Session) -> list[str]:
    """List, in a transaction, the tables that were truncated, rewritten or dropped since its snapshot was taken.

    These changes are not MVCC-safe ("Concurrency Control", "Caveats"): an older snapshot sees such a table empty. The
    column has the file in the snapshot, the function returns the current one.
    """
    rows = session.rows(
        """SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
             AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)"""
    )
    return [f"{row['schema']}.{row['name']}" for row in rows]


@dataclass(frozen=True)
class RowDifference:
    """A table whose numbers of rows differ; None: there is no such table."""

    table: str
    dumped: int | None
    counted: int | None


def compare_rows(
    dumped: Mapping[tuple[str, str], int],
    of: Iterable[Table],
    counted: Mapping[int, int],
    unknown: Collection[int] = (),
) -> tuple[int, list[RowDifference]]:
    """Compare the rows of COPY targets, by (schema, name), with rows counted in a database, by the OID of their root.

    Partitions are compared at their root: pg_dump loads some of them through it. Returns how many rows were compared,
    and the differences. Tables of extensions are left out, because pg_dump filters their rows, and so are `unknown`
    roots, whose rows could not be counted.
    """
    known = {(table.schema, table.name): table for table in of}
    names = {table.oid: f"{table.schema}.{table.name}" for table in known.values()}
    skipped = {key for key, table in known.items() if table.in_extension}
    sums: dict[int, int] = {}
    differences: list[RowDifference] = []
    for key, rows in dumped.items():
        if key in skipped:
            continue
        table = known.get(key)
        if table is None:
            differences.append(RowDifference(".".join(key), rows, None))
        else:
            sums[table.root] = sums.get(table.root, 0) + rows
    sums = {root: rows for root, rows in sums.items() if root not in unknown}
    roots = {table.root for table in known.values() if table.kind == "r" and not table.in_extension} - {*unknown}
    for root in sorted(roots | set(sums)):
        if sums.get(root) != counted.get(root):
            differences.append(RowDifference(names.get(root, str(root)), sums.get(root), counted.get(root)))
    return sum(sums.values()), differences


def schemas(session: Session) -> list[str]:
    """List the schemas that are not PostgreSQL's own."""
    rows = session.rows(
        """SELECT nspname AS name FROM pg_namespace
           WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY nspname"""
    )
    return [row["name"] for row in rows]


def properties(session: Session) -> DatabaseProperties:
    """Query what pg_dump without `--create` leaves out about the connected database."""
    row = session.rows(
        """SELECT pg_get_userbyid(d.datdba) AS owner, pg_encoding_to_char(d.encoding) AS encoding,
                  coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') AS locale_provider,
                  d.datcollate AS "collate", d.datctype AS ctype,
                  coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS locale,
                  to_jsonb(d) ->> 'daticurules' AS icu_rules,
                  shobj_description(d.oid, 'pg_database') AS comment, d.datconnlimit AS connection_limit,
                  d.datistemplate AS template,
                  (SELECT nullif(t.spcname, 'pg_default') FROM pg_tablespace t WHERE t.oid = d.dattablespace)
                      AS tablespace,
                  CASE WHEN d.datacl IS NOT NULL THEN
                      (SELECT coalesce(json_agg(json_build_object(
                                  'grantor', pg_get_userbyid(a.grantor),
                                  'grantee', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END,
                                  'privilege', a.privilege_type, 'grantable', a.is_grantable)
                                  ORDER BY a.grantor <> d.datdba, a.ordinality), '[]')
                       FROM aclexplode(d.datacl) WITH ORDINALITY AS a) END AS acl,
                  (SELECT coalesce(json_agg(json_build_object(
                              'role', CASE WHEN s.setrole <> 0 THEN pg_get_userbyid(s.setrole) END,
                              'name', split_part(c.entry, '=', 1),
                              'value', substr(c.entry, strpos(c.entry, '=') + 1))
                              ORDER BY s.setrole, c.ordinality), '[]')
                   FROM pg_db_role_setting s, unnest(s.setconfig) WITH ORDINALITY AS c (entry, ordinality)
                   WHERE s.setdatabase = d.oid) AS settings,
                  (SELECT coalesce(json_agg(json_build_object(
                              'name', e.extname, 'schema', n.nspname, 'version', e.extversion)
                              ORDER BY e.extname), '[]')
                   FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace) AS extensions
           FROM pg_database d WHERE d.datname = current_database()"""
    )[0]
    return DatabaseProperties.model_validate(row)


def roles(session: Session) -> list[Role]:
    """List every role of the cluster except PostgreSQL's own `pg_…`, without passwords."""
    rows = session.rows(
        """SELECT r.rolname AS name, r.rolsuper AS superuser, r.rolinherit AS inherit, r.rolcreaterole AS createrole,
                  r.rolcreatedb AS createdb, r.rolcanlogin AS login, r.rolreplication AS replication,
                  r.rolbypassrls AS bypassrls, r.rolconnlimit AS connection_limit,
                  r.rolvaliduntil::text AS valid_until,
                  (SELECT coalesce(json_agg(g.rolname ORDER BY g.rolname), '[]') FROM pg_auth_members m
                   JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid) AS member_of,
                  (SELECT coalesce(json_agg(c ORDER BY c), '[]') FROM pg_db_role_setting s, unnest(s.setconfig) AS c
                   WHERE s.setrole = r.oid AND s.setdatabase = 0) AS settings
           FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY r.rolname"""
    )
    return [Role.model_validate(row) for row in rows]


def data_directory_entries(session: Session, prefix: str) -> list[str]:
    """List the names in the data directory that begin with `prefix`; [] if the role may not list it."""
    query = f"SELECT name FROM pg_ls_dir('.') AS name WHERE starts_with(name, {literal(prefix)}) ORDER BY 1"
    try:
        return [row["name"] for row in session.rows(query)]
    except PermissionDenied:
        return []


def tables_of_types(session: Session, types: Iterable[str]) -> set[str]:
    """List as `schema.name` the tables with a column of one of PostgreSQL's own `types`, or of an array of them."""
    names = ", ".join(literal(name) for name in types)
    rows = session.rows(
        f"""SELECT DISTINCT n.nspname || '.' || c.relname AS name FROM pg_attribute a
            JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
            WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND coalesce(e.typname, t.typname) IN ({names})"""
    )
    return {row["name"] for row in rows}


def is_empty(session: Session) -> bool:
    """Tell whether users have created nothing in the connected database: no relations, functions or types."""
    nothing = " AND ".join(
        f"""NOT EXISTS (SELECT FROM {relation} o JOIN pg_namespace n ON n.oid = o.{column}
                        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')"""
        for relation, column in (("pg_class", "relnamespace"), ("pg_proc", "pronamespace"), ("pg_type", "typnamespace"))
    )
    return session.rows(f"SELECT {nothing} AS empty")[0]["empty"]


def terminate_backends(session: Session, *, tag: str) -> int:
    """End every other backend whose application_name is `tag`; return how many there were."""
    return session.rows(
        f"""SELECT count(pg_terminate_backend(pid)) AS ended FROM pg_stat_activity
            WHERE application_name = {literal(tag)} AND pid <> pg_backend_pid()"""
    )[0]["ended"]
