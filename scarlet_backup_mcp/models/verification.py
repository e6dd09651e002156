"""What a verification or a drill finds, and what of it is kept beside the backup."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..errors import NextCall
from .common import CodePage, CodePageText, DrillMode, Level, Model, SearchPath, Step, Utc, Verdict, unknown_as


class Check(Model):
    """One check of a verification."""

    check: str
    ok: bool | None = Field(description="null: not applicable or could not be done; counts neither way.")
    expected: str = ""
    found: str = ""
    detail: str = ""


class Difference(Model):
    """Something that is in the backup and not, or not the same, in the database restored from it."""

    what: str = Field(description="For example 'rows of letta.messages' or 'INDEX letta.agents_name_idx'.")
    backup: str
    restored: str


class Violation(Model):
    """A constraint that rows of the database broke when it was backed up."""

    table: str = Field(description="Or the domain whose check it is.")
    constraint: str
    kind: Literal["foreign key", "check", "unique index"]
    rows: int | None = Field(description="null: that could not be told.")
    keys: list[str] = Field(description="Primary keys of the first five.")


class Drill(Model):
    """A restore into a throw-away server: what came of it."""

    verdict: Verdict = Field(
        default="unknown",
        description="'sound': all it holds came back, but that is no proof. 'damaged': the file is not what was "
        "written. 'will_not_load': the file is whole, and the server refuses it. 'constraint_violated': the database "
        "held rows that break its constraints, and the backup is faithful. 'unknown': also of a sample that came back.",
    )
    proved: bool | None = Field(
        description="Whether the same data came back; null: it could not be told, see detail, or nobody knows what "
        "should have come back, as of a cold copy, or pg_dump has left rows out."
    )
    sound: bool | None = Field(
        default=None,
        description="Of a volume: whether a server came up on it, all of it could be read, and nothing speaks against "
        "it, though it may not be proved. Of an SQL backup: true where all that it holds came back, but pg_dump left "
        "rows out, so that it is not proved; else null.",
    )
    proved_by: DrillMode | None = Field(
        default=None,
        description="What has shown that its definitions load: all of it, or a 'sample' with 1,000 rows of each table.",
    )
    detail: str = ""
    where: str = Field(description="The server it was restored into.")
    server_version: str
    rows_compared: int = 0
    objects_compared: int = 0
    differences: list[Difference] = Field(default=[], description="The first twenty.")
    normalised: list[Difference] = Field(
        default=[], description="Definitions that the server spells in another way, but which mean the same."
    )
    violations: list[Violation] = []
    except_recomputed: list[str] = Field(
        default=[], description="What no dump carries and a load computes anew, and which differs or was not compared."
    )
    search_path: SearchPath | None = Field(default=None, description="With which it loads; null: with neither.")
    warnings: list[str] = []
    database_bytes: int | None = None
    load_seconds: float | None = None
    restore_seconds: float | None = Field(default=None, description="About how long a real restore would take.")
    duration_seconds: float


class CodePageChoice(Model):
    """Code pages that give a PowerShell file the same text, with words of it."""

    code_pages: list[CodePageText]
    samples: list[str]


class Verification(Model):
    """Answer of `verify_backup`."""

    status: Literal["done"] = "done"
    name: str
    verdict: Verdict | None = Field(default=None, description="Of the last restore drill: see `drill`.")
    level: Level
    valid: bool = Field(description="True only if every check holds and the backup has our manifest.")
    proved: bool | None = Field(
        default=None, description="Whether a restore drill proved it, this one or an earlier one; null without one."
    )
    proved_at: Utc | None = Field(default=None, description="When that drill was done.")
    foreign: bool = Field(description="Made by something else than `backup`, or its manifest is lost.")
    shrunk: bool | None = Field(description="A whole backup of a database that had shrunk; null without a manifest.")
    repairable: bool | None = Field(
        default=None, description="For files that PowerShell re-encoded: whether all of it can be undone; else null."
    )
    code_pages: list[CodePageChoice] = Field(
        default=[], description="When its code page can't be told for certain: call again with the right one of these."
    )
    drill: Drill | None = None
    warnings: list[str] = []
    checks: list[Check]
    tables: int | None = None
    rows: int | None = None
    files: int | None = Field(default=None, description="In an archive of a volume.")
    bytes: int
    sha256: str | None = None
    verified_at: Utc
    duration_seconds: float
    steps: list[Step]
    remedy: str | None = None
    next_call: NextCall | None = None


class DrillOutcome(Model):
    """What the last drill of an SQL backup has shown of its definitions."""

    by: Annotated[DrillMode | None, unknown_as(None)] = Field(
        description="null: it could not load them, or not as they were."
    )
    at: Utc
    on: str = Field(description="Id of the image it was done in; without one the server's version.")
    verdict: Annotated[Verdict | None, unknown_as(None)] = Field(
        default=None, description="Where it could not: the drill's; null: an older file."
    )
    detail: str = Field(default="", description="Why not; or what is not all as it was, though it is proved.")


class StoredVerification(Model):
    """`<file>.verified.json`: the last outcome of `full` or `drill`, replaced atomically. Bound to the file and its
    manifest by sizes and modification times, so that an outcome never outlives a change of either.

    `proved` is the verdict of the last drill that had one, on the server `proved_on`; it stays when the same content is
    verified in full again, and so do that drill's own `verdict`, `said` and `search_path`."""

    level: Annotated[Level, unknown_as("quick")]
    valid: bool
    proved: bool | None = None
    proved_at: Utc | None = None
    proved_on: str | None = None
    drilled: DrillOutcome | None = None
    verdict: Annotated[Verdict | None, unknown_as(None)] = None
    said: str = Field(default="", description="By a drill that could not load it: why.")
    search_path: Annotated[SearchPath | None, unknown_as(None)] = Field(
        default=None, description="With which the last drill could load it."
    )
    code_page: CodePage | None = Field(default=None, description="With which a file of PowerShell's was read for this.")
    verified_at: Utc
    sha256: str | None
    bytes: int
    mtime_ns: int
    manifest_bytes: int
    manifest_mtime_ns: int
    failed_checks: list[str]
