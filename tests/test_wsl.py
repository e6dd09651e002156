"""Paths of Windows inside WSL, and of WSL on Windows. Neither is here: the translation is tried by itself."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from scarlet_backup_mcp import wsl


@pytest.mark.parametrize(
    ("windows", "linux"),
    [
        ("H:\\ABIOGENESIS\\scarlet", "/mnt/h/ABIOGENESIS/scarlet"),
        ("h:/ABIOGENESIS/Scarlet è qui", "/mnt/h/ABIOGENESIS/Scarlet è qui"),
        ("\\\\?\\H:\\scarlet", "/mnt/h/scarlet"),
        ("C:\\", "/mnt/c"),
        ("\\\\wsl$\\Ubuntu\\home\\me\\scarlet", "/home/me/scarlet"),
        ("\\\\wsl.localhost\\ubuntu\\home\\me", "/home/me"),
        ("//wsl$/Ubuntu/mnt/h/scarlet", "/mnt/h/scarlet"),
        ("\\\\wsl$\\Debian\\home\\me", None),
        ("\\\\server\\share\\scarlet", None),
        ("H:scarlet", None),
        ("/home/me", None),
        ("/mnt/h/scarlet", None),
        ("scarlet", None),
        ("", None),
    ],
)
def test_to_linux(windows: str, linux: str | None) -> None:
    assert wsl.to_linux(windows, "/mnt/", "Ubuntu") == linux


def test_without_a_distribution_no_share_is_its_own() -> None:
    assert wsl.to_linux("\\\\wsl$\\Ubuntu\\home", "/mnt/", "") is None
    assert wsl.to_linux("\\\\server\\share\\scarlet", "/mnt/", "") is None


@pytest.mark.parametrize(
    ("linux", "windows"),
    [
        ("/mnt/h/ABIOGENESIS/scarlet", "H:\\ABIOGENESIS\\scarlet"),
        ("\\mnt\\h\\ABIOGENESIS", "H:\\ABIOGENESIS"),
        ("/mnt/c", "C:\\"),
        ("\\\\wsl$\\Ubuntu\\mnt\\h\\scarlet", "H:\\scarlet"),
        ("\\\\wsl.localhost\\Ubuntu\\home\\me", None),
        ("/home/me/scarlet", None),
        ("/mnt/usb/scarlet", None),
        ("/mnt", None),
        ("x/mnt/h", None),
        ("H:\\mnt\\h\\x", None),
        ("\\\\server\\share\\mnt\\h", None),
        ("", None),
    ],
)
def test_to_windows(linux: str, windows: str | None) -> None:
    assert wsl.to_windows(linux) == windows


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("[automount]\nroot = /windir/\n", "/windir/"),
        ('[automount]\nenabled=true\nroot="/"\n', "/"),
        ("[network]\nhostname=scarlet\n", "/mnt/"),
        ("[automount]\nroot=\n", "/mnt/"),
        ("no section\n", "/mnt/"),
        (None, "/mnt/"),
    ],
)
def test_where_drives_are_mounted(tmp_path: Path, text: str | None, root: str) -> None:
    if text is not None:
        (tmp_path / "wsl.conf").write_text(text)
    assert wsl.automount_root(tmp_path / "wsl.conf") == root


@pytest.mark.skipif(os.name == "nt", reason="as inside WSL")
def test_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsl, "CONFIGURATION", tmp_path / "none")
    share = "\\\\wsl.localhost\\Ubuntu\\home\\me"
    monkeypatch.setattr(platform, "release", lambda: "5.15.167.4-microsoft-standard-WSL2")
    assert wsl.here("H:\\scarlet") == "/mnt/h/scarlet"
    assert wsl.here(share, {"WSL_DISTRO_NAME": "Ubuntu"}) == "/home/me"
    assert wsl.here(share, {}) == share
    assert wsl.here("/home/me") == "/home/me"
    monkeypatch.setattr(platform, "release", lambda: "6.1.0-generic")
    assert wsl.here("H:\\scarlet", {"WSL_DISTRO_NAME": "Ubuntu"}) == "H:\\scarlet"
