"""The results of a verification or a drill, and what of them is stored with the backup."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..errors import NextCall
from .common import CodePage, CodePageText, DrillMode, Level, Model, SearchPath, Step, Utc, Verdict, unknown_as


class Check(Model):
    """One check of a verification."""

    check: str
    ok: bool | None = Field(description="null: not applicable, or not possible; counts neither way.")
    expected: str = ""
    found: str = ""
    detail: str = ""


class Difference(Model):
    """Something in the backup that is missing or different in the database restored from it."""

    what: str = Field(description="For example 'rows of letta.messages' or 'INDEX letta.agents_name_idx'.")
    backup: str
    restored: str


class Violation(Model):
    """A constraint that rows of the database violated when it was backed up."""

    table: str = Field(description="Or the domain that the check belongs to.")
    constraint: str
    kind: Literal["foreign key", "check", "unique index"]
    rows: int | None = Field(description="null: unknown.")
    keys: list[str] = Field(description="Primary keys of the first five.")


class Drill(Model):
    """The result of a restore into a sandbox, a throw-away server."""

    verdict: Verdict = Field(
        default="unknown",
        description="'sound': everything in it came back, but that is no proof. 'damaged': the file is not what was "
        "written. 'will_not_load': the file is intact, but the server rejects it. 'constraint_violated': the database "
        "had rows that violate its constraints; the backup is faithful. 'unknown': also for a sample that came back.",
    )
    proved: bool | None = Field(
        description="Whether the same data came back; null: inconclusive, see detail; or it is unknown what should "
        "have come back, as for a cold copy; or pg_dump left rows out."
    )
    sound: bool | None = Field(
        default=None,
        description="For a volume: whether a server started on it, all of it could be read, and nothing speaks "
        "against it, even if it is not proved. For an SQL backup: true if everything in it came back, but pg_dump left "
        "rows out, so that it is not proved; else null.",
    )
    proved_by: DrillMode | None = Field(
        default=None,
        description="What showed that its definitions load: all of it, or a 'sample' with 1,000 rows of each table.",
    )
    detail: str = ""
    where: str = Field(description="The server it was restored into.")
    server_version: str
    rows_compared: int = 0
    objects_compared: int = 0
    differences: list[Difference] = Field(default=[], description="The first twenty.")
    normalised: list[Difference] = Field(
        default=[], description="Definitions that the server spells differently, but which mean the same."
    )
    violations: list[Violation] = []
    except_recomputed: list[str] = Field(
        default=[], description="What no dump contains and a load recomputes, if it differs or was not compared."
    )
    search_path: SearchPath | None = Field(
        default=None, description="The search_path that it loads with; null: it loads with neither."
    )
    warnings: list[str] = []
    database_bytes: int | None = None
    load_seconds: float | None = None
    restore_seconds: float | None = Field(default=None, description="About how long a real restore would take.")
    duration_seconds: float


class CodePageChoice(Model):
    """Code pages that give a PowerShell-made file the same text, with sample words."""

    code_pages: list[CodePageText]
    samples: list[str]


class Verification(Model):
    """The result of `verify_backup`."""

    status: Literal["done"] = "done"
    name: str
    verdict: Verdict | None = Field(default=None, description="The last restore drill's: see `drill`.")
    level: Level
    valid: bool = Field(description="True only if every check passed and the backup has our manifest.")
    proved: bool | None = Field(
        default=None, description="Whether a restore drill proved it, this one or an earlier one; null without one."
    )
    proved_at: Utc | None = Field(default=None, description="When that drill was done.")
    foreign: bool = Field(description="Not made by `backup`, or its manifest is lost.")
    shrunk: bool | None = Field(description="An intact backup of a database that had shrunk; null without a manifest.")
    repairable: bool | None = Field(
        default=None, description="For files that PowerShell re-encoded: whether that can be undone completely."
    )
    code_pages: list[CodePageChoice] = Field(
        default=[], description="If its code page is ambiguous: call again with the right one of these."
    )
    drill: Drill | None = None
    warnings: list[str] = []
    checks: list[Check]
    tables: int | None = None
    rows: int | None = None
    files: int | None = Field(default=None, description="Files in an archive of a volume.")
    bytes: int
    sha256: str | None = None
    verified_at: Utc
    duration_seconds: float
    steps: list[Step]
    remedy: str | None = None
    next_call: NextCall | None = None


class DrillOutcome(Model):
    """What the last drill of an SQL backup showed about its definitions."""

    by: Annotated[DrillMode | None, unknown_as(None)] = Field(description="null: they did not load, or differed.")
    at: Utc
    on: str = Field(description="Id of the image that it was done with; without one, the server's version.")
    verdict: Annotated[Verdict | None, unknown_as(None)] = Field(
        default=None, description="The drill's, if they did not; null: an older file."
    )
    detail: str = Field(default="", description="Why not; or what differs although it is proved.")


class StoredVerification(Model):
    """`<file>.verified.json`: the last outcome of `full` or `drill`, replaced atomically.

    It is bound to the file and its manifest by sizes and modification times, so that an outcome never outlives a change
    of either. `proved` is the result of the last conclusive drill, on the server `proved_on`; it stays when the same
    content is verified in full again, and so do that drill's `verdict`, `said` and `search_path`."""

    level: Annotated[Level, unknown_as("quick")]
    valid: bool
    proved: bool | None = None
    proved_at: Utc | None = None
    proved_on: str | None = None
    drilled: DrillOutcome | None = None
    verdict: Annotated[Verdict | None, unknown_as(None)] = None
    said: str = Field(default="", description="Why a drill could not load it.")
    search_path: Annotated[SearchPath | None, unknown_as(None)] = Field(
        default=None, description="The one that the last drill could load it with."
    )
    code_page: CodePage | None = Field(default=None, description="The one that a PowerShell-made file was read with.")
    verified_at: Utc
    sha256: str | None
    bytes: int
    mtime_ns: int
    manifest_bytes: int
    manifest_mtime_ns: int
    failed_checks: list[str]
