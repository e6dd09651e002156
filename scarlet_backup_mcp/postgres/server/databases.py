"""Whole databases: create, rename, swap and drop them, and restore what pg_dump leaves out."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from ...errors import (
    BackupToolError,
    DatabaseMissing,
    EncryptionRequired,
    NotAdmitted,
    PasswordNeeded,
    PermissionDenied,
    QueryFailed,
    RestoreFailed,
    ServerError,
    TableLocked,
)
from ...models.manifest import DatabaseProperties, Grant, Setting
from ...progress import Progress
from .catalogue import properties
from .connection_failures import USUAL as USUAL
from .quoting import identifier, literal
from .session import Server, Session

NAME_BYTES = 63
OF_ONE_DATABASE = (DatabaseMissing, EncryptionRequired, NotAdmitted, PasswordNeeded)
"""Errors that another database of the same server may not give: pg_hba.conf and password files name databases."""
LIMITS: Mapping[str, str] = {"lock_timeout": "30s", "statement_timeout": "10min"}
"""For sessions that create, rename and drop databases. Locks of others stop such a statement for as long as they last,
and it makes a checkpoint, which takes long on a slow disk."""
SWAP_LOCK_SECONDS = 15
ADVISORY_KEY = 0x5CA21E7B
"""Allows one restore or drill on the live server at a time: two backup directories may belong to one server."""


def session_in(server: Server, name: str, progress: Progress | None = None) -> Session:
    """Connect for statements on whole databases, each of which ends within `LIMITS`. Raises what `Server.session`
    raises."""
    return server.session(name, LIMITS, progress)


def first_session(server: Server, names: Sequence[str], progress: Progress | None = None) -> Session:
    """Connect to the first of these databases that is there and lets us in, as `session_in` does.

    Raises what the last one raises, or at once what is not about one database."""
    for name in names[:-1]:
        try:
            return session_in(server, name, progress)
        except ServerError as error:
            if not isinstance(error, OF_ONE_DATABASE) and type(error) not in (PermissionDenied, ServerError):
                raise
    return session_in(server, names[-1], progress)


def connectable(session: Session) -> list[str]:
    """List the databases that accept connections, templates left out."""
    rows = session.rows("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate")
    return [str(row["datname"]) for row in rows]


def advisory_lock(session: Session) -> bool:
    """Try to take the server's restore lock, which is held until the session ends."""
    return session.rows(f"SELECT pg_try_advisory_lock({ADVISORY_KEY}) AS held")[0]["held"]


def create(
    session: Session, name: str, like: DatabaseProperties | None, comment: str, *, private: bool = False
) -> tuple[int, list[str]]:
    """Create an empty database with `like`'s encoding and locale (None: the server's). Return its OID, and warnings.
    `private`: only superusers can connect, whom no connection limit stops (seen on 15.20)."""
    warnings: list[str] = []
    limit = _tablespace(session, like, warnings) + (" CONNECTION LIMIT 0" if private else "")
    try:
        session.execute(_create_statement(session.version, name, like) + limit)
    except QueryFailed as error:
        if like is None or "locale" not in error.message.lower():
            raise
        warnings.append(f"The server lacks the locale {like.locale or like.collate}; its default is used.")
        session.execute(
            f"CREATE DATABASE {identifier(name)} TEMPLATE template0 ENCODING {literal(like.encoding)}{limit}"
        )
    set_comment(session, name, comment)
    return oid(session, name), warnings


def _tablespace(session: Session, like: DatabaseProperties | None, warnings: list[str]) -> str:
    if like is None or like.tablespace is None:
        return ""
    if session.rows(f"SELECT FROM pg_tablespace WHERE spcname = {literal(like.tablespace)}"):
        return f" TABLESPACE {identifier(like.tablespace)}"
    warnings.append(f"The server has no tablespace {like.tablespace}; its default is used.")
    return ""


def _create_statement(version: int, name: str, like: DatabaseProperties | None) -> str:
    statement = f"CREATE DATABASE {identifier(name)} TEMPLATE template0"
    if like is None:
        return statement
    statement += f" ENCODING {literal(like.encoding)} LC_COLLATE {literal(like.collate)} LC_CTYPE {literal(like.ctype)}"
    if version >= 150000:
        provider = {"c": "libc", "i": "icu", "b": "builtin"}[like.locale_provider]
        statement += f" LOCALE_PROVIDER {provider}"
        if like.locale is not None and provider != "libc":
            statement += f" {'ICU_LOCALE' if provider == 'icu' else 'BUILTIN_LOCALE'} {literal(like.locale)}"
        if like.icu_rules is not None and version >= 160000:
            statement += f" ICU_RULES {literal(like.icu_rules)}"
    return statement


def oid(session: Session, name: str) -> int:
    """Return the OID of a database. Raises DatabaseMissing."""
    rows = session.rows(f"SELECT oid::bigint AS oid FROM pg_database WHERE datname = {literal(name)}")
    if not rows:
        raise DatabaseMissing(f"There is no database {identifier(name)} on the server.")
    return rows[0]["oid"]


def set_comment(session: Session, name: str, comment: str | None) -> None:
    """Comment on a database; None removes the comment."""
    session.execute(f"COMMENT ON DATABASE {identifier(name)} IS {literal(comment)}")


def close_doors(session: Session, name: str, pid: int, limit: int) -> None:
    """Refuse connections to a database, from superusers too, and end the existing ones except the backend `pid`.
    Parallel workers of that backend are refused, too (seen on 15.20). `limit` is the connection limit that applies once
    `swap` opens the doors."""
    session.execute(f"ALTER DATABASE {identifier(name)} WITH ALLOW_CONNECTIONS false CONNECTION LIMIT {limit}")
    end_connections(session, name, but=pid)


def strangers(session: Session, name: str, pid: int) -> list[str]:
    """Describe who is connected to a database, except the backend `pid` and autovacuum."""
    rows = session.rows(
        f"""SELECT {_WHO} FROM pg_stat_activity
            WHERE datname = {literal(name)} AND pid <> {pid} AND backend_type <> 'autovacuum worker'"""
    )
    return [row["who"] for row in rows]


def open_doors(session: Session, name: str) -> None:
    """Allow connections again."""
    session.execute(f"ALTER DATABASE {identifier(name)} WITH ALLOW_CONNECTIONS true")


def end_connections(session: Session, name: str, but: int = 0) -> None:
    """End every connection to a database, except the backend `but`, and wait up to 5 s for each."""
    session.execute(
        f"""SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
            WHERE datname = {literal(name)} AND pid NOT IN (pg_backend_pid(), {but})"""
    )


def drop(session: Session, name: str) -> None:
    """End a database's connections and drop it.

    Begins with a checkpoint, which crashes the server if its disk has no space for that (seen on 15.20): see
    `procedures.disk_space`."""
    if session.rows(f"SELECT FROM pg_database WHERE datname = {literal(name)} AND datistemplate"):
        set_template(session, name, template=False)  # a template can't be dropped
    session.execute(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)")


def drop_table(session: Session, name: str) -> None:
    """Drop a table of the connected database, and what depends on it; `name` is quoted, as `catalogue.stored` does."""
    session.execute(f"DROP TABLE IF EXISTS {name} CASCADE")


def drop_public(session: Session) -> None:
    """Drop the schema `public` of the connected database. Raises QueryFailed if it is not empty."""
    session.execute("DROP SCHEMA IF EXISTS public")


def set_search_path(session: Session, name: str, schema: str) -> None:
    """Make sessions of a database search that schema first, then the default path."""
    session.execute(f'ALTER DATABASE {identifier(name)} SET search_path = {identifier(schema)}, "$user", public')


def set_template(session: Session, name: str, *, template: bool) -> None:
    """Set whether other databases may be created from this one."""
    session.execute(f"ALTER DATABASE {identifier(name)} WITH IS_TEMPLATE {template}")


def quietly(version: int) -> dict[str, str]:
    """Return options for sessions in a database that is being restored, whose event triggers must not change its rows.

    For a replica only triggers enabled ALWAYS fire, and from 17 on none. Only superusers may set these options.
    """
    return {"session_replication_role": "replica", **({"event_triggers": "off"} if version >= 170000 else {})}


# -- properties ------------------------------------------------------------------------------------------------------


def apply_properties(server: Server, maintenance: str, name: str, wanted: DatabaseProperties) -> list[str]:
    """Give a database the owner and privileges of `wanted`; return a warning for each that failed.

    Leaves comment and connection limit alone; for settings see `apply_settings`."""
    quoted = identifier(name)
    with session_in(server, maintenance) as session:
        session.execute(f"ALTER DATABASE {quoted} OWNER TO {identifier(wanted.owner)}")
        return [] if wanted.acl is None else _apply_acl(session, quoted, wanted.owner, wanted.acl)


def unlike(server: Server, name: str, wanted: DatabaseProperties, options: Mapping[str, str]) -> list[str]:
    """Return a warning if a database's settings or privileges are not as wanted. `options` are for the session."""
    with server.session(name, options) as session:
        found = properties(session)
    warnings: list[str] = []
    if _sorted(found.settings) != _sorted(wanted.settings):
        warnings.append("Some of the database's settings differ from before: compare with `\\drds` in psql.")
    if found.acl != wanted.acl:
        warnings.append("Some of the database's privileges differ from before: compare with `\\l` in psql.")
    return warnings


def apply_settings(server: Server, name: str, settings: Sequence[Setting], options: Mapping[str, str]) -> list[str]:
    """Store a database's settings, before anything is loaded that may depend on them; return a warning for each that
    failed."""
    warnings: list[str] = []
    for setting in settings:
        try:
            apply_setting(server, name, setting, options)
        except (QueryFailed, PermissionDenied) as error:
            warnings.append(f"The setting {setting.name} could not be restored: {error.message}")
    return warnings


def _apply_acl(session: Session, quoted: str, owner: str, acl: Sequence[Grant]) -> list[str]:
    warnings: list[str] = []
    session.execute(f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC, {identifier(owner)}")
    for grant in acl:
        to = "PUBLIC" if grant.grantee is None else identifier(grant.grantee)
        option = " WITH GRANT OPTION" if grant.grantable else ""
        try:
            session.execute(f"SET SESSION AUTHORIZATION {identifier(grant.grantor)}")
            session.execute(f"GRANT {grant.privilege} ON DATABASE {quoted} TO {to}{option}")
        except QueryFailed as error:
            warnings.append(f"{grant.privilege} for {to} could not be granted: {error.message}")
        finally:
            session.execute("RESET SESSION AUTHORIZATION")
    return warnings


def apply_setting(server: Server, database: str, setting: Setting, options: Mapping[str, str]) -> None:
    """Store one setting of a database, in a session of its own because it takes effect there. Raises QueryFailed.

    A list such as search_path, given as one literal, would become one name, so the value is first set in the session
    and then stored FROM CURRENT (seen on 15.20).
    """
    place = f"DATABASE {identifier(database)}"
    if setting.role is not None:
        place = f"ROLE {identifier(setting.role)} IN {place}"
    name = ".".join(identifier(part) for part in setting.name.split("."))
    with server.session(database, options) as session:
        session.execute("BEGIN")
        try:
            if setting.name in ("role", "session_authorization") or setting.name.endswith("_timeout"):
                raise QueryFailed("it would change our role, or end the session", sqlstate="55P02")
            session.execute(f"SELECT set_config({literal(setting.name)}, {literal(setting.value)}, false)")
            session.execute(f"ALTER {place} SET {name} FROM CURRENT")
        except QueryFailed:  # some can only be set at the start of a connection
            session.execute("ROLLBACK")
            session.execute(f"ALTER {place} SET {name} TO {literal(setting.value)}")
        else:
            session.execute("SET LOCAL synchronous_commit = local")  # it may be the very setting: see OPTIONS
            session.execute("COMMIT")


def _sorted(settings: Sequence[Setting]) -> list[tuple[str, str, str]]:
    return sorted((s.role or "", s.name, s.value) for s in settings)


# -- the swap --------------------------------------------------------------------------------------------------------


def swap(
    renaming: Session,
    ending: Session,
    database: str,
    staging: str,
    undo: str | None,
    comments: Mapping[str, str | None],
) -> float:
    """Rename `database` to `undo` (None: there is none) and `staging` to `database`, in one transaction.

    That transaction also opens the staging database to connections, and sets the `comments` on databases by their new
    names. Returns the `time.monotonic()` of its start. Both sessions are in another database. The first rename takes
    the database's lock, so that new connections queue; meanwhile the second session keeps ending existing connections.
    To end them first and rename afterwards fails if clients reconnect ("is being accessed by other users", seen on
    15.20). Queued clients get the error that there is no such database, because they have already looked up the old
    one (`InitPostgres` in postinit.c). Raises RestoreFailed, naming who is in the way.
    """
    try:
        oids = [oid(ending, name) for name in (database, staging) if undo is not None or name == staging]
    except DatabaseMissing as error:
        raise RestoreFailed(f"The databases could not be swapped: {error.message}") from None
    keeping = _KeepEnding(ending, oids, renaming.pid)
    began = time.monotonic()
    try:
        renaming.execute("BEGIN")
        renaming.execute(f"SET LOCAL lock_timeout = '{SWAP_LOCK_SECONDS}s'")
        if undo is not None:
            renaming.execute(f"ALTER DATABASE {identifier(database)} RENAME TO {identifier(undo)}")
        open_doors(renaming, staging)
        renaming.execute(f"ALTER DATABASE {identifier(staging)} RENAME TO {identifier(database)}")
        for name, comment in comments.items():
            set_comment(renaming, name, comment)
        renaming.execute("COMMIT")
    except (QueryFailed, TableLocked) as error:
        renaming.execute("ROLLBACK")
        found = keeping.blockers + _prepared(renaming, oids)
        blockers = f" In the way: {'; '.join(found)}." if found else ""
        raise RestoreFailed(
            f"The databases could not be swapped: {error.message}.{blockers}",
            "The live database is unchanged. Stop what is named (in Docker: `docker compose stop` the services that "
            "use the database; COMMIT or ROLLBACK PREPARED a prepared transaction), then restore again.",
        ) from None
    finally:
        keeping.stop()
    return began


class _KeepEnding:
    """A thread that keeps ending the connections to some databases, and notes who blocks a backend."""

    def __init__(self, session: Session, oids: Sequence[int], blocked: int) -> None:
        self.blockers: list[str] = []
        self._session, self._blocked = session, blocked
        self._oids = ", ".join(str(number) for number in oids)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join(timeout=5)

    def _work(self) -> None:
        with suppress(BackupToolError):  # the renaming session reports what is wrong with the server
            while not self._done.wait(0.02):
                self._session.execute(
                    f"""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                        WHERE datid IN ({self._oids}) AND pid <> pg_backend_pid()"""
                )
                rows = self._session.rows(
                    f"""SELECT {_WHO} FROM pg_stat_activity
                        WHERE pid = ANY (pg_blocking_pids({self._blocked})) OR datid IN ({self._oids})"""
                )
                self.blockers = [row["who"] for row in rows[:5]] or self.blockers  # a wait that timed out has none


_SINCE = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'"
_WHO = f"""concat(backend_type, ' ', pid, ' of ', coalesce(usename, 'nobody'), ' (',
                  coalesce(nullif(application_name, ''), 'unnamed'), ') in ', datname, ' since ',
                  {_SINCE.format("coalesce(xact_start, backend_start)")}) AS who"""
_PREPARED = f"concat('prepared transaction ', gid, ' of ', owner, ' since ', {_SINCE.format('prepared')})"


def _prepared(session: Session, oids: Sequence[int]) -> list[str]:
    """Describe prepared transactions in these databases or with a lock on them, which outlive their connections."""
    of = ", ".join(str(number) for number in oids)
    rows = session.rows(
        f"""SELECT {_PREPARED} AS what FROM pg_prepared_xacts p
            WHERE database IN (SELECT datname FROM pg_database WHERE oid IN ({of}))
               OR EXISTS (SELECT FROM pg_locks l WHERE l.virtualtransaction = '-1/' || p.transaction
                          AND l.classid = 'pg_database'::regclass AND l.objid IN ({of}))"""
    )
    return [row["what"] for row in rows]


def obstacles(session: Session, database: str) -> list[str]:
    """List what makes renaming a database fail, or would be lost by it."""
    name = literal(database)
    rows = session.rows(
        f"""SELECT {_PREPARED} AS what FROM pg_prepared_xacts WHERE database = {name}
            UNION ALL SELECT 'replication slot ' || slot_name FROM pg_replication_slots WHERE database = {name}
            UNION ALL SELECT 'subscription ' || s.subname FROM pg_subscription s
                      JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = {name}"""
    )
    return [row["what"] for row in rows]
