"""Read and write manifests: JSON whose last field is a digest of the rest, so that damage is noticed."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from ..models.manifest import ManifestHead

M = TypeVar("M", bound=ManifestHead)
HEAD_BYTES = 8 << 10
"""Enough for a whole `ManifestHead`, with which a manifest begins."""
DIGEST = "manifest_sha256"
_OBJECT = TypeAdapter(dict[str, Any])


class ManifestDamaged(Exception):
    """The text is not a manifest, or not as it was written."""


def seal(manifest: ManifestHead) -> bytes:
    """Return a manifest as the bytes of its file."""
    content = manifest.model_dump(mode="json", by_alias=True)
    return json.dumps({**content, DIGEST: _digest(content)}, indent=1, ensure_ascii=False).encode() + b"\n"


def unseal(text: bytes, model: type[M]) -> M:
    """Read a manifest of that kind from its file's bytes. Raises ManifestDamaged."""
    try:
        content = _OBJECT.validate_json(text)
        if content.pop(DIGEST, None) != _digest(content):
            raise ManifestDamaged("is damaged: it is not what was written")
        return model.model_validate(content)
    except (ValidationError, ValueError) as error:
        raise ManifestDamaged("can't be read: it is damaged or was written by another version of this tool") from error


def head(beginning: bytes) -> ManifestHead:
    """Read a manifest's head from the beginning of its file. Raises ManifestDamaged."""
    try:
        content = from_json(beginning, allow_partial=True)
        return ManifestHead.model_validate(
            {name: content[name] for name in ManifestHead.model_fields if name in content}
        )
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise ManifestDamaged("can't be read: it is damaged or was written by another version of this tool") from error


def _digest(content: dict[str, Any]) -> str:
    """Digest the values, whatever the white space and the order of fields."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
