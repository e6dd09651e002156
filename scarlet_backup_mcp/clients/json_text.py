"""Edit one member of a JSON file as text: comments, trailing commas and the formatting of the rest stay."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_SKIP = re.compile(r"(?:[ \t\r\n]++|//[^\r\n]*+|/\*(?:[^*]|\*(?!/))*+\*/)*+")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*+"')
_OTHER = re.compile(r"(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])")
_DEEPEST = 100


class NotUnderstood(Exception):
    """The text is not what can be edited safely. The message completes the sentence "it …"."""


@dataclass
class _Member:
    key: str
    start: int
    value: _Value


@dataclass
class _Value:
    """A value, and where it stands in the text."""

    value: Any
    start: int
    end: int = 0
    members: list[_Member] | None = None
    """With an object: its members."""
    comma: int | None = None
    """With an object or array: the end of a trailing comma."""


def loads(text: str) -> Any:
    """Read JSON that may have comments and trailing commas. Raises NotUnderstood, also if an object has a key twice."""
    return _parse(text).value


def put(text: str, table: str, name: str, value: Any) -> str:
    """Return the text with the member `name` of the object `table` added or replaced. Raises NotUnderstood."""
    newline, unit = _style(text)
    if not text.strip():
        return json.dumps({table: {name: value}}, indent=2, ensure_ascii=False).replace("\n", newline) + newline
    root = _object(_parse(text), "is not an object")
    for member in root.members or []:
        if member.key == table:
            servers = _object(member.value, f"has a {table!r} that is not an object")
            for server in servers.members or []:
                if server.key == name:
                    indent = _indent_of(text, server.start)
                    written = _written(value, unit, indent or "", newline, one_line=indent is None)
                    return text[: server.value.start] + written + text[server.value.end :]
            return _add(text, servers, name, value, unit, newline)
    return _add(text, root, table, {name: value}, unit, newline)


def take_out(text: str, table: str, name: str) -> str:
    """Return the text without the member `name` of the object `table`, as it was before `put` added it; and without the
    object, if nothing else is in it. Raises NotUnderstood."""
    root = _object(_parse(text), "is not an object")
    for member in root.members or []:
        if member.key != table:
            continue
        servers = _object(member.value, f"has a {table!r} that is not an object")
        keys = [server.key for server in servers.members or []]
        if keys == [name] and _bare(text, servers):
            return _without(text, root, [item.key for item in root.members or []].index(table))
        if name in keys:
            return _without(text, servers, keys.index(name))
    return text


def _add(text: str, to: _Value, key: str, value: Any, unit: str, newline: str) -> str:
    """Add a member at the end of an object, behind the comments there; with a trailing comma if that is the style."""
    members = to.members or []
    at = to.start + 1 if not members else members[-1].value.end if to.comma is None else to.comma
    inside = text[at : to.end - 1]
    kept = inside.rstrip()
    if members:
        indent = _indent_of(text, members[-1].start)
        one_line = indent is None and "//" not in kept
        between, after = " " if one_line else newline + (indent or unit), inside[len(kept) :]
    else:
        outer = _line_indent(text, to.start)
        one_line, indent, after = False, outer + unit, newline + outer
        between = newline + indent
    written = f"{json.dumps(key)}: {_written(value, unit, indent or unit, newline, one_line=one_line)}"
    before, behind = ("," if members and to.comma is None else ""), ("" if to.comma is None else ",")
    return f"{text[:at]}{before}{kept}{between}{written}{behind}{after}{text[to.end - 1 :]}"


def _without(text: str, of: _Value, number: int) -> str:
    """Take a member out, and one comma; comments around it stay."""
    members = of.members or []
    mine, last = members[number], number == len(members) - 1
    if not last:
        following = members[number + 1].start
        return text[: mine.start] + _without_comma(text[mine.value.end : following]).lstrip() + text[following:]
    end = mine.value.end if of.comma is None else of.comma
    if number == 0:
        head, tail = text[of.start + 1 : mine.start].rstrip(), text[end : of.end - 1]
        return text[: of.start + 1] + head + (tail if head or tail.strip() else "") + text[of.end - 1 :]
    previous = members[number - 1].value.end
    between = text[previous : mine.start]
    kept = (_without_comma(between) if of.comma is None else between).rstrip()
    newline = "\n" if "//" in kept and not re.match(r"[ \t]*\r?\n", text[end:]) else ""
    return text[:previous] + kept + newline + text[end:]


def _without_comma(between: str) -> str:
    """Take the comma out of what stands between two members."""
    found = _SKIP.match(between)
    assert found is not None
    return between[: found.end()] + between[found.end() + 1 :]


def _bare(text: str, of: _Value) -> bool:
    """Tell whether an object has nothing in it but its members: no comment."""
    members = of.members or []
    edges = [of.start + 1, *(edge for item in members for edge in (item.start, item.value.end)), of.end - 1]
    return all(not text[a:b].strip(" \t\r\n,") for a, b in zip(edges[::2], edges[1::2], strict=True))


def _written(value: Any, unit: str, indent: str, newline: str, *, one_line: bool = False) -> str:
    if one_line:
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", newline + indent)


def _style(text: str) -> tuple[str, str]:
    """Return the text's line ending, and what it indents with."""
    newline = "\r\n" if "\r\n" in text else "\n"
    first = re.search(r"\n([ \t]+)\S", text)
    return newline, first[1] if first else "  "


def _indent_of(text: str, at: int) -> str | None:
    """Return the white space before that place, if there is nothing else before it on its line."""
    before = text[text.rfind("\n", 0, at) + 1 : at]
    return before if not before.strip() and "\n" in text[:at] else None


def _line_indent(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _object(value: _Value, otherwise: str) -> _Value:
    if value.members is None:
        raise NotUnderstood(otherwise)
    return value


# -- reading ---------------------------------------------------------------------------------------------------------


def _parse(text: str) -> _Value:
    value, end = _value(text, _skip(text, 0), 0)
    if _skip(text, end) != len(text):
        raise _wrong(text, end)
    return value


def _value(text: str, at: int, depth: int) -> tuple[_Value, int]:
    if depth > _DEEPEST:
        raise NotUnderstood("is nested too deeply")
    if text.startswith(("{", "["), at):
        return _container(text, at, depth)
    found = _STRING.match(text, at) or _OTHER.match(text, at)
    if found is None:
        raise _wrong(text, at)
    try:
        return _Value(json.loads(found[0]), at, found.end()), found.end()
    except ValueError:
        raise _wrong(text, at) from None


def _container(text: str, start: int, depth: int) -> tuple[_Value, int]:
    keyed = text[start] == "{"
    closing = "}" if keyed else "]"
    whole = _Value({} if keyed else [], start, members=[] if keyed else None)
    at = _skip(text, start + 1)
    while not text.startswith(closing, at):
        begin = at
        if keyed:
            key, at = _value(text, at, depth + 1)
            if not isinstance(key.value, str):
                raise _wrong(text, begin)
            if key.value in whole.value:
                raise NotUnderstood(f"has the key {key.value!r} twice")
            at = _expect(text, _skip(text, at), ":")
            item, at = _value(text, at, depth + 1)
            whole.value[key.value] = item.value
            assert whole.members is not None
            whole.members.append(_Member(key.value, begin, item))
        else:
            item, at = _value(text, at, depth + 1)
            whole.value.append(item.value)
        whole.comma = None
        at = _skip(text, at)
        if text.startswith(",", at):
            whole.comma = at + 1
            at = _skip(text, at + 1)
        elif not text.startswith(closing, at):
            raise _wrong(text, at)
    whole.end = at + 1
    return whole, at + 1


def _expect(text: str, at: int, character: str) -> int:
    if not text.startswith(character, at):
        raise _wrong(text, at)
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _SKIP.match(text, at)
    assert found is not None
    return found.end()


def _wrong(text: str, at: int) -> NotUnderstood:
    return NotUnderstood(f"is not valid JSON at line {text.count(chr(10), 0, at) + 1}")
