"""The output of the command line: tables, texts that must not steer a terminal, lines of many containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lxcfleet.cli.options import environment, optional_selection, selection
from lxcfleet.cli.ui import output
from lxcfleet.cli.ui.fanout import Collected, Prefixed, overall
from lxcfleet.cli.ui.output import columns, printable, say_error, size
from lxcfleet.cli.ui.progress import Progress
from lxcfleet.cli.verbs import show
from lxcfleet.cli.verbs.logs import plain_line_ends
from lxcfleet.errors import AlreadyExists, FleetError, InvalidInput, WrongState
from lxcfleet.units import counted

ROOT = Path(__file__).resolve().parents[2]


def test_columns_are_aligned_and_nothing_is_a_dash() -> None:
    assert columns([("NAME", "X"), ("a", ""), ("longer", "yy")]) == ["NAME    X", "a       -", "longer  yy"]


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (1, "change", "1 change"), (0, "change", "0 changes"), (2, "process", "2 processes"), (3, "entry", "3 entries"),
        (2, "key", "2 keys"), (1, "entry", "1 entry"), (2, "address", "2 addresses"),
    ],
)  # fmt: skip
def test_numbers_stand_before_the_plural_unless_they_are_one(number: int, noun: str, said: str) -> None:
    assert counted(number, noun) == said


def test_a_cause_of_many_failures_is_told_once_and_each_container_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("apply", 3) as progress:
        for name, why in (("a", "halted"), ("b", "halted"), ("c", "other")):
            error = WrongState(f"{name}: it was not its turn", why=why, hint="go on").body()
            progress.add({"name": name, "status": "not begun", "changed": False, "error": error})
    assert capsys.readouterr().err.splitlines() == [
        "lxcfleet: a: it was not its turn", "  halted", "  go on",
        "lxcfleet: b: it was not its turn",
        "lxcfleet: c: it was not its turn", "  other", "  go on",
    ]  # fmt: skip


def test_columns_are_cut() -> None:
    assert columns([("abcdef", "ghi")], 8) == ["abcdef …"]
    assert columns([("abcdef", "ghi")], 11) == ["abcdef  ghi"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü", "plain äöü"),
        ("a\tb\n", "a\\tb\\n"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\udcff", "\\udcff"),
        ("\u202e", "\\u202e"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, ""), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (106_496, "104 KiB"), (5 << 40, "5.0 TiB")],
)
def test_size(count: int | None, text: str) -> None:
    assert size(count) == text


def test_an_error_has_three_parts(capsys: pytest.CaptureFixture[str]) -> None:
    say_error(AlreadyExists("what", why="why", hint="next"))
    assert capsys.readouterr().err == "lxcfleet: what\n  why\n  next\n"


@pytest.mark.parametrize(
    ("message", "shown"),
    [("no", "web1: no"), ("web1 is off", "web1 is off"), ("web10 is on web1-a", "web1: web10 is on web1-a")],
)
def test_an_error_names_its_container(capsys: pytest.CaptureFixture[str], message: str, shown: str) -> None:
    say_error(FleetError(message).body(), "web1")
    assert capsys.readouterr().err == f"lxcfleet: {shown}\n"


def test_line_ends_however_the_pieces_fall() -> None:
    data = b"one\r\ntwo\r\r\n\rthree\n\r\n\r"
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            pieces = [data[:first], data[first:second], data[second:]]
            assert b"".join(plain_line_ends(pieces)) == b"one\ntwo\r\n\rthree\n\n\r"


def test_prefixed_keeps_lines_whole(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    sink = Prefixed(["a", "bcd"])
    sink.take("a", 1, b"on")
    sink.take("bcd", 1, b"x\n\ny")
    sink.take("a", 2, b"err\n")
    sink.take("a", 1, b"e\ntw")
    sink.end("bcd", None)
    sink.end("a", None)
    assert capfdbinary.readouterr() == (b"bcd: x\nbcd: \na:   one\nbcd: y\na:   tw\n", b"a:   err\n")


def test_prefixed_does_not_hold_a_line_without_end(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    sink = Prefixed(["a"])
    for _ in range(20):
        sink.take("a", 1, b"x" * 65536)
    out, _ = capfdbinary.readouterr()
    assert out == b"a: " + b"x" * 17 * 65536 + b"\n"


def test_collected_keeps_bytes() -> None:
    sink = Collected()
    sink.take("a", 1, b"\xc3")
    sink.take("a", 1, b"\xa4\xff")
    assert sink.text("a", 1) == "ä\udcff"
    assert sink.text("a", 2) == ""


@pytest.mark.parametrize(
    ("statuses", "status"), [([], 0), ([0, 0], 0), ([7, 7], 7), ([0, 7], 3), ([7, 8], 3), ([125], 125)]
)
def test_overall(statuses: list[int], status: int) -> None:
    assert overall(statuses) == status


def test_environment() -> None:
    assert environment(["A=1", "B=", "A=x=y"]) == {"A": "x=y", "B": ""}
    for bad in ("=x", "", "A B=1", "NO_SUCH_VARIABLE_HERE"):
        with pytest.raises(InvalidInput):
            environment([bad])


def test_a_selection_must_name_something() -> None:
    with pytest.raises(InvalidInput):
        selection((), (), False)
    with pytest.raises(InvalidInput):
        selection(("a",), (), True)
    assert selection((), ("k=v",), False).labels == (("k", "v"),)
    assert not optional_selection((), (), False).everything


@pytest.mark.reaches("processes", reason="what a fresh interpreter imports")
def test_list_imports_nothing_that_it_does_not_need() -> None:
    heavy = {"yaml", "asyncio", "subprocess", "aiohttp", "rich", "tty", "logging", "psutil", "lxc"}
    heavy.add("lxcfleet.spec.files.settings")
    program = "import sys, lxcfleet.cli.main, lxcfleet.cli.verbs.show, lxcfleet.cli.verbs.top; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert heavy & set(modules.stdout.split()) == set()


def test_bytes_that_are_no_utf8_can_be_shown_in_every_format(capfd: pytest.CaptureFixture[str]) -> None:
    """A process may have any name: `-f yaml` crashed."""
    data = [{"path": os.fsdecode(b"/a\xff\x9b\x1b[2J\r"), "n": (1, None)}]
    output.show("yaml", data, lines=list, rows=list)
    assert yaml.safe_load(capfd.readouterr().out) == [{"path": "/a\\xff\\x9b\x1b[2J\r", "n": [1, None]}]
    output.show("json", data, lines=list, rows=list)
    assert json.loads(capfd.readouterr().out)[0]["path"] == data[0]["path"]


def test_csv_has_no_control_characters(capfd: pytest.CaptureFixture[str]) -> None:
    output.show("csv", None, lines=list, rows=lambda: [["a\x1b[2J", "b\rc", "d\n\te", "f\u202eg", "\udc9b\u2028"]])
    assert capfd.readouterr().out == 'a\\x1b[2J,b\\rc,"d\n\te",f\\u202eg,\\udc9b\\u2028\n'


def test_a_carriage_return_forges_no_other_containers_line() -> None:
    assert output.on_terminal(b"fine\ttext \xc3\xa4") == b"fine\ttext \xc3\xa4"
    assert output.on_terminal(b"x\rweb2: all is well\x1b[K") == b"x\\x0dweb2: all is well\\x1b[K"


def test_no_character_of_two_bytes_is_obeyed_or_turns_a_line_around(capfd: pytest.CaptureFixture[str]) -> None:
    """U+009B begins the same commands as ESC [, and U+202E has all that follows written from right to left."""
    text = "a\x9b2Jb\u202ec\u2028d"
    assert output.on_terminal(text.encode() + b"\xff") == rb"a\x9b2Jb\u202ec\u2028d" + b"\xff"
    assert output.on_terminal(b"ok\x9b2Jz\x80\x9f\xa0") == rb"ok\x9b2Jz\x80\x9f" + b"\xa0", "some obey one byte of these, too"
    output.show("yaml", {text: [text, "gr\xfcn: x"]}, lines=list, rows=list)
    shown = capfd.readouterr().out
    assert not {"\x9b", "\u202e", "\u2028"} & set(shown)
    assert yaml.safe_load(shown) == {text: [text, "gr\xfcn: x"]}


def test_a_daemon_of_a_former_version_may_tell_less_of_a_container() -> None:
    """While the package is upgraded the command is newer than the daemon for a moment."""
    assert show._text({"name": "web1"}, "start_error") == ""
