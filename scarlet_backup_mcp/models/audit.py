"""What the audit log of a backup directory holds of each call."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue

from .common import Model, Utc, unknown_as


class Client(Model):
    """Who called: an MCP client as it introduced itself, "cli", or "schedule"."""

    name: str
    version: str | None = None


class AuditEntry(Model):
    """One call. `before` and `after` name what it worked on and what it left, with SHA-256 digests where there are."""

    model_config = ConfigDict(extra="ignore")

    schema_: Literal[1] = Field(default=1, alias="schema")
    call: str = Field(
        description="The same in the two lines of a call: the one of its beginning and the one of its end."
    )
    time: Utc = Field(description="When the call began.")
    tool: str
    arguments: dict[str, JsonValue] = Field(description="Without secrets.")
    client: Client
    outcome: Annotated[Literal["begun", "ok", "bad", "error"], unknown_as("bad")] = Field(
        description="'begun': it has not ended, so it is under way or was killed. 'bad': it was done, but its result "
        "is not what a user needs, such as a backup that has shrunk."
    )
    code: str | None = Field(description="With 'error': the error's code.")
    message: str
    duration_seconds: float | None = Field(description="null with 'begun'.")
    before: dict[str, str] = Field(default={})
    after: dict[str, str] = Field(default={})

    @property
    def job(self) -> str | None:
        """Name of the scheduled job whose run it is; None: it is none of a scheduler's."""
        name = self.arguments.get("scheduled") if self.tool == "backup" else None
        return None if name is None else str(name)
