"""Ports, sockets, passwords, and what is in their way."""

from __future__ import annotations

from ..table import SQL, Local, Server, Setup

SCRAM = "--no-sync --auth-local=scram-sha-256 --auth-host=scram-sha-256"
DIFFICULT = 'it\'s "§$HOME" `é` 100 % \\o/'
LOOPBACK = Local()
SOCKET = Local(
    configuration={"unix_socket_directories": "{directory}"},
    hba="local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n",
)
PASSFILE = Local(files={"pgpass": "127.0.0.1:{port}:*:{user}:{password}\n"})
IPV6 = Local(
    configuration={"listen_addresses": "127.0.0.1,::1"},
    hba="host all all ::1/128 scram-sha-256\nhost all postgres 127.0.0.1/32 scram-sha-256\n",
)

ROWS = [
    Setup(
        name="scram-on-the-socket",
        setup="scram on the socket, too; a password with quotes, `$`, a backslash and é",
        server=Server(environment={"POSTGRES_INITDB_ARGS": SCRAM, "POSTGRES_PASSWORD": DIFFICULT}),
        works=[*SQL, "volume backup", "volume drill"],
    ),
    Setup(
        name="password-from-a-secret",
        setup="Password in a secret's file (`POSTGRES_PASSWORD_FILE`), scram on the socket",
        server=Server(
            environment={"POSTGRES_INITDB_ARGS": SCRAM, "POSTGRES_PASSWORD_FILE": "/run/secrets/postgres"},
            files={"/run/secrets/postgres": DIFFICULT},
        ),
    ),
    Setup(
        name="trust",
        setup="No password at all (`POSTGRES_HOST_AUTH_METHOD=trust`)",
        server=Server(environment={"POSTGRES_HOST_AUTH_METHOD": "trust"}),
        works=["backup", "verify", "restore"],
    ),
    Setup(
        name="loopback",
        setup="Without Docker: over TCP, password in the URI",
        server=LOOPBACK,
        found=["server 127.0.0.1:"],
        sample=True,
    ),
    Setup(
        name="encoded-uri",
        setup="Without Docker: a URI with percent-encoded role, password and database",
        server=LOOPBACK,
        database="Scarlet's mind 100 %",
        sql="CREATE ROLE \"renée@home\" SUPERUSER LOGIN PASSWORD 'p@ss/w:rd %é?';",
        settings={
            "dsn": "postgresql://ren%C3%A9e%40home:p%40ss%2Fw%3Ard%20%25%C3%A9%3F@127.0.0.1:{port}/"
            "Scarlet%27s%20mind%20100%20%25"
        },
        found=["database Scarlet's mind 100 %"],
    ),
    Setup(
        name="keywords",
        setup="Without Docker: keyword=value pairs, the database in `SCARLET_BACKUP_DATABASE`",
        server=LOOPBACK,
        settings={"dsn": "host=127.0.0.1 port={port} user={user} password='{password}'", "database": "letta"},
    ),
    Setup(
        name="local-socket",
        setup="Without Docker: a Unix socket with scram",
        server=SOCKET,
        settings={"dsn": "host={directory} port={port} user={user} password={password} dbname={database}"},
    ),
    Setup(
        name="ipv6",
        setup="Without Docker: IPv6 (`[::1]`)",
        server=IPV6,
        settings={"dsn": "postgresql://{user}:{password}@[::1]:{port}/{database}"},
        found=["server ::1:"],
    ),
    Setup(
        name="passfile",
        setup="Without Docker: no password in the URI but a file of libpq's (`?passfile=`)",
        server=PASSFILE,
        settings={"dsn": "postgresql://{user}@127.0.0.1:{port}/{database}?passfile={directory}/pgpass"},
    ),
    Setup(
        name="address-of-a-container",
        setup="A server in a container, reached over the network as if there were no Docker",
        server=Server(
            image="pgvector/pgvector:pg18",
            environment={"POSTGRES_INITDB_ARGS": "--no-sync --no-locale --encoding=UTF8"},
        ),
        settings={
            "via": "local",
            "bin_dir": "{bin_dir}",
            "dsn": "postgresql://postgres:{password}@{address}:5432/{database}",
        },
        named=False,
    ),
]
