"""An image that the engine no longer knows by the id that its containers have."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from scarlet_backup_mcp.errors import DrillImpossible, HostError
from scarlet_backup_mcp.hosts.docker.engine import Endpoint, Engine
from scarlet_backup_mcp.hosts.docker.images import ImageLost, usable
from scarlet_backup_mcp.procedures.backup.service import backup
from scarlet_backup_mcp.procedures.verify.sql import verify

from ..conftest import IMAGE
from ..helpers.containers import run_docker
from ..helpers.engine_front import Front, Reply
from ..helpers.volume import PGDATA, a_rig, a_volume
from .conftest import set_up

ID, OTHER = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
NAME = "registry.example:5000/postgres:15"
MADE = {"Name": "/db", "State": {"Status": "running"}, "Config": {"Image": NAME}}


def asked(image: dict[str, object] | None) -> str:
    """What `usable` gives where the id is unknown, and the name has that `image`."""

    def decide(_: str, target: str) -> Reply:
        if target.endswith("/version"):
            return Reply.json({"ApiVersion": "1.41"})
        if target.endswith("/containers/db/json"):
            return Reply.json(MADE)
        if image is None or ID in target:
            return Reply.json({"message": "No such image"}, 404)
        return Reply.json(image)

    with Front(decide) as front:
        return usable(Engine(Endpoint(front.address)), ID, "db")


@pytest.mark.parametrize(
    "image", [{"Id": ID, "RepoDigests": None}, {"Id": OTHER, "RepoDigests": [f"registry.example:5000/postgres@{ID}"]}]
)
def test_a_name_whose_digest_fits_stands_in(image: dict[str, object]) -> None:
    assert asked(image) == NAME


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"Id": OTHER, "RepoDigests": []}, f"{NAME} now names another one (sha256:222222222222)."),
        (None, f"nor is {NAME}."),
    ],
)
def test_another_image_does_not(image: dict[str, object] | None, words: str) -> None:
    with pytest.raises(ImageLost) as caught:
        asked(image)
    assert caught.value.message.endswith(words)
    assert "container db" in caught.value.message
    assert f"`docker pull registry.example:5000/postgres@{ID}`" in caught.value.remedy


@pytest.mark.long
def test_containerds_store_loses_an_image_whose_tag_moves(
    require_docker: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For real: a newer image of that name is loaded while a container of the older one runs."""
    with set_up("containerd's image store") as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        with a_volume() as volume, a_rig(tmp_path / "b", "--network", "none", "-v", f"{volume}:{PGDATA}") as rig:
            made = rig.call(backup, verify="drill")
            _load_another(tmp_path / "image.tar")
            assert rig.call(backup).name != made.name
            with pytest.raises(DrillImpossible, match="now names another one"):
                rig.call(verify, made.name, "drill")
            run_docker("stop", "-t", "60", rig.container)
            with pytest.raises(HostError, match="now names another one") as caught:
                rig.take()
            assert "docker pull" in caught.value.remedy


def _load_another(archive: Path) -> None:
    """Have the engine load an image of the same name that has one more label."""
    elsewhere = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    with archive.open("wb") as file:
        subprocess.run(["docker", "save", IMAGE], stdout=file, env=elsewhere, check=True)
    changed = archive.with_suffix(".changed")
    with tarfile.open(archive) as old, tarfile.open(changed, "w") as new:
        listed = old.extractfile("manifest.json")
        assert listed is not None
        configuration = json.load(listed)[0]["Config"]
        for member in old:
            content = old.extractfile(member) if member.isfile() else None
            if content is not None and member.name == configuration:
                described = json.load(content)
                described["config"]["Labels"] = {"newer": "yes"}
                written = json.dumps(described).encode()
                member.size, content = len(written), io.BytesIO(written)
            new.addfile(member, content)
    run_docker("load", "-i", str(changed))
