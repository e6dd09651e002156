"""What others rely on, as files: a change to it shows in a diff. `SCARLET_TEST_RENEW=1` writes them anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from scarlet_backup_mcp.models.manifest import Manifest, VolumeManifest
from scarlet_backup_mcp.settings import load_settings

from ..conftest import PROJECT_ROOT
from ..helpers.faces import agent

DATA = PROJECT_ROOT / "tests" / "data"


def compare(name: str, found: object) -> None:
    path, text = DATA / name, json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if os.environ.get("SCARLET_TEST_RENEW") == "1":
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, f"{name} differs: look at it, then SCARLET_TEST_RENEW=1"


async def test_the_list_of_tools(tmp_path: Path) -> None:
    async with agent(load_settings(dir=tmp_path), "2026-07-28") as it:
        tools = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in it.tools.values()]
    compare("tools.json", tools)


@pytest.mark.parametrize("model", [Manifest, VolumeManifest])
def test_the_schema_of_a_manifest(model: type[Manifest | VolumeManifest]) -> None:
    compare(f"{model.__name__.lower()}.schema.json", model.model_json_schema())
