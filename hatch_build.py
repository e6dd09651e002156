"""The README as a package index shows it: links into the repository are absolute there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class CustomMetadataHook(MetadataHookInterface):
    """Makes the long description from README.md and `project.urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the project's readme."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": with_absolute_links(text, metadata["urls"]["Repository"]),
        }


def with_absolute_links(text: str, repository: str) -> str:
    """Return the Markdown with each link to a file of the repository leading there from anywhere."""
    return re.sub(r"\]\((?![a-z]+:|#)([^)]+)\)", rf"]({repository}/blob/HEAD/\1)", text)
