"""Entries of a backup directory's audit log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, JsonValue

from .common import Model, Utc, unknown_as

Outcome = Literal["begun", "ok", "bad", "error"]


class Client(Model):
    """The caller: an MCP client by its own name, "cli", or "schedule"."""

    name: str
    version: str | None = None


class AuditEntry(Model):
    """One call. `before` and `after` name what it worked on and what it left, with SHA-256 digests if there are any."""

    # A later version's line may have more fields, and is shown all the same.
    model_config = ConfigDict(extra="ignore")

    schema_: Literal[1] = Field(default=1, alias="schema")
    call: str = Field(
        description="Identifies the call: its lines, at its beginning and at its end, have the same value."
    )
    time: Utc = Field(description="When the call began.")
    tool: str
    arguments: dict[str, JsonValue] = Field(description="Without secrets.")
    client: Client
    outcome: Annotated[Outcome, unknown_as("bad")] = Field(
        description="'begun': the call has not ended: it is still running or was killed. 'bad': it succeeded, but its "
        "result is not what a user needs, such as a backup of a database that has shrunk."
    )
    code: str | None = Field(description="With 'error': the error's code.")
    message: str
    duration_seconds: float | None = Field(description="null with 'begun'.")
    before: dict[str, str] = Field(default={})
    after: dict[str, str] = Field(default={})

    @property
    def job(self) -> str | None:
        """Name of the scheduled job that ran; None if no scheduler started the call."""
        name = self.arguments.get("scheduled") if self.tool == "backup" else None
        return None if name is None else str(name)
