"""Archives of a volume by themselves: tar and gzip as streams, and the server's list of files."""

from __future__ import annotations

import gzip as python_gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from scarlet_backup_mcp.postgres.cluster import base_backup
from scarlet_backup_mcp.postgres.cluster.base_backup import BackupManifestDamaged, File, WalRange
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.verify.sql import verify
from scarlet_backup_mcp.progress import Progress
from scarlet_backup_mcp.settings import load_settings
from scarlet_backup_mcp.store import gzip
from scarlet_backup_mcp.store.reading import CompressionDamaged, decompress
from scarlet_backup_mcp.store.tar import Member, MemberHandler, TarDamaged, TarReader

NAME = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60).filter(
    lambda part: part not in (".", "..")
)
PATHS = st.lists(NAME, min_size=1, max_size=4).map("/".join)
FILES = st.dictionaries(PATHS, st.binary(max_size=2000), max_size=6)
FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
MIB = 1 << 20


class Collected(MemberHandler):
    """Everything that was told."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.files: dict[str, bytes] = {}
        self._present = bytearray()

    def member(self, member: Member) -> None:
        self.members.append(member)
        self._present = bytearray()

    def data(self, data: memoryview) -> None:
        self._present += data

    def end(self) -> None:
        self.files[self.members[-1].name] = bytes(self._present)


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def archive(files: dict[str, bytes], tar_format: int = tarfile.GNU_FORMAT, pax: dict[str, str] | None = None) -> bytes:
    """With `pax` in pax format, these records before every member."""
    tar_format = tarfile.PAX_FORMAT if pax else tar_format
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tar_format) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = len(data), pax or {}
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


def collect(data: bytes, size: int = 4096) -> Collected:
    found = Collected()
    reader = TarReader(found)
    for piece in in_pieces(data, size):
        reader.feed(piece)
    reader.finish()
    assert reader.bytes == len(data)
    return found


# tar


@settings(max_examples=60, deadline=None, database=None)
@given(files=FILES, tar_format=FORMATS, size=st.integers(1, 5000))
def test_what_tarfile_writes_is_read_in_pieces_of_any_size(files: dict[str, bytes], tar_format: int, size: int) -> None:
    try:
        data = archive(files, tar_format)
    except ValueError:  # a name too long for ustar
        return
    assert collect(data, size).files == files


@settings(max_examples=100, deadline=None, database=None)
@given(files=FILES, cut=st.integers(0), size=st.integers(1, 5000))
def test_a_cut_before_the_end_marker_is_whole_is_seen(files: dict[str, bytes], cut: int, size: int) -> None:
    data = archive(files)
    end = len(data.rstrip(b"\0")) if files else 0
    wanted = -(-end // 512) * 512 + 1024  # at least this far: the last member's blocks and two of zeros
    with pytest.raises(TarDamaged):
        collect(data[: cut % (wanted - 1024 + 1 if end else 1024)], size)


@settings(max_examples=200, deadline=None, database=None)
@given(at=st.integers(0, 511), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_header_is_seen_or_leaves_names_sizes_and_kinds_as_they_were(at: int, bit: int) -> None:
    files = {"global/pg_control": b"x" * 700, "base/1/1259": b"y" * 100}
    data = bytearray(archive(files))
    data[at] ^= 1 << bit
    try:
        found = collect(bytes(data))
    except TarDamaged:
        return
    assert found.files == files


def test_directories_and_links_are_told_and_leading_dots_are_not_part_of_a_name() -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, kind in (("./pg_wal/", tarfile.DIRTYPE), ("pg_tblspc/16400", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/elsewhere" if kind == tarfile.SYMTYPE else ""
            tar.addfile(member)
    assert collect(made.getvalue()).members == [
        Member("pg_wal", "directory", 0),
        Member("pg_tblspc/16400", "link", 0),
    ]


@pytest.mark.parametrize("name", ["a/b", "./a/b", "a//b", "a/./b"])
def test_one_file_has_one_name_however_it_is_spelt(name: str) -> None:
    assert collect(archive({name: b"x"})).files == {"a/b": b"x"}


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["line\nend", "caf\udce9", "x" * 300])
def test_odd_names_are_read_as_they_are(name: str, tar_format: int) -> None:
    assert collect(archive({name: b"x"}, tar_format)).files == {name: b"x"}


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_size_of_more_than_8_gib_is_read(tar_format: Literal[1, 2]) -> None:
    """In base 256 or in a pax record: the header's octal digits end there. Only its beginning is looked at."""
    member = tarfile.TarInfo("large")
    member.size = 9 << 30
    found = Collected()
    reader = TarReader(found)
    reader.feed(member.tobuf(tar_format) + bytes(1000))
    assert found.members == [Member("large", "file", 9 << 30)]
    with pytest.raises(TarDamaged, match="within a member"):
        reader.finish()


def test_sparse_file_is_refused() -> None:
    """Its data in the archive are not its content."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("GNUSparseFile.0/a")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "a", "GNU.sparse.realsize": "4096"}
        tar.addfile(member, io.BytesIO())
    with pytest.raises(TarDamaged, match="sparse"):
        collect(made.getvalue())


@pytest.mark.parametrize("keyword", ["path", "linkpath", "size", "GNU.sparse.name", "comment"])
def test_global_header_that_says_what_every_member_is_is_refused(keyword: str) -> None:
    """GNU tar obeys it, so what it unpacks would be something else than what was read. git puts a comment there."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT, pax_headers={keyword: "../x"}) as tar:
        tar.addfile(tarfile.TarInfo("a"))
    if keyword == "comment":
        assert collect(made.getvalue()).files == {"a": b""}
    else:
        with pytest.raises(TarDamaged, match=f"global header that sets '{keyword}'"):
            collect(made.getvalue())


@pytest.mark.parametrize("records", [b"9" * 5000 + b" path=a\n", b"5014 size=" + b"9" * 5003 + b"\n"])
def test_number_of_thousands_of_digits_is_refused(records: bytes) -> None:
    """Python's `int` takes 4,300."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, len(records)
    block = header.create_ustar_header(header.get_info(), "utf-8", "surrogateescape")
    with pytest.raises(TarDamaged, match=r"pax records|digits"):
        collect(block + records + bytes(-len(records) % 512 + 1024))


PAX = {"mtime": "1.5"}


@pytest.mark.parametrize(
    ("plain", "ok"),
    [
        (archive({"data/PG_VERSION": b"15\n"}), True),
        (archive({"data/PG_VERSION": b"15\n"}, pax=PAX), True),
        (archive({"data/PG_VERSION": b"15\n"}, pax={"comment": "x" * 9000}), None),
        (archive({"data/PG_VERSION": b"15\n"}, pax=PAX)[:1024], False),
        (archive({}), False),
        (b"", False),
        (archive({"data/PG_VERSION": b"15\n"})[:1024] + b"x" * 512, False),
        (b"no archive at all" * 100, False),
    ],
    ids=[
        "ustar",
        "pax",
        "more pax records than are looked at",
        "cut",
        "no member",
        "empty",
        "no second member",
        "text",
    ],
)
def test_quick_look_goes_by_the_first_member_whatever_is_before_it(
    tmp_path: Path, plain: bytes, ok: bool | None
) -> None:
    """`tar --format=posix` puts a record of times before every member."""
    name = "postgres_volume_20260201_093000.tar.gz"
    (tmp_path / name).write_bytes(python_gzip.compress(plain))
    with BackupContext(load_settings(dir=tmp_path, via="local", dsn="postgresql://127.0.0.1:1/letta")) as context:
        found = verify(context, Progress(), name, "quick")
    assert [check.ok for check in found.checks if check.check == "structure"] == [ok]
    assert (found.remedy or "").startswith("Don't rely on it") == (ok is False)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "base/../../x"])
def test_member_outside_of_the_directory_is_refused(name: str) -> None:
    with pytest.raises(TarDamaged, match="outside"):
        collect(archive({name: b"x"}))


def test_device_is_refused() -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        member = tarfile.TarInfo("pipe")
        member.type = tarfile.FIFOTYPE
        tar.addfile(member)
    with pytest.raises(TarDamaged, match="neither a file nor a directory"):
        collect(made.getvalue())


def test_something_behind_the_end_is_refused() -> None:
    with pytest.raises(TarDamaged, match="follows its end"):
        collect(archive({"a": b"x"}) + archive({"b": b"y"}))


def test_one_block_of_zeros_is_no_end() -> None:
    data = archive({"a": b"x"})
    with pytest.raises(TarDamaged, match="end is missing"):
        collect(data[: 2 * 512 + 512])


# gzip


@pytest.mark.parametrize("count", [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 17])
@pytest.mark.parametrize("piece", [1000, MIB])
def test_gzip_is_read_by_others_and_read_back_in_pieces_of_a_mebibyte(count: int, piece: int) -> None:
    plain = bytes(count // 2) + hashlib.shake_128(b"seed").digest(count - count // 2)
    stream = gzip.compressor()
    packed = stream.compress(plain) + stream.flush()
    assert python_gzip.decompress(packed) == plain
    for data, wanted in ((packed, plain), (packed + packed, plain + plain)):
        found = list(gzip.decompress(in_pieces(data, piece)))
        assert b"".join(found) == wanted
        assert max(map(len, found), default=0) <= MIB


@settings(max_examples=100, deadline=None, database=None)
@given(plain=st.binary(max_size=5000), cut=st.integers(0), size=st.integers(1, 3000))
def test_gzip_that_is_cut_is_seen(plain: bytes, cut: int, size: int) -> None:
    packed = python_gzip.compress(plain)
    with pytest.raises(gzip.GzipDamaged):
        list(gzip.decompress(in_pieces(packed[: cut % len(packed)], size)))


def test_gzip_with_a_flipped_bit_in_its_data_is_seen() -> None:
    packed = bytearray(python_gzip.compress(bytes(range(256)) * 400))
    packed[len(packed) // 2] ^= 4
    rest = iter([bytes(packed), b"more", b"and more"])
    with pytest.raises(gzip.GzipDamaged):
        list(gzip.decompress(rest))
    assert list(rest) == []


@pytest.mark.parametrize("more", [b"x", b"\x1f\x8b\x08", bytes(512)])
def test_something_behind_a_compressed_stream_is_seen(more: bytes) -> None:
    for compression, packed in (("gzip", python_gzip.compress(b"x")), ("zstd", zstandard.compress(b"x"))):
        with pytest.raises(CompressionDamaged):
            list(decompress(iter([packed + more]), compression))  # type: ignore[arg-type]


# backup_manifest


def sealed(content: dict[str, Any]) -> bytes:
    """A backup_manifest as the server writes it: its last line is the checksum of what is before it."""
    body = json.dumps(content, indent=0).removesuffix("\n}").encode() + b",\n"
    return body + b'"Manifest-Checksum": "' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'


def listed(name: str, data: bytes, algorithm: str = "SHA256") -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest() if algorithm == "SHA256" else "0"
    return {"Path": name, "Size": len(data), "Checksum-Algorithm": algorithm, "Checksum": digest}


def a_manifest(*files: dict[str, Any], end: str = "0/2000100") -> bytes:
    ranges = [{"Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": end}]
    return sealed({"PostgreSQL-Backup-Manifest-Version": 1, "Files": list(files), "WAL-Ranges": ranges})


def found(**files: bytes) -> dict[str, File]:
    wal = {"pg_wal/000000010000000000000002": File(16 * MIB, "0")}
    return {name: File(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()} | wal


def test_manifest_agrees_with_the_files_it_lists() -> None:
    manifest = base_backup.parse(a_manifest(listed("backup_label", b"l"), listed("a", b"abc")))
    compared = base_backup.compare(manifest, found(backup_label=b"l", a=b"abc", backup_manifest=b"whatever"))
    assert (compared.compared, compared.file_faults, compared.wal_faults, compared.unchecked) == (2, [], [], 0)


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"backup_label": b"l"}, "a is missing"),
        ({"backup_label": b"l", "a": b"abcd"}, "a has 4 bytes instead of 3"),
        ({"backup_label": b"l", "a": b"abd"}, "the content of a differs"),
        ({"backup_label": b"l", "a": b"abc", "standby.signal": b""}, "standby.signal is not listed"),
    ],
)
def test_manifest_tells_what_differs(files: dict[str, bytes], fault: str) -> None:
    manifest = base_backup.parse(a_manifest(listed("backup_label", b"l"), listed("a", b"abc")))
    assert base_backup.compare(manifest, found(**files)).file_faults == [fault]


def test_missing_backup_label_is_a_fault_also_where_it_is_not_listed() -> None:
    manifest = base_backup.parse(a_manifest(listed("a", b"abc")))
    faults = base_backup.compare(manifest, found(a=b"abc")).file_faults
    assert len(faults) == 1
    assert "backup_label" in faults[0]


def test_checksums_of_another_kind_are_not_said_to_hold() -> None:
    manifest = base_backup.parse(a_manifest(listed("backup_label", b"l"), listed("a", b"abc", "CRC32C")))
    assert base_backup.compare(manifest, found(backup_label=b"l", a=b"xyz")).unchecked == 1


def test_name_that_is_no_utf8_is_found() -> None:
    odd = {"Encoded-Path": b"odd\xff".hex(), "Size": 0, "Checksum-Algorithm": "SHA256"}
    odd["Checksum"] = hashlib.sha256(b"").hexdigest()
    manifest = base_backup.parse(a_manifest(listed("backup_label", b"l"), odd))
    files = found(backup_label=b"l") | {"odd\udcff": File(0, hashlib.sha256(b"").hexdigest())}
    assert base_backup.compare(manifest, files).file_faults == []


@pytest.mark.parametrize("edit", [(b'"a"', b'"b"'), (b"0/2000100", b"0/2000200"), (b'"Size": 3', b'"Size": 4')])
def test_an_edited_manifest_is_seen_by_its_own_checksum(edit: tuple[bytes, bytes]) -> None:
    text = a_manifest(listed("backup_label", b"l"), listed("a", b"abc"))
    assert edit[0] in text
    with pytest.raises(BackupManifestDamaged, match="checksum"):
        base_backup.parse(text.replace(*edit))


def test_file_that_is_listed_twice_is_told() -> None:
    manifest = base_backup.parse(a_manifest(listed("backup_label", b"l"), listed("a", b"abc"), listed("a", b"x")))
    assert "1 files are listed twice" in base_backup.compare(manifest, found(backup_label=b"l", a=b"x")).file_faults


def test_more_wal_than_there_can_be_is_told_without_its_names() -> None:
    manifest = base_backup.parse(a_manifest(listed("backup_label", b"l"), end="FFFFFFFF/FFFFFFFF"))
    (fault,) = base_backup.compare(manifest, found(backup_label=b"l")).wal_faults
    assert "WAL segments are needed, but there are 1" in fault


ODD_PATH = sealed(
    {"PostgreSQL-Backup-Manifest-Version": 1, "Files": [{"Encoded-Path": "xy", "Size": 0}], "WAL-Ranges": []}
)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"not json", b'{"PostgreSQL-Backup-Manifest-Version": 3}', ODD_PATH], ids=range(5)
)
def test_what_is_no_manifest_is_told(text: bytes) -> None:
    with pytest.raises(BackupManifestDamaged, match="can't be read"):
        base_backup.parse(text)


@pytest.mark.parametrize(
    ("start", "end", "size", "names"),
    [
        ("0/2000028", "0/2000100", 16 * MIB, ["000000010000000000000002"]),
        ("0/2000028", "0/3000000", 16 * MIB, ["000000010000000000000002"]),
        ("0/2000028", "0/3000001", 16 * MIB, ["000000010000000000000002", "000000010000000000000003"]),
        ("0/FF000028", "1/28", 16 * MIB, ["0000000100000000000000FF", "000000010000000100000000"]),
        ("1/40000000", "1/80000001", 1 << 30, ["000000010000000100000001", "000000010000000100000002"]),
    ],
)
def test_wal_segments_are_named_as_the_server_names_them(start: str, end: str, size: int, names: list[str]) -> None:
    needed = WalRange.model_validate({"Timeline": 1, "Start-LSN": start, "End-LSN": end})
    assert base_backup.segment_names(needed, size) == names


@pytest.mark.parametrize(
    ("wal", "fault"),
    [
        ({}, "no WAL"),
        ({"000000010000000000000001": 16 * MIB}, "000000010000000000000002 is missing"),
        ({"000000010000000000000002": 16 * MIB - 512}, "cut off"),
        ({"000000010000000000000002": 16 * MIB, "000000010000000000000003": 16 * MIB}, "000000010000000000000003"),
    ],
)
def test_wal_that_is_missing_cut_off_or_too_much_is_told(wal: dict[str, int], fault: str) -> None:
    label = b"l"
    manifest = base_backup.parse(a_manifest(listed("backup_label", label)))
    files = {"backup_label": File(1, hashlib.sha256(label).hexdigest())}
    files |= {f"pg_wal/{name}": File(size, "0") for name, size in wal.items()}
    compared = base_backup.compare(manifest, files)
    assert compared.file_faults == []
    assert fault in "; ".join(compared.wal_faults)
