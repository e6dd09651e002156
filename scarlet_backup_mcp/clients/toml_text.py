"""Edit one table of a TOML file as text: comments and the formatting of the rest stay."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from .json_text import NotUnderstood

_HEADER = re.compile(r"[ \t]*\[")


def loads(text: str) -> Any:
    """Read TOML. Raises NotUnderstood."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NotUnderstood(f"is not valid TOML ({str(error)[:1].lower()}{str(error)[1:]})") from None


def put(text: str, table: str, name: str, value: Mapping[str, Any]) -> str:
    """Return the text with the table `name` added at its end; of one that is there, only the fields are written that
    differ. The caller checks that the result means what it should. Raises NotUnderstood."""
    newline = "\r\n" if "\r\n" in text else "\n"
    existing: Any = loads(text).get(table, {})
    if name not in existing:
        lines = [f"[{table}.{name}]", *(f"{key} = {_written(field)}" for key, field in value.items())]
        gap = "" if not text.strip() else newline if text.endswith("\n") else newline * 2
        return text + gap + newline.join(lines) + newline
    lines = text.splitlines(keepends=True)
    begin, end = _block(lines, table, name, with_sub_tables=False)
    block = lines[begin:end]
    for key, field in value.items():
        if existing[name].get(key) == field:
            continue
        line = f"{key} = {_written(field)}{newline}"
        at = [number for number, text in enumerate(block) if re.match(rf"[ \t]*{re.escape(key)}[ \t]*=", text)]
        block[slice(*((at[0], at[0] + 1) if at else (1, 1)))] = [line]
    return "".join([*lines[:begin], *block, *lines[end:]])


def take_out(text: str, table: str, name: str) -> str:
    """Return the text without that table and those below it, as it was before `put` added it. The caller checks that
    the result means what it should. Raises NotUnderstood."""
    if name not in loads(text).get(table, {}):
        return text
    lines = text.splitlines(keepends=True)
    begin, end = _block(lines, table, name, with_sub_tables=True)
    if begin and not lines[begin - 1].strip():
        begin -= 1
    return "".join(lines[:begin] + lines[end:])


def _block(lines: list[str], table: str, name: str, *, with_sub_tables: bool) -> tuple[int, int]:
    """Find the lines of a table, without the comments and empty lines before the next one."""
    ours = re.compile(rf"[ \t]*\[[ \t]*{re.escape(table)}[ \t]*\.[ \t]*([\"']?){re.escape(name)}\1[ \t]*([.\]])")
    begin = next((number for number, line in enumerate(lines) if (m := ours.match(line)) and m[2] == "]"), None)
    if begin is None:
        raise NotUnderstood(f"has [{table}.{name}] in a form that is not edited here")
    end = begin + 1
    while end < len(lines) and not (
        _HEADER.match(lines[end]) and not (with_sub_tables and (m := ours.match(lines[end])) and m[2] == ".")
    ):
        end += 1
    while end > begin + 1 and re.match(r"[ \t]*(#|\r?\n|$)", lines[end - 1]):
        end -= 1
    return begin, end


def _written(value: Any) -> str:
    """Write a value of an entry: a text, a list of texts, or a table of texts."""
    if isinstance(value, dict):
        fields = [f"{json.dumps(key)} = {_written(field)}" for key, field in value.items()]  # pyright: ignore
        return "{ " + ", ".join(fields) + " }"
    return json.dumps(value, ensure_ascii=False)
