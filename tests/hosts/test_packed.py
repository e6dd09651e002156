"""Output that crosses the engine compressed: the same bytes, codes and ends as without."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Iterator
from contextlib import closing

import pytest
import zstandard

from scarlet_backup_mcp.errors import Cancelled
from scarlet_backup_mcp.hosts import Exit, Host, run
from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.progress import Progress

from ..helpers.containers import run_docker
from ..helpers.hosts import MEGABYTE, eventually, output_of, running

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def host(container: str) -> Iterator[DockerHost]:
    made = DockerHost(container, "postgres", "none")
    yield made
    made.close()


def path_with(host: Host, marker: str, zstd: str) -> dict[str, str]:
    """A PATH on which `zstd` is that script, or nothing."""
    directory = f"/tmp/{marker}"
    links = "for name in sh seq head cat sleep; do ln -s $(command -v $name) $0/$name; done"
    script = 'if [ "$1" ]; then echo "$1" > $0/zstd; chmod +x $0/zstd; fi'
    output_of(host, "sh", "-c", f"mkdir $0 && {links}; {script}", directory, zstd)
    return {"PATH": directory}


@pytest.mark.parametrize("program", [("seq", "1", "3000000"), ("head", "-c", "300000000", "/dev/zero"), ("true",)])
def test_the_same_bytes_in_flat_memory(host: Host, program: tuple[str, ...]) -> None:
    plain, packed = hashlib.sha256(), hashlib.sha256()
    assert run(host, program, sink=plain.update).code == 0
    tracemalloc.start()
    try:
        assert run(host, program, sink=packed.update, packed=True) == Exit(0, "")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert packed.digest() == plain.digest()
    assert peak < 30 * MEGABYTE


@pytest.mark.parametrize(
    ("script", "ended"),
    [
        ("echo out; echo 'è andata' >&2; exit 3", Exit(3, "è andata\n")),
        ("echo out; printf '7: 0' >&2; exit 1", Exit(1, "7: 0")),
        ("echo out", Exit(0, "")),
    ],
)
def test_how_it_ends(host: Host, script: str, ended: Exit) -> None:
    output = bytearray()
    assert run(host, ["sh", "-c", script], sink=output.extend, packed=True) == ended
    assert output == b"out\n"


def test_a_signal_is_an_exit_code_over_128(host: Host) -> None:
    assert run(host, ["sh", "-c", "kill -KILL $$"], packed=True).code == 137


def test_a_program_that_is_not_there(host: Host) -> None:
    assert run(host, ["no-such-program"], packed=True).code == 127


@pytest.mark.parametrize("zstd", ["", "#!/bin/sh\nexit 1"])
def test_without_zstd_it_comes_as_it_is(host: Host, marker: str, zstd: str) -> None:
    output = bytearray()
    environment = path_with(host, marker, zstd)
    assert run(host, ["seq", "1", "3"], env=environment, sink=output.extend, packed=True) == Exit(0, "")
    assert output == b"1\n2\n3\n"


@pytest.mark.parametrize(
    ("fails", "code"),
    [
        ("head -c 9 >/dev/null; kill -KILL $$", 137),  # no memory left for it
        ("head -c 9 >/dev/null; echo 'zstd: no' >&2; exit 1", 1),
        ("cat", None),  # what comes is no zstd
    ],
)
def test_a_zstd_that_fails_is_no_good_end(host: Host, marker: str, fails: str, code: int | None) -> None:
    looked_at = 'read -r line || exec /usr/bin/zstd "$@"'  # /dev/null has no line
    environment = path_with(host, marker, f"#!/bin/sh\n{looked_at}\n{fails}")
    ended = run(host, ["seq", "1", "3000000"], env=environment, packed=True)
    assert ended.code == code


def test_cancelling_ends_the_program_and_zstd(host: Host, marker: str) -> None:
    progress, seen = Progress(), 0

    def sink(chunk: bytes) -> None:
        nonlocal seen
        seen += len(chunk)
        if seen > 10 * MEGABYTE:
            progress.cancel()

    endless = f"while :; do seq 1 100000; done; : {marker}"
    with pytest.raises(Cancelled):
        run(host, ["sh", "-c", endless], sink=sink, progress=progress, packed=True)
    assert eventually(lambda: not running(host, marker))
    assert eventually(lambda: not running(host, "single-thread"))


def test_container_with_few_processes_sends_it_as_it_is(container: str) -> None:
    """A program that runs in the script's place has its parent outside the container."""

    def parent() -> bytes:
        output = bytearray()
        with closing(DockerHost(container, "postgres", "none")) as host:
            assert run(host, ("sh", "-c", "echo $PPID"), sink=output.extend, packed=True).code == 0
        return bytes(output)

    assert parent() != b"0\n"
    run_docker("update", "--pids-limit", "40", container)
    try:
        assert parent() == b"0\n"
    finally:
        run_docker("update", "--pids-limit", "-1", container)


def test_kept_as_the_stream_that_came(host: Host) -> None:
    packed = bytearray()
    assert run(host, ["seq", "1", "300000"], sink=packed.extend, packed="kept") == Exit(0, "")
    plain = b"".join(b"%d\n" % number for number in range(1, 300_001))
    assert zstandard.ZstdDecompressor().decompressobj().decompress(bytes(packed)) == plain
    assert zstandard.get_frame_parameters(bytes(packed)).has_checksum
    assert len(packed) * 2 < len(plain)


def test_kept_stream_has_the_programs_exit_code(host: Host) -> None:
    ended = run(host, ["sh", "-c", "echo out; echo 'è andata' >&2; exit 3"], packed="kept")
    assert ended == Exit(3, "è andata\n")


def test_kept_is_plain_where_there_is_no_zstd(host: Host) -> None:
    output, environment = bytearray(), path_with(host, "kept", "")
    assert run(host, ["seq", "1", "3"], env=environment, sink=output.extend, packed="kept") == Exit(0, "")
    assert output == b"1\n2\n3\n"
