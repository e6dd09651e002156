"""Find the roles that a script needs, and create them in a sandbox."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping

from ...models.manifest import Role
from ..server.quoting import identifier
from ..server.session import Session
from .encodings import codec_set_by
from .events import Handler
from .lexer import tokens, unquote

_NAMES_NONE = re.compile(
    rb"CREATE (?:TABLE|SEQUENCE|INDEX|UNIQUE INDEX|TRIGGER|VIEW) |ALTER (?:TABLE|SEQUENCE|INDEX) (?!.*OWNER)",
    re.DOTALL | re.IGNORECASE,
)
_NAMES_OWNER = re.compile(rb"ALTER [A-Za-z0-9_ .]+ OWNER TO ([a-z_][a-z0-9_]*);")
_NOT_ROLES = frozenset({b"CURRENT_USER", b"CURRENT_ROLE", b"SESSION_USER", b"USER", b"DEFAULT", b"NONE"})


def role_names(session: Session) -> set[str]:
    """List every role of the server."""
    return {row["name"] for row in session.rows("SELECT rolname AS name FROM pg_roles")}


def create_without_login(session: Session, names: Iterable[str], known: Iterable[Role]) -> None:
    """Create the missing ones of these roles, with the attributes in `known`, but without login and password.

    An unknown one becomes a superuser: the owner of an event trigger or a foreign-data wrapper has to be one. Meant for
    a server that nobody but us can reach.
    """
    existing = role_names(session)
    attributes = {role.name: role for role in known}
    wanted = _with_groups({*names}, attributes)
    for name in sorted(wanted - existing):
        if not name.startswith("pg_"):  # predefined ones, of another version perhaps, can't be created
            session.execute(f"CREATE ROLE {identifier(name)} {_attributes(attributes.get(name))}")
            existing.add(name)
    # The owner of a materialised view may be able to read its tables only as a member of another role.
    for member in sorted(wanted & attributes.keys() & existing):
        for group in attributes[member].member_of:
            if group in existing:
                session.execute(f"GRANT {identifier(group)} TO {identifier(member)}")


def scram_verifier(password: str) -> str:
    """Compute what a server stores of a password, so that no statement or log contains it ("SCRAM-SHA-256
    Authentication" in PostgreSQL's documentation; RFC 5803)."""
    salt, iterations = secrets.token_bytes(16), 4096
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client, server = (hmac.digest(salted, key, "sha256") for key in (b"Client Key", b"Server Key"))
    stored = hashlib.sha256(client).digest()
    salt_, stored_, server_ = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${iterations}:{salt_}${stored_}:{server_}"


def _with_groups(names: set[str], known: Mapping[str, Role]) -> set[str]:
    """Return these roles, and all that they are members of."""
    found = set[str]()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += known[name].member_of if name in known else []
    return found


def create_tablespaces(session: Session, names: Iterable[str]) -> None:
    """Create the missing ones of these tablespaces, inside the data directory. Meant for a sandbox server.

    `allow_in_place_tablespaces` came with 15.0 and the minor releases of that time (14.5).
    """
    existing = {row["name"] for row in session.rows("SELECT spcname AS name FROM pg_tablespace")}
    for name in sorted({*names} - existing):
        session.execute("SET allow_in_place_tablespaces = on")
        session.execute(f"CREATE TABLESPACE {identifier(name)} LOCATION ''")


def _attributes(role: Role | None) -> str:
    words = ["NOLOGIN"]
    words += ["SUPERUSER"] if role is None or role.superuser else []
    words += ["CREATEDB"] if role is not None and role.createdb else []
    words += ["CREATEROLE"] if role is not None and role.createrole else []
    words += ["REPLICATION"] if role is not None and role.replication else []
    words += ["BYPASSRLS"] if role is not None and role.bypassrls else []
    words += ["NOINHERIT"] if role is not None and not role.inherit else []
    return " ".join(words)


class Roles(Handler):
    """Collects the roles in a script's owners, grants, default privileges, policies and user mappings.

    They have to exist before the script is loaded. PUBLIC, CURRENT_USER and the like don't count.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._codec = "utf-8"

    @property
    def names(self) -> list[str]:
        """The roles' names, unquoted and sorted."""
        return sorted(self._names)

    def statement(self, sql: bytes, line: int) -> None:
        """Note the roles in a statement."""
        if not sql[:8].upper().startswith((b"ALTER", b"GRANT", b"REVOKE", b"CREATE", b"SET")):
            return
        if _NAMES_NONE.match(sql):
            return
        if owned := _NAMES_OWNER.fullmatch(sql):
            self._list([owned[1]], 0)
            return
        self._codec = codec_set_by(sql) or self._codec
        words = tokens(sql)
        keys = [word.upper() for word in words]
        for index in _places(keys):
            self._list(words, index)

    def _list(self, words: list[bytes], index: int) -> None:
        while index < len(words):
            word = words[index]
            name = unquote(word, self._codec)
            if word.upper() not in _NOT_ROLES and word != b";" and name != "public":
                self._names.add(name)
            if words[index + 1 : index + 2] != [b","]:
                return
            index += 2


def _places(keys: list[bytes]) -> list[int]:
    """Find where lists of roles begin in a statement's tokens (upper case)."""
    if keys[:3] == [b"SET", b"SESSION", b"AUTHORIZATION"]:
        return [3]
    if keys[:4] == [b"CREATE", b"USER", b"MAPPING", b"FOR"]:
        return [4]
    if keys[:2] == [b"CREATE", b"SCHEMA"]:
        return [at + 1 for at in _outside(keys, b"AUTHORIZATION")[:1]]
    if keys[:2] == [b"CREATE", b"POLICY"]:
        return [at + 1 for at in _outside(keys, b"TO")[:1]]
    if keys[:3] == [b"ALTER", b"DEFAULT", b"PRIVILEGES"]:
        named = [at + 2 for at in _outside(keys, b"FOR")[:1] if keys[at + 1] in (b"ROLE", b"USER")]
        return named + _grantees(keys[3:], 3)
    if keys[:1] == [b"ALTER"] and keys[-4:-2] == [b"OWNER", b"TO"]:
        return [len(keys) - 2]
    if keys[:1] in ([b"GRANT"], [b"REVOKE"]):
        return _grantees(keys, 0)
    return []


def _grantees(keys: list[bytes], offset: int) -> list[int]:
    granting = b"GRANT" in keys and keys[keys.index(b"GRANT") + 1] != b"OPTION"
    preposition = b"TO" if granting else b"FROM"
    places = [at + 1 for at in _outside(keys, preposition)[:1]]
    places += [at + 2 for at in _outside(keys, b"GRANTED") if keys[at + 1] == b"BY"]
    return [place + offset for place in places]


def _outside(keys: list[bytes], key: bytes) -> list[int]:
    """Find `key` outside parentheses."""
    depth, found = 0, list[int]()
    for index, word in enumerate(keys):
        depth += (word == b"(") - (word == b")")
        if word == key and not depth:
            found.append(index)
    return found
