"""What an engine, or a proxy before it, refuses, in words."""

from __future__ import annotations

import re
from typing import Any

from ...errors import HostError

FORBIDDEN = (401, 403, 405)
THROUGH_THE_PROXY = (
    "If a socket proxy stands before the engine, let it pass that: docker-socket-proxy needs CONTAINERS=1, EXEC=1 and "
    "POST=1 for a backup; IMAGES=1, VOLUMES=1 and INFO=1 besides for drills and whole volumes. Or set DOCKER_HOST to "
    "the engine's own socket."
)


class EngineRefused(HostError):
    """The engine answered with an HTTP error: `status` is 404, 409, 500 …"""

    def __init__(self, message: str, status: int, remedy: str | None = None) -> None:
        super().__init__(message, remedy)
        self.status = status


def refused(error: Any, address: str, doing: str) -> EngineRefused:
    """Describe docker-py's APIError: what the engine was asked to do, and what it answered."""
    status, reason = error.status_code or 0, _reason(error)
    if status in FORBIDDEN:
        request = error.response.request
        what = f"`{request.method} {request.path_url.partition('?')[0]}`"
        because = f" ({reason})" if reason else ""
        message = f"What answers at {address} does not allow us to {doing}: it forbids {what}{because}."
        return EngineRefused(message, status, THROUGH_THE_PROXY)
    return EngineRefused(f"The Docker engine could not {doing}: {reason or f'HTTP status {status}'}.", status)


def is_page(response: Any) -> bool:
    """Tell whether an answer is a page for people, which no engine gives."""
    return "html" in response.headers.get("Content-Type", "").lower() or response.text.lstrip()[:1] == "<"


def _reason(error: Any) -> str:
    """Return what the engine says; "" if a proxy answered with a page of its own."""
    if error.response is not None and is_page(error.response):
        return ""
    return re.sub(r"\s+", " ", str(error.explanation or error)).strip().rstrip(".")
