"""A role without rights, which loads a foreign file's dump into the live server.

A dump's checks, defaults, generated columns, index expressions and materialised views run functions of whoever wrote
it. `SET ROLE` and `SET SESSION AUTHORIZATION` stop nobody, because such a function can RESET them; only the role's own
session does (seen on 15.20). So the role can log in, with a password that nobody keeps, and is dropped once it has
handed over what it created.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ...errors import BackupToolError, ForeignRefused, PermissionDenied, PreflightFailed, ServerError, again
from ...postgres.dump.put_off import PutOff
from ...postgres.dump.roles import scram_verifier
from ...postgres.server import databases, login_roles
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
"""Extensions, besides the trusted ones, that offer no way out of the database, and that run only their own code when a
superuser creates them in an empty one. pgvector 0.8 is not marked as trusted (seen on 15.20)."""


@dataclass(frozen=True)
class LoadRole:
    """The role; `server` is the live one, connected to as this role. It does not create the `extensions` (name and
    schema, in the order of creation) and their schemas: these exist when it begins."""

    name: str
    server: Server
    extensions: Sequence[tuple[str, str]]
    tablespaces: Collection[str]

    @property
    def schemas(self) -> set[str]:
        """The schemas created for the extensions."""
        return {schema for _, schema in self.extensions} - {"public", "pg_catalog"}

    def prepare(self, server: Server, maintenance: str, database: str, options: Mapping[str, str]) -> None:
        """As the superuser of `server`, give the role an empty database, in which no code of others can run yet. Raises
        ForeignRefused if the server does not let the role in."""
        with databases.session_in(server, maintenance) as session:
            login_roles.give_database(session, self.name, database, self.tablespaces)
        with server.session(database, options) as session:
            login_roles.equip(session, self.name, sorted(self.schemas), self.extensions)
        try:
            self.server.session(database).close()
        except PermissionDenied as error:
            raise ForeignRefused(
                f"The server does not let in the role without rights that loads foreign files: {error.message}",
                f"Add a line for it to pg_hba.conf, such as `local all all scram-sha-256`. {TRUSTING}",
                again(drill="never"),
            ) from error

    def hand_over(
        self, server: Server, database: str, put_off: PutOff, options: Mapping[str, str], progress: Progress
    ) -> None:
        """Have the superuser of `server` take over what the role created, and run the deferred statements. None of them
        runs code of the file, and no settings remain that the role gave the database. Owners come first, each in its
        own transaction: REASSIGN locks all the rest at once. Raises LoadFailed."""
        script = [*put_off.owners, *login_roles.taking_over(self.name, server.user, database), *put_off.statements]
        lines = (statement + b"\n" for statement in script)
        load(server, database, "the file's owners and privileges", lines, options, progress)


@contextmanager
def load_role(
    context: BackupContext,
    source: str,
    extensions: Sequence[tuple[str, str]],
    tablespaces: Collection[str],
    warnings: list[str],
) -> Generator[LoadRole]:
    """Create a role for the block; add to `warnings` if it can't be dropped afterwards.

    Raises ForeignRefused for extensions that may reach outside of a database, unless the live database has them, and
    PreflightFailed for those that the server lacks.
    """
    name, password = f"scarlet_load_{secrets.token_hex(4)}", secrets.token_urlsafe(24)
    with context.maintenance_session() as session:
        _check(context, session, source, {extension for extension, _ in extensions})
        login_roles.create(session, name, scram_verifier(password), f"{MARK}loads {source}")
    try:
        yield LoadRole(name, context.server.logged_in_as(name, password), extensions, tablespaces)
    finally:
        try:
            with context.maintenance_session() as session:
                login_roles.drop(session, name)
        except BackupToolError as error:
            warnings.append(f"The role {name} could not be dropped; the next backup does it: {error.message}")


def sweep(session: Session) -> None:
    """Drop roles of killed restores whose databases are gone.

    The restore lock does not stop a restore that uses another maintenance database, but then its role is in use."""
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
    "Only if the user trusts whoever made the file, restore it without a drill: it is then loaded as it is, and its "
    "code runs with a superuser's rights."
)
"""How to load a file if one trusts its author; the call is this one with drill `never`."""
