"""Why an engine can't be reached, in words: no permission, nothing there, nothing that listens, no answer."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import sys
from collections.abc import Iterator
from http.client import BadStatusLine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import EngineForbidden, EngineUnreachable
from . import ssh_failures, tls_failures
from .refusals import FORBIDDEN, THROUGH_THE_PROXY, is_page

_INSTALL = (
    "Install Docker and start it. If it is installed, name its engine with DOCKER_HOST or `docker context use`; "
    "for a server without Docker set SCARLET_BACKUP_VIA to local."
)
_OTHER_ADDRESS = "Start the engine on that machine, or correct DOCKER_HOST or the Docker context (`docker context ls`)."
_OTHER_SETTINGS = "Correct DOCKER_HOST, DOCKER_CERT_PATH or the Docker context (`docker context ls`)."
_WINDOWS_MISSING, _WINDOWS_DENIED = 2, 5
"""ERROR_FILE_NOT_FOUND and ERROR_ACCESS_DENIED, as docker-py's pipes raise them (pywintypes.error). Not seen here."""


def unreachable(
    address: str, error: BaseException, doing: str = "", certificates: Path | None = None
) -> EngineUnreachable:
    """Describe why no engine answers at `address`, and what to do; `doing` is what it was asked to do, if anything;
    `certificates` is the directory with those for TLS.

    `error` is what docker-py raised (seen with 7.2): the cause is the innermost OSError of its chain.
    """
    causes = list(_chain(error))
    if any(_is_denied(cause) for cause in causes):
        message = f"The Docker engine at {address} is there, but this user has no permission to use it."
        return EngineForbidden(message, _ask_for_permission(address))
    why, remedy = _why(address, causes, certificates)
    head = f"No Docker engine answers at {address}"
    if doing:
        head = f"The Docker engine at {address} did not answer when asked to {doing}"
    return EngineUnreachable(f"{head}: {why}.", remedy)


def _why(address: str, causes: list[BaseException], certificates: Path | None) -> tuple[str, str | None]:
    """Return the reason, and a remedy where the usual one does not fit."""
    parts = urlsplit(address)
    over_network = parts.scheme not in ("unix", "npipe")
    elsewhere = _OTHER_ADDRESS if over_network and parts.hostname not in ("localhost", "127.0.0.1", "::1") else None
    if parts.scheme == "ssh":
        silent = any(isinstance(cause, TimeoutError) for cause in causes)
        return ("it does not respond", elsewhere) if silent else ssh_failures.why(address)
    for cause in reversed(causes):
        match cause:
            case socket.gaierror():
                return f"the name {parts.hostname} can't be resolved", _OTHER_SETTINGS
            case ssl.SSLError():
                return tls_failures.why(cause, certificates)
            case TimeoutError():
                return "it does not respond", elsewhere
            case ConnectionResetError() | BrokenPipeError() if certificates is not None:
                return tls_failures.closed(certificates)
            case ConnectionResetError() | BrokenPipeError():
                return "it closes the connection without an answer", elsewhere
            case ConnectionRefusedError():
                what = "nothing listens there" if over_network else "its socket is there, but no engine listens on it"
                return what, elsewhere
            case FileNotFoundError():
                return _nothing_there()
            case OSError() if cause.strerror and cause.errno is not None:
                return cause.strerror[:1].lower() + cause.strerror[1:], elsewhere
            case _ if (status := getattr(cause, "status_code", None)) is not None:  # docker.errors.APIError
                return _http_error(cause, status, elsewhere)
            case _ if _windows_number(cause) == _WINDOWS_MISSING:
                return _nothing_there()
            case BadStatusLine() | ValueError():
                return "what listens there does not speak Docker's API", _OTHER_SETTINGS
            case _:
                continue
    if len(causes) == 1:  # docker-py's own words, such as those on an address that it does not know
        return str(causes[0]).strip().rstrip("."), _OTHER_SETTINGS
    return f"the connection failed ({type(causes[-1]).__name__})", elsewhere


def _http_error(error: Any, status: int, elsewhere: str | None) -> tuple[str, str | None]:
    if status == 400 and "HTTPS server" in str(error.explanation):  # Go's answer to HTTP on a port for TLS
        return (
            "it is to be reached over TLS",
            "Set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the directory with its ca.pem, cert.pem and key.pem.",
        )
    page = " and a web page, as a proxy does" if is_page(error.response) else ""
    remedy = elsewhere if status not in FORBIDDEN else THROUGH_THE_PROXY
    return f"it answers with HTTP status {status}{page}", remedy


def _nothing_there() -> tuple[str, str | None]:
    if shutil.which("docker") is None:
        return "there is no such socket, and no `docker` command on this machine", _INSTALL
    return "there is no such socket, so no engine is running", None


def _is_denied(cause: BaseException) -> bool:
    return isinstance(cause, PermissionError) or _windows_number(cause) == _WINDOWS_DENIED


def _windows_number(cause: BaseException) -> object:
    return cause.args[0] if type(cause).__module__ == "pywintypes" and cause.args else None


def _ask_for_permission(address: str) -> str | None:
    """Say how to get the socket's permission; None if the usual words are all there is to say."""
    if sys.platform == "win32":
        return "Add your account to the local group docker-users, sign out and in again, then try again."
    import grp
    import pwd

    try:
        group = grp.getgrgid(os.stat(urlsplit(address).path).st_gid)
        user = pwd.getpwuid(os.getuid()).pw_name
    except (OSError, KeyError):
        return None
    if group.gr_gid == 0:
        return None
    if user in group.gr_mem:
        return (
            f"{user} is in the group {group.gr_name}, but this session began before that: log out and in again, or "
            "restart the program that started this one, then try again."
        )
    return (
        f"Run `sudo usermod -aG {group.gr_name} {user}`, log out and in again, then try again. Whoever is in that "
        "group can become root; Docker's rootless mode needs no such group."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Walk from an exception to its innermost cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        held = error.args[0] if error.args and isinstance(error.args[0], BaseException) else None
        error = error.__cause__ or error.__context__ or held  # urllib3's SSLError only holds the one of ssl
