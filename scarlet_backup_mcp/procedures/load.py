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
# As psql shows an error with VERBOSITY "verbose".
_REFUSED = re.compile(r"ERROR:  (?P<sqlstate>[0-9A-Z]{5}): (?P<message>.*)")
_PLACES = re.compile(r"^(SCHEMA|TABLE|DATATYPE|CONSTRAINT) NAME:  (.*)$", re.MULTILINE)
# Innermost first: `SQL function "norm" during inlining`, `PL/pgSQL function public.norm(text) line 1 at RETURN`.
_FUNCTION = re.compile(r'(?:SQL function "(?P<sql>[^"\n]+)"|PL/pgSQL function (?P<plpgsql>[^\n]+?)(?:\(.*?\))? line )')
NO_SHARED_MEMORY = "could not resize shared memory segment"


class LoadFailed(RestoreFailed):
    """The server refused a part of the script. `said` is its own word, without any value; `sqlstate` its code.

    `table` (or a domain) and `constraint` are what it names, "" where it names none; `function` is the one whose body
    it was in, as the server spells it.
    """

    def __init__(
        self, name: str, said: str, sqlstate: str, table: str = "", constraint: str = "", function: str = ""
    ) -> None:
        super().__init__(f"{name} could not be loaded: {said}")
        self.said, self.sqlstate = said, sqlstate
        self.table, self.constraint, self.function = table, constraint, function

    @classmethod
    def of(cls, name: str, refused: re.Match[str], stderr: str) -> LoadFailed:
        """What psql's stderr tells of the error that was found in it."""
        after = stderr[refused.end() :]
        places = dict(_PLACES.findall(after))
        within = places.get("TABLE") or places.get("DATATYPE") or ""
        table = f"{places.get('SCHEMA', '')}.{within}" if within else ""
        context = after[max(0, after.find("CONTEXT:  ")) :]
        function = _FUNCTION.search(context) if "CONTEXT:  " in after else None
        spelt = (function["sql"] or function["plpgsql"]).rpartition(".")[2] if function else ""
        said = _without_values(refused, stderr)
        return cls(name, said, refused["sqlstate"], table, places.get("CONSTRAINT", ""), spelt.strip('"'))


def load(
    server: Server, database: str, name: str, script: Iterable[bytes], options: Mapping[str, str], progress: Progress
) -> None:
    """Load a script into the empty `database`, with these settings in the session. `name` is for messages.

    Only psql's own word after the last line counts as the end: an exit code of 0 is also what a cut-off input gives.
    Raises LoadFailed, RestoreFailed when the connection was lost, or what `script` raises; the database is then of no
    use.
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
        if (refused := _REFUSED.search(ended.stderr)) and ended.code == programs.PSQL_STOPPED:
            raise LoadFailed.of(name, refused, ended.stderr)
        said = next((line for line in ended.stderr.splitlines() if line.strip()), f"exit code {ended.code}")
        raise RestoreFailed(f"{name} could not be loaded, since psql came to an early end: {said}")


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


def _without_values(refused: re.Match[str], stderr: str) -> str:
    """The server's first error and the line of COPY data; what values it names may be secrets."""
    said = refused["message"]
    if refused["sqlstate"].startswith("22"):
        said = re.sub(r'".*', "(a value)", said)
    place = re.search(r"^CONTEXT:  (COPY [^,]+, line \d+)", stderr[refused.end() :], re.MULTILINE)
    return f"{said} ({refused['sqlstate']}{', ' + place[1] if place else ''})"
