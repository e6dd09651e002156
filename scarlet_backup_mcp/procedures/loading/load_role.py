"""A role without rights, as which the dump of a file from elsewhere is loaded into the live server.

A dump's checks, defaults, generated columns, index expressions and materialised views run functions of whoever wrote
it. `SET ROLE` and `SET SESSION AUTHORIZATION` hold nobody, since such a function can RESET them; only a session that
this role has opened itself does (seen on 15.20). So it can log in, with a password that nobody keeps, and is dropped
once it has handed over what it has made.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ...errors import BackupToolError, ForeignRefused, PermissionDenied, PreflightFailed, ServerError, again
from ...postgres.dump.put_off import PutOff
from ...postgres.dump.roles import scram_verifier
from ...postgres.server import login_roles
from ...postgres.server.installation import available_extensions, extensions_of, trusted_extensions
from ...postgres.server.session import Server, Session
from ...progress import Progress
from ..context import BackupContext
from ..own_names import MARK
from .psql import load

ALLOWED = frozenset(
    {"vector", "amcheck", "bloom", "earthdistance", "pageinspect", "pg_buffercache", "pg_freespacemap", "pg_prewarm"}
    | {"pg_stat_statements", "pg_visibility", "pgrowlocks", "pgstattuple", "postgis"}
)
"""Extensions beside the trusted ones that give nobody a way out of the database, and nothing but their own code runs
when a superuser creates them in an empty one. pgvector 0.8 is not marked as trusted (seen on 15.20)."""


@dataclass(frozen=True)
class LoadRole:
    """The role; `server` is the live one, reached as this role. It makes no `extensions` (name and schema, in the
    order in which they can be made), nor their schemas: these are there when it begins."""

    name: str
    server: Server
    extensions: Sequence[tuple[str, str]]
    tablespaces: Collection[str]

    @property
    def schemas(self) -> set[str]:
        """Those that are made for the extensions."""
        return {schema for _, schema in self.extensions} - {"public", "pg_catalog"}

    def prepare(self, server: Server, maintenance: str, database: str, options: Mapping[str, str]) -> None:
        """Give it an empty database, in which nothing of anybody's can run yet, as the superuser of `server`. Raises
        ForeignRefused where the server does not let it in."""
        with server.session(maintenance) as session:
            login_roles.give_database(session, self.name, database, self.tablespaces)
        with server.session(database, options) as session:
            login_roles.equip(session, self.name, sorted(self.schemas), self.extensions)
        try:
            self.server.session(database).close()
        except PermissionDenied as error:
            raise ForeignRefused(
                f"The server lets no role without rights in, as which a file from elsewhere is loaded: {error.message}",
                f"Add a line for it to pg_hba.conf, as `local all all scram-sha-256`. {TRUSTING}",
                again(drill="never"),
            ) from error

    def hand_over(
        self, server: Server, database: str, put_off: PutOff, options: Mapping[str, str], progress: Progress
    ) -> None:
        """Have the superuser of `server` take over what the role has made, and do what was put off. Nothing of that
        runs what the file has defined, nor do settings stay that the role has given the database. Raises LoadFailed.

        Owners come first, each in a transaction of its own: REASSIGN locks all that is left at once.
        """
        script = [*put_off.owners, *login_roles.taking_over(self.name, server.user, database), *put_off.statements]
        load(server, database, "what the file says of owners and privileges", _lines(script), options, progress)


@contextmanager
def load_role(
    context: BackupContext,
    source: str,
    extensions: Sequence[tuple[str, str]],
    tablespaces: Collection[str],
    warnings: list[str],
) -> Generator[LoadRole]:
    """Make one, which is there as long as the block; `warnings` tells if it stays.

    Raises ForeignRefused for extensions that may reach outside of a database, unless the live database has them, and
    PreflightFailed for those that the server lacks.
    """
    name, password = f"scarlet_load_{secrets.token_hex(4)}", secrets.token_urlsafe(24)
    with context.server.session(context.maintenance_database) as session:
        _check(context, session, source, {extension for extension, _ in extensions})
        login_roles.create(session, name, scram_verifier(password), f"{MARK}loads {source}")
    try:
        yield LoadRole(name, context.server.logged_in_as(name, password), extensions, tablespaces)
    finally:
        try:
            with context.server.session(context.maintenance_database) as session:
                login_roles.drop(session, name)
        except BackupToolError as error:
            warnings.append(f"The role {name} could not be dropped, the next `backup` does it: {error.message}")


def sweep(session: Session) -> None:
    """Drop those that killed restores left, whose databases are gone. A restore under way whose maintenance database is
    another one is not kept out by the restore lock: its role is in use."""
    for name in login_roles.unused(session, MARK):
        with suppress(BackupToolError):
            login_roles.drop(session, name)


def _check(context: BackupContext, session: Session, source: str, names: set[str]) -> None:
    if missing := names - available_extensions(session, names):
        raise PreflightFailed(
            f"The server lacks extensions that {source} uses: {', '.join(sorted(missing))}.",
            "Run the database with an image that has them (Scarlet's is pgvector/pgvector:pg15).",
        )
    known = trusted_extensions(session)
    with suppress(ServerError), context.server.session(context.database) as live:
        known |= {name for name, _ in extensions_of(live)}
    if strange := names - known - ALLOWED:
        raise ForeignRefused(
            f"{source} uses extensions that may reach outside of a database: {', '.join(sorted(strange))}.",
            TRUSTING,
            again(drill="never"),
        )


TRUSTING = (
    "Only if the user trusts whoever made the file, restore it without a drill: then it is loaded as it is, and what "
    "is in it runs with a superuser's rights."
)
"""How a file is loaded by those who trust whoever made it; the call is this one with drill `never`."""


def _lines(statements: Iterable[bytes]) -> Generator[bytes]:
    for statement in statements:
        yield statement + b"\n"
