"""Large objects in a plain dump: their definitions, and digests of their content."""

from __future__ import annotations

import re

import xxhash

DEFINES = re.compile(
    rb"(?:SELECT pg_catalog\.lo_create\('|ALTER LARGE OBJECT |COMMENT ON LARGE OBJECT |"
    rb"(?:GRANT|REVOKE|SECURITY LABEL) [^;']*? ON LARGE OBJECT )(\d+)"
)
"""A statement that creates one, or gives it an owner, rights or a comment; the group is its OID.

pg_dump 15 writes an entry for each; 18 groups those with the same owner and rights ("900002..900003").
"""
EMPTY = xxhash.xxh3_128_hexdigest(b"")
_OPEN = re.compile(rb"SELECT pg_catalog\.lo_open\('(\d+)', \d+\);")
_WRITE = re.compile(rb"SELECT pg_catalog\.lowrite\(\d+, '\\x((?:[0-9a-f]{2})*)'\);")
_CLOSE = re.compile(rb"SELECT pg_catalog\.lo_close\(\d+\);")


def is_large_object(kind: str, name: str) -> bool:
    """Tell whether an entry of that type and name consists of such statements."""
    about = kind in ("ACL", "COMMENT", "SECURITY LABEL") and re.match(r"LARGE OBJECTS? \d", name) is not None
    return about or kind in ("BLOB", "BLOB METADATA")


class LargeObjects:
    """XXH3 128-bit digests (hex) of large objects' content, by OID."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self._oid = ""
        self._hash = xxhash.xxh3_128()

    def take(self, sql: bytes) -> bool:
        """Read a statement; False if it does not fill a large object."""
        if opened := _OPEN.fullmatch(sql):
            self._oid = opened[1].decode()
            # A script that fills one twice never equals one that fills it once.
            self._hash = xxhash.xxh3_128(self.digests.get(self._oid, "").encode())
        elif written := _WRITE.fullmatch(sql):
            self._hash.update(bytes.fromhex(written[1].decode()))
        elif _CLOSE.fullmatch(sql):
            self.digests[self._oid] = self._hash.hexdigest()
        else:
            return False
        return True
