"""One member of a JSON file is edited; every other byte stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scarlet_backup_mcp.clients.json_text import NotUnderstood, loads, put, take_out

ENTRY = {"command": "/opt/scarlet/bin/scarlet-backup-mcp", "args": ["serve"]}
OTHER = '"other": {"command": "npx", "args": ["-y", "x"], "env": {"KEY": "v\\u00e9 // no comment"}}'

TEXTS = {
    "indented": '{\n  "mcpServers": {\n    ' + OTHER + "\n  }\n}\n",
    "tabs": '{\n\t"mcpServers": {\n\t\t' + OTHER + "\n\t}\n}",
    "one line": '{"mcpServers": {' + OTHER + '}, "z": [1, 2.5e3, null]}',
    "other keys": '{\n    "theme": "dark",\n    "numbers": [1, 2, 3]\n}\n',
    "comments": '// mine\n{\n  /* all */ "mcpServers": {\n    // first\n    '
    + OTHER
    + " // last\n    // end\n  },\n}\n",
    "comment behind the last": '{\n  "a": 1 // one\n}\n',
    "one line with a comment": '{ "a": 1 // one\n}',
    "trailing commas": '{\n  "mcpServers": {\n    ' + OTHER + ",\n  },\n}\n",
    "trailing comma and comment": '{\n  "mcpServers": {\n    ' + OTHER + ", // note\n  },\n}\n",
    "crlf": '{\r\n  "mcpServers": {\r\n    ' + OTHER + "\r\n  }\r\n}\r\n",
    "strange but valid": '{ "mcpServers" :\n{\n' + OTHER + '\n  } , "b":\t[{}, []] }',
}
texts = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)


@texts
def test_adding_and_taking_out_leaves_every_byte(text: str) -> None:
    added = put(text, "mcpServers", "scarlet-backup", ENTRY)
    assert loads(added)["mcpServers"]["scarlet-backup"] == ENTRY
    if "other" in text and "mcpServers" in text:
        assert OTHER in added
    assert ("\n" in added.replace("\r\n", "")) == ("\n" in text.replace("\r\n", ""))
    assert take_out(added, "mcpServers", "scarlet-backup") == text


@texts
def test_updating_changes_our_value_only(text: str) -> None:
    added = put(text, "mcpServers", "scarlet-backup", ENTRY)
    again = put(added, "mcpServers", "scarlet-backup", {**ENTRY, "args": ["serve", "--x"]})
    assert loads(again)["mcpServers"]["scarlet-backup"]["args"] == ["serve", "--x"]
    assert put(again, "mcpServers", "scarlet-backup", ENTRY) == added


@pytest.mark.parametrize("text", ["{}", "{ }\n", "{\n}\n", '{"mcpServers": {}}', '{\n  "mcpServers": {\n  }\n}\n'])
def test_empty_objects(text: str) -> None:
    added = put(text, "mcpServers", "scarlet-backup", ENTRY)
    assert loads(added) == {"mcpServers": {"scarlet-backup": ENTRY}}
    assert loads(take_out(added, "mcpServers", "scarlet-backup")) == {}


@pytest.mark.parametrize("text", ["", "\n", "  \r\n"])
def test_an_empty_file_is_written_whole(text: str) -> None:
    assert json.loads(put(text, "servers", "scarlet-backup", ENTRY)) == {"servers": {"scarlet-backup": ENTRY}}


def test_it_looks_as_a_person_would_write_it() -> None:
    added = put('{\n  "mcpServers": {\n    "a": {"command": "a"}\n  }\n}\n', "mcpServers", "b", {"command": "b"})
    assert added == (
        '{\n  "mcpServers": {\n    "a": {"command": "a"},\n    "b": {\n      "command": "b"\n    }\n  }\n}\n'
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"s": {"x": 1, "y": 2}}', '{"s": {"y": 2}}'),
        ('{"s": {"x": 1, /* of y */ "y": 2}}', '{"s": {/* of y */ "y": 2}}'),
        ('{"s": {"x": 1, // of x\n"y": 2}}', '{"s": {// of x\n"y": 2}}'),
        ('{"s": {"y": 2, // of y\n "x": 1}}', '{"s": {"y": 2 // of y}}'.replace("of y}", "of y\n}")),
        ('{"s": {/* none */ "x": 1}}', '{"s": {/* none */}}'),
        ('{"a": 1, "s": {"x": 1}}', '{"a": 1}'),
        ('{"a": 1}', '{"a": 1}'),
    ],
)
def test_taking_out_wherever_it_stands(before: str, after: str) -> None:
    found = take_out(before, "s", "x")
    assert loads(found) == loads(after)
    for comment in ("/* of y */", "// of x", "// of y", "/* none */"):
        assert (comment in found) == (comment in before)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "line 1"),
        ('{\n"a": 1\n"b": 2}', "line 3"),
        ('{"a": 01}', "line 1"),
        ('{"a": tru}', "line 1"),
        ('{"a": "\n"}', "line 1"),
        ("{'a': 1}", "line 1"),
        ('{"a": 1,, }', "line 1"),
        ("{} x", "line 1"),
        ("/* {}", "line 1"),
        ('{"a": 1, "a": 2}', "'a' twice"),
        ("[" * 200, "too deeply"),
        ("[1]", "is not an object"),
        ('{"mcpServers": []}', "is not an object"),
        ('{"a": "\\x"}', "line 1"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, why: str) -> None:
    with pytest.raises(NotUnderstood, match=why):
        put(text, "mcpServers", "scarlet-backup", ENTRY)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(
    st.dictionaries(st.text(), values, max_size=4),
    st.none() | st.dictionaries(st.text(), values, max_size=4),
    st.sampled_from([None, 1, 2, "\t"]),
    st.booleans(),
)
def test_any_document(rest: dict[str, Any], servers: dict[str, Any] | None, indent: Any, ascii_only: bool) -> None:
    document = {**rest, **({"mcpServers": servers} if servers else {})}
    if not isinstance(document.get("mcpServers", {}), dict):
        return
    document.get("mcpServers", {}).pop("scarlet-backup", None)
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    assert loads(text) == document
    added = put(text, "mcpServers", "scarlet-backup", ENTRY)
    document_after = {**document, "mcpServers": {**document.get("mcpServers", {}), "scarlet-backup": ENTRY}}
    assert json.loads(added) == document_after
    undone = take_out(added, "mcpServers", "scarlet-backup")
    assert undone == text or not document or document.get("mcpServers") == {}
