"""The language of what PROC-004's users read: Italian if their system speaks it, else English."""

from __future__ import annotations

import ctypes
import locale
import os
import sys
from typing import Literal

Language = Literal["en", "it"]


def language_of_the_system() -> Language:
    """Return the language of the environment's variables, in POSIX's order; on Windows, if none is set, that of the
    user interface. Anything but Italian is English."""
    named = next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := os.environ.get(name))), "")
    if not named and sys.platform == "win32":
        named = locale.windows_locale.get(ctypes.windll.kernel32.GetUserDefaultUILanguage(), "")
    return "it" if named.lower().replace("-", "_").partition("_")[0].partition(".")[0] == "it" else "en"
