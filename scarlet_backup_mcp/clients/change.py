"""A change of a client's configuration file: proposed, shown, and made with a copy of the file kept beside it."""

from __future__ import annotations

import codecs
import difflib
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

from ..errors import ClientFileError, StoreError
from ..redaction import printable, text
from ..store import writing
from . import json_text, toml_text
from .entry import NAME, is_ours, merged
from .json_text import NotUnderstood
from .known import McpClient

LARGEST = 16 << 20
_FORMS: dict[str, ModuleType] = {"json": json_text, "toml": toml_text}


@dataclass(frozen=True)
class Change:
    """What is to be done to a client's file. `after` None: the file goes, since nothing else is in it."""

    client: McpClient
    action: Literal["add", "update", "remove", "none", "by hand"]
    path: Path
    """The file itself, where the client's path is a link."""
    before: bytes | None = None
    after: bytes | None = None
    why: str = ""
    """With "none" and "by hand": the reason."""
    snippet: str = ""
    """With "by hand": what to add."""

    @property
    def diff(self) -> str:
        """The changed lines as a unified diff, without what looks like a secret, such as another server's token."""
        before, after = (_lines(data) for data in (self.before, self.after))
        names = str(self.path), str(self.path)
        lines = difflib.unified_diff(before, after, *names, lineterm="", n=0)
        return "".join(f"{text(printable(line))}\n" for line in lines)


@dataclass(frozen=True)
class _Found:
    path: Path
    before: bytes | None
    bom: bytes
    text: str
    servers: dict[str, Any]


def propose(client: McpClient, entry: Mapping[str, Any]) -> Change:
    """Propose to add our entry to a client's file, or to update it; "by hand" if the file can't be edited safely."""
    path = Path(os.path.realpath(client.path))
    snippet = _FORMS[client.form].put("", client.table, NAME, entry)
    try:
        found = _read(client, path)
        others = [name for name, value in found.servers.items() if name != NAME and is_ours(value)]
        if NAME not in found.servers and others:
            return Change(client, "none", path, why=f"it starts this server as {others[0]!r}")
        existing: Any = found.servers.get(NAME, {})
        if not isinstance(existing, dict):
            raise NotUnderstood(f"has a {NAME!r} that is not a table")
        wanted = merged(cast(dict[str, Any], existing), entry)
        if NAME in found.servers and existing == wanted:
            return Change(client, "none", path, why="it has this entry already")
        after = _edited(client, found, wanted)
    except NotUnderstood as error:
        return Change(client, "by hand", path, why=f"it {error}", snippet=snippet)
    return Change(client, "update" if NAME in found.servers else "add", path, found.before, after)


def propose_removal(client: McpClient) -> Change:
    """Propose to take our entry out of a client's file."""
    path = Path(os.path.realpath(client.path))
    try:
        found = _read(client, path)
        if NAME not in found.servers:
            return Change(client, "none", path, why=f"it has no entry {NAME!r}")
        form = _FORMS[client.form]
        if found.text == form.put("", client.table, NAME, found.servers[NAME]) and not client.path.is_symlink():
            return Change(client, "remove", path, found.before, None)
        after = _edited(client, found, None)
    except NotUnderstood as error:
        if not _mentions_us(path):
            return Change(client, "none", path, why=f"it has no entry {NAME!r}")
        return Change(client, "by hand", path, why=f"it {error}", snippet=f"Take out the entry {NAME!r}.\n")
    return Change(client, "remove", path, found.before, after)


def servers_of(path: Path, form: Literal["json", "toml"], way: tuple[str, ...]) -> dict[str, Any]:
    """Return the servers of a client's file; {} if there is none, or no such table in it. Raises NotUnderstood."""
    data, _, text = _content(path)
    value: Any = _FORMS[form].loads(text) if data is not None and text.strip() else {}
    for key in way:
        value = cast(dict[str, Any], value).get(key, {}) if isinstance(value, dict) else {}
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def apply(change: Change) -> Path | None:
    """Make the change, atomically and durably; return the copy of the file as it was. Raises ClientFileError, also if
    the file has changed since it was proposed: then nothing is done."""
    path = change.path
    try:
        if _bytes(path) != change.before:
            raise ClientFileError(f"{path} has changed since; it was left alone.")
        kept = _keep(path, change.before)
        if change.after is None:
            writing.delete(path)
        else:
            _replace(path, change.after, private=not change.client.for_project)
        with suppress(StoreError):
            writing.sync_directory(path.parent)
    except NotUnderstood as error:
        raise ClientFileError(f"{path} was left alone: it {error}.") from None
    except StoreError as error:
        raise ClientFileError(f"{path} was left alone: {error.message}") from error
    except OSError as error:
        raise ClientFileError(f"{path} was left alone: {error.strerror or error}.") from error
    return kept


# -- reading ---------------------------------------------------------------------------------------------------------


def _read(client: McpClient, path: Path) -> _Found:
    before, bom, text = _content(path)
    if before is not None:
        _require_editable(path)
    document: Any = _FORMS[client.form].loads(text) if text.strip() else {}
    if not isinstance(document, dict):
        raise NotUnderstood("is not an object")
    servers: Any = cast(dict[str, Any], document).get(client.table, {})
    if not isinstance(servers, dict):
        raise NotUnderstood(f"has a {client.table!r} that is not a table")
    return _Found(path, before, bom, text, cast(dict[str, Any], servers))


def _content(path: Path) -> tuple[bytes | None, bytes, str]:
    data = _bytes(path)
    bom = codecs.BOM_UTF8 if (data or b"").startswith(codecs.BOM_UTF8) else b""
    try:
        return data, bom, (data or b"")[len(bom) :].decode("utf-8")
    except UnicodeDecodeError:
        raise NotUnderstood("is not UTF-8") from None


def _bytes(path: Path) -> bytes | None:
    """Return a file's content; None if there is no such file. Raises NotUnderstood if it can't be read."""
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NotUnderstood("is no regular file")
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotUnderstood(f"can't be read ({error.strerror or error})") from None
    if len(data) > LARGEST:
        raise NotUnderstood("is too large")
    return data


def _mentions_us(path: Path) -> bool:
    try:
        return NAME.encode() in (_bytes(path) or b"")
    except NotUnderstood:
        return True


def _require_editable(path: Path) -> None:
    found = path.stat()
    if not found.st_mode & stat.S_IWUSR or not os.access(path, os.W_OK):
        raise NotUnderstood("is read-only")
    if found.st_nlink > 1:
        raise NotUnderstood("has other names (hard links), which would keep the old content")


# -- editing ---------------------------------------------------------------------------------------------------------


def _edited(client: McpClient, found: _Found, wanted: Mapping[str, Any] | None) -> bytes:
    """Edit the text, and make sure that it means the same but for our entry. Raises NotUnderstood."""
    form, table = _FORMS[client.form], client.table
    if wanted is None:
        edited: str = form.take_out(found.text, table, NAME)
    else:
        edited = form.put(found.text, table, NAME, wanted)
    was: Any = form.loads(found.text) if found.text.strip() else {}
    now: Any = form.loads(edited) if edited.strip() else {}
    ours = now.get(table, {}).get(NAME)
    for document in (was, now):
        document.get(table, {}).pop(NAME, None)
        if not document.get(table):
            document.pop(table, None)
    if was != now or ours != wanted:
        raise NotUnderstood("is written in a way that can't be edited safely")
    return found.bom + edited.encode("utf-8")


# -- writing ---------------------------------------------------------------------------------------------------------


def _keep(path: Path, before: bytes | None) -> Path | None:
    """Copy the file as it is, with its permissions."""
    if before is None:
        return None
    kept = path.with_name(f"{path.name}.{datetime.now():%Y%m%d_%H%M%S}_{secrets.token_hex(2)}.bak")
    writing.write_durably(kept, before)
    _look_like(path, kept)
    return kept


def _replace(path: Path, data: bytes, *, private: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        writing.write_durably(part, data)
        if path.exists():
            _look_like(path, part)
            os.utime(part)
        elif not private:
            part.chmod(0o666 & ~_umask())
        writing.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _look_like(model: Path, path: Path) -> None:
    """Give a file the owner and permissions of another one."""
    found = model.stat()
    if os.name == "posix" and (found.st_uid, found.st_gid) != (path.stat().st_uid, path.stat().st_gid):
        os.chown(path, found.st_uid, found.st_gid)
    shutil.copystat(model, path)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _lines(data: bytes | None) -> list[str]:
    return [] if data is None else data.decode("utf-8-sig").splitlines()
