"""How the project is found and installed: server.json, the bundle, install links, the README on a package index."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from scarlet_backup_mcp import __version__
from scarlet_backup_mcp.server.tools import create_server
from scarlet_backup_mcp.settings import PREFIX, Settings, load_settings

from .conftest import PROJECT_ROOT

MANIFEST_FIELDS = {
    *("manifest_version", "name", "display_name", "version", "description", "author", "license", "keywords"),
    *("server", "tools", "compatibility"),
}
"""Of those that the manifest's specification 0.4 has, the ones used here; it allows no others than its own."""


def json_of(name: str) -> dict[str, Any]:
    return json.loads((PROJECT_ROOT / name).read_text(encoding="utf-8"))


def project() -> dict[str, Any]:
    return tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def entry() -> dict[str, Any]:
    return json_of("mcp.json")["mcpServers"]["scarlet-backup"]


# -- server.json -----------------------------------------------------------------------------------------------------


def test_server_json_is_as_the_registry_wants_it() -> None:
    """Schema 2025-12-11, and what the registry checks beyond it: its reference of server.json."""
    server = json_of("server.json")
    assert server["$schema"].endswith("/schemas/2025-12-11/server.schema.json")
    assert re.fullmatch(r"io\.github\.[A-Za-z0-9-]+/[A-Za-z0-9._-]+", server["name"])
    assert 1 <= len(server["description"]) <= 100
    assert 1 <= len(server["title"]) <= 100
    [package] = server["packages"]
    assert (package["registryType"], package["identifier"]) == ("pypi", project()["name"])
    assert server["version"] == package["version"] == __version__
    assert package["transport"] == {"type": "stdio"}
    assert [argument["value"] for argument in package["packageArguments"]] == entry()["args"]
    for variable in package["environmentVariables"]:
        assert variable["name"].removeprefix(PREFIX).lower() in Settings.model_fields


def test_the_owner_is_the_same_everywhere() -> None:
    repository: str = project()["urls"]["Repository"]
    owner = repository.split("/")[-2]
    server = json_of("server.json")
    assert server["name"] == f"io.github.{owner}/{project()['name']}"
    assert server["repository"] == {"url": repository, "source": "github"}
    assert f"<!-- mcp-name: {server['name']} -->" in (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")


# -- install links ---------------------------------------------------------------------------------------------------


def test_install_links_have_the_entry_of_mcp_json() -> None:
    text = (PROJECT_ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    links: list[str] = re.findall(r"(?:https|cursor|vscode):[^\s)]+install[^\s)]+", text)
    assert len(links) == 4
    for link in links:
        parts = urlsplit(link)
        if parts.scheme == "vscode":
            found = json.loads(unquote(parts.query))
            assert found.pop("name") == "scarlet-backup"
        else:
            query = parse_qs(parts.query, strict_parsing=True)
            assert query["name"] == ["scarlet-backup"]
            [config] = query["config"]
            found = json.loads(config if "vscode" in parts.netloc else base64.b64decode(config, validate=True))
        assert found == entry()


# -- the README on a package index -----------------------------------------------------------------------------------


def test_links_of_the_readme_hold_on_a_package_index(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=PROJECT_ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        shown = wheel.read(name).decode()
    repository: str = project()["urls"]["Repository"]
    links: list[str] = re.findall(r"\]\(([^)]+)\)", shown)
    assert len(links) > 10
    for link in links:
        path = link.removeprefix(f"{repository}/blob/HEAD/")
        assert link.startswith("https://")
        assert path == link or (PROJECT_ROOT / path.partition("#")[0]).exists()
    assert f"mcp-name: {json_of('server.json')['name']}" in shown


# -- the bundle ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `run.py bundle` writes."""
    command = [sys.executable, str(PROJECT_ROOT / "run.py"), "bundle", str(tmp_path_factory.mktemp("bundle"))]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


async def test_the_bundle_holds_what_uv_needs(bundle: Path, tmp_path: Path) -> None:
    assert bundle.name == f"scarlet-backup-mcp-{__version__}.mcpb"
    with zipfile.ZipFile(bundle) as archive:
        names = set(archive.namelist())
        manifest = json.loads(archive.read("manifest.json"))
    assert {"manifest.json", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "serve.py"} <= names
    package = PROJECT_ROOT / "scarlet_backup_mcp"
    sources = {path.relative_to(PROJECT_ROOT).as_posix() for path in package.rglob("*") if path.is_file()}
    assert {name for name in names if name.startswith("scarlet_backup_mcp/")} == {
        name for name in sources if not name.endswith(".pyc")
    }
    assert set(manifest) == MANIFEST_FIELDS
    assert manifest["manifest_version"] == "0.4"
    assert manifest["version"] == __version__
    assert manifest["server"]["type"] == "uv"
    assert manifest["server"]["entry_point"] in names
    assert manifest["server"]["entry_point"] in manifest["server"]["mcp_config"]["args"]
    assert manifest["compatibility"]["runtimes"]["python"] == project()["requires-python"]
    tools = await create_server(load_settings()).list_tools()
    assert manifest["tools"] == [{"name": tool.name, "description": tool.title} for tool in tools]


def test_the_bundle_is_the_same_each_time(bundle: Path, tmp_path: Path) -> None:
    again = subprocess.run([sys.executable, str(PROJECT_ROOT / "run.py"), "bundle", str(tmp_path)], check=True)
    assert again.returncode == 0
    assert (tmp_path / bundle.name).read_bytes() == bundle.read_bytes()


@pytest.mark.long
async def test_the_bundle_starts_with_uv(bundle: Path, tmp_path: Path) -> None:
    """Unpacked as a host does it, started as its manifest says, with uv from the package index."""
    tools, unpacked = tmp_path / "tools", tmp_path / "unpacked"
    python = getattr(sys, "_base_executable", sys.executable)  # which has pip; an environment of run.py has none
    subprocess.run([python, "-m", "pip", "install", "-qq", "--target", str(tools), "uv"], check=True)
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(unpacked)
    started = json.loads((unpacked / "manifest.json").read_text(encoding="utf-8"))["server"]["mcp_config"]
    arguments = [argument.replace("${__dirname}", str(unpacked)) for argument in started["args"]]
    outside = {"PYTHONPATH", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in outside}
    environment |= {
        "PATH": os.pathsep.join([str(tools / "bin"), os.environ["PATH"]]),
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_PYTHON_DOWNLOADS": "never",
        "SCARLET_BACKUP_DIR": str(tmp_path / "backups"),
    }
    command = StdioServerParameters(command=started["command"], args=arguments, env=environment, cwd=tmp_path)
    with (tmp_path / "stderr.log").open("w") as log:
        async with Client(stdio_client(command, errlog=log), mode="legacy") as client:
            found = {tool.name for tool in (await client.list_tools()).tools}
            procedure = await client.read_resource("scarlet://procedure/proc-004?lang=it")
    assert "backup" in found
    assert "Passo 3" in getattr(procedure.contents[0], "text", "")


def test_a_link_is_made_absolute_only_where_it_leads_into_the_repository() -> None:
    spec = importlib.util.spec_from_file_location("hatch_build", PROJECT_ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "[a](docs/a.md#b) [c](#c) [d](https://x/y) [e](LICENSE) `f`(g)"
    expected = "[a](R/blob/HEAD/docs/a.md#b) [c](#c) [d](https://x/y) [e](R/blob/HEAD/LICENSE) `f`(g)"
    assert module.with_absolute_links(text, "R") == expected
