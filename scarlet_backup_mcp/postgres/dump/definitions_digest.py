"""Digest everything that decides whether a database's dump loads, except its rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...models.manifest import DatabaseProperties, Role, TableData
from ..server.session import Session
from .events import Handler
from .inserts import INSERT
from .large_objects import DEFINES

_OF_CONTENT = (
    b"SELECT pg_catalog.setval(",
    b"SELECT pg_catalog.lo",
    b"SELECT * FROM pg_catalog.pg_restore_",
)
"""Beginnings of statements that set a sequence's value, fill a large object, or set the planner's statistics."""
_ROUND_LARGE_OBJECTS = (b"BEGIN;", b"COMMIT;")


class DefinitionsDigest(Handler):
    """SHA-256 (hex) of a script's statements, except those that change if only rows, sequences or large objects do.
    Comments and backslash commands are left out, so the versions and tokens in them make no difference."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The digest of what was read so far."""
        return self._hash.hexdigest()

    def statement(self, sql: bytes, line: int) -> None:
        """Hash the statement, unless it is about content."""
        if not (sql.startswith(_OF_CONTENT) or sql in _ROUND_LARGE_OBJECTS or INSERT.match(sql) or DEFINES.match(sql)):
            self._hash.update(sql)
            self._hash.update(b"\0")


def definitions_sha256(
    script: str,
    properties: DatabaseProperties,
    schemas: Iterable[str],
    role: Role | None,
    effective: Mapping[str, str],
    filled: Iterable[TableData] = (),
) -> str:
    """Return the SHA-256 (hex) of a database's definitions: of its `script`'s digest, and of what a load depends on but
    a dump does not contain.

    That is encoding, locale, settings, extensions, schemas, the settings of the `role` that loads it, and the settings
    in force (`effective`), including the server's own. `filled` are the tables whose rows matter: a function is only
    called if there is a row. On PostgreSQL 15 an index over one that can't be resolved is created on an empty table
    without an error.
    """
    decisive = properties.model_dump(
        mode="json",
        by_alias=True,
        include={"encoding", "locale_provider", "collate", "ctype", "locale", "icu_rules", "settings", "extensions"},
    )
    parts = [
        script,
        decisive,
        sorted(schemas),
        role.settings if role else [],
        dict(effective),
        sorted({(table.schema_, table.name) for table in filled if table.rows}),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Called:
    """Whether a load calls functions that initdb did not create: a user's `own`, or `any`, including extensions'."""

    own: bool
    any: bool


def called_functions(session: Session) -> Called:
    """Find out which functions an index, check, generated column, materialised view or trigger of the connected
    database calls, directly or through views, operators and types.

    The source is pg_depend, but without the types of a table's columns, which only read its rows. Objects that initdb
    creates have OIDs below 16384 (FirstNormalObjectId in transam.h). An operator class counts as a function: its
    functions depend on it, not it on them.
    """
    row = session.rows(
        """WITH RECURSIVE reached (classid, objid) AS (
               SELECT evaluated.* FROM (
                   SELECT 'pg_class'::regclass::oid, indexrelid FROM pg_index
                   UNION ALL SELECT 'pg_class'::regclass, oid FROM pg_class WHERE relkind = 'm'
                   UNION ALL SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE contype IN ('c', 'x')
                   UNION ALL SELECT 'pg_trigger'::regclass, oid FROM pg_trigger WHERE NOT tgisinternal
                   UNION ALL SELECT 'pg_attrdef'::regclass, e.oid FROM pg_attrdef e JOIN pg_attribute a
                             ON a.attrelid = e.adrelid AND a.attnum = e.adnum WHERE a.attgenerated <> ''
               ) AS evaluated (classid, objid) WHERE evaluated.objid >= 16384
               UNION
               SELECT used.* FROM reached AS r CROSS JOIN LATERAL (
                   SELECT refclassid, refobjid FROM pg_depend d WHERE d.classid = r.classid AND d.objid = r.objid
                             AND NOT EXISTS (SELECT FROM pg_class c WHERE r.classid = 'pg_class'::regclass
                                             AND c.oid = r.objid AND c.relkind IN ('r', 'p', 'f', 't'))
                   UNION ALL SELECT 'pg_rewrite'::regclass, oid FROM pg_rewrite
                             WHERE r.classid = 'pg_class'::regclass AND ev_class = r.objid AND ev_type = '1'
               ) AS used (classid, objid) WHERE used.objid >= 16384
           )
           SELECT count(*) > 0 AS any,
                  count(*) FILTER (WHERE NOT EXISTS (
                      SELECT FROM pg_depend e WHERE e.classid = r.classid AND e.objid = r.objid AND e.deptype = 'e'
                  )) > 0 AS own
           FROM reached AS r
           WHERE classid IN ('pg_proc'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass)"""
    )[0]
    return Called(**row)
