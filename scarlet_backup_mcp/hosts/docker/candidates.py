"""Which containers run PostgreSQL, and with which options, by what the engine says of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from ...errors import SeveralCandidates
from .engine import Answer, Engine, EngineRefused
from .labels import ONEOFF, OWN, PROJECT, SERVICE

DEFAULT_PGDATA = "/var/lib/postgresql/data"
_PROGRAMS = ("postgres", "postmaster")
_SHORT = {"D": "data_directory", "p": "port", "k": "unix_socket_directories"}
_SETTING = re.compile(r"([\w.-]+)=(.*)", re.DOTALL)


def container_environment(found: Answer) -> dict[str, str]:
    """Return an inspected container's environment."""
    lines: Sequence[str] = found["Config"].get("Env") or []
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def server_options(found: Answer) -> dict[str, str]:
    """Return the settings in the command line of an inspected container's server, by PostgreSQL's names for them; the
    last one counts. The socket's directories are `unix_socket_directories`, and what `-D` says is `data_directory`."""
    words, options = _server_words(found) or [], dict[str, str]()
    while words:
        word, *words = words
        if short := re.match(r"-([Dpkc])", word):
            value = word[2:]
            if not value and words:
                value, *words = words
            name, _, value = value.partition("=") if short[1] == "c" else (_SHORT[short[1]], "", value)
            options[name.replace("-", "_").lower()] = value
        elif word.startswith("--") and (setting := _SETTING.fullmatch(word[2:])):
            options[setting[1].replace("-", "_").lower()] = setting[2]
    return options


def data_directory(found: Answer) -> str:
    """Return where an inspected container's server keeps its data: by its command, its environment or the default."""
    return server_options(found).get("data_directory") or container_environment(found).get("PGDATA") or DEFAULT_PGDATA


def the_only_one(engine: Engine, labels: Mapping[str, str]) -> Answer | None:
    """Return the one container with these labels that runs PostgreSQL, running now or not; None if there is none.
    Raises SeveralCandidates."""
    found = list(_running_postgres(engine, labels))
    if len(found) > 1:
        raise several(found)
    return found[0] if found else None


def several(found: Sequence[Answer]) -> SeveralCandidates:
    """Return the error that names these inspected containers, each in a line that can be pasted."""
    lines = sorted(f"SCARLET_BACKUP_CONTAINER={_name(item)}  # {_described(item)}" for item in found)
    return SeveralCandidates("\n".join(["Several containers could be meant, and no setting says which one:", *lines]))


def _running_postgres(engine: Engine, labels: Mapping[str, str]) -> Iterator[Answer]:
    wanted = [f"{name}={value}" for name, value in labels.items()]
    for item in engine.containers_labelled(wanted) if wanted else engine.containers():
        listed: Mapping[str, str] = item["Labels"] or {}
        if listed.get(ONEOFF, "False").lower() == "true" or any(label in listed for label in OWN):
            continue
        try:
            found = engine.inspect_container(item["Id"])
            if _runs_postgres(engine, found):
                yield found
        except EngineRefused as refused:
            if refused.status not in (404, 409):  # it is being removed
                raise


def _runs_postgres(engine: Engine, found: Answer) -> bool:
    """Tell whether a container's command is PostgreSQL's server, or its image is made for one and it has a cluster: so
    it is in Letta's image with everything in it, whose command is a script. With a server elsewhere, the same image
    has an empty data directory."""
    if _server_words(found) is not None:
        return True
    made_for_it = container_environment(found).keys() & {"PGDATA", "PG_MAJOR"}
    return bool(made_for_it) and engine.has_file(found["Id"], f"{data_directory(found)}/PG_VERSION")


def _server_words(found: Answer) -> list[str] | None:
    """Return the arguments of the server that a container's command starts, directly or through an entry point; None if
    it starts something else."""
    path: str = found["Path"]
    arguments: list[str] = found["Args"] or []
    if path.endswith("entrypoint.sh") and (not arguments or arguments[0].startswith("-")):
        return arguments  # the official image's adds the program itself
    words = [path, *arguments]
    if PurePosixPath(path).name in ("sh", "bash", "dash", "ash") and arguments:
        try:
            words = shlex.split(arguments[-1], comments=True)
        except ValueError:
            return None
    for number, word in enumerate(words):
        if PurePosixPath(word).name in _PROGRAMS and (number == 0 or _starts_the_next(words[number - 1])):
            return words[number + 1 :]
    return None


def _starts_the_next(word: str) -> bool:
    """Tell whether a word starts the program that follows it, unlike the option in `pg_dump -U postgres`."""
    return (
        word in ("exec", "--") or PurePosixPath(word).name in ("tini", "dumb-init", *_PROGRAMS) or word.endswith(".sh")
    )


def _name(found: Answer) -> str:
    return found["Name"].lstrip("/")


def _described(found: Answer) -> str:
    labels: Mapping[str, str] = found["Config"].get("Labels") or {}
    compose = [f"Compose project {labels[PROJECT]}, service {labels.get(SERVICE)}"] if labels.get(PROJECT) else []
    return ", ".join([found["State"]["Status"], str(found["Config"]["Image"]), *compose])
