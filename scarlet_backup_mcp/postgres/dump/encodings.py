"""PostgreSQL's server encodings as Python's codecs ("Character Set Support", section 24.3, of its documentation)."""

from __future__ import annotations

import re

CODECS = {
    "EUC_CN": "gb2312",
    "EUC_JIS_2004": "euc_jis_2004",
    "EUC_JP": "euc_jp",
    "EUC_KR": "euc_kr",
    "KOI8R": "koi8_r",
    "KOI8U": "koi8_u",
    "WIN866": "cp866",
    "WIN874": "cp874",
    **{f"ISO_8859_{part}": f"iso8859_{part}" for part in (5, 6, 7, 8)},
    **{f"LATIN{number}": f"iso8859_{part}" for number, part in enumerate((1, 2, 3, 4, 9, 10, 13, 14, 15, 16), 1)},
    **{f"WIN{page}": f"cp{page}" for page in range(1250, 1259)},
}
_CLIENT_ENCODING = re.compile(rb"SET\s+client_encoding\s*=\s*'([A-Za-z0-9_]+)'", re.IGNORECASE)


def codec_set_by(statement: bytes) -> str | None:
    """Return the codec that `SET client_encoding = …`, as pg_dump writes it, asks for; None for any other statement.

    It is UTF-8 also for SQL_ASCII, and for the few encodings that Python has no codec for.
    """
    found = _CLIENT_ENCODING.match(statement)
    return CODECS.get(found[1].decode().upper(), "utf-8") if found else None
