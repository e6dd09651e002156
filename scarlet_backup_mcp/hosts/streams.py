"""A connection to a socket that is made where a host's programs run."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Protocol

from ..errors import HostError, ProgramMissing
from . import POLL, Host, Process
from .endings import lost

SECONDS = 10.0
"""How long the other side may take to answer."""
CLOSING_SECONDS = 2.0
"""After this, a relay that does not see the end of its input is killed."""
_RELAY = r"""use strict; use Socket; use IO::Socket::IP;
my ($address, $port) = @ARGV;
my $other;
if ($port) { $other = IO::Socket::IP->new(PeerHost => $address, PeerPort => $port, Timeout => 10) or die "$@\n" }
else {
    socket($other, AF_UNIX, SOCK_STREAM, 0) or die "$!\n";
    connect($other, pack_sockaddr_un($address)) or die "$!\n";
}
while (1) {
    my $ready = '';
    vec($ready, fileno($_), 1) = 1 for \*STDIN, $other;
    select($ready, undef, undef, undef);
    for ([\*STDIN, $other], [$other, \*STDOUT]) {
        next unless vec($ready, fileno($$_[0]), 1);
        sysread($$_[0], my $bytes, 65536) or exit 0;
        syswrite($$_[1], $bytes);
    }
}
"""
"""In Perl, which is in every image that is based on Debian, like PostgreSQL's own (`perl-base` has both modules)."""


class Stream(Protocol):
    """A two-way stream of bytes."""

    def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError."""
        ...

    def receive(self) -> bytes:
        """Return the next bytes; b"" at the end. Raises OSError; TimeoutError if none come within 10 s."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


def connect(host: Host, address: str, port: int) -> Stream:
    """Connect to a TCP port, or to the socket with the path `address` if `port` is 0. Raises OSError if nobody answers
    there, ProgramMissing if the container has no Perl, or another HostError."""
    return _SocketStream(address, port) if host.kind == "local" else _RelayedStream(host, address, port)


class _SocketStream:
    def __init__(self, address: str, port: int) -> None:
        if port:
            self._socket = socket.create_connection((address, port), SECONDS)
        else:
            family: int | None = getattr(socket, "AF_UNIX", None)
            if family is None:
                raise OSError("Python has no such sockets on this system.")
            self._socket = socket.socket(family)
            self._socket.settimeout(SECONDS)
            self._socket.connect(f"\0{address[1:]}" if address.startswith("@") else address)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> bytes:
        return self._socket.recv(1 << 16)

    def close(self) -> None:
        self._socket.close()


class _RelayedStream:
    def __init__(self, host: Host, address: str, port: int) -> None:
        self._host = host
        self._process: Process = host.start(["perl", "-e", _RELAY, address, str(port)], stdin=True)

    def send(self, data: bytes) -> None:
        self._process.write(data)

    def receive(self) -> bytes:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            chunk = self._process.read(POLL)
            if chunk == b"":
                self._require_relay()
            if chunk is not None:
                return chunk
        raise TimeoutError(f"no answer within {SECONDS:g} s")

    def close(self) -> None:
        with suppress(OSError):
            self._process.end_input()
        until = time.monotonic() + CLOSING_SECONDS
        with suppress(HostError):
            while time.monotonic() < until:
                if self._process.read(POLL) == b"":
                    break
            else:
                self._process.kill()
        self._process.wait()

    def _require_relay(self) -> None:
        """Raise if it was not the other side that ended the connection."""
        ended = self._process.wait()
        if ended.code in (126, 127):
            raise ProgramMissing(f"perl could not be started: {ended.stderr.strip()}")
        if ended.code != 0:
            raise lost(self._host, ended, "a look at its server") or OSError(ended.stderr.strip())
