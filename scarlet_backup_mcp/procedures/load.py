"""A dump's script into an empty database, by the psql that stands beside the server."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping

from ..errors import ContainerLost, RestoreFailed
from ..hosts import run
from ..postgres import programs
from ..postgres.script import strip_restrict
from ..postgres.server import Server
from ..progress import Progress
from ..store.directory import Entry
from ..store.powershell import Repair
from ..store.reading import FileReader, decompress

OUTPUT_KEPT = 64 << 10


class LoadFailed(RestoreFailed):
    """The server refused a part of the script. `said` is its own word, without the statement."""

    def __init__(self, name: str, said: str) -> None:
        super().__init__(f"{name} could not be loaded: {said}")
        self.said = said


def load(
    server: Server, database: str, name: str, script: Iterable[bytes], options: Mapping[str, str], progress: Progress
) -> None:
    """Load a script into the empty `database`, with these settings in the session. `name` is for messages.

    Only psql's own word after the last line counts as the end: an exit code of 0 is also what a cut-off input gives.
    Raises RestoreFailed or what `script` raises; the database is then of no use.
    """
    key = secrets.token_hex(16) if programs.knows_restrict(server.program_version("psql")) else None
    mark = secrets.token_hex(16)
    output = bytearray()

    def sink(data: bytes) -> None:
        output.extend(data)
        del output[:-OUTPUT_KEPT]

    # A crash may lose the last commits of the load, but the swap's own commit waits for all that came before it.
    environment = server.environment(database, {**options, "synchronous_commit": "off"})
    source = _restricted(script, key, mark)
    ended = run(server.host, programs.psql_load(), env=environment, source=source, sink=sink, progress=progress)
    if ended.code is None or ended.code == 137:
        raise ContainerLost("The container or its engine went away during the load. The live database is as it was.")
    if ended.code != 0 or f"{mark}\n".encode() not in output:
        raise LoadFailed(name, _first_error(ended.stderr))


def script_of(
    entry: Entry, sha256: str, repair: Repair | None, progress: Progress, *, rows: bool = True
) -> Iterator[bytes]:
    """A backup's script, whose file has to have that SHA-256, repaired where PowerShell had written it; without
    `rows` only what makes its tables. Raises RestoreFailed at its end, or before it, when the file has changed."""
    status = entry.path.stat()
    if (status.st_size, status.st_mtime_ns) != (entry.bytes, entry.mtime_ns):
        raise RestoreFailed(f"{entry.name.name} changed after it was verified. The live database is as it was.")
    raw = FileReader(entry.path, progress.report)
    plain = decompress(iter(raw), entry.name.compression)
    yield from strip_restrict(repair(plain) if repair else plain, rows=rows)
    if raw.sha256 != sha256:
        raise RestoreFailed(f"{entry.name.name} changed after it was verified. The live database is as it was.")


def _restricted(script: Iterable[bytes], key: str | None, mark: str) -> Iterator[bytes]:
    if key is not None:
        yield f"\\restrict {key}\n".encode()
    yield from script
    if key is not None:
        yield f"\n\\unrestrict {key}\n".encode()
    yield f"\n\\echo {mark}\n".encode()


def _first_error(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    first = next((at for at, line in enumerate(lines) if re.search(r"ERROR|FATAL|error:", line)), 0)
    return " ".join(lines[first : first + 3]) or "psql said nothing"
