"""Find what the names in a database's expressions mean: the operators, functions and types that each object uses.

A dump does not contain all of that. `IS DISTINCT FROM`, `NULLIF`, `CASE … WHEN`, `JOIN … USING` and the like are
written without their operator, and a load resolves it along an empty search_path: for citext in another schema it takes
the operator of text, and upper and lower case differ where they did not before. After a restore, the dump of a check or
a policy then has an additional cast, that of a join or a CASE shows nothing (seen on 15.20). But pg_depend records what
is used, except for what initdb created.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..server.session import Session
from .differences import DumpDifference

Meanings = Mapping[str, list[str]]
"""What each object uses, both named as by `pg_identify_object`, without objects that use only PostgreSQL's own."""
MEANING = "meaning of "
MEND = (
    "set the search_path that they were created with for the live database (ALTER DATABASE … SET search_path), or "
    "rewrite them so that they need no search_path, then take a new backup"
)
_OWN = "only PostgreSQL's own objects"


def meanings(session: Session) -> dict[str, list[str]]:
    """Query what each constraint, index, partition key, default, policy, view, rule, trigger, statistics object,
    domain, publication and function with a parsed body uses.

    Leaves out what belongs to extensions, and foreign keys, whose operators depend on no name."""
    rows = session.rows(
        """WITH used AS (
               SELECT d.classid, d.objid, d.refclassid, d.refobjid FROM pg_depend d
               LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
               LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
               LEFT JOIN pg_type t ON d.classid = 'pg_type'::regclass AND t.oid = d.objid
               LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
               WHERE d.deptype IN ('n', 'a') AND k.contype IS DISTINCT FROM 'f'
                 AND (d.classid IN ('pg_constraint'::regclass, 'pg_attrdef'::regclass, 'pg_policy'::regclass,
                                    'pg_rewrite'::regclass, 'pg_trigger'::regclass, 'pg_statistic_ext'::regclass,
                                    'pg_publication_rel'::regclass)
                      OR c.relkind IN ('i', 'I') OR c.relkind = 'p' AND d.objsubid = 0
                      OR p.prosqlbody IS NOT NULL OR p.proargdefaults IS NOT NULL OR t.typtype = 'd')
                 AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_type'::regclass,
                                      'pg_collation'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass,
                                      'pg_ts_config'::regclass, 'pg_ts_dict'::regclass)
                 AND NOT EXISTS (SELECT FROM pg_depend e
                                 WHERE (e.classid, e.objid, e.deptype) = (d.classid, d.objid, 'e'))
                 AND NOT EXISTS (SELECT FROM pg_depend o JOIN pg_depend e
                                 ON (e.classid, e.objid, e.deptype) = (o.refclassid, o.refobjid, 'e')
                                 WHERE o.classid = d.classid AND o.objid = d.objid AND o.deptype IN ('i', 'a')))
           SELECT concat_ws(' ', o.type, o.identity) AS object,
                  array_agg(DISTINCT concat_ws(' ', r.type, r.identity)) AS uses
           FROM used CROSS JOIN LATERAL pg_identify_object(classid, objid, 0) AS o
           CROSS JOIN LATERAL pg_identify_object(refclassid, refobjid, 0) AS r
           WHERE o.identity !~ '(^|[^[:alnum:]_.])pg_temp[_0-9]*[.]'
           GROUP BY 1 ORDER BY 1"""
    )
    return {row["object"]: row["uses"] for row in rows}


def other_meanings(before: Meanings, after: Meanings) -> list[DumpDifference]:
    """List each object that uses something else in the restored database (after) than before."""
    return [
        DumpDifference(f"{MEANING}{name}", _only_in(before, after, name), _only_in(after, before, name))
        for name in sorted({*before, *after})
        if set(before.get(name, [])) != set(after.get(name, []))
    ]


def _only_in(one: Meanings, other: Meanings, name: str) -> str:
    """List what that object uses in `one` only."""
    return ", ".join(used for used in one.get(name, []) if used not in other.get(name, [])) or _OWN
