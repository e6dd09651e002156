"""Indexes and keys are built by several sessions at once; what fails, fails as in one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from scarlet_backup_mcp.errors import Cancelled, RestoreFailed
from scarlet_backup_mcp.postgres.dump.builds import Build
from scarlet_backup_mcp.postgres.server.capacity import FILES, Capacity, capacity
from scarlet_backup_mcp.postgres.server.session import Session
from scarlet_backup_mcp.procedures.context import BackupContext
from scarlet_backup_mcp.procedures.loading import attempts
from scarlet_backup_mcp.procedures.loading.building import Schedule
from scarlet_backup_mcp.progress import Progress

from ..helpers.drill import Databases, bring_back, nobody_knows, take
from ..helpers.restore import Watch

MEETING = r"""
    CREATE FUNCTION is_there(int) RETURNS bool LANGUAGE sql AS $$
        SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND objid = $1
            AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())) $$;
    CREATE FUNCTION meet(me int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
        IF current_database() LIKE '%\_restore\_%' AND current_query() LIKE 'CREATE INDEX%' THEN
            PERFORM pg_advisory_lock(me);
            FOR i IN 1..6000 LOOP
                EXIT WHEN public.is_there(3 - me);
                IF i = 6000 THEN RAISE EXCEPTION 'nobody else builds'; END IF;
                PERFORM pg_sleep(0.01);
            END LOOP;
            PERFORM pg_advisory_lock(me + 10);  -- so that neither goes before the other has seen it
            WHILE public.is_there(3 - me) AND NOT public.is_there(13 - me) LOOP PERFORM pg_sleep(0.01); END LOOP;
        END IF;
        RETURN me;
    END $$;
    CREATE TABLE one (a int PRIMARY KEY); CREATE TABLE two (a int NOT NULL UNIQUE);
    INSERT INTO one VALUES (1); INSERT INTO two VALUES (2);
    CREATE INDEX one_met ON one (meet(a)); CREATE INDEX two_met ON two (meet(a));
    CREATE INDEX two_again ON two (a); COMMENT ON INDEX two_again IS 'twice'; CLUSTER one USING one_met;
    CREATE TABLE root (a int, b int, PRIMARY KEY (a)) PARTITION BY RANGE (a);
    CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (9); CREATE INDEX ON root (b);
    ALTER TABLE two REPLICA IDENTITY USING INDEX two_a_key; CREATE TABLE three (a int REFERENCES one);
"""
FAILING = """
    CREATE FUNCTION gone(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
        IF current_database() LIKE '%\\_restore\\_%' THEN RAISE EXCEPTION 'not here'; END IF;
        RETURN $1;
    END $$;
    CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE INDEX t_gone ON t (gone(a));
"""
SLEEPING = """
    CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
        IF current_database() LIKE '%\\_restore\\_%' THEN PERFORM pg_sleep(600); END IF;
        RETURN $1;
    END $$;
    CREATE TABLE one (a int); CREATE TABLE two (a int); INSERT INTO one VALUES (1); INSERT INTO two VALUES (1);
    CREATE INDEX one_slow ON one (slow(a)); CREATE INDEX two_slow ON two (slow(a));
"""
TWO = Capacity(cores=2, memory=256 << 20, maintenance_work_mem=64 << 20)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(session: Session, shared_memory: int | None) -> Capacity:
        return TWO

    monkeypatch.setattr(attempts, "capacity", given)  # whatever this machine has


@pytest.mark.usefixtures("two_cores")
def test_two_sessions_build_at_once_and_all_comes_back(databases: Databases) -> None:
    settings = databases.make(MEETING)
    watch = Watch()
    restored = bring_back(settings, take(settings).name, watch)
    assert restored.restored
    assert not any("once more" in stage for stage in watch.stages if stage.startswith("loading letta"))
    asked = (
        "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid {}"
    )
    ours = "WHERE relnamespace = 'public'::regnamespace AND indisvalid"
    names = "leaf_b_idx leaf_pkey one_met one_pkey root_b_idx root_pkey two_a_key two_again two_met"
    assert databases.psql(asked.format(ours), settings.database) == names
    assert databases.psql(asked.format(f"{ours} AND indisclustered"), settings.database) == "one_met"
    assert databases.psql(asked.format(f"{ours} AND indisreplident"), settings.database) == "two_a_key"
    assert databases.psql("SELECT obj_description('two_again'::regclass)", settings.database) == "twice"


@pytest.mark.usefixtures("two_cores")
def test_a_failed_build_is_tried_in_one_session_whose_error_is_shown(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = databases.make(FAILING)
    name = take(settings).name
    errors: list[str] = []
    stages: list[int] = []
    for _ in range(2):
        watch = Watch()
        with pytest.raises(RestoreFailed) as caught:
            bring_back(settings, name, watch, drill="never")
        errors.append(str(caught.value))
        stages.append(sum(stage.startswith(f"loading {name}") for stage in watch.stages))
        monkeypatch.setattr(attempts, "capacity", nobody_knows)
    assert errors[0] == errors[1]
    assert "not here (P0001, in the function" in errors[0]
    assert stages == [2, 1]
    assert databases.beside(settings) == [settings.database]


@pytest.mark.usefixtures("two_cores")
def test_a_cancelled_load_ends_every_session(databases: Databases) -> None:
    settings = databases.make(SLEEPING)
    name = take(settings).name
    building = f"""SELECT count(*) FROM pg_stat_activity
                   WHERE starts_with(datname, '{settings.database}_') AND query LIKE 'CREATE INDEX%'"""
    watch = Watch()
    found: list[str] = []

    def cancel() -> None:
        while (count := databases.psql(building, "postgres")) != "2":
            if ended.wait(0.05):
                return
        found.append(count)
        watch.cancel()

    ended = threading.Event()
    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        with pytest.raises(Cancelled):
            bring_back(settings, name, watch)
    finally:
        ended.set()
        thread.join()
    assert found == ["2"]
    assert databases.psql(building, "postgres") == "0"
    assert databases.beside(settings) == [settings.database]


def builds(*tables: str) -> list[Build]:
    return [
        Build(f"{number}".encode(), (b"s", table.encode()), (), 0, in_memory=False, at="")
        for number, table in enumerate(tables)
    ]


def taken(schedule: Schedule) -> Iterator[Build]:
    while (build := schedule.take()) is not None:
        yield build


def test_a_table_is_given_to_one_session_at_a_time() -> None:
    a1, a2, b1 = builds("a", "a", "b")
    schedule = Schedule([a1, a2, b1])
    assert schedule.take() == a1
    assert schedule.take() == b1
    waiting: list[Build] = []
    thread = threading.Thread(target=lambda: waiting.extend(taken(schedule)))
    thread.start()
    schedule.done(b1)
    thread.join(0.1)
    assert waiting == []
    schedule.done(a1)
    thread.join()
    assert waiting == [a2]


def test_a_stopped_schedule_lets_everybody_go() -> None:
    schedule = Schedule(builds("a", "a"))
    assert schedule.take() is not None
    left: list[Build] = []
    thread = threading.Thread(target=lambda: left.extend(taken(schedule)))
    thread.start()
    schedule.stop()
    thread.join()
    assert left == []


# -- what the server has ---------------------------------------------------------------------------------------------


def asked(monkeypatch: pytest.MonkeyPatch, session: Session, **files: str | None) -> Capacity | None:
    """What is found where these are a machine's files: no test can have each kind of machine."""
    usual = {
        "status": "Name:\tpostgres\nCpus_allowed_list:\t0-5,8\n",
        "memory": "MemTotal: 9 kB\nMemAvailable:    4194304 kB\n",
    }
    answer = session.rows

    def rows(query: str) -> list[dict[str, Any]]:
        own = {name: value for name, value in answer(query)[0].items() if name == "own"}
        return [{**dict.fromkeys(FILES), **own, **usual, **files}]

    monkeypatch.setattr(session, "rows", rows)
    found = capacity(session, 64 << 20)
    monkeypatch.undo()
    return found


def test_cores_and_memory_are_those_that_the_server_may_use(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = databases.make()
    with BackupContext(settings) as context, context.server.session(settings.database, progress=Progress()) as session:
        here = capacity(session, None)
        assert here is not None
        assert here.cores >= 1
        assert here.memory > 1 << 20
        assert here.maintenance_work_mem == 64 << 20
        plain = asked(monkeypatch, session)
        assert plain is not None
        assert plain == Capacity(7, 1 << 30, 64 << 20, 64 << 20)
        assert plain.sessions == 4
        for files in ({"cores": "250000 100000\n"}, {"quota": "250000\n", "period": "100000\n"}):
            found = asked(monkeypatch, session, **files)
            assert found is not None
            assert found.cores == 2
        for unlimited in ({"cores": "max 100000\n"}, {"quota": "-1\n", "period": "100000\n"}, {"limit": "max\n"}):
            assert asked(monkeypatch, session, **unlimited) == plain
        for limited in ({"limit": "1073741824\n"}, {"limit_1": "1073741824\n"}):
            found = asked(monkeypatch, session, **limited)
            assert found is not None
            assert found.memory == 128 << 20
        assert asked(monkeypatch, session, memory=None) is None


def test_a_build_in_memory_has_no_workers_where_there_is_too_little_to_share() -> None:
    found = Capacity(4, 1 << 30, 64 << 20, shared_memory=64 << 20)
    assert found.settings(2, in_memory=False) == {"maintenance_work_mem": "524288kB"}
    alone = {"maintenance_work_mem": "524288kB", "max_parallel_maintenance_workers": "0"}
    assert found.settings(2, in_memory=True) == alone
    enough = Capacity(4, 1 << 30, 64 << 20, shared_memory=4 << 30)
    assert enough.settings(2, in_memory=True) == {"maintenance_work_mem": "524288kB"}
    little = Capacity(1, 8 << 20, 64 << 20, shared_memory=None)
    assert little.settings(1, in_memory=True) == {"maintenance_work_mem": "65536kB"}  # what its owner gave it
