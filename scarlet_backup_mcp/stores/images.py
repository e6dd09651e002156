"""Images of stores: which programs they hold, and where those keep their data."""

from __future__ import annotations

import re

DATA = {"qdrant": "/qdrant/storage", "redis": "/data", "valkey": "/data"}
"""Where each store's official image keeps its data: https://qdrant.tech/documentation/guides/installation/,
and the pages of the official images of Redis and Valkey."""
_VERSION_LABEL = "org.opencontainers.image.version"
"""See https://github.com/opencontainers/image-spec/blob/main/annotations.md"""
_NAME = re.compile(r"(?P<repository>[^@]*?)(?::(?P<tag>[\w][\w.-]*))?(?:@.*)?", re.ASCII)


def store_in(image: str) -> str | None:
    """Return which store's image that is by its name, on whatever registry: "qdrant", "redis" or "valkey"; None for any
    other image."""
    found = _NAME.fullmatch(image)
    name = found["repository"].rpartition("/")[2] if found else ""
    return name if name in DATA else None


def version_of(image: str, labels: dict[str, str]) -> str | None:
    """Return the version by the image's label, or else its tag; None if neither says one."""
    found = _NAME.fullmatch(image)
    return labels.get(_VERSION_LABEL) or (found["tag"] if found else None)
