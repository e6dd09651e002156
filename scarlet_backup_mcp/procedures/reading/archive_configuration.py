"""Risky configuration in an archive of a whole volume: always reported, and commented out in a foreign archive."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ...errors import BackupNotValid, again
from ...models.verification import Check
from ...postgres.cluster import configuration
from ...postgres.cluster.configuration import ConfigurationFinding
from ...wording import number_of
from .archive import ArchiveContents

CONFIGURATION = "configuration"


def findings_of(contents: ArchiveContents, live: Mapping[str, str] | None = None) -> list[ConfigurationFinding]:
    """List what its configuration makes a server do, without settings that the `live` server has, too."""
    return configuration.findings(contents.kept, contents.files, live or {})


def check(found: Sequence[ConfigurationFinding | str], *, foreign: bool) -> Check:
    """Check the configuration: undecided for a foreign archive; in one of ours it is the user's own."""
    return Check(
        check=CONFIGURATION,
        ok=None if foreign and found else True,
        found=number_of(len(found), "line") if found else "",
        detail=configuration.described(found),
    )


def warnings_of(checks: Iterable[Check]) -> list[str]:
    """Return such a check's result as a warning."""
    return [named(check.detail) for check in checks if check.check == CONFIGURATION and check.detail]


def named(description: str) -> str:
    """Return a warning about the configuration that a check or a manifest describes."""
    return f"Check the configuration in it: {description}."


def on_restore(found: list[ConfigurationFinding], name: str, *, accepted: bool) -> str:
    """Return a warning about a foreign archive's configuration. Raises BackupNotValid if that is unknown."""
    lines = configuration.described(found)
    if accepted:
        return f"The configuration in it takes effect: {lines}."
    if unread := [finding for finding in found if finding.unread]:
        raise BackupNotValid(
            f"The configuration in {name} can't be checked: {configuration.described(unread)}.",
            "Choose another backup; or, if the user trusts its content, accept its configuration.",
            again(accept_configuration=True),
        )
    return (
        f"These lines of the configuration in it are commented out: {lines}. If the user wants them to take effect, "
        "accept its configuration (accept_configuration)."
    )
