"""The program: `scarlet-backup-mcp`, or `python -m scarlet_backup_mcp`."""

from __future__ import annotations

import signal
import sys
from types import FrameType

NAME = "scarlet-backup-mcp"
OUTPUT_LOST, STOPPED = 2, 130
_LOST = f"""\
Error: The output could not be written: {{why}}.
What to do: Send it elsewhere, or free some space there. What the command did stands: `{NAME} list` shows it."""


def main() -> None:
    """Run the program. Ctrl-C ends it at any moment with code 130 and without a traceback, also while it still imports;
    what is under way by then cleans up. A second Ctrl-C ends it at once."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores it
        signal.signal(signal.SIGINT, _stop)
    from . import streams

    streams.in_utf_8()
    streams.prepare()
    try:
        from .cli.commands import main as commands  # what it imports looks at the streams

        commands(prog_name=NAME)
    except SystemExit as ended:
        if not (why := streams.lost()):
            raise
        print(_LOST.format(why=why), file=sys.stderr)
        raise SystemExit(ended.code if ended.code not in (None, 0, 1) else OUTPUT_LOST) from None


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(STOPPED)


if __name__ == "__main__":
    main()
