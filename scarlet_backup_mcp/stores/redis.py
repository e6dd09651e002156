"""Redis and Valkey, asked through their own client: whether they keep their data on the disk by themselves.

See https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/ and `redis-cli --help`."""

from __future__ import annotations

from pathlib import PurePosixPath

from ..errors import HostError, StoreNotSaved
from ..hosts import Host, run
from ..hosts.docker.container import DockerHost
from .siblings import Store

SAVE_REMEDY = (
    "Let redis-cli in the container in (REDISCLI_AUTH in the service's environment), or have Redis keep its data "
    "(`--appendonly yes`, or `--save 60 1`)."
)


def save(store: Store) -> bool:
    """Have a running Redis write its data to the disk, if stopping it would not; tell whether it had to be told.

    It writes them itself when it is stopped if `save` or `appendonly` says so. Raises StoreNotSaved.
    """
    host = DockerHost(store.container_id)
    try:
        client = _client(host)
        kept_in = _configured(host, client, "dir")
        if kept_in and not PurePosixPath(kept_in).is_relative_to(store.directory or "/"):
            raise StoreNotSaved(
                f"{store.service} keeps its data in {kept_in}, not in {store.directory}.",
                f"Name that as {store.service}:{kept_in} in SCARLET_BACKUP_STORES.",
            )
        if _configured(host, client, "save") or _configured(host, client, "appendonly") not in ("", "no"):
            return False
        said = _ask(host, client, "SAVE")
    except HostError as error:
        raise StoreNotSaved(f"{store.service} could not be asked to save its data: {error.message}") from error
    finally:
        host.close()
    if said != ["OK"]:
        raise StoreNotSaved(
            f"{store.service} keeps nothing on its disk by itself, and did not save its data when it was told to: "
            f"{' '.join(said) or 'no answer'}",
            SAVE_REMEDY,
        )
    return True


def _client(host: Host) -> str:
    found = bytearray()
    run(host, ["sh", "-c", "command -v redis-cli || command -v valkey-cli"], sink=found.extend)
    return found.decode(errors="replace").strip() or "redis-cli"


def _configured(host: Host, client: str, name: str) -> str:
    """Return a setting; "" if it is empty or can't be asked."""
    said = _ask(host, client, "CONFIG", "GET", name)
    return said[1] if len(said) == 2 and said[0] == name else ""


def _ask(host: Host, client: str, *command: str) -> list[str]:
    """Return the lines of the answer, an error's too."""
    said = bytearray()
    run(host, [client, "--raw", *command], sink=said.extend)
    return said.decode(errors="replace").rstrip("\n").split("\n")
