"""Whether a database that was loaded with its own search_path has the definitions of its backup.

With that path a name can mean something else than what it meant: a function in a later schema whose argument types fit
better wins over pg_catalog's (seen on 15.20). Then what pg_dump writes, with an empty path, is not what it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from ..errors import RestoreFailed
from ..hosts import run
from ..models import Violation
from ..postgres import programs
from ..postgres.contents import Contents, compare, confirm
from ..postgres.meanings import MEND
from ..postgres.script import ScriptReader, read_script
from . import proof
from .ways import Loader

# What a dump of the definitions alone leaves out.
_DATA = (
    "SEQUENCE SET ",
    "MATERIALIZED VIEW DATA ",
    "LARGE OBJECT ",
    "content of ",
    "BLOB",
    "ACL ON LARGE OBJECT",
    "COMMENT ON LARGE OBJECT",
)


def require_same_definitions(
    loader: Loader,
    encoding: str,
    script: Callable[[], Iterator[bytes]],
    another: AbstractContextManager[str],
    violations: list[Violation],
    *,
    same_version: bool,
) -> None:
    """Compare what `loader` has loaded with the definitions in `script`, of a pg_dump of the `same_version` or not.

    `another` gives an empty database, in which they are loaded once more where the server spells them in another way.
    Raises RestoreFailed with what differs.
    """
    loader.progress.stage("comparing the definitions")
    before = Contents()
    read_script(script(), before)
    after = _dumped(loader, loader.database, encoding, before)
    comparison = compare(before, after, same_version=same_version)
    if not comparison.confirmed:
        with another as name:
            loader.load_definitions(name, script())
            comparison = confirm(comparison, _dumped(loader, name, encoding, before), after)
    left = proof.without_violations(comparison, violations).differences
    if differences := [found for found in left if not found.what.startswith(_DATA)]:
        shown = "; ".join(str(found) for found in differences[:3])
        raise RestoreFailed(
            "Loaded with the database's own search_path, definitions are not what they were: "
            f"{shown}. The live database is as it was.",
            "Give the functions that look for names without a schema a path of their own (ALTER FUNCTION … SET "
            "search_path), then call `backup` again.",
        )


def require_same_meanings(loader: Loader, *, accepted: bool) -> list[str]:
    """Compare what names mean in what `loader` has loaded with what they meant in the backed-up database.

    Raises RestoreFailed with what differs, or gives it as warnings where the caller has `accepted` it.
    """
    found = [str(one) for one in loader.other_meanings()]
    if found and not accepted:
        raise RestoreFailed(
            f"Names came to mean something else in what was loaded: {'; '.join(found[:3])}. The live database is as "
            "it was.",
            f"If it is still there, {MEND}. Or call again with drill=false, and make those objects anew afterwards.",
        )
    return [f"Restored with another meaning; make it anew: {one}." for one in found]


def _dumped(loader: Loader, database: str, encoding: str, like: Contents) -> Contents:
    contents = Contents(like)
    reader = ScriptReader(contents)
    argv = programs.pg_dump(encoding, options=[*like.options, "--schema-only"])
    environment = loader.server.environment(database, loader.formats)
    ended = run(loader.server.host, argv, env=environment, sink=reader.feed, progress=loader.progress)
    if ended.code != 0 or not reader.finish().trailer:
        raise RestoreFailed(f"What was loaded could not be dumped: {ended.stderr.strip() or 'it is cut off'}")
    return contents
