from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scarlet_backup_mcp.models.common import CodePage
from scarlet_backup_mcp.store.code_pages import EVIDENCE, PAGES, encode
from scarlet_backup_mcp.store.encodings import Container, recognise
from scarlet_backup_mcp.store.powershell import LONGEST_GROUP, Irreparable, Repair, Survey, survey

from ..conftest import PROJECT_ROOT, LocalDatabase
from ..helpers.powershell import CODECS, as_read_by_dotnet, cut, mangle, through_terminal

CONTAINERS: tuple[Container, ...] = ("utf-16le", "utf-16be", "utf-8-bom", "crlf")
PREAMBLE = "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n\n"
TRAILER = "--\n-- PostgreSQL database dump complete\n--\n"
ITALIAN = "Perché però è così: città, virtù, «già» – l’università… più “vero” di È\tC'è il sole ☀️ 🎉\n"
WORDS = ["perché", "più", "È", "l’acqua", "“sì”", "–", "…", "🎉", "👩\u200d👧", "漢字", "€", "\ufffd", "\ufeff"]
ODD = "\x01\x07\x08\x0b\x0c\x1a\x1b\x1c\x1d\x1e\x1f\x7f\x80\x81\x85\x8d\x90\x9f\xa0\u2028\u2029\t\n\\"

pages = st.sampled_from(PAGES)
containers = st.sampled_from(CONTAINERS)
borders = st.lists(st.integers(0, 10_000), max_size=6)
scalars = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")
parts = st.one_of(st.text(scalars, max_size=12), st.text(ODD, max_size=4), st.sampled_from(WORDS), st.just(" "))
texts = st.lists(parts, max_size=40).map("".join)


def dump_of(text: str) -> bytes:
    return f"{PREAMBLE}{text}\n{TRAILER}".encode()


def found_in(file: bytes) -> Survey:
    return survey(iter([file]))


def repaired(repair: Repair | None, file: bytes) -> bytes:
    assert repair is not None
    return b"".join(repair(iter([file])))


def refusal(repair: Repair, file: bytes) -> tuple[bytes, Irreparable]:
    """What is had back of a file, and the error that ends it."""
    out = bytearray()
    try:
        for piece in repair(iter([file])):
            out += piece
    except Irreparable as error:
        return bytes(out), error
    pytest.fail("Nothing was refused.")


# Whatever was written comes back, or it is said that it can't be told


@pytest.mark.parametrize("page", PAGES[:-1])
def test_a_page_reads_256_bytes_as_256_characters(page: CodePage) -> None:
    every_byte = bytes(range(256))
    text = as_read_by_dotnet(every_byte, page)
    assert len(set(text)) == 256
    assert text[:128].encode() == every_byte[:128]
    assert encode(text, page) == every_byte


@settings(max_examples=400, deadline=None)
@given(texts, pages, containers, borders)
@example(ITALIAN, 850, "utf-16le", [3, 5, 7])
@example("\x85\u2028\x1a", 1252, "crlf", [])
def test_a_dump_comes_back_byte_for_byte_or_the_page_is_a_choice(
    text: str, page: CodePage, container: Container, borders: list[int]
) -> None:
    dump = dump_of(text)
    file = mangle(dump, page, container)
    found = survey(cut(file, borders))
    assert (found.container, found.damage, found.cut_off, found.archive) == (container, None, False, False)
    assert b"".join(Repair(container, page)(cut(file, borders))) == dump
    if found.repair is None:
        assert page in [known for choice in found.choices for known in choice.code_pages]
    else:
        assert b"".join(found.repair(cut(file, borders))) == dump


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=60).map(lambda data: data.replace(b"\0", b"").replace(b"\r", b"")),
    st.sampled_from(["LATIN1", "SQL_ASCII", "WIN1252", "LATIN99"]),
    st.one_of(pages, st.none()),
    containers,
)
@example("perché".encode("latin-1"), "LATIN1", 850, "utf-16le")
def test_a_dump_in_another_encoding_is_never_changed_in_silence(
    data: bytes, encoding: str, page: CodePage | None, container: Container
) -> None:
    dump = PREAMBLE.replace("UTF8", encoding).encode() + data + b"\n"
    file = through_terminal(dump) if page is None else mangle(dump, page, container)
    found = found_in(file)
    if found.repair is None:
        candidates = [Repair(found.container, known) for choice in found.choices for known in choice.code_pages]
        lost = page == 65001 and "\ufffd" in as_read_by_dotnet(dump, page)
        assert lost or dump in [repaired(candidate, file) for candidate in candidates]
    else:
        assert repaired(found.repair, file) == dump


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("page", PAGES)
def test_an_italian_dump_is_certain(page: CodePage, container: Container) -> None:
    dump = dump_of(ITALIAN)
    found = found_in(mangle(dump, page, container))
    assert found.repair is not None
    assert repaired(found.repair, mangle(dump, page, container)) == dump
    (choice,) = found.choices
    assert page in choice.code_pages
    assert str(page) in found.why or page == 65001
    assert len(choice.samples) == 3
    assert all(word in ITALIAN for word in choice.samples)


@pytest.mark.parametrize(
    "text",
    [
        "“Spaß”, groß genug – schön müßte es „sein“.",
        "Ça a été dépensé à l’œuvre… 30 € !",
        "Příliš žluťoučký kůň úpěl ďábelské ódy. PŘÍŠTĚ ÚŽASNÉ",
        "Zażółć gęślą jaźń, ŻÓŁĆ",
        "Агент помнит разговор. Съешь ещё этих булок",
        "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
        "记忆 数据库 备份，恢复。エージェント 記憶 を 守る 데이터베이스",
        "┌──┬──┐ │ ├─╢ ═╗ └──┴──┘ → ✓ ☀️ 🎉 🇮🇹",
        "è",
    ],
)
def test_right_text_of_any_language_is_certain_to_be_right(text: str) -> None:
    found = found_in(through_terminal(dump_of(text)))
    assert found.repair == Repair("crlf", 65001), found.why


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_dump_of_ascii_is_certain(container: Container) -> None:
    dump = dump_of("nothing but ASCII")
    found = found_in(mangle(dump, 850, container))
    assert found.repair is not None
    assert repaired(found.repair, mangle(dump, 850, container)) == dump
    assert "ASCII" in found.why


def test_text_mangled_twice_comes_back_as_it_was_dumped() -> None:
    dump = dump_of(ITALIAN.encode().decode("cp850"))
    file = mangle(dump, 850, "utf-16le")
    found = found_in(file)
    assert found.repair is not None
    assert repaired(found.repair, file) == dump


def test_a_terminals_line_ends_are_undone() -> None:
    dump = dump_of(ITALIAN)
    found = found_in(through_terminal(dump))
    assert found.repair == Repair("crlf", 65001)
    assert repaired(found.repair, through_terminal(dump)) == dump


def test_a_terminals_bytes_that_are_no_utf8_are_kept() -> None:
    dump = PREAMBLE.replace("UTF8", "LATIN1").encode() + "perché è più\n".encode("latin-1")
    found = found_in(through_terminal(dump))
    assert found.repair == Repair("crlf", 65001)
    assert repaired(found.repair, through_terminal(dump)) == dump
    assert "not UTF-8" in found.why


def test_plain_bytes_are_left_alone() -> None:
    dump = dump_of(ITALIAN)
    found = found_in(dump)
    assert found.repair == Repair("plain", 65001)
    assert repaired(found.repair, dump) == dump
    assert refusal(Repair("plain", 850), dump)[0] == b""


@pytest.mark.parametrize("container", ["utf-16le", "utf-16be"])
def test_utf16_without_a_mark_is_recognised(container: Container) -> None:
    dump = dump_of(ITALIAN)
    file = mangle(dump, 850, container, mark=False)
    assert recognise(file[:4096]) == container
    found = found_in(file)
    assert found.repair is not None
    assert repaired(found.repair, file) == dump


# Nothing is guessed


def test_a_single_mojibake_word_leaves_the_choice_to_the_caller() -> None:
    dump = dump_of("Ã©")
    found = found_in(mangle(dump, 65001, "utf-16le"))
    assert found.repair is None
    assert {choice.code_pages: choice.samples for choice in found.choices} == {
        (850, 858): ("Ǹ",),
        (1252,): ("é",),
        (65001,): ("Ã©",),
    }
    assert all(str(page) in found.why for page in (850, 858, 1252, 65001))
    assert repaired(Repair("utf-16le", 65001), mangle(dump, 65001, "utf-16le")) == dump


def test_a_page_is_certain_from_eight_continuation_bytes_in_different_groups() -> None:
    letters = "àèéìòùÈÀ"
    assert len(letters) == EVIDENCE
    assert found_in(mangle(dump_of(" ".join(letters)), 850, "crlf")).repair == Repair("crlf", 850)
    assert found_in(mangle(dump_of(" ".join(letters[1:] * 100)), 850, "crlf")).repair is None


def test_samples_are_words_over_which_the_choices_differ() -> None:
    found = found_in(mangle(dump_of("abc caffè 1\tdef perché"), 850, "utf-16le"))
    samples = {choice.code_pages: set(choice.samples) for choice in found.choices}
    assert samples[850, 858] == {"caffè", "perché"}
    assert samples[65001,] == {"caff├¿", "perch├®"}


def test_samples_hold_nothing_that_a_terminal_obeys() -> None:
    found = found_in(mangle(dump_of("\x9b1mbold \u202e"), 65001, "utf-8-bom"))
    assert all(word.isprintable() for choice in found.choices for word in choice.samples)


def test_another_page_that_is_named_is_refused_with_its_line() -> None:
    file = mangle(dump_of(f"one\n{ITALIAN}"), 850, "utf-16le")
    before, error = refusal(Repair("utf-16le", 437), file)
    assert b"Perch" not in before
    assert error.line == len(PREAMBLE.splitlines()) + 2
    assert "437" in error.message


def test_a_page_that_has_the_characters_but_gives_no_utf8_is_refused() -> None:
    before, error = refusal(Repair("utf-16le", 850), mangle(dump_of("è"), 65001, "utf-16le"))
    assert dump_of("è").startswith(before)
    assert "850" in error.message


def test_a_file_that_has_another_container_than_said_is_refused() -> None:
    file = mangle(dump_of(ITALIAN), 850, "utf-8-bom")
    assert "UTF-16" in refusal(Repair("utf-16le", 850), file)[1].message


@pytest.mark.parametrize("page", [737, 860, 866, 932, 936, 1251])
def test_text_of_an_unknown_page_is_not_taken_to_be_right(page: int) -> None:
    dump = dump_of("Perché? Così è più città, già da sé. Não, você está à vontade. Память агента. Έτσι είναι.")
    text = dump.replace(b"\n", b"\r\n").decode(f"cp{page}", "replace")
    found = found_in(text.encode())
    assert found.repair is None
    if "\ufffd" not in text:
        assert f"page {page}" in found.why


TYPOGRAPHIC = "it’s “fine” – don’t …"


@pytest.mark.parametrize("page", ["mac_roman", *(f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 7, 9, 13, 15))])
@pytest.mark.parametrize("text", [TYPOGRAPHIC, "È", "it’s", "🎉", "C’è una città più bella"])
def test_text_read_with_mac_roman_or_an_iso_page_is_not_taken_to_be_right(page: str, text: str) -> None:
    found = found_in(mangle(dump_of(text.encode().decode(page, "replace")), 65001, "utf-16le"))
    assert found.repair is None
    assert (65001,) in [choice.code_pages for choice in found.choices]
    assert "65001" in found.why


@pytest.mark.parametrize(("page", "number"), [("mac_roman", 10000), ("iso8859_1", 28591), ("iso8859_2", 28592)])
def test_the_page_that_can_not_be_undone_is_named(page: str, number: int) -> None:
    found = found_in(mangle(dump_of(TYPOGRAPHIC.encode().decode(page)), 65001, "utf-16le"))
    assert f"code page {number}. Either that can't be undone here" in found.why


def test_control_characters_after_letters_are_not_taken_to_be_right() -> None:
    for text in ("â\x80\x99 Ãș Ãč", "Ã\x81 Ãș Ãč", "Â\x85 Ãș Ãč"):
        found = found_in(mangle(dump_of(text), 65001, "utf-16le"))
        assert found.repair is None
        assert "1 of its 3 groups of non-ASCII characters contain control characters" in found.why
        for right in ("è", "’", "🎉", "漢字"):
            assert found_in(mangle(dump_of(f"{text} {right}"), 65001, "utf-16le")).repair == Repair("utf-16le", 65001)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    "text",
    [
        *("c’è", "«è così»", "“È”", "dov’è? – È qui… «È»", "l’è — è", "—è…", "’è ’à “è «à …è", "città\u00a0– 3°", "½"),
        *("🎉", "👩\u200d👧 ☀️", "🎉è", "è\u2028", "a\u0085b", "\u0085", "20 €", "™ ® ©", "√", "x ≤ π", ITALIAN),
        "un’altra volta: â\x80\x99 e Ã\x81 erano già nel database, perché qualcuno li scrisse così",
    ],
)
def test_right_italian_and_emoji_stay_certain(text: str, container: Container) -> None:
    dump = dump_of(text)
    found = found_in(mangle(dump, 65001, container))
    assert found.repair == Repair(container, 65001), found.why
    assert repaired(found.repair, mangle(dump, 65001, container)) == dump


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "", "“", "«", "‘", "—", "…", "l’", "c’", "un’", "🎉"]),
            st.sampled_from(
                [*"aeèéòùÈÀ", "età", "più", "perché", "così", "PERCHÉ", "È vero", "20\u00a0€", "3°", "☀️", ""]
            ),
            st.sampled_from(["", "", "”", "»", "’", "…", "…”", ",", " –", "🎉", "\n"]),
        ).map("".join),
        max_size=12,
    ).map(" ".join)
)
def test_no_right_italian_looks_read_with_mac_roman_or_an_iso_page(text: str) -> None:
    found = found_in(mangle(dump_of(text), 65001, "utf-16le"))
    assert found.repair == Repair("utf-16le", 65001) or not re.search("page (10000|28[56])|control", found.why)


def test_replacement_characters_are_left_to_the_caller() -> None:
    dump = dump_of("the model wrote \ufffd here and \ufffd there: è più")
    found = found_in(mangle(dump, 65001, "utf-16le"))
    assert found.repair is None
    assert found.replacement_characters == 2
    assert [choice.code_pages for choice in found.choices] == [(65001,)]
    assert "65001" in found.why
    undone = found_in(mangle(dump_of(f"{ITALIAN} \ufffd"), 850, "utf-16le"))
    assert undone.replacement_characters == 0, "page 850 makes other characters of it, which come back"
    assert undone.repair is not None


def test_replaced_looking_question_marks_are_told() -> None:
    text = "Perch? non lo so, pi? tardi, citt?? belle\tl?acqua, https://example.org/a?b=c Davvero? S?. Mah?\\nNo."
    found = found_in(mangle(dump_of(text), 850, "crlf"))
    assert (found.question_marks, found.question_samples) == (4, ("Perch?", "pi?", "citt??"))
    assert "Perch?" in found.why
    assert found.repair is not None


@pytest.mark.parametrize("end", ["\t", "\n", ", ", "; ", ". ", "\\n"])
def test_two_question_marks_for_a_last_letter_are_told(end: str) -> None:
    found = found_in(mangle(dump_of(f"Perch??{end}x"), 850, "crlf"))
    assert (found.question_marks, found.question_samples) == (1, ("Perch??",))


def test_question_marks_beside_accents_are_no_suspicion() -> None:
    found = found_in(mangle(dump_of(f"Perch? non lo so. {ITALIAN}"), 65001, "crlf"))
    assert (found.question_marks, found.question_samples) == (0, ())


# Damage


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_cut_at_any_byte_is_told_but_at_a_lines_end(container: Container) -> None:
    dump = dump_of("perché più città\nè così")
    file = mangle(dump, 850, container)
    end_of_line = "\r\n".encode(CODECS.get(container, "utf-8"))
    for end in range(20, len(file)):
        part = file[:end]
        whole = part.endswith(end_of_line) and (len(end_of_line) == 2 or end % 2 == 0)
        found = found_in(part)
        assert found.cut_off is not whole
        if not whole:
            before, error = refusal(Repair(container, 850), part)
            assert dump.startswith(before)
            assert error.cut_off
            assert "missing" in found.why


def test_a_cut_off_file_gives_what_there_is() -> None:
    dump = dump_of(ITALIAN * 3)
    file = mangle(dump, 850, "utf-16le")
    part = file[: file.rindex("☀".encode().decode("cp850").encode("utf-16-le")) + 3]
    found = found_in(part)
    assert (found.cut_off, found.repair) == (True, Repair("utf-16le", 850))
    before, _ = refusal(found.repair or Repair("plain", 65001), part)
    assert before.startswith(dump_of(ITALIAN * 2).removesuffix(b"\n" + TRAILER.encode()))
    assert dump.startswith(before)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("fault", ["a\rb\r\n", "a\nb\r\n", "\r\r\n", "a\0b\r\n"])
def test_what_powershell_does_not_write_is_damage_with_its_line(container: Container, fault: str) -> None:
    codec = CODECS.get(container, "utf-8")
    whole = mangle(dump_of(ITALIAN), 850, container)
    at = whole.index("SET client".encode(codec))
    file = whole[:at] + fault.encode(codec) + whole[at:]
    found = found_in(file)
    assert found.repair is None
    assert found.damage is not None
    assert "Line 5:" in found.why
    before, error = refusal(Repair(container, 850), file)
    assert before.startswith(dump_of("")[: PREAMBLE.index("SET")])
    assert (error.line, error.cut_off) == (5, False)


@pytest.mark.parametrize(
    "bad", [b"\x00\xd8", b"\x00\xdc", b"\x00\xd8\x41\x00"], ids=["high at the end", "low", "high before another"]
)
def test_a_lone_surrogate_is_damage(bad: bytes) -> None:
    file = mangle(dump_of("è"), 850, "utf-16le") + bad + "\r\n".encode("utf-16-le")
    found = found_in(file)
    assert (found.repair, found.cut_off) == (None, False)
    assert refusal(Repair("utf-16le", 850), file)[0] == dump_of("è")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("page", [850, 65001])
@pytest.mark.parametrize("text", ["nothing but ASCII", ITALIAN])
@pytest.mark.parametrize(
    "appended",
    [b"-- appended later\n", b"-- appended later\r\n", b"odd\n", "-- più\n".encode("utf-16-le"), b"\n", b"\0"],
)
def test_what_was_appended_in_another_way_is_told(
    text: str, page: CodePage, container: Container, appended: bytes
) -> None:
    file = mangle(dump_of(text), page, container) + appended
    if not container.startswith("utf-16") and appended.endswith(b"\r\n"):
        return  # that is how this container's own lines look: what follows the trailer is for the script's reader
    found = found_in(file)
    assert found.damage is not None
    assert found.repair is None or found.cut_off
    before, _ = refusal(Repair(container, page), file)
    assert before.startswith(dump_of(text)) or dump_of(text).startswith(before)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_damaged_file_is_never_taken_to_be_right_as_it_is(container: Container) -> None:
    file = mangle(dump_of(ITALIAN * 4), 850, container)
    chosen = random.Random(5)
    for _ in range(200):
        damaged = bytearray(file)
        damaged[chosen.randrange(200, len(file))] ^= 1 << chosen.randrange(8)
        found = found_in(bytes(damaged))
        assert found.repair is None or found.repair.code_page == 850
    codec = CODECS.get(container, "utf-8")
    found = found_in(file.replace("Perch├®".encode(codec), "Perch├x".encode(codec), 1))
    assert found.repair is None
    assert "damaged" in found.why
    late = mangle(dump_of(ITALIAN * 200), 850, container) + "perch├x\r\n".encode(codec)
    found = survey(cut(late, list(range(0, len(late), 512))))
    assert found.repair is None
    assert "damaged" in found.why


def test_a_file_of_a_mark_only_is_cut_off() -> None:
    found = found_in(b"\xff\xfe")
    assert (found.container, found.cut_off) == ("utf-16le", True)


def test_an_endless_group_is_not_surveyed_but_repaired() -> None:
    dump = dump_of("漢" * (LONGEST_GROUP // 2))
    file = as_read_by_dotnet(dump_of("漢"), 850).replace("\n", "\r\n")
    file = file.replace("µ╝ó", "µ╝ó" * (LONGEST_GROUP // 2)).encode("utf-16")
    found = survey(cut(file, list(range(0, len(file), 1 << 20))))
    assert found.repair is None
    assert "name the code page" in found.why
    assert b"".join(Repair("utf-16le", 850)(cut(file, list(range(1, len(file), 1 << 20))))) == dump


# pg_dump's own files


def pg_dump(database: LocalDatabase, *options: str) -> bytes:
    command = [str(database.bin_dir / "pg_dump"), *options, "-d", database.dsn]
    return subprocess.run(command, capture_output=True, check=True).stdout


def test_real_dumps_come_back(local_database: LocalDatabase) -> None:
    dump = pg_dump(local_database)
    assert not dump.isascii()
    for page in PAGES:
        comes_back(dump, page, "utf-16le")
    for container in CONTAINERS:
        comes_back(dump, 850, container)


def comes_back(dump: bytes, page: CodePage, container: Container) -> None:
    file = mangle(dump, page, container)
    found = found_in(file)
    assert found.repair is not None, found.why
    assert repaired(found.repair, file) == dump


def test_a_real_archive_is_told_to_be_lost(local_database: LocalDatabase) -> None:
    archive = pg_dump(local_database, "-Fc")
    assert recognise(archive[:4096]) == "plain"
    assert recognise(archive.replace(b"\n", b"\r\n")[:4096]) == "plain", "its bytes are still its own"
    assert not found_in(archive).archive
    for container in CONTAINERS:
        file = mangle(archive, 850, container)
        if b"\n" not in file[:4096]:
            continue
        found = found_in(file)
        assert (found.archive, found.repair, found.choices) == (True, None, ())
        assert "archive" in found.why
        assert refusal(Repair(container, 850), file)[0] != archive


# A large file


MEASURE = """
    import json, sys, time
    from scarlet_backup_mcp.store.powershell import survey
    def chunks():
        with open(sys.argv[1], "rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk
    began = time.monotonic()
    found = survey(chunks())
    size = sum(len(piece) for piece in found.repair(chunks()))
    seconds = time.monotonic() - began
    resident = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
    print(json.dumps([size, seconds, int(resident), found.repair.code_page]))
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="The peak that /proc tells is of this program only.")
def test_a_large_file_is_read_fast_at_flat_memory(tmp_path: Path) -> None:
    floats = "0.0123456,-0.5432101," * 40 + "\n"
    rows = "".join(f"{number}\t{ITALIAN}{floats}" for number in range(1000)).encode()
    body, ends = mangle(rows, 850, "utf-16le", mark=False), mangle(dump_of("è"), 850, "utf-16le")
    times = (64 << 20) // len(body)
    path = tmp_path / "large.sql"
    with path.open("wb") as file:
        file.write(ends)
        for _ in range(times):
            file.write(body)
    command = [sys.executable, "-c", textwrap.dedent(MEASURE), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT_ROOT)
    size, seconds, resident, page = json.loads(done.stdout)
    assert (size, page) == (len(dump_of("è")) + times * len(rows), 850)
    assert resident < 100 << 10
    assert path.stat().st_size / seconds > 5e6, "it is 40 MB/s and more on a quiet machine"
