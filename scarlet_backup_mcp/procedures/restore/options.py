"""What a caller of `restore` may choose, what a user is asked, and what a yes is bound to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...errors import NextCall, again
from ...models.common import CodePage

if TYPE_CHECKING:
    from ..catalog.records import BackupRecord

RestoreDrill = Literal["auto", "always", "never"]


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """What a caller of a restore may choose.

    `accept_…` and `drop_oldest_undo` are consents. `drill` "auto": a file that `backup` did not make is first restored
    into a sandbox, and what then goes live is that sandbox's own dump; "always": every backup has to prove itself
    first; "never": none. `code_page` is for files that PowerShell re-encoded. `accept_violations` is the consent that
    constraints which the backup's rows break do not come back as they were, `accept_configuration` the consent to
    everything that a foreign volume archive makes its server run or load.
    """

    accept_foreign: bool = False
    accept_other_database: bool = False
    stop_dependents: bool = True
    drop_oldest_undo: bool = False
    drill: RestoreDrill = "auto"
    code_page: CodePage | None = None
    accept_smaller: bool = False
    accept_violations: bool = False
    accept_configuration: bool = False

    def drills(self, record: BackupRecord[Any] | None) -> bool:
        """Whether a backup is first restored into a sandbox; an undo point, which has no record, never is."""
        if record is None:
            return False
        return record.foreign if self.drill == "auto" else self.drill == "always"

    def call(self, source: str) -> NextCall:
        """Suggest the restore of `source` with these options; defaults are left out."""
        chosen = {name: value for name, value in asdict(self).items() if value != getattr(AS_USUAL, name)}
        return NextCall(tool="restore", arguments={"backup": source, **chosen})


AS_USUAL = RestoreOptions()
UNDO = "To undo this, restore the undo point."
WITHOUT_DRILL = (
    "Choose another backup. If the user wants this one all the same, restore it without a drill.",
    again(drill="never"),
)
"""The remedy for a backup that a drill did not prove, and the call that follows it."""


@dataclass(frozen=True)
class Confirmed:
    """What a user said yes to: this very content over this very database, or into this very container's volume."""

    sha256: str | None
    live_oid: int | None
    container_id: str | None = None


@dataclass(frozen=True)
class Proposal:
    """What a user is asked before a restore of `source`, and what a yes is bound to."""

    source: str
    question: str
    confirms: Confirmed
