from __future__ import annotations

import hashlib
import re

import pytest

from scarlet_backup_mcp.postgres.dump.refusals import MOST, RULES, RULES_VERSION, Refusals
from scarlet_backup_mcp.postgres.dump.roles import Roles
from scarlet_backup_mcp.postgres.dump.script import read_script

from .test_script import DUMP

# Roles


def test_roles() -> None:
    roles = Roles()
    read_script(
        [
            b'''
ALTER TABLE public.t OWNER TO "Owner ""x""";
ALTER FUNCTION public.f(a integer, "OWNER TO" text) OWNER TO f_owner;
ALTER SCHEMA s OWNER TO CURRENT_USER;
ALTER TABLE public.t RENAME TO not_a_role;
GRANT SELECT("TO"),UPDATE(b) ON TABLE public.revoke TO reader, "Wri,ter" WITH GRANT OPTION;
GRANT ALL ON SCHEMA s TO PUBLIC;
REVOKE ALL ON SCHEMA s FROM PUBLIC;
REVOKE GRANT OPTION FOR SELECT ON TABLE public.t FROM revoked CASCADE;
GRANT SELECT ON TABLE public.t TO SESSION_USER GRANTED BY grantor;
ALTER DEFAULT PRIVILEGES FOR ROLE "\xc3\x9cber" IN SCHEMA revoke GRANT SELECT ON TABLES TO defaulted;
ALTER DEFAULT PRIVILEGES FOR ROLE other REVOKE ALL ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM lost;
CREATE POLICY p ON public.t FOR SELECT TO policy_a, "Policy B", PUBLIC USING ((a = 'OWNER TO x'));
CREATE POLICY q ON public.t USING (true);
SET SESSION AUTHORIZATION 'it''s';
SET SESSION AUTHORIZATION "grant me";
SET SESSION AUTHORIZATION DEFAULT;
RESET SESSION AUTHORIZATION;
CREATE USER MAPPING FOR mapped SERVER srv OPTIONS ("user" 'a TO b');
CREATE USER MAPPING FOR PUBLIC SERVER srv;
CREATE SCHEMA z AUTHORIZATION schema_owner;
COMMENT ON TABLE public.t IS 'GRANT x ON y TO z';
COPY public.t (a) FROM stdin;
ALTER TABLE x OWNER TO data;
\\.
'''
        ],
        roles,
    )
    assert roles.names == sorted(
        [
            'Owner "x"', "f_owner", "reader", "Wri,ter", "revoked", "grantor", "Über", "defaulted", "other", "lost",
            "policy_a", "Policy B", "it's", "grant me", "mapped", "schema_owner",
        ]
    )  # fmt: skip


# Refusals


def refusals(text: bytes) -> list[tuple[int, str]]:
    found = Refusals()
    read_script([text], found)
    return [(refusal.line, refusal.reason) for refusal in found.found]


def test_nothing_in_a_dump_is_refused() -> None:
    assert refusals(DUMP) == []


@pytest.mark.parametrize(
    "sql",
    [
        b"SET SESSION AUTHORIZATION 'a b';",
        b'SET SESSION AUTHORIZATION "a b";',
        b"RESET SESSION AUTHORIZATION;",
        b"SET client_encoding = 'SQL_ASCII';",
        b"SET client_encoding = 'LATIN1';",
        b"SET default_tablespace = '';",
        b"CREATE USER MAPPING FOR x SERVER y OPTIONS (password 'DROP ROLE');",
        b"DROP USER MAPPING IF EXISTS FOR x SERVER y;",
        b"DROP TABLE IF EXISTS public.role;",
        b"CREATE TABLE public.\"DROP ROLE x; LOAD\" (standard_conforming_strings text DEFAULT '; ALTER SYSTEM');",
        b"GRANT SELECT ON TABLE public.role TO x;",
        b"GRANT ALL ON LARGE OBJECT 1 TO x;",
        b"COMMENT ON TABLE public.t IS 'COPY a FROM PROGRAM ''id'';';",
        b"CREATE FUNCTION public.f() RETURNS int LANGUAGE plpgsql AS $$BEGIN DROP ROLE x; END$$;",
        b"CREATE FUNCTION public.f() RETURNS int SET client_encoding TO 'SJIS' LANGUAGE sql RETURN 1;",
        b"CREATE FUNCTION public.f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END;",
        b"CREATE OR REPLACE PROCEDURE public.p() BEGIN ATOMIC INSERT INTO public.t VALUES (1); END;",
        b"CREATE RULE r AS ON INSERT TO public.t DO ALSO (SELECT 1; NOTIFY x);",
        b"CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (connect = false, slot_name = 's');",
        b"ALTER SUBSCRIPTION s OWNER TO postgres;",
        b"INSERT INTO public.t VALUES (1, 'x; DROP ROLE');",
        b"INSERT INTO public.t (a, \"B c\") OVERRIDING SYSTEM VALUE VALUES (1, 'x') ON CONFLICT DO NOTHING;",
        b"SELECT pg_catalog.setval('public.\"Seq;x\"', -2, true);",
        b"SELECT pg_catalog.lo_unlink('1');",
        b"SELECT * FROM pg_catalog.pg_restore_relation_stats(\n\t'version', '180006'::integer, 'relation', 't'\n);",
        b"REFRESH MATERIALIZED VIEW public.mv;",
        b"ALTER DEFAULT PRIVILEGES FOR ROLE x IN SCHEMA s GRANT SELECT ON TABLES TO y;",
        b"ALTER TABLE public.t ADD CONSTRAINT c CHECK (a[lo:hi] = b[1:n]);",
        b'COPY public."a\nb" (c) FROM stdin;\n\\.',
        b'COPY "s; x".t ("from, stdin", b) FROM stdin;\n\\.',
        b"\\restrict aZ09",
        b"\\unrestrict aZ09",
    ],
)
def test_what_a_dump_may_hold(sql: bytes) -> None:
    assert refusals(sql + b"\n") == []


REFUSED = [
    ("CREATE DATABASE x;", "database or role"),
    ("DROP DATABASE letta;", "database or role"),
    ("ALTER DATABASE x SET a = 1;", "database or role"),
    ("CREATE ROLE x;", "database or role"),
    ("ALTER ROLE x SUPERUSER;", "database or role"),
    ("DROP ROLE x;", "database or role"),
    ("CREATE USER x;", "database or role"),
    ("ALTER USER x;", "database or role"),
    ("CREATE GROUP x;", "database or role"),
    ("ALTER GROUP x ADD USER y;", "database or role"),
    ("CREATE TABLESPACE x LOCATION '/tmp';", "database or role"),
    ("DROP TABLESPACE x;", "database or role"),
    ("ALTER TABLESPACE x RENAME TO y;", "database or role"),
    ("ALTER SYSTEM SET archive_command = 'id';", "server's configuration"),
    ("DROP OWNED BY x;", "what a role owns"),
    ("REASSIGN OWNED BY x TO y;", "not a statement that pg_dump writes"),
    ("GRANT a TO b;", "membership of a role"),
    ('GRANT "a ON b" TO c;', "membership of a role"),
    ("GRANT pg_execute_server_program TO x WITH ADMIN OPTION;", "membership of a role"),
    ("REVOKE a FROM b;", "membership of a role"),
    ("GRANT ALL ON DATABASE x TO y;", "rights outside the database"),
    ("GRANT SET ON PARAMETER x TO y;", "rights outside the database"),
    ("GRANT CREATE ON TABLESPACE x TO y;", "rights outside the database"),
    ("COMMENT ON DATABASE x IS 'y';", "comments on something outside"),
    ("SECURITY LABEL FOR a ON ROLE x IS 'y';", "labels something outside"),
    ("CREATE SUBSCRIPTION s CONNECTION 'connect = false' PUBLICATION p;", "subscribes"),
    ("ALTER SUBSCRIPTION s ENABLE;", "subscribes"),
    ("LOAD 'x';", "loads a library"),
    ("DO $$ BEGIN END $$;", "block of code"),
    ("START TRANSACTION;", "transaction"),
    ("ROLLBACK;", "transaction"),
    ("COMMIT;", "transaction"),
    ("END;", "transaction"),
    ("PREPARE TRANSACTION 'x';", "transaction"),
    ("SET standard_conforming_strings = off;", "how strings are read"),
    ("SET standard_conforming_strings TO on;", "how strings are read"),
    ('SET SESSION "standard_conforming_strings" = off;', "not a statement that pg_dump writes"),
    ("SET LOCAL standard_conforming_strings = off;", "how strings are read"),
    ("RESET ALL;", "not a statement that pg_dump writes"),
    ("SET client_encoding = 'SJIS';", "encoding"),
    ("SET client_encoding = 'SHIFT_JIS_2004';", "encoding"),
    ("SET client_encoding TO 'BIG5';", "encoding"),
    ("SET client_encoding = gbk;", "encoding"),
    ("SET client_encoding = 'UHC';", "encoding"),
    ("SET client_encoding = 'gb18030';", "encoding"),
    ("SET client_encoding = 'JOHAB';", "encoding"),
    ("SET NAMES 'SJIS';", "encoding"),
    ("SELECT set_config('client_encoding', 'SJIS', false);", "not a statement that pg_dump writes"),
    ("SELECT pg_catalog.set_config('client_encoding', 'SJIS', false);", "not a statement that pg_dump writes"),
    ("SELECT pg_catalog.set_config('search_path', lo_export(1, 'x')::text, false);", "not a statement"),
    ("SELECT pg_catalog.setval('a', 1, true), pg_catalog.pg_reload_conf();", "not a statement"),
    ("SELECT pg_catalog.setval(pg_read_file('x'), 1, true);", "not a statement"),
    ("SELECT 1;", "not a statement that pg_dump writes"),
    ("UPDATE pg_catalog.pg_authid SET rolsuper = true;", "not a statement that pg_dump writes"),
    ("INSERT INTO pg_catalog.pg_auth_members VALUES (1, 2, 3, true);", "not a statement"),
    ('INSERT INTO "pg_catalog".pg_auth_members VALUES (1, 2, 3, true);', "not a statement"),
    ("INSERT INTO pg_auth_members VALUES (1, 2, 3, true);", "not a statement"),
    ('INSERT INTO U&"pg_c\\0061talog".pg_authid VALUES (1);', "not a statement"),
    ("INSERT INTO public.t SELECT pg_read_file('x');", "not a statement"),
    ("CALL p();", "not a statement that pg_dump writes"),
    ("VACUUM;", "not a statement that pg_dump writes"),
    ("COPY public.t (a) FROM PROGRAM 'id';", "runs a program"),
    ("COPY public.t TO PROGRAM 'id';", "runs a program"),
    ("COPY (SELECT 1) TO PROGRAM $$id$$;", "runs a program"),
    ("COPY public.t (a) FROM '/etc/passwd';", "a file on the server"),
    ("COPY public.t (a) TO E'/tmp/x';", "a file on the server"),
    ("COPY public.t (a) FROM $$/etc/passwd$$;", "a file on the server"),
    ("COPY public.t TO STDOUT;", "in a form that"),
    ("CREATE FUNCTION begin() AS 'x'; DROP ROLE y; CREATE TABLE \"end\"(a int); SELECT 1 AS end;", "several"),
    ("CREATE FUNCTION f() BEGIN ATOMIC SELECT 1 AS begin; END; DROP ROLE y; END;", "several"),
    ("CREATE FUNCTION f() BEGIN ATOMIC END begin; DROP ROLE y; END;", "several"),
    ("CREATE VIEW v AS SELECT :DBNAME;", "psql"),
    ("CREATE VIEW v AS SELECT :'HOST';", "psql"),
    ("CREATE VIEW v AS SELECT :{?x};", "psql"),
]  # fmt: skip


def in_disguise(sql: str) -> list[str]:
    """The same statement with other case, comments, white space and line breaks between its words."""
    words = re.findall(r"\$\$.*?\$\$|(?:E|U&)?'[^']*'|(?:U&)?\"[^\"]*\"|:[{?\w}]+|:'\w+'|\w+|\S", sql)
    assert "".join(words).replace(" ", "") == sql.replace(" ", "")
    glued = [" ", "/* ; ' */ ", "\n\t-- ; DROP '\n", " /* /* */ */\n", "\f\n\n"]
    cased = [word if word[:1] in "$'\":E" else word.swapcase() for word in words]
    return [sql, *(glue.join(words) for glue in glued), " ".join(cased)]


@pytest.mark.parametrize(("sql", "reason"), REFUSED)
def test_what_a_dump_may_not_hold(sql: str, reason: str) -> None:
    for line, form in enumerate(in_disguise(sql)):
        if re.search(r":\s|:/", form):
            continue
        found = refusals(b"\n" * line + form.encode() + b"\n")
        assert len(found) == 1, form
        assert found[0][0] == line + 1
        assert reason in found[0][1], form


@pytest.mark.parametrize(
    ("copy", "reason"),
    [
        ("COPY t (a) FROM stdin;", "in a form that"),
        ("copy public.t (a) FROM stdin;", "in a form that"),
        ("COPY public.t (a) FROM  stdin;", "in a form that"),
        ("COPY public.t (a) FROM stdout;", "in a form that"),
        ("COPY public.t (a) FROM stdin WITH (FORMAT binary);", "in a form that"),
        ("COPY public.t (a) FROM stdin WHERE f(a);", "in a form that"),
        ("COPY public.t (a)/**/ FROM stdin;", "in a form that"),
        ("COPY pg_catalog.pg_authid (rolname) FROM stdin;", "system catalogue"),
        ('COPY "pg_catalog".pg_authid (rolname) FROM stdin;', "system catalogue"),
        ('COPY U&"pg_catalo\\0067".pg_authid (rolname) FROM stdin;', "in a form that"),
    ],
)
def test_copies_that_a_dump_may_not_hold(copy: str, reason: str) -> None:
    [(line, found)] = refusals(copy.encode() + b"\nDROP ROLE data;\n\\.\n")
    assert line == 1
    assert reason in found


@pytest.mark.parametrize("command", [b"\\connect x", b"\\! id", b"\\i x", b"\\restrict a; \\! id", b"\\unrestrict a b"])
def test_psql_commands_are_refused(command: bytes) -> None:
    assert refusals(b"RESET SESSION AUTHORIZATION; " + command + b"\n") == [(1, "is a command to psql")]


def test_a_transaction_may_hold_only_the_data_of_large_objects() -> None:
    reason = "is inside a transaction, where pg_dump only writes the data of large objects"
    assert refusals(b"BEGIN;\nSET lock_timeout = 0;\nCOMMIT;\nBEGIN;\nBEGIN;\n") == [(2, reason), (5, reason)]


def test_rules_have_the_version_that_manifests_record() -> None:
    """If a rule changes so that it refuses more, RULES_VERSION has to rise; then renew the digest here."""
    digest = hashlib.sha256(repr(RULES).encode()).hexdigest()[:16]
    assert (RULES_VERSION, digest) == (1, "d0c7250c3e9f913a")


def test_refusals_are_kept_to_a_number_and_an_excerpt() -> None:
    found = Refusals()
    read_script([b"DROP ROLE\n  " + b"x" * 500 + b";\n"] * (MOST + 5), found)
    assert (len(found.found), found.count) == (MOST, MOST + 5)
    assert found.found[0].excerpt == "DROP ROLE " + "x" * 107 + "..."
