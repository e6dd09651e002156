"""Read and write manifests: JSON whose last field is a digest of the rest, so that damage is noticed."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from ..models.common import Model
from ..models.manifest import ManifestHead

M = TypeVar("M", bound=Model)
HEAD_BYTES = 8 << 10
"""Enough for a whole `ManifestHead`, with which a manifest begins."""
_AFTER_HEAD = b'\n "finished_at":'
"""The first field of `Manifest` and `VolumeManifest` that is not of the head, as `seal` writes it: at the beginning of
a line, which no string in JSON contains."""
DIGEST = "manifest_sha256"
_OBJECT = TypeAdapter(dict[str, Any])
_KNOWN_VERSION: int = max(get_args(ManifestHead.model_fields["manifest_version"].annotation))


class ManifestDamaged(Exception):
    """The text is not a manifest, or not as it was written."""


class ManifestNewer(Exception):
    """The manifest is whole, and of a higher version than this one reads."""


def seal(manifest: Model) -> bytes:
    """Return a manifest as the bytes of its file."""
    content = manifest.model_dump(mode="json", by_alias=True)
    return to_json({**content, DIGEST: _digest(content)}, indent=1) + b"\n"


def unseal(text: bytes, model: type[M]) -> M:
    """Read a manifest of that kind from its file's bytes, without a newer version's fields. Raises ManifestDamaged or
    ManifestNewer."""
    try:
        content = _OBJECT.validate_json(text)
        if content.pop(DIGEST, None) != _digest(content):
            raise ManifestDamaged("is damaged: it is not what was written")
        _require_known_version(content)
        return model.model_validate(content, extra="ignore")
    except (ValidationError, ValueError) as error:
        raise ManifestDamaged("can't be read: it is damaged") from error


def head(beginning: bytes) -> ManifestHead:
    """Read a manifest's head from the beginning of its file. Raises ManifestDamaged or ManifestNewer."""
    try:
        content = _OBJECT.validate_python(from_json(beginning.partition(_AFTER_HEAD)[0], allow_partial=True))
        _require_known_version(content)
        return ManifestHead.model_validate(content, extra="ignore")
    except (ValidationError, ValueError) as error:
        raise ManifestDamaged("can't be read: it is damaged") from error


def _require_known_version(content: dict[str, Any]) -> None:
    version = content.get("manifest_version")
    if isinstance(version, int) and version > _KNOWN_VERSION:
        raise ManifestNewer(f"its manifest is of version {version}, and this one reads {_KNOWN_VERSION}")


def _digest(content: dict[str, Any]) -> str:
    """Digest the values, whatever the white space and the order of fields."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
