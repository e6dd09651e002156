from __future__ import annotations

import hashlib
import threading
import tracemalloc
from collections.abc import Generator, Iterator
from itertools import repeat
from pathlib import Path

import pytest
import zstandard

from scarlet_backup_mcp.errors import DiskFull
from scarlet_backup_mcp.models.common import Compression
from scarlet_backup_mcp.store import storing
from scarlet_backup_mcp.store.reading import CompressionDamaged, FileReader, decompress
from scarlet_backup_mcp.store.storing import Storing
from scarlet_backup_mcp.store.writing import PartialFile

MEBIBYTE = 1 << 20
TEXT = b"".join(b"%d\tsomething\n" % number for number in range(50_000))


@pytest.fixture
def partial(tmp_path: Path) -> Generator[PartialFile]:
    with PartialFile(tmp_path / "a") as partial:
        yield partial


def zstd_frame(plain: bytes, level: int = 1) -> bytes:
    return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(plain)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def unpacked(partial: PartialFile, compression: Compression) -> bytes:
    return b"".join(decompress(iter(FileReader(partial.path)), compression, single=True))


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("text", [b"", b"a", TEXT])
def test_takes_what_the_stored_bytes_unpack_to(partial: PartialFile, compression: Compression, text: bytes) -> None:
    taken: list[bytes] = []
    with Storing(partial, compression, taken.append) as store:
        for piece in pieces(text, 70_001):
            store.put(piece)
        store.finish()
    partial.finish()
    assert b"".join(taken) == text
    assert unpacked(partial, compression) == text


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_zstd_stream_is_stored_as_it_comes(partial: PartialFile, size: int) -> None:
    packed, taken = zstd_frame(TEXT[:20_000], level=9), list[bytes]()
    with Storing(partial, "zstd", taken.append) as store:
        for piece in pieces(packed, size):
            store.put(piece)
        store.finish()
    partial.finish()
    assert partial.path.read_bytes() == packed
    assert b"".join(taken) == TEXT[:20_000]


def test_zstd_stream_for_another_kind_of_file_is_content(partial: PartialFile) -> None:
    packed, taken = zstd_frame(TEXT), list[bytes]()
    with Storing(partial, "gzip", taken.append) as store:
        store.put(packed)
        store.finish()
    partial.finish()
    assert b"".join(taken) == unpacked(partial, "gzip") == packed


@pytest.mark.parametrize(
    "packed", [zstd_frame(TEXT)[:-1], zstd_frame(TEXT)[:-8] + bytes(8), zstd_frame(TEXT) + zstd_frame(TEXT)]
)
def test_zstd_stream_that_does_not_unpack_is_refused(partial: PartialFile, packed: bytes) -> None:
    with Storing(partial, "zstd", lambda plain: None) as store:
        store.put(packed)
        with pytest.raises(CompressionDamaged):
            store.finish()


def test_what_the_reader_raises_comes_out(partial: PartialFile) -> None:
    def take(plain: bytes) -> None:
        raise ValueError("no dump")

    def store_all() -> None:
        with Storing(partial, "none", take) as store:
            for piece in repeat(TEXT):
                store.put(piece)

    with pytest.raises(ValueError, match="no dump"):
        store_all()


def test_full_disk_ends_the_thread(partial: PartialFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: PartialFile, data: bytes) -> None:
        raise DiskFull("no space")

    monkeypatch.setattr(PartialFile, "write", write)
    before = threading.active_count()
    with pytest.raises(DiskFull), Storing(partial, "none", lambda plain: None) as store:
        store.put(TEXT)
    assert threading.active_count() == before


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_memory_is_flat_with_a_slow_reader(partial: PartialFile, compression: Compression) -> None:
    going, digest = threading.Event(), hashlib.sha256()

    def take(plain: bytes) -> None:
        going.wait(0.01)
        digest.update(plain)

    frame = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
    tracemalloc.start()
    try:
        with Storing(partial, compression, take) as store:
            for number in range(60):
                plain = bytes([number]) * MEBIBYTE
                store.put(frame.compress(plain) if compression == "zstd" else plain)
            store.put(frame.flush() if compression == "zstd" else b"")
            store.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert digest.digest() == hashlib.sha256(b"".join(bytes([n]) * MEBIBYTE for n in range(60))).digest()
    assert peak < (storing.WAITING_CHUNKS + 12) * MEBIBYTE
