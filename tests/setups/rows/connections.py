"""Ports, sockets, passwords, and what is in their way."""

from __future__ import annotations

from ..table import SQL, VOLUME, Local, Refusal, Server, Setup, Verb

SCRAM = "--no-sync --auth-local=scram-sha-256 --auth-host=scram-sha-256"
DIFFICULT = 'it\'s "§$HOME" `é` 100 % \\o/'
UNPROVED: tuple[Verb, ...] = ("backup", "verify", "restore")
IN_A_CONTAINER = Server(environment={"POSTGRES_INITDB_ARGS": SCRAM})
KEEPER = "CREATE ROLE keeper SUPERUSER LOGIN PASSWORD 'of her own';"
LOOPBACK = Local()
SOCKET = Local(
    configuration={"unix_socket_directories": "{directory}"},
    hba="local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n",
)
FILES = Local(
    files={
        "pgpass": "127.0.0.1:{port}:*:{user}:{password}\n",
        "services": "[scarlet]\nhost=127.0.0.1\nport={port}\nuser={user}\npassword={password}\ndbname=letta\n",
    },
    hba="host all postgres 127.0.0.1/32 scram-sha-256\n",
)
IPV6 = Local(
    configuration={"listen_addresses": "127.0.0.1,::1"},
    hba="host all all ::1/128 scram-sha-256\nhost all postgres 127.0.0.1/32 scram-sha-256\n",
)
WITH_A_CERTIFICATE = """
cd "$PGDATA"
openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=db -keyout server.key -out server.crt 2>&1
chmod 600 server.key
printf '%s\\n' "ssl = on" "ssl_ca_file = 'server.crt'" "unix_socket_directories = ''" >>postgresql.conf
printf '%s\\n' "hostssl all keeper all cert" "hostssl all,replication all all scram-sha-256" >pg_hba.conf
"""
ENCRYPTED = Server(
    environment={"POSTGRES_INITDB_ARGS": SCRAM},
    files={"/docker-entrypoint-initdb.d/1.sh": WITH_A_CERTIFICATE},
    psql=["-h", "127.0.0.1"],
)
"""A server of 15: its own programs can encrypt, those of this machine's 18 can't."""

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
        works=UNPROVED,
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
        server=FILES,
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
    Setup(
        name="port-5433",
        setup="Another port: `command: -p 5433`",
        server=Server(
            command=["-p", "5433"],
            options=["-v", "{volume}:/var/lib/postgresql/data"],
            in_memory=False,
            psql=["-p", "5433"],
        ),
        works=[*SQL, *VOLUME],
    ),
    Setup(
        name="socket-elsewhere",
        setup="The socket elsewhere: `unix_socket_directories = '/tmp'`",
        server=Server(
            files={"/docker-entrypoint-initdb.d/1.sql": "ALTER SYSTEM SET unix_socket_directories = '/tmp';"},
            psql=["-h", "/tmp"],
        ),
        works=[*UNPROVED, "volume backup"],
    ),
    Setup(
        name="no-socket",
        setup="No socket, TCP only: `unix_socket_directories = ''`",
        server=Server(
            files={
                "/docker-entrypoint-initdb.d/1.sh": "echo \"unix_socket_directories = ''\" >> $PGDATA/postgresql.conf"
            },
            psql=["-h", "127.0.0.1"],
        ),
        works=[*UNPROVED, "volume backup"],
    ),
    Setup(
        name="hostssl-only",
        setup="TCP with encryption only: `hostssl` in pg_hba.conf, a certificate that nobody has signed",
        server=ENCRYPTED,
        works=[*UNPROVED, "volume backup"],
    ),
    Setup(
        name="client-certificate",
        setup="A role that pg_hba.conf asks for a client's certificate (`cert`), and there is none",
        server=ENCRYPTED,
        sql=KEEPER,
        settings={"user": "keeper"},
        works=[],
        refused={
            verb: Refusal(
                "not_admitted",
                "with encryption (connection requires a valid client certificate) or without: no pg_hba.conf entry",
                "If it asks for a certificate, name yours",
            )
            for verb in ("integrity", "backup", "volume backup")
        },
    ),
    Setup(
        name="programs-without-tls",
        setup="Without Docker: encryption only, and client programs that are built without TLS",
        server=ENCRYPTED,
        settings={
            "via": "local",
            "bin_dir": "{bin_dir}",
            "dsn": "postgresql://postgres:{password}@{address}:5432/{database}",
        },
        named=False,
        works=[],
        refused={
            verb: Refusal(
                "encryption_required",
                "lets the role 'postgres' in with encryption, which its programs here can't do",
                "Set SCARLET_BACKUP_BIN_DIR to client programs that are built with TLS",
            )
            for verb in ("integrity", "backup")
        },
    ),
    Setup(
        name="password-of-its-own",
        setup="A role with another password than the container's environment says, in `SCARLET_BACKUP_PASSWORD`",
        server=IN_A_CONTAINER,
        sql=KEEPER,
        settings={"user": "keeper", "password": "of her own"},
        works=UNPROVED,
    ),
    Setup(
        name="wrong-password",
        setup="The same role, with the password of the container's environment",
        server=IN_A_CONTAINER,
        sql=KEEPER,
        settings={"user": "keeper"},
        works=[],
        refused={
            verb: Refusal(
                "password_rejected",
                "The server rejects the password of the role 'keeper', or has no such role",
                "Set SCARLET_BACKUP_PASSWORD to the role's current password.",
            )
            for verb in ("integrity", "backup", "volume backup")
        },
    ),
    Setup(
        name="wrong-database",
        setup="A database that does not exist",
        server=IN_A_CONTAINER,
        settings={"database": "lettta"},
        works=[],
        refused={
            "integrity": Refusal("database_missing", "There is no database 'lettta' on the server."),
            "backup": Refusal("database_missing", "There is no database"),
        },
    ),
    Setup(
        name="pgpassfile",
        setup="Without Docker: a password file named by `PGPASSFILE`",
        server=FILES,
        settings={"dsn": "postgresql://{user}@127.0.0.1:{port}/{database}"},
        environment={"PGPASSFILE": "{directory}/pgpass"},
    ),
    Setup(
        name="service",
        setup="Without Docker: a service of libpq's (`service=scarlet`) in the file that `PGSERVICEFILE` names",
        server=FILES,
        settings={"dsn": "service=scarlet"},
        environment={"PGSERVICEFILE": "{directory}/services"},
    ),
    Setup(
        name="no-password",
        setup="Without Docker: no password anywhere",
        server=FILES,
        settings={"dsn": "postgresql://{user}@127.0.0.1:{port}/{database}"},
        environment={"PGPASSFILE": "{directory}/nothing"},
        works=[],
        refused={
            verb: Refusal(
                "password_needed",
                "The server asks for the password of the role 'postgres', and none is known.",
                "Set SCARLET_BACKUP_PASSWORD to the role's password, or write it into libpq's password file",
            )
            for verb in ("integrity", "backup")
        },
    ),
    Setup(
        name="not-admitted",
        setup="Without Docker: a role for which `pg_hba.conf` has no line",
        server=FILES,
        sql=KEEPER,
        settings={"dsn": "postgresql://keeper:of%20her%20own@127.0.0.1:{port}/{database}"},
        works=[],
        refused={
            verb: Refusal(
                "not_admitted",
                "No line of the server's pg_hba.conf lets the role 'keeper' connect to the database \"letta\" from "
                "this machine without encryption",
            )
            for verb in ("integrity", "backup")
        },
    ),
    Setup(
        name="no-root-certificate",
        setup="Without Docker: `sslmode=verify-full` without the root certificate",
        server=FILES,
        settings={
            "dsn": "postgresql://{user}:{password}@127.0.0.1:{port}/{database}?sslmode=verify-full&sslrootcert="
            "{directory}/nothing"
        },
        works=[],
        refused={
            verb: Refusal(
                "root_certificate_missing",
                "sslmode=verify-full verifies the server's certificate, but there is no file",
            )
            for verb in ("integrity", "backup")
        },
    ),
]
