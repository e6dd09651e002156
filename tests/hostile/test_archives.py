"""Archives of a volume that others might send: what would leave the directory, hide, or take effect is told."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from scarlet_backup_mcp import summaries
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings

NAME = "postgres_volume_20260101_010101.tar.gz"
ESCAPE = "\x1b]0;owned\x07"


class Sent(NamedTuple):
    """An archive on its way: what it is made with, and what may be done to its bytes."""

    tar: tarfile.TarFile
    bytes: io.BytesIO

    def add(self, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: str) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.size = kind, len(content)
        for key, value in more.items():
            setattr(member, key, value)
        self.tar.addfile(member, io.BytesIO(content))

    def header(self, kind: bytes, content: bytes) -> None:
        """An extension of tar's own, with that content."""
        self.add("././@x", content, kind)


def conf(text: str, name: str = "postgresql.conf") -> Callable[[Sent], None]:
    return lambda sent: sent.add(name, text.encode())


def member(name: str, kind: bytes = tarfile.REGTYPE, **more: str) -> Callable[[Sent], None]:
    return lambda sent: sent.add(name, b"", kind, **more)


def records(text: str, kind: bytes = tarfile.XGLTYPE) -> Callable[[Sent], None]:
    """Pax records, each line `keyword=value`."""
    made = b""
    for line in text.encode().splitlines():
        length = len(line) + 2
        while len(f"{length}") + 1 + len(line) + 1 != length:
            length += 1
        made += f"{length} ".encode() + line + b"\n"
    return lambda sent: sent.header(kind, made)


def twice(sent: Sent) -> None:
    sent.add("PG_VERSION", b"14\n")


def long_name(sent: Sent) -> None:
    sent.header(tarfile.GNUTYPE_LONGNAME, b"../" * 40 + b"evil\0")
    sent.add("x")


def included(sent: Sent) -> None:
    sent.add("postgresql.conf", b"include_dir = 'a/b'\n")
    sent.add("a/b/c.conf", b"include '../../d.conf'\n")
    sent.add("d.conf", b"SHARED_preload_libraries'evil'\n")


UNSAFE: dict[str, tuple[Callable[[Sent], None], str]] = {
    "out of it": (member("../evil"), "outside of the directory"),
    "out of it in the middle": (member("base/../../evil"), "outside of the directory"),
    "absolute": (member("/etc/cron.d/evil"), "outside of the directory"),
    "link": (member("pg_wal/x", tarfile.SYMTYPE, linkname="/etc"), "is a link"),
    "tablespace": (member("pg_tblspc/1", tarfile.SYMTYPE, linkname="/"), "is a link"),
    "hard link": (member("base/x", tarfile.LNKTYPE, linkname="/etc/shadow"), "is a link"),
    "device": (member("base/x", tarfile.BLKTYPE), "neither a file nor a directory"),
    "pipe": (member("base/x", tarfile.FIFOTYPE), "neither a file nor a directory"),
    "twice": (twice, "occurs twice"),
    "twice in other words": (member(".//PG_VERSION"), "occurs twice"),
    "long name out of it": (long_name, "outside of the directory"),
    "path for all": (records("path=../evil"), "global header that sets 'path'"),
    "size for all": (records("size=0"), "global header that sets 'size'"),
    "sparse": (records("GNU.sparse.major=1", tarfile.XHDTYPE), "a sparse file"),
    "endless size": (records("size=" + "9" * 40, tarfile.XHDTYPE), "a size of 40 digits"),
    "endless name": (
        lambda sent: sent.header(tarfile.GNUTYPE_LONGNAME, b"a" * 70_000),
        "a name or an extension of 70000",
    ),
    "command": (conf("archive_command = 'sh'"), "archive_command (postgresql.conf, line 1) runs a command"),
    "restore": (
        conf("\n restore_command 'x'", "postgresql.auto.conf"),
        "restore_command (postgresql.auto.conf, line 2)",
    ),
    "library": (included, "shared_preload_libraries = 'evil' (d.conf, line 1) loads a library"),
    "pass phrase": (conf("ssl_passphrase_command = 'sh'"), "ssl_passphrase_command (postgresql.conf, line 1)"),
    "elsewhere": (conf("hba_file = '/tmp/x'"), "hba_file = '/tmp/x' (postgresql.conf, line 1) names a place"),
    "trust": (conf("host all all 0.0.0.0/0 trust", "pg_hba.conf"), "lets other machines connect"),
    "standby": (member("standby.signal"), "standby.signal makes the server recover or follow another one"),
    "escapes": (member(f"{ESCAPE}/../../x"), "outside of the directory"),
    "escapes in a value": (conf(f"jit_provider = '{ESCAPE}'"), "jit_provider = '\\x1b]0;owned\\x07'"),
}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackupContext]:
    settings = load_settings(
        dir=tmp_path_factory.mktemp("archives"), via="local", dsn="postgresql://127.0.0.1:1/letta", database="letta"
    )
    with BackupContext(settings) as one:
        yield one


def send(context: BackupContext, change: Callable[[Sent], None] | None, behind: bytes = b"") -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        sent = Sent(tar, made)
        sent.add("PG_VERSION", b"15\n")
        sent.add("global/pg_control", bytes(8192))
        if change is not None:
            change(sent)
    (context.directory.path / NAME).write_bytes(gzip.compress(made.getvalue(), 1) + behind)


def test_the_archive_itself_is_none_of_them(context: BackupContext) -> None:
    send(context, None)
    found = verify(context, Progress(), NAME, "full")
    assert {check.check for check in found.checks if check.ok is False} == {"manifest"}
    assert "onfiguration in it" not in summaries.describe(found)
    assert len(UNSAFE) >= 20


@pytest.mark.parametrize(("change", "told"), UNSAFE.values(), ids=UNSAFE)
def test_what_it_would_do_is_told_and_shown_without_escapes(
    context: BackupContext, change: Callable[[Sent], None], told: str
) -> None:
    send(context, change)
    found = verify(context, Progress(), NAME, "full")
    named = [check for check in found.checks if check.check in ("structure", "configuration") and check.ok is not True]
    assert len(named) == 1, found.checks
    shown = summaries.describe(found)
    assert told in shown
    for text in (shown, found.model_dump_json()):
        assert "\x1b" not in text
        assert "\\u001b" not in text


@pytest.mark.parametrize(
    "behind",
    [gzip.compress(bytes(10240)), gzip.compress(b"")[:12], b"\0" * 512],
    ids=["another member", "half a header", "zeros"],
)
def test_nothing_hides_behind_its_end(context: BackupContext, behind: bytes) -> None:
    send(context, None, behind)
    found = verify(context, Progress(), NAME, "full")
    assert {check.check for check in found.checks if check.ok is False} >= {"compression"}
