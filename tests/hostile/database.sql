-- Scarlet's database, in which mallory, an ordinary role with a schema of her own, waits for a superuser.
-- A command that only a superuser may run writes /tmp/sprung.

CREATE ROLE mallory LOGIN;
CREATE SCHEMA letta;
CREATE SCHEMA app AUTHORIZATION mallory;
CREATE TABLE letta.agents (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO letta.agents VALUES (1, 'Scarlet'), (2, 'nota'), (3, '');
-- As an owner might set it who wants app's names to be found first.
ALTER DATABASE letta SET search_path = app, letta, public, pg_catalog;
-- So the planner looks at checks, too.
ALTER DATABASE letta SET constraint_exclusion = on;
SET search_path = pg_catalog;

SET SESSION AUTHORIZATION mallory;

-- In another database, such as one that a restore loads, it does nothing: this is about the live one.
CREATE FUNCTION app.spring(what text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_database() = 'letta' THEN
        EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', format('cat > /dev/null; echo %L >> /tmp/sprung', what));
    END IF;
    RETURN true;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN true;
END $$;
ALTER FUNCTION app.spring(text) SET search_path = pg_catalog;
CREATE FUNCTION app.quiet(what text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN RETURN app.spring(what); END $$;
CREATE FUNCTION app.number(what text, n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN PERFORM app.spring(what); RETURN n; END $$;

CREATE DOMAIN app.word AS pg_catalog.text CHECK (app.quiet('domain'));
CREATE TYPE app.mood AS ENUM ('good', 'bad');
CREATE TYPE app.pair AS (word app.word, mood app.mood);
CREATE FUNCTION app.apart(int4, int4) RETURNS float8 LANGUAGE sql IMMUTABLE AS
    $$ SELECT app.number('difference of a range', 1) $$;
CREATE TYPE app.span AS RANGE (subtype = int4, subtype_diff = app.apart);
CREATE TABLE app.diary (
    word app.word DEFAULT CASE WHEN app.quiet('default') THEN 'x' END,
    mood app.mood,
    pair app.pair,
    span app.span,
    n int CHECK (app.quiet('check')),
    doubled int GENERATED ALWAYS AS (app.number('generated', n) * 2) STORED
);
INSERT INTO app.diary VALUES ('a', 'good', ('b', 'bad'), '[1,2)', 1), ('c', 'bad', NULL, NULL, 2);
CREATE INDEX ON app.diary (n) WHERE app.quiet('predicate');
CREATE INDEX ON app.diary ((n + app.number('expression', 1)));
ALTER TABLE app.diary ADD EXCLUDE ((n * app.number('exclusion', 1)) WITH =) WHERE (app.quiet('where of an exclusion'));
CREATE STATISTICS app.told ON (n + app.number('statistics', 1)), mood FROM app.diary;
ALTER TABLE app.diary ENABLE ROW LEVEL SECURITY;
ALTER TABLE app.diary FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON app.diary USING (app.quiet('policy'));
CREATE RULE also AS ON INSERT TO app.diary DO ALSO SELECT app.spring('rule');
CREATE FUNCTION app.fired() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM app.spring('trigger'); RETURN NEW; END $$;
CREATE TRIGGER fired BEFORE INSERT ON app.diary FOR EACH ROW EXECUTE FUNCTION app.fired();
CREATE TABLE app.only_generated (n int GENERATED ALWAYS AS (app.number('only generated', 1)) STORED);
INSERT INTO app.only_generated DEFAULT VALUES;
CREATE TABLE app.parts (n int CHECK (app.quiet('check of parts'))) PARTITION BY RANGE (n);
CREATE TABLE app.part PARTITION OF app.parts FOR VALUES FROM (0) TO (10);
CREATE INDEX ON app.parts ((n + app.number('expression of parts', 1))) WHERE app.quiet('predicate of parts');
INSERT INTO app.parts VALUES (1), (2);
CREATE TABLE app.keyed (n int) PARTITION BY LIST (app.number('partition key', n));
CREATE TABLE app.keyed_1 PARTITION OF app.keyed FOR VALUES IN (1);
INSERT INTO app.keyed VALUES (1);
CREATE MATERIALIZED VIEW app.kept AS SELECT n, app.quiet('materialised view') FROM app.parts;
CREATE UNIQUE INDEX ON app.kept (n) WHERE app.quiet('predicate of a materialised view');

-- What stands before pg_catalog's own on the database's search_path.
CREATE FUNCTION app.current_setting(pg_catalog.text) RETURNS pg_catalog.text LANGUAGE sql AS
    $$ SELECT CASE WHEN app.spring('current_setting') THEN pg_catalog.current_setting($1) END $$;
CREATE FUNCTION app.set_config(pg_catalog.text, pg_catalog.text, boolean) RETURNS pg_catalog.text LANGUAGE sql AS
    $$ SELECT CASE WHEN app.spring('set_config') THEN pg_catalog.set_config($1, $2, $3) END $$;
CREATE FUNCTION app.pg_backend_pid() RETURNS int LANGUAGE sql AS
    $$ SELECT CASE WHEN app.spring('pg_backend_pid') THEN pg_catalog.pg_backend_pid() END $$;
CREATE FUNCTION app.to_regclass(pg_catalog.text) RETURNS regclass LANGUAGE sql AS
    $$ SELECT CASE WHEN app.spring('to_regclass') THEN pg_catalog.to_regclass($1) END $$;
CREATE FUNCTION app.pg_export_snapshot() RETURNS pg_catalog.text LANGUAGE sql AS
    $$ SELECT CASE WHEN app.spring('pg_export_snapshot') THEN pg_catalog.pg_export_snapshot() END $$;
CREATE FUNCTION app.starts_with(pg_catalog.text, pg_catalog.text) RETURNS boolean LANGUAGE sql AS
    $$ SELECT app.spring('starts_with') $$;
CREATE FUNCTION app.same(oid, oid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM app.spring('= of oid'); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR app.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = app.same);
CREATE FUNCTION app.same(name, name) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM app.spring('= of name'); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR app.= (LEFTARG = name, RIGHTARG = name, FUNCTION = app.same);
CREATE FUNCTION app.same(name, pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM app.spring('= of name and text'); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR app.= (LEFTARG = name, RIGHTARG = pg_catalog.text, FUNCTION = app.same);
CREATE FUNCTION app.as_int4(app.mood) RETURNS int4 LANGUAGE sql IMMUTABLE AS
    $$ SELECT app.number('cast', 1) $$;
CREATE CAST (app.mood AS int4) WITH FUNCTION app.as_int4(app.mood) AS IMPLICIT;
CREATE FUNCTION app.next(bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN PERFORM app.spring('count'); RETURN 42; END $$;
CREATE AGGREGATE app.count(*) (SFUNC = app.next, STYPE = bigint, INITCOND = '42');
CREATE VIEW app.pg_class AS SELECT c.*, app.spring('pg_class') FROM pg_catalog.pg_class c;
CREATE VIEW app.pg_namespace AS SELECT n.*, app.spring('pg_namespace') FROM pg_catalog.pg_namespace n;
CREATE VIEW app.pg_database AS SELECT d.*, app.spring('pg_database') FROM pg_catalog.pg_database d;
CREATE DOMAIN app.text AS pg_catalog.text CHECK (app.quiet('domain called text'));
CREATE DOMAIN app.int4 AS pg_catalog.int4 CHECK (app.quiet('domain called int4'));
