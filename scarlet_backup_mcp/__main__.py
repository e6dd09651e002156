"""The program: `scarlet-backup-mcp`, or `python -m scarlet_backup_mcp`."""

from __future__ import annotations

import signal
from types import FrameType

STOPPED = 130


def main() -> None:
    """Run the program. Ctrl-C ends it at any moment with code 130 and without a traceback, also while it still imports;
    what is under way by then cleans up. A second Ctrl-C ends it at once."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores it
        signal.signal(signal.SIGINT, _stop)
    from .schedules import without_console

    without_console()

    from .cli.commands import main as commands  # what it imports looks at the streams

    commands(prog_name="scarlet-backup-mcp")


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(STOPPED)


if __name__ == "__main__":
    main()
