"""Backups are read as they are compressed and encoded."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from scarlet_backup_mcp.errors import (
    StoreError,
)
from scarlet_backup_mcp.store.encodings import recognise
from scarlet_backup_mcp.store.reading import CompressionDamaged, Compressor, FileReader, decompress

from ..helpers.store import Made
from ..helpers.store_files import NAME, child, next_line

# Reading


def test_file_reader_counts_and_digests_what_it_read(tmp_path: Path) -> None:
    data = os.urandom(2_500_000)
    (tmp_path / NAME).write_bytes(data)
    seen: list[int] = []
    reader = FileReader(tmp_path / NAME, seen.append)
    assert b"".join(reader) == data
    assert (reader.bytes, reader.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert seen == sorted(seen)
    assert seen[-1] == len(data)


def test_file_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(StoreError, match="can't be read"):
            list(FileReader(path))


def compressed(data: bytes) -> bytes:
    compressor = Compressor("zstd")
    return compressor.compress(data) + compressor.finish()


def plain(pieces: Iterable[bytes]) -> bytes:
    return b"".join(decompress(iter(pieces), "zstd"))


@settings(max_examples=60, deadline=None, database=None)
@given(frames=st.lists(st.binary(max_size=3000), min_size=1, max_size=4), cut=st.integers(1, 5000))
def test_frames_one_after_another_are_one_text(frames: list[bytes], cut: int) -> None:
    stream = b"".join(compressed(frame) for frame in frames)
    assert plain(stream[at : at + cut] for at in range(0, len(stream), cut)) == b"".join(frames)


def test_stream_cut_at_any_byte_is_seen() -> None:
    stream = compressed(b"COPY public.agents FROM stdin;\n" * 40 + os.urandom(200))
    for end in range(len(stream)):
        with pytest.raises(CompressionDamaged):
            plain([stream[:end]])
    assert len(plain([stream])) == 40 * 31 + 200


def test_stream_of_several_frames_is_whole_only_at_their_ends() -> None:
    """zstd itself can't tell that a whole frame is missing: size, digest and trailer of the script do."""
    frames = [compressed(bytes([65 + n]) * 100) for n in range(3)]
    ends = {len(b"".join(frames[:count])): count for count in (1, 2, 3)}
    stream = b"".join(frames)
    for end in range(1, len(stream) + 1):
        if end in ends:
            assert len(plain([stream[:end]])) == 100 * ends[end]
        else:
            with pytest.raises(CompressionDamaged):
                plain([stream[:end]])


def test_any_flipped_bit_of_a_stream_is_seen() -> None:
    text = os.urandom(120)
    stream = compressed(text)
    for bit in range(8 * len(stream)):
        harmed = bytearray(stream)
        harmed[bit // 8] ^= 1 << bit % 8
        try:
            assert plain([bytes(harmed)]) == text, f"bit {bit} changed the text unseen"
        except CompressionDamaged:
            continue


def test_garbage_after_a_stream_is_seen() -> None:
    for garbage in (b"\0", b"x", b"\n", b"-- more"):
        with pytest.raises(CompressionDamaged):
            plain([compressed(b"text"), garbage])


def test_all_of_a_damaged_stream_is_read_for_its_digest(tmp_path: Path) -> None:
    data = b"no zstd at all" * 300_000
    (tmp_path / NAME).write_bytes(data)
    reader = FileReader(tmp_path / NAME)
    with pytest.raises(CompressionDamaged):
        list(decompress(iter(reader), "zstd"))
    assert reader.sha256 == hashlib.sha256(data).hexdigest()


def test_stream_that_wants_too_much_memory_is_refused() -> None:
    """Magic number, descriptor, a window of 2 GiB, an empty last block (RFC 8878, section 3.1.1)."""
    with pytest.raises(CompressionDamaged):
        plain([b"\x28\xb5\x2f\xfd" + b"\x00" + b"\xa8" + b"\x01\x00\x00"])


def test_zstd_reads_what_is_written_here(tmp_path: Path) -> None:
    text = b"".join(b"row %d\n" % number for number in range(200_000))
    compressor = Compressor("zstd")
    stream = b"".join(compressor.compress(text[at : at + 70_000]) for at in range(0, len(text), 70_000))
    stream += compressor.finish()
    assert len(stream) < len(text) / 2
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(stream)) as reader:
        assert reader.read() == text
    program = shutil.which("zstd")
    if program is not None:
        (tmp_path / "x.sql.zst").write_bytes(stream)
        done = subprocess.run([program, "-dc", str(tmp_path / "x.sql.zst")], capture_output=True, check=True)
        assert done.stdout == text


@pytest.mark.skipif(sys.platform != "linux", reason="The peak of this very program is told by /proc only.")
def test_decompression_bomb_is_read_with_little_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.sql.zst"
    with bomb.open("wb") as file, zstandard.ZstdCompressor(write_checksum=True).stream_writer(file) as writer:
        for _ in range(1024):
            writer.write(bytes(1 << 20))
    with child(
        """
        from scarlet_backup_mcp.store.reading import FileReader, decompress
        total = sum(len(piece) for piece in decompress(iter(FileReader(Path(sys.argv[1]))), "zstd"))
        peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        print(total, int(peak.split()[1]) // 1000, flush=True)
        """,
        bomb,
    ) as process:
        total, megabytes = map(int, next_line(process).split())
    assert total == 1 << 30
    assert megabytes < 250


# Encodings


def test_plain_dump_is_recognised(made: Made) -> None:
    assert recognise(made.shelf.file(made.plain).read_bytes()[:4096]) == "plain"
    assert recognise(b"") == "plain"


def test_big_endian_file_is_recognised() -> None:
    assert recognise(b"\xfe\xff" + "-- PostgreSQL".encode("utf-16-be")) == "utf-16be"


@pytest.mark.parametrize("head", [b"--\r", b"-- a \r b\n", b"--\n\r\n", b"\xff", b"\xef\xbb", b"\r"])
def test_stray_bytes_are_no_encoding(head: bytes) -> None:
    assert recognise(head) == "plain"
