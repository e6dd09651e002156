"""What a call notes on its way for its result and for the audit log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass
class CallNotes:
    """One per call. `settled`: what it finished, rolled back or removed for calls that were killed, in sentences.
    `announce` writes to the audit log what is about to be replaced or removed, with digests: a killed call can't."""

    settled: list[str] = field(default_factory=list[str])
    announce: Callable[[Mapping[str, str]], None] = lambda doomed: None
