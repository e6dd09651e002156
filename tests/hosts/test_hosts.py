"""Programs where they run: in a real container, and on this machine."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scarlet_backup_mcp.errors import (
    Cancelled,
    ContainerLost,
    HostError,
    ProgramMissing,
)
from scarlet_backup_mcp.hosts import Exit, Host, missing_program, run
from scarlet_backup_mcp.hosts.docker.container import DockerHost
from scarlet_backup_mcp.hosts.endings import lost
from scarlet_backup_mcp.hosts.local import LocalHost
from scarlet_backup_mcp.progress import Progress

from ..helpers.hosts import MEGABYTE, eventually, exists, output_of, running

STARTS_UNDER_CTRL_C = """
import os, signal, threading
from scarlet_backup_mcp.hosts.local import LocalHost

signal.signal(signal.SIGINT, lambda number, frame: None)
host = LocalHost(None, {})
codes = []
starts = threading.Thread(target=lambda: codes.extend(host.start(["true"]).wait().code for _ in range(400)))
starts.start()
while starts.is_alive():
    os.killpg(0, signal.SIGINT)
    starts.join(0.0005)
print(*codes)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses sh and /proc as programs to run")


class TestRun:
    @pytest.mark.parametrize("code", [0, 1, 3, 255])
    def test_exit_code(self, host: Host, code: int) -> None:
        assert run(host, ["sh", "-c", f"exit {code}"]) == Exit(code, "")

    def test_a_signal_is_an_exit_code_over_128(self, host: Host) -> None:
        assert run(host, ["sh", "-c", "kill -KILL $$"]).code == 137

    def test_a_program_that_was_killed_is_told_as_that_where_its_place_is_still_there(self, host: Host) -> None:
        gone = lost(host, run(host, ["sh", "-c", "echo 'no memory' >&2; kill -KILL $$"]), "the load")
        assert gone is not None
        assert gone.message == "The program was killed during the load. no memory"
        assert (isinstance(gone, ContainerLost), "docker" in gone.remedy) == (host.kind == "docker", False)
        assert lost(host, run(host, ["sh", "-c", "exit 3"]), "the load") is None

    def test_output_and_errors_are_kept_apart(self, host: Host) -> None:
        output = bytearray()
        ended = run(host, ["sh", "-c", "echo out; echo 'è andata' >&2; echo more"], sink=output.extend)
        assert (bytes(output), ended) == (b"out\nmore\n", Exit(0, "è andata\n"))

    def test_stderr_is_its_last_64_kib(self, host: Host) -> None:
        ended = run(host, ["sh", "-c", r"seq 1 100000 >&2; printf '\377 the end' >&2"])
        assert ended.stderr.endswith("99999\n100000\n� the end")
        assert len(ended.stderr) == 64 << 10

    def test_200_mb_arrive_whole_and_in_flat_memory(self, host: Host) -> None:
        oracle = output_of(host, "sh", "-c", "seq 1 24000000 | sha256sum").split()[0]
        digest, size = hashlib.sha256(), 0

        def sink(chunk: bytes) -> None:
            nonlocal size
            digest.update(chunk)
            size += len(chunk)
            if size < 20 * MEGABYTE:
                time.sleep(0.01)  # slower than the program, so that whatever can pile up does

        tracemalloc.start()
        try:
            ended = run(host, ["seq", "1", "24000000"], sink=sink)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert ended.code == 0
        assert size > 200_000_000
        assert digest.hexdigest() == oracle
        assert peak < 20 * MEGABYTE

    def test_200_mb_in_and_out_at_once(self, host: Host) -> None:
        block = secrets.token_bytes(MEGABYTE - 8)
        sent, received = hashlib.sha256(), hashlib.sha256()

        def source() -> Iterator[bytes]:
            for number in range(200):
                chunk = number.to_bytes(8, "big") + block
                sent.update(chunk)
                yield chunk
                yield b""

        assert run(host, ["cat"], source=source(), sink=received.update).code == 0
        assert received.digest() == sent.digest()

    def test_a_program_may_end_before_it_has_read_its_input(self, host: Host) -> None:
        def endless() -> Iterator[bytes]:
            while True:
                yield bytes(MEGABYTE)

        assert run(host, ["sh", "-c", "head -c 10 >/dev/null; exit 4"], source=endless()).code == 4

    def test_a_program_may_close_its_output_before_it_has_read_its_input(self, host: Host, marker: str) -> None:
        def slow() -> Iterator[bytes]:
            for _ in range(5):
                time.sleep(0.2)
                yield b"x" * 1000

        ended = run(host, ["sh", "-c", f"exec >&- 2>&-; cat > /tmp/{marker}"], source=slow())
        assert ended.code == 0
        assert output_of(host, "wc", "-c", f"/tmp/{marker}").split()[0] == "5000"
        run(host, ["rm", f"/tmp/{marker}"])

    def test_environment_reaches_the_program_but_not_its_arguments(self, host: Host, marker: str) -> None:
        started = host.start(["sh", "-c", "echo $TOKEN; sleep 60"], env={"TOKEN": marker})
        assert started.read(10) == marker.encode() + b"\n"
        assert running(host, marker) == []
        started.kill()
        started.wait()

    def test_a_silent_program_makes_read_time_out(self, host: Host) -> None:
        started = host.start(["sh", "-c", "read line; echo got $line"], stdin=True)
        assert started.read(0.3) is None
        started.write(b"it\n")
        assert started.read(10) == b"got it\n"
        assert [started.read(10), started.read(10)] == [b"", b""]
        assert started.wait() == started.wait() == Exit(0, "")
        with pytest.raises(BrokenPipeError):
            started.write(bytes(MEGABYTE))
        started.kill()

    def test_nothing_is_started_after_cancellation(self, host: Host, marker: str) -> None:
        progress = Progress()
        progress.cancel()
        with pytest.raises(Cancelled):
            run(host, ["touch", f"/tmp/{marker}"], progress=progress)
        assert not exists(host, f"/tmp/{marker}")


class TestKill:
    def test_a_failing_sink_ends_the_program(self, host: Host, marker: str) -> None:
        def full(chunk: bytes) -> None:
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space left"):
            run(host, ["sh", "-c", "while :; do echo data; done", marker], sink=full)
        assert running(host, marker) == []

    def test_a_failing_source_is_no_end_of_input(self, host: Host, marker: str) -> None:
        """The program acts on the end of its input, as `psql --single-transaction` commits."""
        argv = ["sh", "-c", f"cat >/dev/null && touch /tmp/{marker}", marker]

        def broken() -> Iterator[bytes]:
            yield b"one"
            raise ValueError("the file is damaged")

        with pytest.raises(ValueError, match="damaged"):
            run(host, argv, source=broken())
        assert eventually(lambda: running(host, marker) == [])
        assert not exists(host, f"/tmp/{marker}")
        assert run(host, argv, source=[b"one"]).code == 0
        assert exists(host, f"/tmp/{marker}")
        run(host, ["rm", f"/tmp/{marker}"])

    def test_a_sink_that_fails_while_input_flows_is_no_end_of_input(self, host: Host, marker: str) -> None:
        def source() -> Iterator[bytes]:
            for _ in range(20):
                time.sleep(0.1)
                yield b"x" * 1000

        def interrupted(chunk: bytes) -> None:
            raise KeyboardInterrupt

        program = f"trap '' TERM; cat && touch /tmp/{marker}"  # takes TERM for nothing: its input goes on to its KILL
        with pytest.raises(KeyboardInterrupt):
            run(host, ["sh", "-c", program, marker], source=source(), sink=interrupted)
        assert eventually(lambda: running(host, marker) == [])
        assert not exists(host, f"/tmp/{marker}")

    def test_cancellation_while_the_program_is_silent(self, host: Host, marker: str) -> None:
        progress = Progress()
        moments: list[float] = []

        def cancel(chunk: bytes) -> None:
            moments.append(time.monotonic())
            threading.Timer(0.7, progress.cancel).start()

        with pytest.raises(Cancelled):
            run(host, ["sh", "-c", "echo begun; sleep 600; :", marker], sink=cancel, progress=progress)
        assert time.monotonic() - moments[0] < 10
        assert running(host, marker) == []

    def test_a_program_that_ignores_term_is_killed(self, host: Host, marker: str) -> None:
        started = host.start(["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done", marker])
        assert started.read(60) == b"deaf\n"
        started.kill()
        assert running(host, marker) == []
        assert started.wait().code == 137

    def test_every_program_of_a_pipeline_ends(self, host: Host, marker: str) -> None:
        script = f"(sh -c 'sleep 600; :' {marker}; :) | cat | sh -c 'cat; sleep 600' {marker}"
        started = host.start(["sh", "-c", script])
        assert eventually(lambda: len(running(host, marker)) >= 3)
        started.kill()
        assert started.wait().code not in (0, None)
        assert eventually(lambda: running(host, marker) == [])

    def test_a_killed_pipeline_is_no_end_of_input(self, host: Host, marker: str) -> None:
        """As with `zstd -dc | psql --single-transaction`: the last must not take the first's death for the end.

        The crowd between them makes the time between their signals long enough to see.
        """
        pipe, committed = f"/tmp/{marker}.pipe", f"/tmp/{marker}"
        script = (
            f"mkfifo {pipe}; sleep 600 > {pipe} & for i in $(seq 150); do sleep 600 & done; "
            f"sh -c 'echo begun; read line || : > {committed}' < {pipe} & wait"
        )
        started = host.start(["sh", "-c", script])
        assert started.read(10) == b"begun\n"
        started.kill()
        started.wait()
        assert not exists(host, committed)
        run(host, ["rm", pipe])

    def test_at_once_after_the_start_and_from_two_threads(self, host: Host, marker: str) -> None:
        started = host.start(["sh", "-c", "sleep 600 && :", marker])
        other = threading.Thread(target=started.kill)
        other.start()
        started.kill()
        assert running(host, marker) == []
        other.join()
        assert started.wait().code == 143


class TestPlaces:
    def test_free_bytes(self, host: Host) -> None:
        free = host.free_bytes("/tmp")
        assert free is not None
        told = int(output_of(host, "df", "-Pk", "/tmp").splitlines()[-1].split()[3]) * 1024
        assert abs(free - told) < 1 << 30
        assert host.free_bytes("/no such directory") is None

    def test_missing_program(self, host: Host) -> None:
        if host.kind == "local":
            with pytest.raises(ProgramMissing, match="pg_nothing"):
                run(host, ["pg_nothing"])
        else:
            ended = run(host, ["pg_nothing"])
            assert ended.code == 127
            assert "pg_nothing: not found" in str(missing_program(["pg_nothing"], ended))
        assert missing_program(["sh"], run(host, ["sh", "-c", "exit 1"])) is None


class TestLocal:
    def test_our_own_pg_variables_do_not_leak(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGHOST", "elsewhere.example")
        monkeypatch.setenv("PGOPTIONS", "-c search_path=x")
        host = LocalHost(None, {"PGUSER": "postgres", "PGDATABASE": "letta"})
        names = [line for line in output_of(host, "env", PGDATABASE="other").splitlines() if line.startswith("PG")]
        assert sorted(names) == ["PGDATABASE=other", "PGUSER=postgres"]

    def test_programs_come_from_the_bin_directory_only(self, tmp_path: Path) -> None:
        (tmp_path / "psql").write_text("#!/bin/sh\necho mine\n")
        host = LocalHost(tmp_path, {})
        with pytest.raises(ProgramMissing):
            run(host, ["psql"])  # not executable yet
        (tmp_path / "psql").chmod(0o755)
        assert output_of(host, "psql") == "mine\n"
        with pytest.raises(ProgramMissing, match=str(tmp_path)):
            run(host, ["cat"])

    @pytest.mark.parametrize(
        ("settings", "here"),
        [
            ({}, True),
            ({"PGHOST": "/var/run/postgresql"}, True),
            ({"PGHOST": "localhost"}, True),
            ({"PGHOST": "::1"}, True),
            ({"PGHOST": "db.example"}, False),
            ({"PGHOST": "localhost", "PGHOSTADDR": "192.0.2.1"}, False),
        ],
    )
    def test_free_bytes_only_of_this_machine(self, settings: dict[str, str], here: bool, tmp_path: Path) -> None:
        assert (LocalHost(None, settings).free_bytes(str(tmp_path)) is not None) is here

    def test_ctrl_c_reaches_no_program_not_even_one_that_is_just_being_started(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", STARTS_UNDER_CTRL_C], stdout=subprocess.PIPE, timeout=60, process_group=0, check=True
        )
        assert done.stdout.split() == [b"0"] * 400

    def test_there_are_no_containers(self) -> None:
        host = LocalHost(None, {})
        assert host.dependents() == []
        assert host.require_running() == host.container_info()
        with pytest.raises(HostError):
            host.stop_container("x")
        with pytest.raises(HostError):
            host.start_container("x")


@pytest.mark.long
def test_60_short_runs_beside_busy_threads_lose_nothing(container: str) -> None:
    """docker-py's own readers lose output here: https://github.com/docker/docker-py/issues/3332."""
    host = DockerHost(container, "postgres", "none")
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(1000))

    busy = [threading.Thread(target=burn, daemon=True) for _ in range(3)]
    for thread in busy:
        thread.start()

    def short(number: int) -> tuple[bytes, Exit]:
        output = bytearray()
        ended = run(host, ["sh", "-c", f"echo out {number}; echo err {number} >&2; exit {number}"], sink=output.extend)
        return bytes(output), ended

    try:
        with ThreadPoolExecutor(max_workers=6) as pool:
            results = list(pool.map(short, range(60)))
    finally:
        stop.set()
    assert results == [(f"out {n}\n".encode(), Exit(n, f"err {n}\n")) for n in range(60)]


def test_without_a_shell_the_runtimes_words_are_the_errors(docker: Any, box: str) -> None:
    host = DockerHost(box, "postgres", "none")
    assert run(host, ["rm", "/usr/bin/sh"]).code == 0
    output = bytearray()
    ended = run(host, ["true"], sink=output.extend)
    assert ended.code in (126, 127)
    error = missing_program(["true"], ended)
    assert error is not None
    assert '"sh"' in error.message
    assert "`pids_limit`" in error.remedy
    assert not output


@pytest.mark.long
def test_a_killed_pipeline_is_no_crashed_backend(docker: Any, make_container: Callable[..., str]) -> None:
    """The postmaster is process 1 there: orphans that die of a signal would make it throw all sessions out."""
    host = DockerHost(make_container(entrypoint=None, environment={"POSTGRES_PASSWORD": "x"}), "postgres", "none")
    ask = ("psql", "-XAtq", "-h", "127.0.0.1", "-U", "postgres", "-c")
    assert eventually(lambda: run(host, [*ask, "select 1"], env={"PGPASSWORD": "x"}).code == 0, 60)
    bystander = host.start([*ask, "select pg_sleep(600)"], env={"PGPASSWORD": "x"})
    for script in ("sleep 600 | (sleep 600; :) | cat", "trap '' TERM; sleep 600 | cat; sleep 600"):
        pipeline = host.start(["sh", "-c", script])
        assert pipeline.read(1) is None
        pipeline.kill()
        assert pipeline.wait().code not in (0, None)
    sessions = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'"
    assert output_of(host, *ask, sessions, PGPASSWORD="x") == "1\n"
    assert bystander.read(0.1) is None
    bystander.kill()
    bystander.wait()
