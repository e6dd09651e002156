"""What the names in a database's expressions mean: the operators, functions and types that each of its objects uses.

A dump does not tell all of it. `IS DISTINCT FROM`, `NULLIF`, `CASE … WHEN`, `JOIN … USING` and the like are written
without their operator, and a load looks for that along an empty search_path: for citext in another schema it takes the
one of text instead, and upper and lower case differ where they did not before. In a check or a policy the dump of what
was restored then has a cast that was not there, in a join or a CASE nothing (seen on 15.20). pg_depend tells: what is
used is written down there, but for what initdb has made.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..server.session import Session
from .differences import DumpDifference

Meanings = Mapping[str, list[str]]
"""What each object uses, both as `pg_identify_object` names them; those that use only PostgreSQL's own are left out."""
MEANING = "meaning of "
MEND = (
    "set the search_path with which they were made for the live database (ALTER DATABASE … SET search_path), or write "
    "them anew so that no name is looked for, then call `backup` again"
)
_OWN = "only what is PostgreSQL's own"


def meanings(session: Session) -> dict[str, list[str]]:
    """Of every constraint, index, partition key, default, policy, view, rule, trigger, statistics object, domain,
    publication and function with a parsed body. Not of what extensions bring along, nor of foreign keys: no name
    decides which operators these have."""
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
    """Each object that uses something else in the restored database (after) than it did."""
    return [
        DumpDifference(f"{MEANING}{name}", _told(before, after, name), _told(after, before, name))
        for name in sorted({*before, *after})
        if set(before.get(name, [])) != set(after.get(name, []))
    ]


def _told(one: Meanings, other: Meanings, name: str) -> str:
    """What only `one` uses there."""
    return ", ".join(used for used in one.get(name, []) if used not in other.get(name, [])) or _OWN
