"""The cluster in a volume backup: unpack it in a throw-away container, check it, and start a server on it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import ContainerLost, DrillFailed, DrillImpossible, HostError
from ...hosts import missing_program, run
from ...models.verification import Check
from ...postgres.cluster import controldata, recovery
from ...postgres.cluster.controldata import ControlData
from ...postgres.cluster.recovery import Demands
from ...postgres.server import programs
from ...progress import Progress
from ...store.directory import Entry
from ...store.reading import CompressionDamaged, FileReader, decompress
from ..reading.archive import PG_VERSION, Archive
from ..reading.archive_checks import is_base_backup
from ..sandbox.lifecycle import Vacant
from .own_server import require_room

VERIFIED = "pg_verifybackup"
ROOM = 1.1
"""Free space required, in sizes of the archive's content."""
RECOVERY_SECONDS = 3600
"""How long a server may take to recover."""
END_SECONDS = 3
SHOWN = 3
_COMPLAINT = re.compile(r"(?:LOG|ERROR|FATAL|PANIC):  (.+)")


@dataclass(frozen=True)
class RecoveredCopy:
    """A copy of the archive `entry`, which was `read`. Every method may raise HostError."""

    vacant: Vacant
    entry: Entry
    read: Archive
    progress: Progress

    @property
    def directory(self) -> str:
        """The data directory in the container."""
        return f"{self.vacant.home}/{recovery.COPY}/{self.read.contents.root}".rstrip("/")

    def version(self) -> str:
        """Return the version of the server that will run on it. Raises DrillImpossible for another major version."""
        found = self.vacant.server.program_version(self._program("postgres"))
        text = self.read.contents.kept[PG_VERSION].decode("ascii", "replace").strip()
        if programs.major(text) != programs.major(found):
            raise DrillImpossible(
                f"{self.entry.name.name} is from PostgreSQL {text}, but {self.vacant.where} has {found}: a data "
                "directory only starts with its own major version.",
                f"Set SCARLET_BACKUP_CONTAINER to a container of PostgreSQL {text}: only its image is used, and it "
                "need not run. To move between versions, use an SQL backup.",
            )
        return found

    def unpack(self) -> None:
        """Unpack it. Raises DiskFull without space for it, DrillFailed if the file has changed since it was read."""
        needed, free = int(self.read.tar_bytes * ROOM), self.vacant.container.host.free_bytes(self.vacant.home)
        require_room(self.vacant.where, free, needed)
        self.progress.stage(f"unpacking {self.entry.name.name} in {self.vacant.where}", self.entry.bytes)
        self._do(recovery.unpack(self.vacant.home), _content(self.entry, self.read.sha256, self.progress))

    def verify(self) -> Check | None:
        """Run pg_verifybackup, the write-ahead log included; return None if the server left no list of files.

        Call it before anything is changed in the copy."""
        if not is_base_backup(self.read.contents):
            return None
        self.progress.stage("pg_verifybackup reads the copy")
        code, said = self._run([self._program(VERIFIED), self.directory])
        if "needed by pg_verifybackup but was not found" in said:  # pg_waldump
            return Check(check=VERIFIED, ok=None, detail=said)
        return Check(check=VERIFIED, ok=code == 0, detail="" if code == 0 else said)

    def control(self) -> tuple[ControlData, Demands]:
        """Read its pg_control. Raises ControlDataDamaged."""
        _, said = self._run([self._program("pg_controldata"), self.directory])
        return controldata.parse(said), recovery.demands(said)

    def configuration_fault(self) -> str:
        """Say what keeps a server from starting under the configuration in the archive; "" if nothing does.

        Call it before `start`, which replaces the configuration. None of it takes effect: it is only read."""
        code, said = self._run([self._program("postgres"), "-D", self.directory, "-C", "data_directory"])
        if code == 0:
            return ""
        found = _COMPLAINT.findall(said) or said.splitlines()
        return "; ".join(found[:SHOWN]).replace(f"{self.directory}/", "") or f"exit code {code}"

    def start(self, needed: Demands, version: str) -> str | None:
        """Start its server under our configuration; return None once it accepts connections, else how it ended."""
        vacant = self.vacant
        settings = recovery.configuration(
            needed, programs.major(version), vacant.home, self.directory, vacant.libraries
        )
        self._do(recovery.clear(self.directory))
        self._do(recovery.make_ready(vacant.home), iter([settings.encode()]))
        self.progress.stage("the copy's server recovers")
        until = time.monotonic() + RECOVERY_SECONDS
        while True:
            self.progress.check()
            if (ended := vacant.container.ended()) is not None:
                return ended
            if self._ready():
                return None
            if time.monotonic() > until:
                raise DrillFailed(f"PostgreSQL in {vacant.where} is still recovering after {RECOVERY_SECONDS} s.")
            time.sleep(0.2)

    def log(self) -> str:
        """Read the last lines of its server's log."""
        found = bytearray()
        try:
            path = f"{self.vacant.home}/{recovery.LOG}"
            argv = ["tail", "-n", str(recovery.LOG_LINES), path]
            ended = run(self.vacant.container.host, argv, sink=found.extend)
        except HostError:
            return self.ended() or ""
        return found.decode("utf-8", "replace") if ended.code == 0 else self.ended() or ""

    def ended(self) -> str | None:
        """Say how its server has ended, or is about to, with its last words; None while it runs."""
        until = time.monotonic() + END_SECONDS
        while (ended := self.vacant.container.ended()) is None and time.monotonic() < until:
            time.sleep(0.1)
        return ended

    # ----------------------------------------------------------------------------------------------------------------

    def _ready(self) -> bool:
        try:
            return self.vacant.server.ready()[0]
        except HostError:
            if self.ended() is None:
                raise
            return False

    def _program(self, name: str) -> str:
        return recovery.program(name, self.vacant.bin_dir)

    def _do(self, argv: list[str], source: Iterator[bytes] | None = None) -> None:
        ended = run(self.vacant.container.host, argv, source=source, progress=self.progress)
        if ended.code != 0:
            said = ended.stderr.strip() or f"exit code {ended.code}"
            raise DrillFailed(f"{self.entry.name.name} could not be prepared in {self.vacant.where}: {said}")

    def _run(self, argv: list[str]) -> tuple[int, str]:
        """Run a program; return its exit code and all its output. Raises HostError if it was ended from outside."""
        output = bytearray()
        host = self.vacant.container.host
        ended = run(host, argv, env={"LC_ALL": "C"}, sink=output.extend, progress=self.progress)
        if missing := missing_program(argv, ended):
            raise missing
        if ended.code is None or ended.code > 128:
            raise ContainerLost(f"{argv[0]} was killed: {ended.stderr.strip() or ended.code}")
        return ended.code, f"{output.decode(errors='replace')}\n{ended.stderr}".strip()


def _content(entry: Entry, sha256: str, progress: Progress) -> Iterator[bytes]:
    """Read an archive, decompressed. Raises DrillFailed before the end if the file has changed since it was read."""
    changed = DrillFailed(f"{entry.name.name} changed while it was drilled.", "Try again when nobody writes to it.")
    if not entry.has(entry.path.stat()):
        raise changed
    raw = FileReader(entry.path, progress.report)
    try:
        yield from decompress(iter(raw), entry.name.compression, single=True)
    except CompressionDamaged:
        raise changed from None
    if raw.sha256 != sha256:
        raise changed
