"""The contents of a data directory, moved about inside its volume by programs in a helper container.

Nothing is ever copied there: contents are set aside and put in place by renames, entry by entry, PG_VERSION first on
the way out and last on the way in, so that no server starts on half of them (the images' entry point makes a new
cluster only where there is no PG_VERSION, and `initdb` only in an empty directory). How far a move got can be seen:

    pgsql_tmp_unpacked_<stamp>          an archive on its way in
    pgsql_tmp_incoming_<stamp>          all of it, and after a swap empty
    pgsql_tmp_outgoing_<stamp>          there: old contents are on their way out (or back), new ones are not in
    pgsql_tmp_before_restore_<stamp>    there: all old contents are out; what lies in the data directory is new, and
                                        whole once PG_VERSION is there
    pgsql_tmp_returning_<stamp>         there: they are to come back, and the new ones to go out
    pgsql_tmp_dropped_<stamp>           old contents that are being removed
    pgsql_tmp_exchange_<stamp>          there: contents may be out of their place (`volume_exchange` sets it)

Names that begin with pgsql_tmp are skipped by base backups and left alone by the server (seen on 15.20).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...errors import HostError, RestoreFailed
from ...hosts import Host, run
from ...postgres.cluster import configuration
from ...postgres.cluster.base_backup import BACKUP_MANIFEST, File
from ...postgres.cluster.configuration import SIGNALS, ConfigurationFinding
from ...progress import Progress
from ..own_names import ASIDE, PREFIX
from .helper_container import output

DROPPED = f"{PREFIX}_dropped_"
MARK = f"{PREFIX}_exchange_"
PG_VERSION = "PG_VERSION"
OF_A_SERVER = ("postmaster.pid", "postmaster.opts", BACKUP_MANIFEST)
"""Files that tell of a running server, which the new one's are not; and the archive's own list of files, which would
pass for that of any later copy."""
LEFT_ALONE = (f"{PREFIX}*", "lost+found")
"""What is in a data directory, or in the root of a file system, without being the cluster's."""
SHOWN = 3
"""Lines of a program's complaint."""
_NAMES = ("-mindepth", "1", "-maxdepth", "1", "-name")


@dataclass(frozen=True)
class VolumeLayout:
    """A data directory in the container of `host`, and the names of one restore's directories in it."""

    host: Host
    directory: str
    stamp: str

    @property
    def unpacked(self) -> str:
        """Where an archive is unpacked."""
        return f"{self.directory}/{PREFIX}_unpacked_{self.stamp}"

    @property
    def incoming(self) -> str:
        """The directory with what is to be put in place."""
        return f"{self.directory}/{PREFIX}_incoming_{self.stamp}"

    @property
    def mark(self) -> str:
        """An empty directory: contents may be out of their place."""
        return f"{self.directory}/{MARK}{self.stamp}"

    @property
    def outgoing(self) -> str:
        """Old contents that are being moved."""
        return f"{self.directory}/{PREFIX}_outgoing_{self.stamp}"

    @property
    def returning(self) -> str:
        """The complete old contents, once it is decided that they come back."""
        return f"{self.directory}/{PREFIX}_returning_{self.stamp}"

    @property
    def aside(self) -> str:
        """The complete old contents."""
        return self.set_aside(self.stamp)

    def set_aside(self, stamp: str) -> str:
        """Return the directory for the old contents of the restore with that stamp."""
        return f"{self.directory}/{ASIDE}{stamp}"

    # -- looks -----------------------------------------------------------------------------------------------------

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file or directory. Raises HostError if that stays unknown."""
        ended = run(self.host, ["test", "-e", path])
        if ended.code not in (0, 1):
            raise HostError(f"{path} could not be looked for in the helper container: {ended.stderr.strip()}")
        return ended.code == 0

    @property
    def is_there(self) -> bool:
        """Whether there are current contents at all."""
        return self.exists(self.directory) and not self.is_empty(self.directory)

    def is_empty(self, directory: str) -> bool:
        """Tell whether a directory has nothing of a cluster's."""
        return not output(self.host, ["find", directory, *_entries(), "-print"])

    def undo_stamps(self) -> list[str]:
        """List the stamps of old contents that are there and complete, newest first."""
        if not self.exists(self.directory):
            return []
        names = output(self.host, ["find", self.directory, *_NAMES, f"{ASIDE}*"])
        found = [line.rpartition("/")[2].removeprefix(ASIDE) for line in names.splitlines()]
        return sorted((stamp for stamp in found if re.fullmatch(r"\d{8}_\d{6}", stamp)), reverse=True)

    # -- changes ---------------------------------------------------------------------------------------------------

    def make_ready(self, owner: str) -> None:
        """Create the data directory, if it is not there, and give it to `owner` ("uid:gid"), whom alone it serves. For
        when there are no contents yet."""
        self._do(["mkdir", "-p", self.directory])
        self._do(["chown", owner, self.directory])
        self._do(["chmod", "700", self.directory])

    def unpack(self, tar: Iterable[bytes], root: str, owner: str, progress: Progress) -> None:
        """Unpack a tar archive: its directory `root` becomes `incoming`, its files `owner`'s. Raises what `tar` raises,
        and RestoreFailed."""
        self._do(["mkdir", "-m", "700", self.unpacked])
        argv = ["tar", "-x", "-p", "-f", "-", "-C", self.unpacked]
        ended = run(self.host, argv, env={"LC_ALL": "C"}, source=tar, progress=progress)
        if ended.code != 0:
            raise RestoreFailed(f"The archive could not be unpacked: {_in_short(ended.stderr) or ended.code}.")
        found = f"{self.unpacked}/{root}" if root else self.unpacked
        for name in OF_A_SERVER:
            self._do(["rm", "-f", "--", f"{found}/{name}"])
        self._do(["find", found, *_NAMES, f"{PREFIX}*", "-exec", "rm", "-rf", "{}", ";"])
        self._do(["chown", "-R", owner, found])
        self._do(["mv", "--", found, self.incoming])
        self._do(["rm", "-rf", "--", self.unpacked])
        self._do(["sync"])

    def write(self, name: str, content: bytes, progress: Progress) -> None:
        """Give a file in `incoming` another content; whose it is, and who may read it, stays."""
        argv = ["sh", "-c", 'cat > "$1"', "sh", f"{self.incoming}/{name}"]
        ended = run(self.host, argv, env={"LC_ALL": "C"}, source=iter([content]), progress=progress)
        if ended.code != 0:
            raise RestoreFailed(f"{name} could not be written: {_in_short(ended.stderr) or ended.code}.")

    def differing(self, files: Mapping[str, File], progress: Progress) -> list[str]:
        """List which `files` of `incoming` (see `put_in_of`) are missing or have other content, and what else is there.
        Reads them all."""
        script = 'cd "$1" && find . -type f -exec sha256sum {} +'
        said = output(self.host, ["sh", "-c", script, "sh", self.incoming], progress)
        found = {
            name.removeprefix("./"): digest for digest, _, name in (line.partition("  ") for line in said.splitlines())
        }
        expected = {name: file.sha256 for name, file in files.items()}
        return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))

    def take_out(self, require_stopped: Callable[[], object]) -> None:
        """Move the current contents to `aside`. `require_stopped` raises if a server runs there after all; it is called
        when none can start any more."""
        self._make(self.outgoing)
        self._move_out(self.outgoing, require_stopped)
        self._do(["mv", "--", self.outgoing, self.aside])
        self._do(["sync"])

    def disarm(
        self, kept: Mapping[str, bytes], found: Sequence[ConfigurationFinding], progress: Progress
    ) -> dict[str, File]:
        """Comment out in `incoming` what was `found` of its configuration, whose files `kept` has. Gives those that
        changed, as they are then. Raises HostError."""
        for name in SIGNALS:
            self.remove(f"{self.incoming}/{name}")
        files = configuration.disarmed(kept, found)
        for name, text in files.items():
            self.write(name, text, progress)
        return {name: File(len(text), hashlib.sha256(text).hexdigest()) for name, text in files.items()}

    def put_in(self, incoming: str) -> None:
        """Move what is in that directory into place, as the contents."""
        self._move_rest(incoming, self.directory)
        self._move_version(incoming, self.directory)

    @property
    def is_exchanged(self) -> bool:
        """Whether all new contents are in place, and it is not decided that the old ones come back."""
        return self.exists(self.aside) and self.exists(f"{self.directory}/{PG_VERSION}")

    def turn_back(self) -> bool:
        """Decide that the old contents come back: `put_back` has to follow. False if none are out of their place."""
        if self.exists(self.aside):
            self._do(["mv", "--", self.aside, self.returning])
            self._do(["sync"])
        return self.exists(self.returning) or self.exists(self.outgoing)

    def put_back(self, incoming: str, require_stopped: Callable[[], object]) -> None:
        """Undo, after `turn_back`, all since `take_out`, however far it had got; what came from `incoming` is there
        again. No server may run there: see `take_out`."""
        if self.exists(self.returning):
            self._make(incoming)
            self._move_out(incoming, require_stopped)
            self._do(["mv", "--", self.returning, self.outgoing])
        self._move_rest(self.outgoing, self.directory)
        self._move_version(self.outgoing, self.directory)
        self._do(["rmdir", "--", self.outgoing])

    def remove(self, *directories: str) -> None:
        """Remove directories of ours with all that is in them."""
        for directory in directories:
            self._do(["rm", "-rf", "--", directory])

    def drop(self) -> None:
        """Remove `aside`, first of all from its name: what is gone in part must not pass for an undo point."""
        self._do(["mv", "--", self.aside, f"{self.directory}/{DROPPED}{self.stamp}"])
        self._do(["sync"])
        self.remove_dropped()

    def remove_dropped(self) -> None:
        """Do the rest of what `drop` has begun, here or in a call that was killed."""
        self._do(["find", self.directory, *_NAMES, f"{DROPPED}*", "-exec", "rm", "-rf", "--", "{}", ";"])

    def set_mark(self) -> None:
        """Set the mark, before the first move."""
        self._do(["mkdir", "-p", "--", self.mark])
        self._do(["sync"])

    def remove_marks(self) -> None:
        """Remove the marks, also those of calls that were killed before they did."""
        self._do(["find", self.directory, *_NAMES, f"{MARK}*", "-exec", "rmdir", "--", "{}", ";"])

    def _make(self, directory: str) -> None:
        """Create a directory that belongs to the owner of the data directory."""
        self._do(["mkdir", "-p", "-m", "700", directory])
        self._do(["sh", "-c", 'chown "$(stat -c %u:%g "$1")" "$2"', "sh", self.directory, directory])

    def _move_out(self, to: str, require_stopped: Callable[[], object]) -> None:
        self._move_version(self.directory, to)
        require_stopped()
        self._move_rest(self.directory, to)

    def _move_version(self, source: str, to: str) -> None:
        script = 'test ! -e "$1" || mv -- "$1" "$2"'
        self._do(["sh", "-c", script, "sh", f"{source}/{PG_VERSION}", f"{to}/{PG_VERSION}"])
        self._do(["sync"])

    def _move_rest(self, source: str, to: str) -> None:
        """Move every entry except PG_VERSION. Raises HostError if one was not moved."""
        rest = [source, *_entries(), "!", "-name", PG_VERSION]
        self._do(["find", *rest, "-exec", "mv", "--", "{}", f"{to}/", ";"])
        if left := output(self.host, ["find", *rest, "-print"]).splitlines():
            raise HostError(f"Not everything in {source} could be moved: {left[0]} is there still.")
        self._do(["sync"])

    def _do(self, argv: list[str]) -> None:
        ended = run(self.host, argv, env={"LC_ALL": "C"})
        if ended.code != 0 or ended.stderr.strip():  # find's exit code does not tell of a command that failed
            raise HostError(f"`{' '.join(argv)}` failed in the helper container: {ended.stderr.strip() or ended.code}")


def put_in_of(files: Mapping[str, File]) -> dict[str, File]:
    """Return those of an archive's files that are put in place: what `unpack` leaves of them."""
    return {name: file for name, file in files.items() if name not in OF_A_SERVER and not name.startswith(PREFIX)}


def _entries() -> list[str]:
    """Return the arguments with which `find` sees only the entries of a cluster's directory."""
    excluded = [word for name in LEFT_ALONE for word in ("!", "-name", name)]
    return ["-mindepth", "1", "-maxdepth", "1", *excluded]


def _in_short(said: str) -> str:
    """Return the first lines, how many there are after those, and the last one. If `said` is only a program's last
    64 KiB, there were more."""
    lines = said.strip().splitlines()
    if (between := len(lines) - SHOWN - 1) > 0:
        lines[SHOWN:-1] = [f"at least {between:,} lines more"]
    return "; ".join(lines).removesuffix(".")
