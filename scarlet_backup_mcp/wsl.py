"""Paths of Windows seen from WSL, and of WSL seen from Windows: Compose's labels and shared settings have either.

Sources: Microsoft's "Advanced settings configuration in WSL" (wsl.conf) and "Working across file systems".
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from configparser import ConfigParser, Error
from pathlib import Path, PurePosixPath, PureWindowsPath

CONFIGURATION = Path("/etc/wsl.conf")
ROOT = "/mnt/"
"""Where WSL mounts Windows' drives, unless its configuration says otherwise."""
_SHARES = ("wsl$", "wsl.localhost")


def here(path: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return a path as this system spells it: translated if it is one of Windows inside WSL, or one of WSL's for a
    drive of Windows on Windows; else unchanged."""
    if os.name == "nt":
        return to_windows(path) or path
    if "microsoft" not in platform.release().lower():
        return path
    return to_linux(path, automount_root(CONFIGURATION), environment.get("WSL_DISTRO_NAME", "")) or path


def to_linux(path: str, root: str, distribution: str) -> str | None:
    """Return where this distribution of WSL has a path of Windows; None if the path is none, or not in reach of it."""
    windows = PureWindowsPath(path.removeprefix("\\\\?\\"))
    if re.fullmatch("[A-Za-z]:", windows.drive) and windows.root:
        return str(PurePosixPath(root, windows.drive[0].lower(), *windows.parts[1:]))
    if distribution and _distribution(windows).casefold() == distribution.casefold():
        return str(PurePosixPath("/", *windows.parts[1:]))
    return None


def to_windows(path: str) -> str | None:
    """Return Windows' own path of what WSL has at `/mnt/<drive>`, also if it is named through a share of WSL's; None
    for any other path: Windows does not know which distribution has it."""
    windows = PureWindowsPath(path)
    if not windows.root or (windows.drive and not _distribution(windows)):
        return None
    mount, *rest = windows.parts[1:] or [""]
    if mount != ROOT.strip("/") or not rest or not re.fullmatch("[A-Za-z]", rest[0]):
        return None
    return str(PureWindowsPath(f"{rest[0].upper()}:\\", *rest[1:]))


def automount_root(configuration: Path) -> str:
    """Return where WSL mounts drives: `root` under [automount] of its configuration."""
    parser = ConfigParser(strict=False, interpolation=None)
    try:
        parser.read(configuration, encoding="utf-8")
        return parser.get("automount", "root", fallback=ROOT).strip().strip("\"'") or ROOT
    except (Error, OSError, UnicodeDecodeError):
        return ROOT


def _distribution(path: PureWindowsPath) -> str:
    """Return the distribution whose files a path of Windows names by a share; "" for any other path."""
    found = re.fullmatch(r"\\\\([^\\]+)\\([^\\]+)", path.drive)
    return found[2] if found and found[1].lower() in _SHARES else ""
