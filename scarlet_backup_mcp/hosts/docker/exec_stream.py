"""One program in a container: the byte stream of a `docker exec`, its exit code, and a way to kill it.

The Engine API has no call that ends an exec. Closing its stream does not end the program either: to a program that
reads stdin, that looks like the regular end of its input. On frames and streams see
https://docs.docker.com/reference/api/engine/ (ContainerAttach, "Stream format").
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import EngineUnreachable, HostError
from .. import CHUNK, POLL, Exit, Packed
from ..output import TAIL_BYTES, OutputQueue, Tail
from .engine import SILENCE_SECONDS, Engine
from .packed import PackedOutput, exit_code, packing


def wrapped(argv: Sequence[str], without: Sequence[str], *, packed: bool = False) -> list[str]:
    """Wrap a program in a shell that prints its pid (in the container) as the first line of stderr, then becomes it, or
    leads its group while its output is `packed`. `without` names variables of the container's environment that the
    program must not see."""
    unset = f"unset {' '.join(without)}; " if without else ""
    plainly = 'echo "$$" >&2; exec "$@"'
    return ["sh", "-c", unset + (packing(plainly) if packed else plainly), "sh", *argv]


END_GROUP = r"""
group=$1 tenths=$2 n=0 signalled=
while [ "$n" -le $((tenths + 50)) ]; do
  living= parents=
  for file in /proc/[0-9]*/stat; do
    { read -r line < "$file"; } 2>/dev/null || continue
    pid=${line%% *}
    set -- ${line##*) }
    [ "$3" = "$group" ] || [ "$pid" = "$group" ] || continue
    parents="$parents $2 "
    [ "$1" = Z ] || living="$living $pid"
  done
  [ -n "$living" ] || exit 0
  leaves=
  for pid in $living; do
    case $parents in *" $pid "*) ;; *) leaves="$leaves $pid" ;; esac
  done
  if [ "$n" -gt $((tenths + 20)) ]; then
    kill -s KILL $living 2>/dev/null
  elif [ "$n" -gt "$tenths" ]; then
    for signal in STOP KILL; do kill -s $signal $leaves; done 2>/dev/null
  elif [ "$leaves" != "$signalled" ]; then
    for signal in STOP TERM CONT; do kill -s $signal $leaves; done 2>/dev/null
    signalled=$leaves
  fi
  sleep 0.1
  n=$((n + 1))
done
exit 1
"""
"""Ends a process group (an exec leads its own): TERM, then KILL after the given tenths of a second.

Processes of a pipeline are stopped before they are signalled: none may take the death of another for the end of its
input, and its partial input for all of it. A shell, however, goes on with its next command: chain commands with `&&`.

Children come first, a parent only once it has reaped them. In PostgreSQL's images the postmaster is process 1 and
inherits orphans; it takes one that died of a signal for a crashed backend, disconnects everybody and goes through
crash recovery (seen with PostgreSQL 15). Only a parent that ignores TERM and keeps starting children is killed with
them, 2 s later.
"""

GRACE_SECONDS = 5.0
"""Between TERM and KILL."""
KILL_PATIENCE_SECONDS = 10.0
"""After this, `kill` continues in the background: the container is paused, or the engine does not answer."""
EXIT_CODE_SECONDS = 5.0
"""The stream may end this long before the exit code is known."""


class Connection:
    """The two-way byte stream of an exec: a socket, a Windows pipe, or the pipes of an ssh client. docker-py returns
    only the socket. But it read the HTTP answer through a BufferedReader that may already hold the first bytes of the
    stream (https://github.com/docker/docker-py/issues/3332), so reading continues through that."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._response: Any = sock._response
        self._reader: Any = self._response.raw._fp.fp
        self._raw: Any = getattr(sock, "_sock", sock)
        self._ssh: Any = getattr(sock, "proc", None)
        self._sending = threading.Lock()
        self._closed = False
        self._raw.settimeout(None)  # the client's own time-out would end any longer silence

    def receive(self, buffer: memoryview) -> int:
        """Read into `buffer`; 0 at the end."""
        try:
            return self._reader.readinto1(buffer)
        except Exception as error:
            if error.args[:1] == (109,):  # ERROR_BROKEN_PIPE: how a Windows pipe says that it has ended
                return 0
            raise

    def send(self, data: bytes) -> None:
        """Write all of `data`. Raises OSError when the other side takes no more."""
        with self._sending:
            if self._closed:
                raise BrokenPipeError("The program has ended.")
            try:
                if self._ssh is not None:
                    self._ssh.stdin.write(data)
                    self._ssh.stdin.flush()
                else:
                    self._raw.sendall(data)
            except OSError:
                raise
            except Exception as error:  # a broken Windows pipe or a closed ssh client raises no OSError
                raise OSError(str(error)) from error

    def end(self) -> None:
        """Close the sending side; reading goes on."""
        with contextlib.suppress(Exception):  # it is gone already
            if self._ssh is not None:
                self._ssh.stdin.close()
            elif isinstance(self._raw, socket.socket):
                socket.socket.shutdown(self._raw, socket.SHUT_WR)  # SSLSocket's own would end reading too
            else:
                _end_windows_pipe(self._raw)

    def hang_up(self) -> None:
        """Make pending reads and writes return."""
        with contextlib.suppress(Exception):
            if self._ssh is not None:
                self._ssh.terminate()
            elif isinstance(self._raw, socket.socket):
                socket.socket.shutdown(self._raw, socket.SHUT_RDWR)
            else:
                self._raw.close()

    def close(self) -> None:
        """Release everything, once a pending write has failed."""
        self.hang_up()
        with self._sending:
            self._closed = True
        for release in (self._response.close, self._sock.close):  # in this order: the first flushes the socket's file
            with contextlib.suppress(Exception):
                release()
        if self._ssh is not None:
            self._ssh.wait()


def _end_windows_pipe(pipe: Any) -> None:
    """Send an empty message, the end of input; NpipeSocket.shutdown would close both ways."""
    import win32file  # pyright: ignore

    win32file.FlushFileBuffers(pipe._handle)  # pyright: ignore  # else it may be merged with the message before
    pipe.send(b"")


class ExecProcess:
    """A `Process` in a container. Raises on construction what `Engine` raises."""

    def __init__(
        self,
        engine: Engine,
        container: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None,
        stdin: bool,
        without: Sequence[str] = (),
        packed: Packed = False,
    ) -> None:
        self._engine, self._container = engine, container
        self._output = PackedOutput(kept=packed == "kept") if packed else OutputQueue()
        self._errors = Tail()
        self._early = bytearray()
        self._first_line = bytearray()
        self._pid: int | None = None
        self._pid_known = threading.Event()
        self._ended = threading.Event()
        self._broken = False
        self._abandoned = threading.Event()
        self._stalled = threading.Event()
        self._moved = time.monotonic()
        self._killer: threading.Thread | None = None
        self._lock = threading.Lock()
        self._exit: Exit | None = None
        self._exec_id = engine.exec_create(container, wrapped(argv, without, packed=bool(packed)), env=env, stdin=stdin)
        self._connection = Connection(engine.exec_open(self._exec_id))
        threading.Thread(target=self._read_stream, name=f"exec {argv[0]}", daemon=True).start()
        threading.Thread(target=self._watch, name=f"watch {argv[0]}", daemon=True).start()

    def read(self, timeout: float | None = None) -> bytes | None:
        """Return the next chunk of stdout. Raises EngineUnreachable once the stream has stalled: no byte came or went
        for 20 s, and the engine did not answer on another connection."""
        chunk = self._output.get(timeout)
        if chunk is None and self._stalled.is_set():
            raise EngineUnreachable(
                f"The Docker engine at {self._engine.endpoint.address} has said nothing for {SILENCE_SECONDS:g} s, and "
                "does not answer on another connection. As soon as it does, the program in the container is ended."
            )
        return chunk

    def write(self, data: bytes) -> None:
        """Feed stdin. Raises OSError when the program takes no more."""
        if data:  # an empty message would be the end of input on a Windows pipe
            self._connection.send(data)
            self._moved = time.monotonic()

    def end_input(self) -> None:
        """Close stdin: the program sees the end of its input."""
        self._connection.end()

    def kill(self) -> None:
        """End the program, in a thread, so that interrupting the caller does not leave it half done."""
        with self._lock:
            if self._ended.is_set():
                return
            self._output.discard()
            if self._killer is None:
                self._killer = threading.Thread(target=self._end_program, name="kill", daemon=True)
                self._killer.start()
        self._killer.join(0 if self._stalled.is_set() or self._engine.silent else KILL_PATIENCE_SECONDS)
        if not self._ended.is_set():
            self._abandoned.set()

    def wait(self) -> Exit:
        """Wait for the end. A program that could not be killed keeps its stream, and `code` is None: hanging up would
        end its input, and it would take partial input for all of it."""
        self._output.discard()
        while not self._ended.wait(POLL) and not self._abandoned.is_set():
            pass
        with self._lock:
            if self._exit is None:
                self._exit = self._how_it_ended()
            return self._exit

    # The stream

    def _read_stream(self) -> None:
        try:
            self._broken = not self._read_frames()
        except Exception:
            self._broken = True
        finally:
            self._errors.add(bytes(self._early))  # no pid line: the runtime's own message why nothing was started
            self._connection.close()
            self._ended.set()
            self._pid_known.set()
            self._output.end()

    def _read_frames(self) -> bool:
        """Read to the end. A frame is a stream's number, three zero bytes, the payload's length in four, the payload.

        Returns False if the stream ends inside a frame or does not consist of frames.
        """
        buffer = bytearray(CHUNK)
        view = memoryview(buffer)
        have = left = stream = 0
        while got := self._connection.receive(view[have:]):
            self._moved = time.monotonic()
            have += got
            at = 0
            output: list[memoryview] = []
            while at < have:
                if left:
                    payload = view[at : min(at + left, have)]
                    at += len(payload)
                    left -= len(payload)
                    if stream == 2:
                        self._take_errors(bytes(payload))
                    else:
                        output.append(payload)
                elif have - at < 8:
                    break
                elif buffer[at] > 2 or any(buffer[at + 1 : at + 4]):
                    self._errors.add(bytes(view[at:have]))
                    return False
                else:
                    stream, left = struct.unpack_from(">BxxxL", buffer, at)
                    at += 8
            self._take_output(b"".join(output))
            view[: have - at] = bytes(view[at:have])
            have -= at
        return not left and not have

    def _take_output(self, data: bytes) -> None:
        """Pass stdout on; hold back what comes before the pid line, which may be an error message of the runtime's."""
        if not self._pid_known.is_set():
            self._early += data
            if len(self._early) <= TAIL_BYTES:
                return
            data = b""
        if self._early:
            self._output.put(bytes(self._early))
            self._early.clear()
        self._output.put(data)

    def _take_errors(self, data: bytes) -> None:
        if not self._pid_known.is_set():
            self._first_line += data
            line, newline, data = bytes(self._first_line).partition(b"\n")
            if not newline:
                return
            pid, _, packer = line.partition(b" ")
            if pid.isdigit() and packer in (b"", b"zstd"):
                self._pid = int(pid)
                if packer and isinstance(self._output, PackedOutput):
                    self._output.begin()
            else:
                data = line + newline + data
            self._pid_known.set()
        self._errors.add(data)

    def _watch(self) -> None:
        while not self._ended.wait(SILENCE_SECONDS / 4):
            if time.monotonic() - self._moved < SILENCE_SECONDS:
                continue
            if not self._engine.answers():
                self._stalled.set()
                self.kill()
                return
            self._moved = time.monotonic()

    # The end

    def _end_program(self) -> None:
        pause = POLL
        while not self._ended.is_set():
            self._pid_known.wait(pause)
            if self._pid is not None and self._signal_group():
                if not self._ended.wait(GRACE_SECONDS):
                    self._connection.hang_up()  # a stranger to its group holds its stdout
                    self._ended.wait()
                return
            self._ended.wait(pause)
            pause = min(2 * pause, 2.0)

    def _signal_group(self) -> bool:
        """End the program and its children; tell whether they are known to be gone."""
        argv = ["sh", "-c", END_GROUP, "sh", str(self._pid), str(int(GRACE_SECONDS * 10))]
        until = time.monotonic() + GRACE_SECONDS + 10
        with contextlib.suppress(HostError):
            exec_id = self._engine.exec_create(self._container, argv)
            self._engine.exec_detached(exec_id)
            while time.monotonic() < until:
                if (code := self._engine.exec_code(exec_id)) is not None:
                    return code == 0
                time.sleep(0.05)
        return False

    def _how_it_ended(self) -> Exit:
        code, stderr = self._exit_code(), self._errors.text()
        if isinstance(self._output, PackedOutput) and self._output.packed:
            code, stderr = exit_code(stderr, self._pid, code)
            code = None if self._output.damaged else code
        return Exit(code, stderr)

    def _exit_code(self) -> int | None:
        if not self._ended.is_set():
            return None
        until = time.monotonic() + EXIT_CODE_SECONDS
        with contextlib.suppress(HostError):
            while (not self._broken or self._pid is None) and time.monotonic() < until:
                if (code := self._engine.exec_code(self._exec_id)) is not None:
                    return code
                time.sleep(0.02)
        if self._killer is None and self._pid is not None:
            self._signal_group()  # only the stream has ended, and without it the program is useless
        return None
