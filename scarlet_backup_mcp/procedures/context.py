"""What every procedure works on: the configured database, where it runs, and where its backups lie."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from .. import wsl
from ..errors import BackupDirUnknown, BackupToolError, ConfigurationError, HostError, SeveralCandidates
from ..hosts import ContainerInfo, Host, run
from ..hosts.docker.container import DockerHost
from ..hosts.docker.engine import find_endpoint
from ..hosts.docker.labels import PROJECT, SERVICE
from ..hosts.local import LocalHost
from ..limits import within
from ..models.manifest import Identity, ManifestHead
from ..postgres.server import databases, password_file
from ..postgres.server.dsn import environment_of
from ..postgres.server.postmaster import Whereabouts
from ..postgres.server.session import Server, Session
from ..progress import Progress
from ..settings import Settings
from ..store import remembered
from ..store.directory import BackupDirectory
from .connection import connection_of
from .found_names import OF_CONTAINER, Named, database_in, database_on, listening, user_in

TAG = "scarlet-backup-mcp"
_LABELS = {"service": SERVICE, "project": PROJECT}
ENGINE_SECONDS = 2.0
"""How long is waited for the engine by what can do without knowing the container."""


class BackupContext:
    """One per call: what it has looked up stays as it was found. Close it at the end (it is a context manager)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.maintained_from: str | None = None
        """The database that `maintenance_session` tries first: where it was connected before."""
        self._connection = connection_of(settings, os.environ)
        named = self._connection.pop("PGDATABASE", settings.database)
        self._named_database = "database" in settings.model_fields_set
        if settings.via == "local" and named != settings.database and self._named_database:
            raise ConfigurationError(
                f"SCARLET_BACKUP_DSN names the database {named!r}, but SCARLET_BACKUP_DATABASE is "
                f"{settings.database!r}.",
                "Use the same name in both, or leave the name out of the DSN.",
            )
        self._database: Named | None = None
        if settings.via == "local" or self._named_database:
            self._database = Named(named if settings.via == "local" else settings.database)

    @cached_property
    def host(self) -> Host:
        """Where programs run."""
        settings = self.settings
        if settings.via == "local":
            return LocalHost(settings.bin_dir, self._connection)
        if self._named_container:
            labels = {name: getattr(settings, name) for name in self._named_labels}
            return DockerHost(settings.container, **labels, stand_in=False)
        name = "" if self._named_labels else settings.container
        labels = {_LABELS[name]: getattr(settings, name) for name in self._named_labels}
        return DockerHost(name, settings.service, settings.project, else_with=labels)

    @cached_property
    def container_info(self) -> ContainerInfo:
        """Where it runs, as it was when first looked at. Raises HostError."""
        return self.host.container_info()

    @property
    def known_container_info(self) -> ContainerInfo | None:
        """`container_info`, or None when it can't be told soon. It is waited for once."""
        return self.__dict__.get("container_info") or self._container_info_soon

    @cached_property
    def _container_info_soon(self) -> ContainerInfo | None:
        try:
            return within(ENGINE_SECONDS, lambda: self.container_info)
        except BackupToolError:
            return None

    @property
    def database(self) -> str:
        """The name of the database that is meant. Until its container is known, it is a setting's or the default."""
        return self.found_database.value

    @property
    def found_database(self) -> Named:
        """The database that is meant, and why. Once its container is known it stays the same."""
        if self._database is None and (info := self.known_container_info):
            if named := self._database_in_container(info) or self._database_on_server(info):
                remembered.remember_found(self.place, remembered.Found(info.container or "", named.value))
            self._database = named or self._database_known
        return self._database or self._database_known

    @property
    def _database_known(self) -> Named:
        """The database as far as it is known without asking its server."""
        info, last = self.__dict__.get("container_info"), remembered.recall_found(self.place)
        if info is not None and (named := self._database or self._database_in_container(info)):
            return named
        if last and (info is None or info.container == last.container):
            return Named(last.database, "found last time")
        return Named(self.settings.database, "the default")

    @property
    def found(self) -> dict[str, str]:
        """The container and the database that were found without being named, as settings that name them: what runs
        later and has these means no other server. {} for what is not known now."""
        info = self.known_container_info
        if info is None or info.container is None:
            return {}
        named = {} if self._named_container or self._named_labels else {"container": info.container}
        database = self.found_database
        if self._named_database or not (info.state == "running" or database.why.endswith(OF_CONTAINER)):
            return named
        return {**named, "database": database.value}

    @cached_property
    def found_user(self) -> Named:
        """The role to connect as, and why. Raises HostError."""
        settings = self.settings
        if settings.via == "local":
            return Named(self._connection.get("PGUSER", settings.user))
        if "user" in settings.model_fields_set:
            return Named(settings.user)
        return user_in(self.container_info.environment, self._read) or Named(settings.user, "the default")

    @cached_property
    def directory(self) -> BackupDirectory:
        """The backup directory. Where no setting names it, Compose's label does, and while the engine does not answer,
        what the label said last. Raises BackupDirUnknown, or what `container_info` raises when nothing is known."""
        return BackupDirectory(self.settings.dir or self._directory_of_project(), self.settings.prefix)

    @cached_property
    def server(self) -> Server:
        """The server. Its tag tells our backends for this directory from those for another one."""
        try:
            tag = f"{TAG} {hashlib.sha256(str(self.directory.path).encode()).hexdigest()[:8]}"
        except BackupDirUnknown:  # a look at the server needs none
            tag = TAG
        info = self.container_info if self.settings.via == "docker" else None
        where = Whereabouts(self.host, info.data_directory, listening(info)) if info else Whereabouts(self.host, None)
        return Server(self.host, self.found_user.value, self._passwords, tag, where)

    @property
    def maintenance_database(self) -> str:
        """The name of the database that `maintenance_session` connects to. Raises what that raises."""
        if self.maintained_from is None:
            self.maintenance_session().close()
        return self.maintained_from or self.database

    def maintenance_session(self, progress: Progress | None = None) -> Session:
        """Connect to a database other than the one that is backed up, for work on whole databases: `postgres`, or
        `template1` if that was dropped or lets nobody in. If neither can be used, connect to the database itself, which
        is enough for all but renaming it: see `restore.outside`. Raises ServerError or HostError."""
        others = [name for name in (self.maintained_from, *databases.USUAL) if name and name != self.database]
        session = databases.first_session(self.server, [*dict.fromkeys(others), self.database], progress)
        self.maintained_from = session.identity.database
        return session

    def is_ours(self, manifest: ManifestHead) -> bool:
        """Tell whether a backup is of the configured database: the same name, on the configured server."""
        identity = manifest.identity
        return identity is not None and identity.database == self.database and self.is_on_our_server(identity)

    def is_on_our_server(self, identity: Identity) -> bool:
        """Tell whether that is in the same container or Compose project; with `local` on any server. Works without an
        engine or container, by the settings' names: then what was named counts, and if nothing was, either default."""
        known = self.known_container_info
        if known is None:
            settings = self.settings
            if settings.via == "local":
                return identity.via == "local"
            by_name = self._named_container or not self._named_labels
            by_project = not self._named_container
            last = remembered.recall_found(self.place)
            names = {settings.container, last.container} if last else {settings.container}
            return (by_name and identity.container in names) or (by_project and identity.project == settings.project)
        if known.kind == "local":
            return identity.via == "local"
        return known.container == identity.container or (
            known.project is not None and known.project == identity.project
        )

    def secrets(self) -> set[str]:
        """Return the passwords that are known by now, except one that is also a public name, such as "postgres": hiding
        it would show it."""
        found: set[str] = set()
        if self.settings.password is not None:
            found.add(self.settings.password.get_secret_value())
        if (dsn := self.settings.dsn) is not None:
            whole = dsn.get_secret_value()
            found |= {whole, environment_of(whole).get("PGPASSWORD", ""), _password_as_written(whole)}
        for name in ("container_info", "_passwords"):  # looking for it now could wait for an engine
            if name in self.__dict__:
                known = self.container_info.environment if name == "container_info" else self._passwords
                found |= {known.get("POSTGRES_PASSWORD", ""), known.get("PGPASSWORD", "")}
        settings = self.settings
        public = [settings.user, settings.database, settings.service, settings.project, settings.container]
        if (info := self.__dict__.get("container_info")) is not None:
            environment = info.environment
            public += [environment.get("POSTGRES_USER", ""), environment.get("POSTGRES_DB", ""), info.container or ""]
        return {secret for secret in found if secret and not any(secret in name for name in public)}

    @property
    def secrets_are_known(self) -> bool:
        """Whether `secrets` has every password there is: one in a container's file is read there first."""
        if self.settings.via == "local" or self.settings.password or self.__dict__.get("_passwords"):
            return True
        if password_file.VARIABLE in os.environ:
            return "_passwords" in self.__dict__
        return "container_info" in self.__dict__ and "POSTGRES_PASSWORD_FILE" not in self.container_info.environment

    def describe(self) -> str:
        """Describe the server without secrets: its container with what it belongs to, or its address."""
        if self.settings.via == "local":
            return f"server {self._connection.get('PGHOST', 'local socket')}:{self._connection.get('PGPORT', '5432')}"
        container_info = self.container_info
        known = (
            (container_info.container_id or "")[:12],
            f"Compose project {container_info.project}" if container_info.project else "",
            f"engine {container_info.engine}" if container_info.engine else "",
            "the only PostgreSQL" if container_info.only_candidate else "",
        )
        return f"container {container_info.container} ({', '.join(filter(None, known))})"

    @property
    def about(self) -> str:
        """The database and its server in words, as far as a moment's look tells."""
        if self.settings.via == "docker" and self.known_container_info is None:
            return f"database {self.database} in a container that could not be inspected ({self._sought})"
        return f"database {self.found_database.in_brief}, {self._role}{self.describe()}"

    @property
    def _role(self) -> str:
        """The role in words if nobody has named it and it is not the usual one."""
        with suppress(HostError):
            if self.found_user.why and self.found_user.value != self.settings.user:
                return f"role {self.found_user.in_brief}, "
        return ""

    @property
    def _sought(self) -> str:
        """By what the container is looked for."""
        settings = self.settings
        if self._named_container or not self._named_labels:
            return settings.container
        return f"Compose project {settings.project}, service {settings.service}"

    @property
    def _sought_where(self) -> str:
        """All that leads to the container: the engine, and what somebody has named. Raises EngineUnreachable."""
        named = {name: getattr(self.settings, name) for name in ("project", "service", "container")}
        words = [f"{name} {value}" for name, value in named.items() if name in self.settings.model_fields_set]
        return ", ".join([find_endpoint(os.environ).address, *words])

    @property
    def _named_container(self) -> bool:
        """Whether somebody has named it, so that no other may stand in."""
        return "container" in self.settings.model_fields_set

    @property
    def _named_labels(self) -> set[str]:
        """Which of Compose's labels somebody has named."""
        return self.settings.model_fields_set & {"service", "project"}

    def close(self) -> None:
        """Release the host's connections."""
        if "host" in self.__dict__:
            self.host.close()

    def __enter__(self) -> BackupContext:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --------------------------------------------------------------------------------------------------------------

    def _database_in_container(self, info: ContainerInfo) -> Named | None:
        try:
            return database_in(info.environment, self._read)
        except HostError:
            return None

    def _database_on_server(self, info: ContainerInfo) -> Named | None:
        if info.state != "running":
            return None
        with suppress(HostError):
            return database_on(self.server, self.settings.database, self.settings.integrity_table)
        return None

    @property
    def place(self) -> str:
        """What tells this set-up from others of this machine while its container is unknown."""
        with suppress(HostError):
            return f"{self._sought_where}, in {self.settings.dir}"
        return ""

    def _read(self, file: str) -> str:
        """Read a file of the container, such as a secret's; "" if it can't be. Raises HostError if nothing can."""
        found = bytearray()
        ended = run(self.host, ["cat", "--", file], sink=found.extend)
        return found.decode(errors="replace").strip("\r\n") if ended.code == 0 else ""

    @cached_property
    def _passwords(self) -> Mapping[str, str]:
        if self.settings.via == "local" or "PGPASSWORD" in self._connection:
            return dict(self._connection)
        password = self._password_in_file() or self._password_of_container()
        return {**self._connection, **({"PGPASSWORD": password} if password else {})}

    def _password_in_file(self) -> str | None:
        """Look up the container, or localhost, in the password file that PGPASSFILE names."""
        if not (named := os.environ.get(password_file.VARIABLE)):
            return None
        port, user, database = str(self.settings.port or 5432), self.found_user.value, self._database_known.value
        hosts = (self.container_info.container or "", "localhost")
        passwords = (password_file.password(Path(named), host, port, database, user) for host in hosts)
        return next(filter(None, passwords), None)

    def _password_of_container(self) -> str:
        inside = self.container_info.environment
        if password := inside.get("POSTGRES_PASSWORD"):
            return password
        file = inside.get("POSTGRES_PASSWORD_FILE")
        return self._read(file) if file else ""

    def _directory_of_project(self) -> Path:
        if self.settings.via == "local":
            raise BackupDirUnknown("With SCARLET_BACKUP_VIA=local no setting says where to put backups.")
        try:
            container_info = self.container_info
        except SeveralCandidates:
            raise
        except HostError:
            recalled = remembered.recall(self._sought_where)
            if recalled is None:
                raise
            return recalled
        if container_info.working_dir is None:
            raise BackupDirUnknown(
                f"The container {container_info.container} has no Compose label that names its directory."
            )
        if not container_info.engine_local:
            raise BackupDirUnknown(
                "The Docker engine is on another machine, so its Compose directory is not on this one."
            )
        directory = _on_this_machine(container_info.working_dir)
        if directory is None or not os.path.isdir(directory):
            raise BackupDirUnknown(
                f"Compose's directory {container_info.working_dir} is not on this machine, or not in this user's reach."
            )
        found = f"{container_info.project or ''}/{container_info.container}"
        remembered.remember(self._sought_where, found, directory / "backups")
        return directory / "backups"


def _password_as_written(dsn: str) -> str:
    """Return the password as the URI spells it, perhaps percent-encoded."""
    try:
        return urlsplit(dsn).password or ""
    except ValueError:
        return ""


def _on_this_machine(working_dir: str) -> Path | None:
    """Translate a path in Compose's label for this process: inside WSL `H:\\x` is for example /mnt/h/x."""
    path = Path(wsl.here(working_dir))
    return path if path.is_absolute() else None
