"""Dumps of a database, and what two of them differ in."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from scarlet_backup_mcp.postgres.dump.contents import Comparison, Contents, compare, confirm
from scarlet_backup_mcp.postgres.dump.filters import strip_restrict
from scarlet_backup_mcp.postgres.dump.script import read_script


def read(script: bytes, like: Contents | None = None) -> Contents:
    contents = Contents(like)
    read_script([script], contents)
    return contents


def compared(before: bytes, after: bytes, *, same_version: bool = True) -> Comparison:
    first = read(before)
    return compare(first, read(after, first), same_version=same_version)


def named(comparison: Comparison) -> list[str]:
    return [difference.what for difference in comparison.differences]


def entry(name: str, kind: str, definition: str, owner: str = "postgres", schema: str = "s") -> bytes:
    return f"--\n-- Name: {name}; Type: {kind}; Schema: {schema}; Owner: {owner}\n--\n\n{definition}\n\n\n".encode()


TABLE = entry("t", "TABLE", "CREATE TABLE s.t (\n    a integer\n);\n\n\nALTER TABLE s.t OWNER TO postgres;")

VALUE = entry("q", "SEQUENCE SET", "SELECT pg_catalog.setval('s.q', 7, true);")
GRANT = entry("TABLE t", "ACL", "GRANT SELECT ON TABLE s.t TO reader;")
COMMENT = entry("TABLE t", "COMMENT", "COMMENT ON TABLE s.t IS 'one  two -- three';")


def stripped(script: bytes) -> bytes:
    return re.sub(rb"(?m)^--.*\n", b"", script)


LARGE = b"""--
-- Name: 7; Type: BLOB; Schema: -; Owner: bob
--

SELECT pg_catalog.lo_create('7');


ALTER LARGE OBJECT 7 OWNER TO bob;

--
-- Name: 8; Type: BLOB; Schema: -; Owner: bob
--

SELECT pg_catalog.lo_create('8');


ALTER LARGE OBJECT 8 OWNER TO bob;

--
-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -
--

BEGIN;

SELECT pg_catalog.lo_open('7', 131072);
SELECT pg_catalog.lowrite(0, '\\x00ff');
SELECT pg_catalog.lowrite(0, '\\x5c2e');
SELECT pg_catalog.lo_close(0);

SELECT pg_catalog.lo_open('8', 131072);
SELECT pg_catalog.lo_close(0);

COMMIT;
"""


@dataclass(frozen=True)
class Place:
    """A server's psql and pg_dump."""

    psql: Callable[[str, bytes], bytes]
    pg_dump: Callable[..., bytes]

    @contextmanager
    def database(self, template: str = "template0") -> Generator[str]:
        name = f"contents_{secrets.token_hex(4)}"
        self.psql("postgres", f"CREATE DATABASE {name} TEMPLATE {template};".encode())
        try:
            yield name
        finally:
            self.psql("postgres", f"DROP DATABASE {name} WITH (FORCE);".encode())

    def loaded(self, script: bytes, *options: str) -> bytes:
        """A dump of a new database with that in it."""
        with self.database() as name:
            self.psql(name, b"".join(strip_restrict([script])))
            return self.pg_dump(name, *options)


def verdict(before: bytes, after: bytes, again: bytes, *, same_version: bool = True) -> Comparison:
    first = read(before)
    second = read(after, first)
    found = compare(first, second, same_version=same_version)
    return found if found.confirmed else confirm(found, read(again), second)


ODDITIES = """
CREATE SCHEMA o; SET search_path = o;
CREATE TABLE t (a int, c varchar(10), d numeric, e float8 DEFAULT -1, g varchar(5),
    CHECK (c BETWEEN 'a' AND 'z' AND a > 0 OR d IN (1, 2.5)), CHECK (a > -(1::int)),
    CHECK (coalesce(c, 'x') IN ('x', 'y')),
    CHECK (c NOT IN ('p', 'q') OR c LIKE 'a%'), CHECK (CASE c WHEN 'a' THEN true WHEN 'b' THEN c IN ('p', 'q') END));
CREATE INDEX i ON t ((c || 'x'), lower(c)) WHERE c IN ('a', 'b') AND a > -(1::int);
CREATE STATISTICS st ON (c || 'x'), (a + -(1::int)) FROM t;
CREATE TABLE u (a int, c varchar(10), z text);
CREATE VIEW v AS SELECT t.a, u.z, 'lit' AS lit, -(1::int) AS neg FROM t JOIN u USING (a, c) WHERE u.c IN ('a', 'b');
CREATE VIEW w AS WITH x AS (SELECT a, c FROM t UNION ALL SELECT 1, 'x') SELECT x.*, (SELECT count(*) FROM v) FROM x;
CREATE VIEW grouped AS SELECT a, e FROM t GROUP BY a, e HAVING max(c) IN ('a', 'b') ORDER BY 1 DESC NULLS LAST;
ALTER TABLE u RENAME z TO zz; ALTER TABLE u ADD COLUMN d int; ALTER TABLE u RENAME TO uu;
CREATE RULE r AS ON UPDATE TO uu DO INSTEAD
    (UPDATE t SET a = NEW.a WHERE c IN ('a', 'b'); DELETE FROM t WHERE a = OLD.a);
CREATE POLICY p ON t USING (c IN ('a', 'b') AND a > -(1::int)) WITH CHECK (g IN ('x', 'y'));
CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER tr BEFORE UPDATE ON t FOR EACH ROW WHEN (NEW.c IN ('a', 'b') AND OLD.* IS DISTINCT FROM NEW.*)
    EXECUTE FUNCTION tf();
CREATE FUNCTION fa(p varchar DEFAULT 'x', q int DEFAULT -(1)) RETURNS int BEGIN ATOMIC
    SELECT a FROM t WHERE c IN ('a', p) OR c BETWEEN 'a' AND 'b' AND a > 0;
    SELECT count(*) FROM uu WHERE uu.c IN ('a', 'b'); END;
CREATE PUBLICATION pp FOR TABLE t WHERE (a IN (1, 2) AND a > -(1::int));
CREATE MATERIALIZED VIEW mv AS SELECT * FROM w WHERE c IN ('a', 'b');
CREATE TABLE base (a int, c varchar(5) CHECK (c IN ('a', 'b')));
CREATE TABLE late (c varchar(5), own int, a int, CONSTRAINT base_c_check CHECK (c IN ('a', 'b')),
    CHECK (own > -(1::int)));
ALTER TABLE late INHERIT base; ALTER TABLE late ALTER own SET STATISTICS 5, ALTER a SET STATISTICS 6;
INSERT INTO late VALUES ('a', 1, 2), (NULL, 3, 4);
CREATE DOMAIN dom AS varchar(9) DEFAULT 'on' CHECK (VALUE IN ('on', 'off'));
ALTER TABLE t ADD CONSTRAINT ex EXCLUDE USING btree (a WITH =, (c || 'x') WITH =) WHERE (c IN ('a', 'b'));
"""
