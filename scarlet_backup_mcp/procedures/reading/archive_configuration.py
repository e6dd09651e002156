"""The configuration that an archive of a whole volume brings: named always, and of a foreign one commented out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...errors import BackupNotValid
from ...models.verification import Check
from ...postgres.cluster import configuration
from ...postgres.cluster.configuration import ConfigurationFinding
from .archive import ArchiveContents

CONFIGURATION = "configuration"


def findings_of(contents: ArchiveContents, live: Mapping[str, str] | None = None) -> list[ConfigurationFinding]:
    """What its configuration makes a server do, but for settings that the `live` one has, too."""
    return configuration.findings(contents.kept, contents.files, live or {})


def check(contents: ArchiveContents, *, foreign: bool) -> Check:
    """It counts neither way for a foreign archive, and is the user's own in one of ours."""
    found = findings_of(contents)
    return Check(
        check=CONFIGURATION,
        ok=None if foreign and found else True,
        found=f"{len(found)} lines" if found else "",
        detail=configuration.described(found),
    )


def warnings_of(checks: Iterable[Check]) -> list[str]:
    """What such a check tells, as a warning."""
    return [named(check.detail) for check in checks if check.check == CONFIGURATION and check.detail]


def named(told: str) -> str:
    """A warning, of what a check or a manifest tells."""
    return f"Look at the configuration that it brings: {told}."


def on_restore(found: list[ConfigurationFinding], name: str, *, accepted: bool) -> str:
    """A warning, of what a foreign archive brings. Raises BackupNotValid where that can't be told."""
    told = configuration.described(found)
    if accepted:
        return f"The configuration that it brings takes effect: {told}."
    if unread := [finding for finding in found if finding.unread]:
        raise BackupNotValid(
            f"What {name} brings can't be looked at: {configuration.described(unread)}.",
            "Choose another backup; or, if the user trusts what is in it, call again with accept_configuration=true.",
        )
    return (
        f"Of the configuration that it brings these lines are commented out: {told}. If the user wants them to take "
        "effect, call again with accept_configuration=true."
    )
