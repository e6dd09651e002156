"""The result of `doctor`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .common import Model

Status = Literal["ok", "warn", "fail"]


class SetupCheck(Model):
    """One thing that was looked at."""

    check: str = Field(description="Its stable name, such as docker, database or clients.")
    status: Status
    message: str
    remedy: str = Field(default="", description="What to do about it.")
    fixed: bool = Field(default=False, description="It was not good, and `--fix` has corrected it.")


class SetupReport(Model):
    """What was looked at, in the order in which a backup needs it."""

    good: bool = Field(description="Nothing fails. There may be warnings.")
    checks: list[SetupCheck]
