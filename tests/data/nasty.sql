-- A database with whatever PostgreSQL lets one do that a careless backup loses, for test_roundtrip.py.
-- Load it with psql -v ON_ERROR_STOP=1 as a superuser; the roles it names have to be there. It runs on 15 to 18.
\encoding UTF8
SET client_min_messages = error;
SET standard_conforming_strings = on;
SET timezone = 'UTC';
SET search_path = public;

SELECT current_setting('server_version_num')::int >= 180000 AS pg18,
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'hstore') AS hstore,
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'btree_gist') AS btree_gist,
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'postgres_fdw') AS postgres_fdw,
       EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') AS vector \gset

DO $$
BEGIN
    EXECUTE 'SELECT ''<a/>''::xml';
    PERFORM set_config('nasty.xml', 'true', false);
EXCEPTION WHEN feature_not_supported THEN
    PERFORM set_config('nasty.xml', 'false', false);
END
$$;
SELECT current_setting('nasty.xml') AS xml \gset

-- Schemas and their owners -------------------------------------------------------------------------------------------

ALTER SCHEMA public OWNER TO "nasty O'Brien ""the"" owner";
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO "nasty роль с пробелом", "nasty user";
COMMENT ON SCHEMA public IS E'Not the usual comment; -- with a\nline break, a \\. and a ''quote''';

CREATE SCHEMA nasty;
CREATE SCHEMA "Ünïcode . ""схема"" 🧠" AUTHORIZATION "nasty роль с пробелом";
CREATE SCHEMA "line
break";
CREATE SCHEMA "back\slash";
CREATE SCHEMA "select";
CREATE SCHEMA "16384";
CREATE SCHEMA "$user";
CREATE SCHEMA "'; DROP SCHEMA nasty CASCADE; --";
CREATE SCHEMA extensions;

ALTER DEFAULT PRIVILEGES FOR ROLE "nasty O'Brien ""the"" owner" IN SCHEMA nasty
    GRANT SELECT, INSERT ON TABLES TO "nasty роль с пробелом" WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE "nasty роль с пробелом" REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE "nasty роль с пробелом" GRANT USAGE ON SEQUENCES TO PUBLIC;

-- Extensions ---------------------------------------------------------------------------------------------------------

\if :hstore
CREATE EXTENSION hstore SCHEMA extensions;
COMMENT ON EXTENSION hstore IS 'hstore, with a comment of our own';
CREATE TABLE nasty.pairs (id int PRIMARY KEY, h extensions.hstore);
INSERT INTO nasty.pairs VALUES (1, 'a=>1, "b\\c"=>NULL, "d\"e"=>"\\."'), (2, ''), (3, NULL);
CREATE INDEX ON nasty.pairs USING gin (h);
\endif
\if :btree_gist
CREATE EXTENSION btree_gist SCHEMA extensions;
\endif

-- Types --------------------------------------------------------------------------------------------------------------

CREATE TYPE nasty.mood AS ENUM ('sad', 'ok', 'happy', '', 'l''Aquila', E'tab\there', 'Köln 🧠', E'back\\slash', '\N', '\.');
ALTER TYPE nasty.mood ADD VALUE 'between' AFTER 'sad';
COMMENT ON TYPE nasty.mood IS 'moods';
ALTER TYPE nasty.mood OWNER TO "nasty роль с пробелом";
GRANT USAGE ON TYPE nasty.mood TO "nasty user";
CREATE TYPE nasty."Pair of ""things""" AS (left_one int, "right one" text, m nasty.mood);
COMMENT ON COLUMN nasty."Pair of ""things"""."right one" IS 'right';
CREATE DOMAIN nasty.positive AS int DEFAULT 1 NOT NULL CONSTRAINT "above zero" CHECK (VALUE > 0);
CREATE DOMAIN nasty.code AS varchar(10) COLLATE "C" CHECK (VALUE ~ '^[a-z\\.]+$');
ALTER DOMAIN nasty.code ADD CONSTRAINT "short enough" CHECK (length(VALUE) < 9) NOT VALID;
COMMENT ON CONSTRAINT "above zero" ON DOMAIN nasty.positive IS 'really';
CREATE TYPE nasty.floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE TYPE nasty.shell;
CREATE COLLATION nasty."c, again" FROM "C";

CREATE TABLE nasty.typed (
    id int PRIMARY KEY, m nasty.mood, ms nasty.mood[], p nasty."Pair of ""things""", ps nasty."Pair of ""things"""[],
    d nasty.positive, c nasty.code, r nasty.floatrange, mr nasty.floatmultirange, i4 int4range[], t text[][],
    shifted int[], b bytea, bits varbit, u uuid, n inet, mac macaddr8, mo money, ch char(5), internal "char",
    nm name, pt point, poly polygon, tsv tsvector, tsq tsquery, jp jsonpath, reg regclass, lsn pg_lsn, o oid, tid tid
);
INSERT INTO nasty.typed VALUES
    (1, '\N', ARRAY['\.', NULL, '', E'tab\there']::nasty.mood[], ROW(1, E'a\\b"c,(d)\t', 'Köln 🧠'),
     ARRAY[ROW(NULL, '', NULL), NULL, ROW(2, 'NULL', 'ok')]::nasty."Pair of ""things"""[], 3, 'a.b\',
     '[1e-320,1e308)', '{[1,2),[3,infinity)}', ARRAY['empty', '(,)', NULL]::int4range[],
     ARRAY[['a"b', 'c\d'], [NULL, 'NULL']], '[-2:0]={1,NULL,3}', '\x00ff5c2e0a0d1a', B'10110', 
     '00000000-0000-0000-0000-000000000000', '::ffff:1.2.3.4/96', '08:00:2b:01:02:03:04:05', '-1234.56', 'a    ', '\',
     'n', '(1e-308,-0)', '((0,0),(1,1),(2,0))', '''a\\b'':1A ''\\.'':2', '''x'' & !''y z''', '$."a\\b"[*] ? (@ > 1)',
     'pg_class', 'FFFFFFFF/FFFFFFFF', 4294967295, '(4294967295,1)'),
    (2, '', '{}', NULL, '{}', 1, NULL, 'empty', '{}', '{}', '{}', '{}', '', '', NULL, NULL, NULL, NULL, '', '', '',
     NULL, NULL, '', '', NULL, NULL, NULL, NULL, NULL);

-- Values -------------------------------------------------------------------------------------------------------------

CREATE TABLE nasty."текст" (id int GENERATED ALWAYS AS IDENTITY, "Wert – ""v""" text, plain varchar);
INSERT INTO nasty."текст" ("Wert – ""v""") SELECT 'a' || chr(i) || 'b' || chr(i) FROM generate_series(1, 700) AS i;
INSERT INTO nasty."текст" ("Wert – ""v""", plain) VALUES
    ('', NULL), (NULL, ''), ('\.', '\.'), (E'\\.\n', E'\n\\.\n'), ('\N', '\\N'), ('NULL', 'null'), (E'\t', E'\r\n'),
    (E'\r', E'\n'), (E'\u0085\u2028\u2029\ufeff', E'\x1a'), ('\', '\\'), (E'\\x41', E'\\101'), ('🧠👩‍👩‍👧‍👦', E'e\u0301'),
    ('COPY nasty.typed (id) FROM stdin;', '-- PostgreSQL database dump complete'), ('\connect evil', '\! id'),
    (E'x\n\\.\nDROP SCHEMA nasty CASCADE;\n', E'\\unrestrict x\n'), (' leading and trailing ', E'\v\f\b'),
    (E'\U0010FFFF\uE000', E'\x7f'), (':USER :''DBNAME'' :{?x}', '$$ $body$');
INSERT INTO nasty."текст" ("Wert – ""v""") VALUES (repeat(E'длинная\tстрока\\ 🧠\n', 30000)), (repeat('x', 8388608));

CREATE TABLE nasty.bytes (id int, b bytea);
INSERT INTO nasty.bytes SELECT i, decode(repeat(lpad(to_hex(i), 2, '0'), 5), 'hex') FROM generate_series(0, 255) AS i;
INSERT INTO nasty.bytes SELECT 256, decode(repeat('00ff5c2e0a0d1a09', 524288), 'hex');
INSERT INTO nasty.bytes VALUES (257, ''), (258, NULL);

CREATE TABLE nasty.documents (id int, j json, jb jsonb);
INSERT INTO nasty.documents VALUES
    (1, '{"a": "\u0000\ud83e\udde0", "a":  2,
  "b": "\\. \n"}', '{"z": 1.0000, "a": [null, "\t\\.", 1e400]}'), (2, 'null', 'null'), (3, NULL, NULL), (4, ' "" ', '""');
\if :xml
CREATE TABLE nasty.markup (x xml);
INSERT INTO nasty.markup VALUES ('<a b="1">&lt;\.</a>'), ('x <!-- not a document --> y'), (NULL);
\endif

CREATE TABLE nasty.numbers (n numeric, n2 numeric(10, 2), f8 float8, f4 float4, i8 int8, nneg numeric(5, -2));
INSERT INTO nasty.numbers VALUES
    ('NaN', 'NaN', 'NaN', 'NaN', 9223372036854775807, 12300), ('inf', 0, 'inf', 'inf', -9223372036854775808, 100),
    ('-inf', -0.01, '-inf', '-inf', 0, 0), (1e-16383, 99999999.99, 5e-324, 1e-45, 1, -99900),
    (repeat('9', 5000)::numeric, 1.10, 1.7976931348623157e308, 3.4028235e38, 2, 0), (1.000, 1, '-0', '-0', 3, 0),
    (0.1, 0.1, 0.1, 0.1, 4, 0), (NULL, NULL, 2.2250738585072011e-308, 1.17549435e-38, NULL, NULL);

CREATE TABLE nasty.times (ts timestamp, tz timestamptz, d date, t time, ttz timetz, iv interval, p timestamptz(0));
INSERT INTO nasty.times VALUES
    ('infinity', '-infinity', 'infinity', '24:00', '00:00:00.000001+15:59', '1 mon -1 day 00:00:00.000001', NULL),
    ('4713-11-24 00:00 BC', '0001-01-01 00:00+00 BC', '0044-03-15 BC', '00:00', '23:59:60-15:59',
     '-178000000 years', '2026-10-25 02:30:00+02'),
    ('294276-12-31 23:59:59.999999', '2026-03-29 01:59:59.999999+00', '5874897-12-31', '12:34:56.789', '12:00+05:45',
     '10 years -11 mons +12 days -13:14:15.16', '1883-11-18 12:03:58+00'), (NULL, NULL, NULL, NULL, NULL, '0', NULL);
\if :pg18
CREATE TABLE nasty.eternity (iv interval, "virtual" int GENERATED ALWAYS AS (42) VIRTUAL, CONSTRAINT c CHECK (iv > '0'::interval) NOT ENFORCED);
INSERT INTO nasty.eternity VALUES ('infinity'), ('-infinity');
\endif

-- Sequences and identity ---------------------------------------------------------------------------------------------

CREATE SEQUENCE nasty.never_called START 5;
CREATE SEQUENCE nasty.called;
SELECT nextval('nasty.called') FROM generate_series(1, 7);
CREATE SEQUENCE nasty."odd (one); 'quoted'" AS smallint INCREMENT -3 MINVALUE -10 MAXVALUE 5 START 5 CACHE 4 CYCLE;
SELECT nextval('nasty."odd (one); ''quoted''"') FROM generate_series(1, 9);
CREATE SEQUENCE nasty.set_uncalled;
SELECT setval('nasty.set_uncalled', 9223372036854775807, false);
CREATE UNLOGGED SEQUENCE nasty.unlogged_sequence;
SELECT setval('nasty.unlogged_sequence', 77);
CREATE TABLE nasty.identities (
    a int GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 10),
    b bigint GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME nasty."b's sequence" MINVALUE -5 START -5),
    c serial, stored text GENERATED ALWAYS AS (upper(d) || '\.') STORED, d text DEFAULT E'it''s\t\\'
);
INSERT INTO nasty.identities (d) VALUES ('x'), (DEFAULT), (NULL);
INSERT INTO nasty.identities (a, d) OVERRIDING SYSTEM VALUE VALUES (1000000, 'y');
DELETE FROM nasty.identities WHERE d = 'x';
CREATE SEQUENCE nasty.owned_elsewhere OWNED BY nasty.identities.d;
ALTER SEQUENCE nasty.called OWNER TO "nasty user";

-- Partitions ---------------------------------------------------------------------------------------------------------

CREATE TABLE nasty.hashed (m nasty.mood, id int, payload text, PRIMARY KEY (m, id)) PARTITION BY HASH (m);
CREATE TABLE nasty.hashed_0 PARTITION OF nasty.hashed FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE nasty.hashed_1 PARTITION OF nasty.hashed FOR VALUES WITH (MODULUS 3, REMAINDER 1) PARTITION BY LIST (id);
CREATE TABLE nasty.hashed_1_default PARTITION OF nasty.hashed_1 DEFAULT;
CREATE TABLE nasty."hashed, other order" (payload text, dropped int, id int NOT NULL, m nasty.mood NOT NULL);
ALTER TABLE nasty."hashed, other order" DROP COLUMN dropped;
ALTER TABLE nasty.hashed ATTACH PARTITION nasty."hashed, other order" FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO nasty.hashed SELECT e, i, e || E'\t' || i FROM unnest(enum_range(NULL::nasty.mood)) AS e, generate_series(1, 40) AS i;

CREATE TABLE nasty.ranged (at date NOT NULL, region text, v int DEFAULT 7) PARTITION BY RANGE (at);
CREATE TABLE nasty.ranged_old PARTITION OF nasty.ranged FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
CREATE TABLE nasty.ranged_2020 PARTITION OF nasty.ranged (v DEFAULT 2020) FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')
    PARTITION BY LIST (region);
CREATE TABLE nasty.ranged_2020_it PARTITION OF nasty.ranged_2020 FOR VALUES IN ('it', NULL, 'l''Aquila');
CREATE TABLE nasty.ranged_2020_other (v int, region text, at date NOT NULL, CHECK (v > 0));
ALTER TABLE nasty.ranged_2020 ATTACH PARTITION nasty.ranged_2020_other DEFAULT;
CREATE TABLE nasty.ranged_default PARTITION OF nasty.ranged DEFAULT;
CREATE INDEX ranged_at ON nasty.ranged (at, v DESC NULLS LAST);
CREATE INDEX ranged_unfinished ON ONLY nasty.ranged (region);
INSERT INTO nasty.ranged SELECT '2019-06-01'::date + i * 10, (ARRAY['it', NULL, 'de'])[i % 3 + 1], i + 1
    FROM generate_series(0, 99) AS i;
ALTER TABLE nasty.ranged_old OWNER TO "nasty роль с пробелом";
GRANT SELECT ON nasty.ranged_2020_it TO "nasty user";
CREATE TABLE nasty.no_partitions (a int) PARTITION BY LIST (a);
CREATE TABLE nasty."by expression" (a text, b int) PARTITION BY RANGE (lower(a) COLLATE "C", ((b % 10)));
CREATE TABLE nasty."by expression, all" PARTITION OF nasty."by expression"
    FOR VALUES FROM (MINVALUE, MINVALUE) TO (MAXVALUE, MAXVALUE);
INSERT INTO nasty."by expression" VALUES ('A', 11), ('z', 9);

-- Inheritance --------------------------------------------------------------------------------------------------------

CREATE TABLE nasty.parent (id int NOT NULL, note text DEFAULT 'parent', CONSTRAINT positive_id CHECK (id > 0));
CREATE TABLE nasty.other_parent (extra jsonb, note text, CONSTRAINT not_for_children CHECK (extra IS NULL) NO INHERIT);
CREATE TABLE nasty.child (own text, note text DEFAULT 'child') INHERITS (nasty.parent, nasty.other_parent);
CREATE TABLE nasty.late_child (note text, id int NOT NULL, c int, CONSTRAINT positive_id CHECK (id > 0));
ALTER TABLE nasty.late_child INHERIT nasty.parent;
INSERT INTO nasty.parent VALUES (1, DEFAULT), (2, NULL);
INSERT INTO nasty.child (id, own, extra) VALUES (3, 'x', '{}'), (4, NULL, NULL);
INSERT INTO nasty.late_child VALUES ('l', 5, 6);
CREATE TABLE nasty.of_type OF nasty."Pair of ""things""" (PRIMARY KEY (left_one), m WITH OPTIONS DEFAULT 'ok');
INSERT INTO nasty.of_type VALUES (1, 'one', DEFAULT);

-- Tables of odd shapes -----------------------------------------------------------------------------------------------

CREATE TABLE nasty.no_columns ();
INSERT INTO nasty.no_columns DEFAULT VALUES;
INSERT INTO nasty.no_columns DEFAULT VALUES;
CREATE TABLE nasty.no_columns_empty ();
CREATE TABLE nasty.empty (a int, b text);
CREATE TABLE nasty.only_generated (a int GENERATED ALWAYS AS (1) STORED);
INSERT INTO nasty.only_generated DEFAULT VALUES;
SELECT format('CREATE TABLE nasty.wide (%s)', string_agg(format('%I text DEFAULT %L', 'column "' || i, i), ', '))
    FROM generate_series(1, 300) AS i \gexec
INSERT INTO nasty.wide DEFAULT VALUES;
CREATE UNLOGGED TABLE nasty.unlogged (a int PRIMARY KEY, b text);
INSERT INTO nasty.unlogged SELECT i, 'u' FROM generate_series(1, 9) AS i;
CREATE TABLE nasty."16384" (a int);
CREATE TABLE "16384"."2147483647" ("1" int, "0x1F" int);
INSERT INTO "16384"."2147483647" VALUES (1, 31);
CREATE TABLE "line
break"."table
name; with
\.
COPY x FROM stdin;" ("column
name" int, "tab	name" text);
INSERT INTO "line
break"."table
name; with
\.
COPY x FROM stdin;" VALUES (1, E'\n');
CREATE TABLE "back\slash"."\." ("\N" text, "\" int, "a""b" int, "%s" int, "$(id)" int, ":USER" int, "'" int);
INSERT INTO "back\slash"."\." VALUES ('\N', 1, 2, 3, 4, 5, 6), (NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE "select"."table" ("select" int PRIMARY KEY, "from" int, "user" int, "default" int, "end" int);
INSERT INTO "select"."table" VALUES (1, 2, 3, 4, 5);
CREATE TABLE "Ünïcode . ""схема"" 🧠"."имя таблицы 🧠 в 63 байта, длинное!" ("63 bytes ----------------------------------------------------xxx" int);
INSERT INTO "Ünïcode . ""схема"" 🧠"."имя таблицы 🧠 в 63 байта, длинное!" SELECT generate_series(1, 5);
ALTER TABLE "Ünïcode . ""схема"" 🧠"."имя таблицы 🧠 в 63 байта, длинное!" OWNER TO "nasty роль с пробелом";
CREATE TABLE "$user"."a.b" ("c.d" text);
INSERT INTO "$user"."a.b" VALUES ('e.f');
CREATE TABLE "'; DROP SCHEMA nasty CASCADE; --"."'; DROP TABLE x; --" ("--" int, "/*" int, "$$" int);
INSERT INTO "'; DROP SCHEMA nasty CASCADE; --"."'; DROP TABLE x; --" VALUES (1, 2, 3);
CREATE TABLE nasty."PG_twins" (a int); CREATE TABLE nasty."pg_twins" (a int); CREATE TABLE public."pg_twins" (a int);
INSERT INTO nasty."PG_twins" VALUES (1); INSERT INTO nasty."pg_twins" VALUES (1), (2);

-- Constraints and indexes --------------------------------------------------------------------------------------------

CREATE TABLE nasty.parts (id int PRIMARY KEY, UNIQUE (id, whole) DEFERRABLE INITIALLY DEFERRED, whole int, code text, span int4range, price numeric);
CREATE TABLE nasty.wholes (id int PRIMARY KEY, main_part int);
ALTER TABLE nasty.parts ADD CONSTRAINT "part of" FOREIGN KEY (whole) REFERENCES nasty.wholes ON DELETE CASCADE DEFERRABLE;
ALTER TABLE nasty.wholes ADD FOREIGN KEY (main_part) REFERENCES nasty.parts ON UPDATE SET NULL DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE nasty.parts ADD CONSTRAINT "no overlap" EXCLUDE USING gist (span WITH &&) WHERE (price > 0);
ALTER TABLE nasty.parts ADD CONSTRAINT one_null UNIQUE NULLS NOT DISTINCT (code, whole) INCLUDE (price);
BEGIN;
INSERT INTO nasty.wholes SELECT i, i * 10 FROM generate_series(1, 50) AS i;
INSERT INTO nasty.parts SELECT i * 10, i, 'c' || i, int4range(i, i + 1), i FROM generate_series(1, 50) AS i;
COMMIT;
INSERT INTO nasty.parts VALUES (1, NULL, NULL, 'empty', -1);
ALTER TABLE nasty.parts ADD CONSTRAINT "not valid" CHECK (price > 10) NOT VALID;
CREATE TABLE nasty.orphans (id int, parent int);
INSERT INTO nasty.orphans VALUES (1, 999);
ALTER TABLE nasty.orphans ADD CONSTRAINT lost FOREIGN KEY (parent) REFERENCES nasty.wholes NOT VALID;
CREATE UNIQUE INDEX parts_partial ON nasty.parts (lower(code) text_pattern_ops, (price * 2) DESC) WHERE code IS NOT NULL AND price <> 3;
CREATE INDEX parts_brin ON nasty.parts USING brin (id) WITH (pages_per_range = 4);
CREATE INDEX parts_hash ON nasty.parts USING hash (code) WITH (fillfactor = 60);
CREATE INDEX parts_spgist ON nasty.parts USING spgist (span);
ALTER INDEX nasty.parts_partial ALTER COLUMN 2 SET STATISTICS 500;
COMMENT ON INDEX nasty.parts_partial IS 'partial';
COMMENT ON CONSTRAINT "part of" ON nasty.parts IS 'fk';
ALTER TABLE nasty.parts CLUSTER ON parts_pkey;
ALTER TABLE nasty.wholes REPLICA IDENTITY FULL;
ALTER TABLE nasty.unlogged SET (fillfactor = 70, autovacuum_enabled = off, toast.autovacuum_vacuum_threshold = 7);
ALTER TABLE nasty.unlogged ALTER b SET STORAGE EXTERNAL, ALTER b SET COMPRESSION pglz, ALTER b SET (n_distinct = -0.5), ALTER b SET STATISTICS 42;
CREATE UNIQUE INDEX identity_index ON nasty.times (d);
CREATE TABLE nasty.identity_by_index (a int NOT NULL, b int NOT NULL, CONSTRAINT ab UNIQUE (b, a));
ALTER TABLE nasty.identity_by_index REPLICA IDENTITY USING INDEX ab;
INSERT INTO nasty.identity_by_index VALUES (1, 2);

-- What the server rewrites on the first reload: see REWRITTEN in the test. late_child above is another one.
CREATE TABLE nasty.normalised (status varchar(20) NOT NULL CONSTRAINT normalised_check CHECK (status IN ('on', 'off', 'l''altro')));
INSERT INTO nasty.normalised VALUES ('on'), ('l''altro');
CREATE VIEW nasty.normalised_view AS SELECT status FROM nasty.normalised WHERE status IN ('on', 'off');

\if :vector
CREATE EXTENSION vector SCHEMA extensions;
SET search_path = public, extensions;
CREATE TABLE nasty.vectors (id int PRIMARY KEY, v vector(8), free vector, h halfvec(3), s sparsevec(5));
INSERT INTO nasty.vectors SELECT i, ARRAY(SELECT sin(i * j) FROM generate_series(1, 8) AS j)::real[]::vector(8),
    '[1e-38,3e38]', '[1,0.0001,-65504]', '{1:1e-7,5:-2}/5' FROM generate_series(1, 200) AS i;
INSERT INTO nasty.vectors (id) VALUES (0);
CREATE INDEX vectors_hnsw ON nasty.vectors USING hnsw (v vector_cosine_ops) WITH (m = 4, ef_construction = 16);
CREATE INDEX vectors_ivfflat ON nasty.vectors USING ivfflat (v vector_l2_ops) WITH (lists = 3);
SET search_path = public;
\endif

-- Functions and what is made of them ---------------------------------------------------------------------------------

CREATE FUNCTION nasty.looks_like_a_dump(a int DEFAULT 1, VARIADIC b text[] DEFAULT '{}') RETURNS text LANGUAGE plpgsql
SET search_path = nasty, "$user", "Ünïcode . ""схема"" 🧠" SET "nasty.setting" = 'a, "b"' COST 7 AS $body$
-- A comment that ends a dump:
-- PostgreSQL database dump complete
--
DECLARE
    "it's" text := $$dollar $q$ quotes $q$ inside $$;
BEGIN
    /* COPY letta.agents (id) FROM stdin;
\.
\connect evil
\! touch /tmp/evil
\unrestrict x
*/
    RETURN $fn$
COPY letta.agents (id) FROM stdin;
1	\N
\.

--
-- PostgreSQL database dump complete
--

\connect evil
DROP DATABASE letta;
$fn$ || E'\\.' || "it's" || $a$ $b$ :USER :'HOST' $a$;
END;
$body$;
COMMENT ON FUNCTION nasty.looks_like_a_dump IS $$Comment with
\.
COPY x FROM stdin;
-- PostgreSQL database dump complete
\connect evil$$;
ALTER FUNCTION nasty.looks_like_a_dump OWNER TO "nasty O'Brien ""the"" owner";
REVOKE ALL ON FUNCTION nasty.looks_like_a_dump FROM PUBLIC;
GRANT EXECUTE ON FUNCTION nasty.looks_like_a_dump TO "nasty PUBLIC";

CREATE FUNCTION nasty.atomic(n int, "case" bool DEFAULT true, OUT result text) LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE WHEN n > 0 THEN CASE n WHEN 1 THEN 'one; END' ELSE $$begin; $$ END ELSE '\.' END WHERE "case";
    SELECT string_agg(m::text, ';') FROM nasty.typed WHERE id = atomic.n;
END;
CREATE FUNCTION nasty.returned() RETURNS TABLE (a int, "b c" text) LANGUAGE sql RETURN ROW(1, 'x;y');
CREATE FUNCTION nasty.quoted(text) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS 'SELECT ''it''''s'' || $1 || E''\\\\.''';
CREATE PROCEDURE nasty."do; it"(INOUT x int) LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN COMMIT; x := x + 1; END$$;
CREATE PROCEDURE nasty.atomic_procedure() BEGIN ATOMIC INSERT INTO nasty.empty VALUES (1, ';'); DELETE FROM nasty.empty; END;
CREATE FUNCTION nasty.longer(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT CASE WHEN length($2) > length($1) THEN $2 ELSE $1 END$$;
CREATE AGGREGATE nasty."longest of"(text) (SFUNC = nasty.longer, STYPE = text, INITCOND = E'\\.\n');
COMMENT ON AGGREGATE nasty."longest of"(text) IS 'the longest';
CREATE OPERATOR nasty.<#|> (LEFTARG = text, RIGHTARG = text, FUNCTION = nasty.longer, COMMUTATOR = OPERATOR(nasty.<#|>));
COMMENT ON OPERATOR nasty.<#|>(text, text) IS 'longer';
CREATE FUNCTION nasty.compare_backwards(int, int) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT btint4cmp($2, $1)';
CREATE OPERATOR CLASS nasty.backwards FOR TYPE int USING btree AS
    OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 nasty.compare_backwards(int, int);
CREATE OPERATOR FAMILY nasty.relatives USING hash;
CREATE INDEX wholes_backwards ON nasty.wholes (id nasty.backwards);
CREATE FUNCTION nasty.mood_number(nasty.mood) RETURNS int LANGUAGE sql IMMUTABLE AS $$SELECT length($1::text)$$;
CREATE CAST (nasty.mood AS int) WITH FUNCTION nasty.mood_number(nasty.mood) AS ASSIGNMENT;
COMMENT ON CAST (nasty.mood AS int) IS 'a cast';
CREATE CONVERSION nasty.latin FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE TEXT SEARCH DICTIONARY nasty.words (TEMPLATE = pg_catalog.simple, ACCEPT = false);
CREATE TEXT SEARCH CONFIGURATION nasty."my search" (COPY = pg_catalog.italian);
ALTER TEXT SEARCH CONFIGURATION nasty."my search" ALTER MAPPING FOR asciiword WITH nasty.words, italian_stem;
CREATE STATISTICS nasty."stats 'x'" (dependencies, mcv) ON whole, code FROM nasty.parts;
CREATE STATISTICS nasty.expression_stats ON (price * 2), (lower(code)) FROM nasty.parts;
ALTER STATISTICS nasty.expression_stats SET STATISTICS 77;
CREATE ACCESS METHOD nasty_heap TYPE TABLE HANDLER heap_tableam_handler;
COMMENT ON ACCESS METHOD nasty_heap IS 'heap by another name';
CREATE TABLE nasty.other_heap (a int) USING nasty_heap;
INSERT INTO nasty.other_heap VALUES (1);

-- Triggers, rules, policies ------------------------------------------------------------------------------------------

CREATE TABLE nasty.audit (at int GENERATED ALWAYS AS IDENTITY, what text);
CREATE FUNCTION nasty.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO nasty.audit (what) VALUES (TG_NAME || ' ' || TG_OP || ' ' || coalesce(TG_ARGV[0], ''));
    RETURN NULL;
END $$;
CREATE TRIGGER "after; all" AFTER INSERT OR UPDATE OF b, a OR DELETE OR TRUNCATE ON nasty.empty EXECUTE FUNCTION nasty.note(E'it''s \\. x');
CREATE TRIGGER disabled AFTER INSERT ON nasty.wholes FOR EACH ROW EXECUTE FUNCTION nasty.note();
ALTER TABLE nasty.wholes DISABLE TRIGGER disabled;
CREATE TRIGGER for_replicas AFTER INSERT ON nasty.wholes REFERENCING NEW TABLE AS "new ones" EXECUTE FUNCTION nasty.note();
ALTER TABLE nasty.wholes ENABLE REPLICA TRIGGER for_replicas;
CREATE TRIGGER always AFTER INSERT ON nasty.audit WHEN (pg_trigger_depth() > 5) EXECUTE FUNCTION nasty.note();
ALTER TABLE nasty.audit ENABLE ALWAYS TRIGGER always;
CREATE CONSTRAINT TRIGGER checked AFTER UPDATE ON nasty.parts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.price IS DISTINCT FROM NEW.price) EXECUTE FUNCTION nasty.note();
CREATE TRIGGER on_partitioned AFTER INSERT ON nasty.ranged FOR EACH ROW EXECUTE FUNCTION nasty.note();
ALTER TABLE nasty.ranged_old DISABLE TRIGGER on_partitioned;
COMMENT ON TRIGGER checked ON nasty.parts IS 'comment';
INSERT INTO nasty.empty VALUES (1, 'x'); DELETE FROM nasty.empty;
CREATE RULE "no; deletes" AS ON DELETE TO nasty.orphans WHERE OLD.id = 1 DO INSTEAD (SELECT 1; SELECT ';');
CREATE RULE disabled AS ON UPDATE TO nasty.orphans DO ALSO NOTIFY nasty;
ALTER TABLE nasty.orphans DISABLE RULE disabled;
COMMENT ON RULE disabled ON nasty.orphans IS 'off';

CREATE TABLE nasty.secrets (id int, owner name, secret text);
INSERT INTO nasty.secrets VALUES (1, 'postgres', 'a'), (2, 'nobody', 'b');
ALTER TABLE nasty.secrets ENABLE ROW LEVEL SECURITY;
ALTER TABLE nasty.secrets FORCE ROW LEVEL SECURITY;
ALTER TABLE nasty.secrets OWNER TO "nasty O'Brien ""the"" owner";
CREATE POLICY "see own; TO none" ON nasty.secrets FOR SELECT TO "nasty роль с пробелом", "nasty user" USING (owner = CURRENT_USER AND 'TO nobody' <> secret);
CREATE POLICY nothing ON nasty.secrets AS RESTRICTIVE TO PUBLIC WITH CHECK (false);
COMMENT ON POLICY nothing ON nasty.secrets IS 'none';

CREATE FUNCTION nasty.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE DEBUG '%', tg_tag; END$$;
CREATE EVENT TRIGGER "nasty; ddl" ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'REFRESH MATERIALIZED VIEW') EXECUTE FUNCTION nasty.on_ddl();
CREATE EVENT TRIGGER nasty_drop ON sql_drop EXECUTE FUNCTION nasty.on_ddl();
ALTER EVENT TRIGGER nasty_drop DISABLE;
CREATE EVENT TRIGGER nasty_always ON ddl_command_start EXECUTE FUNCTION nasty.on_ddl();
ALTER EVENT TRIGGER nasty_always ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER nasty_drop IS 'disabled';

-- Views --------------------------------------------------------------------------------------------------------------

CREATE VIEW nasty."view; one" WITH (security_barrier, security_invoker = true) AS
    SELECT p.id AS "the id", w.*, 'it''s \. ' || E'\\' AS "a;b" FROM nasty.parts AS p JOIN nasty.wholes AS w ON w.id = p.whole;
CREATE VIEW nasty.on_view AS SELECT "the id", count(*) FROM nasty."view; one" GROUP BY 1 HAVING count(*) > 0;
CREATE VIEW nasty.updatable AS SELECT * FROM nasty.orphans WHERE id > 0 WITH LOCAL CHECK OPTION;
ALTER VIEW nasty.updatable ALTER COLUMN id SET DEFAULT 5;
COMMENT ON COLUMN nasty.updatable.id IS 'column of a view';
CREATE RECURSIVE VIEW nasty.counting (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counting WHERE n < 5;
CREATE VIEW nasty.key_dependent AS SELECT id, main_part FROM nasty.wholes GROUP BY id;
CREATE TRIGGER instead INSTEAD OF INSERT ON nasty.on_view FOR EACH ROW EXECUTE FUNCTION nasty.note('view');
CREATE MATERIALIZED VIEW nasty.materialised AS SELECT id, code FROM nasty.parts WHERE price > 5;
CREATE UNIQUE INDEX ON nasty.materialised (id);
CREATE MATERIALIZED VIEW nasty."on materialised" WITH (fillfactor = 80) AS SELECT count(*) AS n, max(code) AS "max" FROM nasty.materialised;
CREATE MATERIALIZED VIEW nasty.unpopulated AS SELECT 1 / 0 AS boom WITH NO DATA;
CREATE MATERIALIZED VIEW nasty.on_unpopulated AS SELECT boom FROM nasty.unpopulated WITH NO DATA;
ALTER MATERIALIZED VIEW nasty.materialised OWNER TO postgres;
COMMENT ON MATERIALIZED VIEW nasty.materialised IS 'populated';
GRANT SELECT ON nasty.materialised TO PUBLIC;
CREATE FUNCTION nasty.of_row(nasty.parts) RETURNS text LANGUAGE sql STABLE AS $$SELECT $1.code || '!'$$;
CREATE VIEW nasty.row_function AS SELECT nasty.of_row(p) FROM nasty.parts AS p;

-- Foreign data, publications -----------------------------------------------------------------------------------------

CREATE FOREIGN DATA WRAPPER nasty_dummy OPTIONS ("a b" 'it''s');
CREATE SERVER "nasty; server" TYPE 't' VERSION 'v' FOREIGN DATA WRAPPER nasty_dummy OPTIONS (host '\.', dbname 'x y');
CREATE USER MAPPING FOR PUBLIC SERVER "nasty; server";
CREATE USER MAPPING FOR "nasty роль с пробелом" SERVER "nasty; server" OPTIONS ("user" 'u', password E'p\\w''d');
CREATE FOREIGN TABLE nasty."foreign" (id int OPTIONS ("column name" 'i d') NOT NULL, t text DEFAULT 'x') SERVER "nasty; server" OPTIONS (x 'y;z');
GRANT USAGE ON FOREIGN SERVER "nasty; server" TO "nasty user" WITH GRANT OPTION;
COMMENT ON SERVER "nasty; server" IS 'far away';
\if :postgres_fdw
CREATE EXTENSION postgres_fdw SCHEMA extensions;
CREATE SERVER nasty_far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '192.0.2.1', port '1', connect_timeout '2');
CREATE USER MAPPING FOR CURRENT_USER SERVER nasty_far OPTIONS (user 'x', password 'y');
CREATE FOREIGN TABLE nasty.far_away (a int) SERVER nasty_far;
\endif
CREATE PUBLICATION "nasty; pub" FOR TABLE nasty.wholes (id), ONLY nasty.parts WHERE (id > 5 AND id < 7) WITH (publish = 'insert');
CREATE PUBLICATION nasty_schema FOR TABLES IN SCHEMA "select", TABLE nasty.orphans;
CREATE PUBLICATION nasty_everything FOR ALL TABLES WITH (publish_via_partition_root);
COMMENT ON PUBLICATION nasty_everything IS 'all';

-- Large objects ------------------------------------------------------------------------------------------------------

SELECT lo_from_bytea(900001, decode(repeat('00ff1a0a0d5c2e', 300000), 'hex'));
SELECT lo_from_bytea(900002, '');
SELECT lo_from_bytea(900003, E'\\x5c2e0a');
ALTER LARGE OBJECT 900001 OWNER TO "nasty роль с пробелом";
GRANT SELECT, UPDATE ON LARGE OBJECT 900001 TO "nasty user";
COMMENT ON LARGE OBJECT 900001 IS E'several MB;\n\\.';
SELECT lo_put(900003, 100000, '\xff');

-- Grants -------------------------------------------------------------------------------------------------------------

CREATE TABLE nasty.granted (a int, "b c" text, d int);
ALTER TABLE nasty.granted OWNER TO "nasty O'Brien ""the"" owner";
GRANT USAGE ON SCHEMA nasty TO "nasty O'Brien ""the"" owner", "nasty роль с пробелом", "nasty user", "nasty PUBLIC";
SET SESSION AUTHORIZATION "nasty O'Brien ""the"" owner";
GRANT SELECT, INSERT ON nasty.granted TO "nasty роль с пробелом" WITH GRANT OPTION;
GRANT UPDATE ("b c", d), SELECT (a) ON nasty.granted TO "nasty user" WITH GRANT OPTION;
RESET SESSION AUTHORIZATION;
SET SESSION AUTHORIZATION "nasty роль с пробелом";
GRANT SELECT ON nasty.granted TO "nasty PUBLIC";
GRANT INSERT ON nasty.granted TO PUBLIC;
RESET SESSION AUTHORIZATION;
SET SESSION AUTHORIZATION "nasty user";
GRANT UPDATE (d) ON nasty.granted TO "nasty PUBLIC";
RESET SESSION AUTHORIZATION;
REVOKE TRUNCATE, DELETE ON nasty.granted FROM "nasty O'Brien ""the"" owner";
GRANT USAGE, UPDATE ON SEQUENCE nasty.never_called TO "nasty user";
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text) FROM PUBLIC;
GRANT SELECT ON pg_catalog.pg_authid TO "nasty user";
COMMENT ON TABLE nasty.granted IS E'\\.\n\\connect evil\n-- PostgreSQL database dump complete\n';
COMMENT ON COLUMN nasty.granted."b c" IS 'COPY nasty.granted (a) FROM stdin;';

-- Physical order: what was updated lies elsewhere than what was loaded -------------------------------------------------

CREATE TABLE nasty.agents (id text PRIMARY KEY, name text);
INSERT INTO nasty.agents SELECT 'agent-' || i, 'Scarlet' FROM generate_series(1, 3) AS i;
CREATE TABLE nasty.churned (id int PRIMARY KEY, v text, filler text) WITH (fillfactor = 40);
INSERT INTO nasty.churned SELECT i, md5(i::text), repeat(md5(i::text), 1 + i % 30) FROM generate_series(1, 3000) AS i;
UPDATE nasty.churned SET v = v || 'x', filler = filler || filler WHERE id % 3 = 0;
DELETE FROM nasty.churned WHERE id % 7 = 0;
VACUUM nasty.churned;
INSERT INTO nasty.churned SELECT i, 'late', repeat('late', i % 40) FROM generate_series(4001, 4400) AS i;
UPDATE nasty.churned SET filler = 'short' WHERE id % 11 = 0;
ANALYZE nasty.churned;
