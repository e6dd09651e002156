"""Why an engine is not reached over ssh, in words: asked of ssh itself, whose messages docker-py lets go by."""

from __future__ import annotations

import subprocess
from urllib.parse import SplitResult, urlsplit

SECONDS = 20
CONNECT_SECONDS = 10
_SSH_FAILED, _NOT_FOUND = 255, (126, 127)
"""ssh's own exit code, and a shell's for a command that it can't run."""


def why(address: str) -> tuple[str, str]:
    """Connect as docker-py does, and return the reason and the remedy. Asks nothing of the user."""
    parts = urlsplit(address)
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"]
    command = ["ssh", *options, *_port(parts), "--", _who(parts), "docker system dial-stdio"]
    usual = f"See what `docker -H {address} ps` says."
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return "there is no `ssh` command on this machine", "Install OpenSSH's client, then try again."
    except (OSError, subprocess.TimeoutExpired):
        return "ssh did not connect to it", usual
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    last = lines[-1].rstrip(".") if lines else ""
    if done.returncode == _SSH_FAILED:
        return _ssh_failed(parts, done.stderr, last, usual)
    if done.returncode in _NOT_FOUND:
        return (
            f"ssh connects, but there is no `docker` command for {parts.username or 'the user'} on {parts.hostname}",
            "Install Docker there, or put it on the PATH of commands that are run over ssh: "
            f"`{_by_hand(parts)} docker version` shows whether it is.",
        )
    if done.returncode != 0 and last:
        return (
            f"ssh connects, but no engine answers on {parts.hostname}: {last}",
            f"Start the engine on {parts.hostname}, or let {parts.username or 'the user'} use it there. {usual}",
        )
    return "ssh did not connect to it", usual


def _ssh_failed(parts: SplitResult, output: str, last: str, usual: str) -> tuple[str, str]:
    by_hand = _by_hand(parts)
    if "HOST IDENTIFICATION HAS CHANGED" in output:
        return (
            f"ssh refuses the host key of {parts.hostname}, which is another one than before",
            "Find out why it changed. If it is right, remove the old one with "
            f"`ssh-keygen -R {_known_as(parts)}`, connect once with `{by_hand}` and compare the fingerprint.",
        )
    if "Host key verification failed" in output:
        return (
            f"ssh does not know the host key of {parts.hostname}",
            f"Connect once with `{by_hand}`, and say yes if the fingerprint is the machine's.",
        )
    if "Permission denied" in output:
        return (
            f"{parts.hostname} does not let this user in with the keys that ssh has",
            f"Give it this user's key with `{_by_hand(parts, 'ssh-copy-id')}`, load a key with a passphrase into the "
            "agent with `ssh-add`, or name the right key as IdentityFile in ~/.ssh/config.",
        )
    if last:
        return f"ssh did not connect to it ({last})", usual
    return "ssh did not connect to it", usual


def _port(parts: SplitResult) -> list[str]:
    return ["-p", str(parts.port)] if parts.port else []


def _who(parts: SplitResult) -> str:
    return f"{parts.username}@{parts.hostname}" if parts.username else str(parts.hostname)


def _by_hand(parts: SplitResult, program: str = "ssh") -> str:
    return " ".join([program, *_port(parts), _who(parts)])


def _known_as(parts: SplitResult) -> str:
    return f"'[{parts.hostname}]:{parts.port}'" if parts.port else str(parts.hostname)
