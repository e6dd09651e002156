"""The table: a module for each section of docs/setups.md, and its rows in the order in which they run.

To add a row, add a `Setup` to a module's `ROWS`, run it, and renew the page:

    pytest -n0 -m "long or not long" tests/setups -k NAME
    SCARLET_TEST_RENEW=1 pytest -n0 tests/setups/test_page.py
"""

from __future__ import annotations

from collections.abc import Sequence

from ..table import Setup
from . import connections, containers, defaults, engines, places, servers

SECTIONS: dict[str, Sequence[Setup]] = {
    "Nothing to configure": defaults.ROWS,
    "Connections": connections.ROWS,
    "Servers and databases": servers.ROWS,
    "Containers": containers.ROWS,
    "Engines": engines.ROWS,
    "Places for backups": places.ROWS,
}
ALL = [row for rows in SECTIONS.values() for row in rows]
