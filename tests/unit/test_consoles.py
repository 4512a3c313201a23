"""Consoles on their way to the host's log: lines, allowances, entries, positions, and files that are rotated meanwhile."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.containers.container import Container
from lxcfleet.host.process.log_socket import RETRY_SECONDS
from lxcfleet.logs import console, keeper
from lxcfleet.logs.console import Console, ConsoleRun, LineLimits, Send, StepOutcome
from lxcfleet.logs.entries import LOST, EntryHead, LogForm
from lxcfleet.logs.lines import clean, cut
from lxcfleet.logs.position import Position, PositionFile
from lxcfleet.logs.rate import Allowance
from lxcfleet.logs.servant import ADRIFT_SECONDS, Follower
from lxcfleet.logs.times import MOST, Clock, Times, read
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import LogsSettings, LogTarget

# lines


@given(st.lists(st.binary(max_size=40)), st.integers(4, 20))
def test_pieces_put_together_are_the_whole_lines(parts: list[bytes], most: int) -> None:
    data = b"\n".join(parts)
    pieces = list(cut(data, most))
    end = pieces[-1].end if pieces else 0
    assert all(len(piece.text) <= most for piece in pieces)
    assert b"".join(piece.text + (b"" if piece.partial else b"\n") for piece in pieces) == data[:end]
    assert b"\n" not in data[end:]
    assert len(data) - end <= most


def test_a_cut_never_parts_a_character() -> None:
    pieces = list(cut("€".encode() * 10, 8))
    assert [piece.text.decode() for piece in pieces] == ["€€", "€€", "€€", "€€"]
    assert next(cut(b"\x80" * 9, 8)).end == 8, "what is no UTF-8 is cut anywhere"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (b"plain\r", b"plain"), (b"tab\tstays", b"tab\tstays"), ("äöü €".encode(), "äöü €".encode()),
        (b"\x1b[1;31mred\x1b[0m", b"red"), (b"\x1b]0;title\x07x", b"x"), (b"\x1b]8;;http://a\x1b\\link", b"link"),
        (b"\x1b(Bx\x1b7y\x1bcz", b"xyz"), (b"10%\r20%", rb"10%\r20%"), (b"\xff\xfe", rb"\xff\xfe"),
        ("\x9b31m".encode(), rb"\x9b31m"), (b"\x1b[31", rb"\x1b[31"), (b"\x1b\x1b[0m", rb"\x1b"),
        ("\u202e".encode(), rb"\u202e"),
    ],
)  # fmt: skip
def test_nothing_that_commands_a_terminal_gets_through(text: bytes, cleaned: bytes) -> None:
    assert clean(text) == cleaned


@given(st.binary(max_size=200))
def test_a_cleaned_line_is_always_one_line_that_can_be_printed(text: bytes) -> None:
    shown = clean(text).decode()
    assert all(character.isprintable() or character == "\t" for character in shown)


# allowance


def test_an_allowance_does_not_add_up_while_nothing_is_printed() -> None:
    allowance = Allowance(10, 100, 100.0, 0.0)
    assert allowance.refill(1000.0) == 10_100, "what has waited was printed meanwhile"
    allowance.rest(1000.0)
    assert allowance.refill(1000.0) == 100
    assert allowance.refill(1001.0) == 110
    assert allowance.refill(900.0) == 110, "a clock that goes back takes nothing away"
    allowance.rest(2000.0)
    assert allowance.refill(2000.0) == 100, "what was at rest was printed by nobody"


# entries

FIELDS = {"CONTAINER_NAME": "web1", "SYSLOG_IDENTIFIER": "web1", "LXCFLEET_RUN": "7@8.00", "OBJECT_PID": "7"}


def parsed(entry: bytes) -> dict[str, bytes]:
    """The fields of a datagram of the native protocol, read as journald reads them."""
    found: dict[str, bytes] = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = struct.unpack_from("<Q", rest)[0]
            value, rest = rest[8 : 8 + size], rest[9 + size :]
        assert name.decode() not in found, name
        found[name.decode()] = value
        entry = rest
    return found


def test_an_entry_of_the_journal_has_its_fields_and_no_others() -> None:
    head = EntryHead(LogForm.JOURNAL, FIELDS, "host")
    plain = parsed(head.line(b"PRIORITY=0", partial=False))
    assert plain == {**{key: value.encode() for key, value in FIELDS.items()}, "PRIORITY": b"6", "MESSAGE": b"PRIORITY=0"}
    assert parsed(head.line(b"x", partial=True))["CONTAINER_PARTIAL_MESSAGE"] == b"true"
    lost = parsed(head.lost(5, "why"))
    assert (lost["MESSAGE_ID"], lost["LXCFLEET_LOST"], lost["PRIORITY"]) == (LOST.encode(), b"5", b"4")
    forged = parsed(EntryHead(LogForm.JOURNAL, {"CONTAINER_TAG": "a\nPRIORITY=0"}, "host").line(b"x", partial=False))
    assert (forged["CONTAINER_TAG"], forged["PRIORITY"]) == (b"a\nPRIORITY=0", b"6")


def test_an_entry_of_syslog_is_as_rfc_5424_has_it() -> None:
    head = EntryHead(LogForm.SYSLOG, {**FIELDS, "CONTAINER_TAG": 'a"]\\\n'}, "my host")
    form = rb"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z my_host web1 7 - \[lxcfleet@32473 ([^\n]*)\] text ]"
    found = re.fullmatch(form, head.line(b"text ]", partial=True))
    assert found is not None
    assert found[1] == rb'container="web1" run="7@8.00" tag="a\"\]\\ " partial="true"'
    assert head.lost(1, "why").startswith(b"<28>1 ")


# positions


def test_a_position_is_read_back_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "console.sent"
    assert PositionFile(str(path)).load() is None
    position = Position(2**63, 7, 1.5, 3, 1)
    assert PositionFile(str(path)).save(position)
    assert PositionFile(str(path)).load() == position
    for wrong in (b"", b"x" * 64, position.pack() + b"x", position.pack()[1:]):
        path.write_bytes(wrong)
        assert PositionFile(str(path)).load() is None
    assert not PositionFile(str(tmp_path / "none" / "x")).save(position), "a disk that is full is no disaster"


# times


def test_times_are_told_of_places_and_grow_sparse_with_age(tmp_path: Path) -> None:
    path = str(tmp_path / "console.times")
    times = Times(path)
    for number in range(MOST + 10):
        times.note(float(number), 5, number * 10, number * 10 + 10)
        times.note(float(number), 5, number * 10, number * 10 + 10)  # the same once more, as it could not be sent
    found = read(path)
    assert MOST // 2 < len(found) < MOST
    clock = Clock(found, 5)
    assert clock.at((MOST + 9) * 10) == clock.at((MOST + 9) * 10 + 9) == MOST + 9.0, "what is new is known exactly"
    assert 0 <= 1000 - (clock.at(10_000) or 0) <= 2
    assert Clock(found, 6).at(0) is None
    with open(path, "ab") as file:
        file.write(b"torn")
    assert read(path) == found


# one console


class Log:
    """What was sent, in place of the host's log."""

    def __init__(self) -> None:
        self.entries: list[dict[str, bytes]] = []
        self.room = 10**9

    def send(self, entry: bytes) -> bool:
        """Take an entry, if there is room."""
        if self.room <= 0:
            return False
        self.room -= 1
        self.entries.append(parsed(entry))
        return True

    @property
    def texts(self) -> list[str]:
        """The messages."""
        return [entry["MESSAGE"].decode() for entry in self.entries]


class World:
    """A container's directory, and the log."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.log = directory, Log()
        self.file = directory / "console.log"
        self.limits = LineLimits(0, 1)
        self.console = self.anew()

    def anew(self, *, over: bool = False, skip: bool = False, mark: tuple[int, int] | None = None) -> Console:
        """The next process begins, where the one before was killed."""
        self.console = Console(str(self.directory), run("1", mark), LogForm.JOURNAL, self.limits, over=over, skip=skip)
        return self.console

    def print(self, text: str) -> None:
        """The container prints."""
        with self.file.open("a") as file:
            file.write(text)

    def rotate(self) -> None:
        """As liblxc does it."""
        self.file.rename(f"{self.file}.1")
        self.file.touch()

    def work(self) -> None:
        """Until the console is at rest, or the log is full."""
        for _ in range(1000):
            if self.console.step(self.log.send) is not StepOutcome.MORE:
                return
        raise AssertionError("it does not come to rest")


def run(number: str, mark: tuple[int, int] | None = None) -> ConsoleRun:
    return ConsoleRun(EntryHead(LogForm.JOURNAL, {"LXCFLEET_RUN": number}, "host"), mark)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_each_line_is_passed_on_once_across_rotations_and_kills(world: World) -> None:
    world.work()
    for number in range(40):
        world.print(f"a{number}\r\nb")
        if number % 3 == 0:
            world.work()
        if number % 4 == 0:
            world.anew()
        if number % 7 == 0:
            world.work()
            world.rotate()
        world.print(f"{number}\r\n")
        world.work()
    texts, put = world.log.entries, ""
    for entry in texts:
        put += entry["MESSAGE"].decode() + ("" if "CONTAINER_PARTIAL_MESSAGE" in entry else "\n")
    assert put == "".join(f"a{number}\nb{number}\n" for number in range(40))


def test_what_a_full_log_does_not_take_waits_in_the_file(world: World) -> None:
    world.print("".join(f"{number}\n" for number in range(20_000)))
    world.log.room = 7
    world.work()
    world.log.room = 9
    world.anew()
    world.work()
    world.log.room = 10**9
    world.work()
    assert world.log.texts == [str(number) for number in range(20_000)]


def test_long_lines_count_for_as_many_as_they_take_room(world: World) -> None:
    """A container with lines of 16 KiB wrote 16 MiB a second to the host's journal, which drops others' entries for them."""
    world.limits = LineLimits(1, 20)
    world.anew()
    world.print("x" * 10_000 + "\n" + "\a" * 2000 + "\n" + "short\n" + "y" * 3000 + "\nlost\n")
    world.work()
    assert [len(text) for text in world.log.texts[:3]] == [10_000, 8000, 5]  # they count for 10, 8 and 1 of 20
    assert world.log.texts[3].startswith("left out here: 2 lines of its console")
    world.limits = LineLimits(1, 2)
    world.anew()
    world.print("z" * 9000 + "\n")
    world.work()
    assert world.log.texts[4:] == ["z" * 9000]  # one that is longer than all that may be printed at once does come


def test_lines_that_were_left_out_are_counted_also_across_a_kill(world: World) -> None:
    world.limits = LineLimits(1, 5)
    world.anew()
    world.print("".join(f"{number}\n" for number in range(100)))
    world.log.room = 5
    world.console.step(world.log.send)
    assert world.console.untold
    world.log.room = 10**9
    world.limits = LineLimits(0, 5)
    world.anew()
    world.work()
    assert world.log.texts[:5] == ["0", "1", "2", "3", "4"]
    assert [entry["LXCFLEET_LOST"] for entry in world.log.entries if "LXCFLEET_LOST" in entry] == [b"95"]


def test_other_limits_hold_from_then_on(world: World) -> None:
    """A container's own limits may change while it runs: at the line where its console is."""
    world.work()
    for limits, texts in ((LineLimits(1, 2), ["0", "1"]), (LineLimits(1, 1, wanted=False), []), (LineLimits(1, 1), ["0"])):
        world.console.follow(run("1"), limits, over=False)
        world.log.entries.clear()
        world.print("0\n1\n2\n")
        world.work()
        assert [entry["MESSAGE"].decode() for entry in world.log.entries if "LXCFLEET_LOST" not in entry] == texts
    assert not world.console.step(world.log.send).value


def test_files_that_were_overwritten_unread_are_told(world: World) -> None:
    world.print("one\n")
    world.work()
    for text in ("two\n", "three\n", "four\n"):
        world.rotate()
        world.print(text)
    world.work()
    world.work()
    assert world.log.texts[:1] == ["one"]
    assert world.log.texts[-2:] == ["three", "four"] or world.log.texts[1:3] == ["three", "four"]
    assert sum("overwritten" in text for text in world.log.texts) == 1


def test_a_file_that_comes_and_goes_while_the_next_one_is_opened_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was between two looks, and its lines were missing without a word."""
    world.print("one\n")
    world.work()
    world.rotate()
    world.print("two\n")
    take = Console._take

    def slow(console: Console, path: str, inode: int | None) -> bool:
        if path == str(world.file):
            monkeypatch.setattr(Console, "_take", take)
            for text in ("three\n", "four\n"):
                world.rotate()
                world.print(text)
        return take(console, path, inode)

    monkeypatch.setattr(Console, "_take", slow)
    world.work()
    world.work()
    assert [text for text in world.log.texts if "overwritten" not in text] == ["one", "three", "four"]
    assert sum("overwritten" in text for text in world.log.texts) == 1


def test_a_line_without_an_end_waits_for_it_and_comes_when_the_container_has_ended(world: World) -> None:
    world.print("login: ")
    world.work()
    assert world.log.texts == []
    world.console.follow(run("1"), world.limits, over=True)
    world.work()
    assert world.log.texts == ["login: "]
    assert world.console.over


def test_lines_belong_to_the_run_that_printed_them(world: World) -> None:
    world.print("first\nunfinished")
    mark = (world.file.stat().st_ino, world.file.stat().st_size)
    world.console.step(lambda _: False)
    world.print("second\n")
    world.console.follow(run("2", mark), world.limits, over=False)
    world.work()
    assert [(entry["LXCFLEET_RUN"], entry["MESSAGE"]) for entry in world.log.entries] == [
        (b"1", b"first"), (b"1", b"unfinished"), (b"2", b"second"),
    ]  # fmt: skip


def test_what_was_printed_before_lxcfleet_passed_lines_on_is_not_sent(world: World) -> None:
    world.print("old\n")
    world.anew(skip=True)
    world.work()
    world.print("new\n")
    world.work()
    assert world.log.texts == ["new"]


def test_a_new_container_is_read_from_the_begin_of_its_run(world: World) -> None:
    world.anew(mark=(0, 0), skip=True)
    world.work()
    world.print("first\n")
    world.work()
    assert world.log.texts == ["first"]


@pytest.mark.parametrize("rotations", [1, 2, 3])
@pytest.mark.parametrize("again", [True, False], ids=["one inode", "other inodes"])
def test_what_was_overwritten_before_the_first_look_is_told(
    world: World, monkeypatch: pytest.MonkeyPatch, rotations: int, again: bool
) -> None:
    """A container printed ten megabytes at its start, before its console was followed: nine of them were missing, and nothing
    was said."""
    births: dict[str, float] = {}
    monkeypatch.setattr(console, "born", lambda path: births[Path(path).read_text().split()[0]])
    world.print("0\n")
    births["0"] = 7.0
    world.console = Console(
        str(world.directory), replace(run("1", (world.file.stat().st_ino, 0)), born=7.0), LogForm.JOURNAL, world.limits,
        over=False, skip=True,
    )  # fmt: skip
    with world.file.open():  # its inode is its own for as long
        for number in range(1, rotations + 1):
            world.rotate()
            world.print(f"{number}\n")
            births[str(number)] = 7.0 + number
    if again:
        world.console._run = replace(world.console._run, mark=(world.file.stat().st_ino, 0))
    world.work()
    world.work()
    there = [str(number) for number in range(rotations + 1)][-2:]
    assert [text for text in world.log.texts if "overwritten" not in text] == there
    assert any("overwritten" in text for text in world.log.texts) == (rotations > 1 or again)


def test_an_emptied_file_is_read_on(world: World) -> None:
    world.print("one\n")
    world.work()
    os.truncate(world.file, 0)
    world.work()
    world.print("two\n")
    world.work()
    assert world.log.texts == ["one", "two"]


def test_no_link_is_followed(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    world.file.symlink_to(tmp_path / "secret")
    world.work()
    assert world.log.texts == []


# the daemon's end


def test_the_fields_of_an_entry_come_from_the_spec() -> None:
    spec = Spec("web1", labels={"tag": "v7"}, fleet="shop", group="web")
    assert keeper.fields(Container("web1", spec), None) == {
        "CONTAINER_NAME": "web1", "CONTAINER_TAG": "v7", "SYSLOG_IDENTIFIER": "web1", "SYSLOG_FACILITY": "3",
        "LXCFLEET_GROUP": "web", "LXCFLEET_FLEET": "shop",
    }  # fmt: skip
    assert keeper.fields(Container("a", None), None)["CONTAINER_TAG"] == "a"


def test_lines_go_to_journald_where_it_runs(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    assert keeper.target(LogsSettings(socket=path)) == ("none", path)
    Path(path).touch()
    assert keeper.target(LogsSettings(socket=path)) == ("journal", path)
    assert keeper.target(LogsSettings(to=LogTarget.SYSLOG)) == ("syslog", "/dev/log")
    assert keeper.target(LogsSettings(to=LogTarget.JOURNAL)) == ("journal", "/run/systemd/journal/socket")


def test_orders_are_carried_out_and_a_log_that_is_not_there_is_told(tmp_path: Path) -> None:
    follower = Follower("host")
    follower.obey({"do": "settings", "to": "journal", "socket": str(tmp_path / "none")})
    (tmp_path / "console.log").write_text("line\n")
    order = {"do": "follow", "name": "a", "directory": str(tmp_path), "fields": {"CONTAINER_NAME": "a"}, "mark": None,
             "over": False, "skip": False, "journal": True, "rate": 0, "burst": 1}  # fmt: skip
    follower.obey(order)
    follower.obey({"do": "tell", "fields": {"SYSLOG_IDENTIFIER": "lxcfleet"}, "message": "event", "priority": 6})
    follower.round()
    assert follower.trouble.endswith("none: No such file or directory")
    assert follower.pause() == RETRY_SECONDS
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "none"))
        log.settimeout(60)
        deadline = time.monotonic() + 60
        while follower.trouble and time.monotonic() < deadline:
            time.sleep(0.05)
            follower.round()
        assert [parsed(log.recv(4096))["MESSAGE"] for _ in range(2)] == [b"event", b"line"]
        follower.round()
        assert follower.pause() is None, "it sleeps"
        with (tmp_path / "console.log").open("a") as file:
            file.write("more\n")
        follower.note_changes()
        follower.round()
        assert parsed(log.recv(4096))["MESSAGE"] == b"more"
        follower.obey({"do": "forget", "name": "a"})
        assert follower.pause() is None


@pytest.mark.parametrize("there", [True, False], ids=["it has printed before", "its first lines"])
def test_a_container_that_was_silent_for_long_may_print_no_more_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """After a day, the whole flood was passed on. What waits as the log takes nothing counts for when it was printed."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    (tmp_path / "a").mkdir()
    file = tmp_path / "a/console.log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        follower = Follower("host")
        follower.obey({"do": "settings", "to": "journal", "socket": str(tmp_path / "log")})
        follower.obey({**_order(tmp_path / "a", "a"), "rate": 1, "burst": 3})
        if there:
            file.touch()
        follower.round()
        clock[0] += 86400
        follower.look_for_files()
        follower.round()
        file.write_text("flood\n" * 9)
        follower.note_changes()
        clock[0] += 2
        follower.look_for_files()
        follower.round()
        log.setblocking(False)
        found = [parsed(log.recv(4096)) for _ in range(6)]
        assert [each["MESSAGE"] for each in found[:-1]] == [b"flood"] * 5
        assert found[-1]["LXCFLEET_LOST"] == b"4"


def _order(directory: Path, name: str) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    fields = {"CONTAINER_NAME": name, "SYSLOG_IDENTIFIER": name}
    return {"do": "follow", "name": name, "directory": str(directory), "fields": fields, "mark": None,
            "over": False, "skip": False, "journal": True, "rate": 0, "burst": 1}  # fmt: skip


def test_those_without_a_file_are_not_looked_at_for_each_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, each container that began had all of them looked at once more: with a thousand, 600 times each."""
    looked: list[str] = []
    find = Console.open

    def counted(console: Console) -> bool:
        looked.append(console._path)
        return find(console)

    monkeypatch.setattr(Console, "open", counted)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    follower = Follower("host")
    for number in range(20):
        follower.obey(_order(tmp_path / str(number), f"c{number}"))
        follower.look_for_files()
        follower.round()
    assert len(looked) <= 2 * 20
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + ADRIFT_SECONDS)
    assert follower.pause() == 0.0
    looked.clear()
    follower.look_for_files()
    follower.round()
    assert len(looked) == 20, "after a while, each of them is"


def test_a_console_that_cannot_be_opened_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, a lack of descriptors looked as if the file were gone: nothing was told, and lines counted as lost."""
    follower = Follower("host")
    follower.obey({"do": "settings", "to": "syslog", "socket": str(tmp_path / "log")})
    for name in ("a", "b"):
        follower.obey(_order(tmp_path / name, name))
        (tmp_path / name / "console.log").write_text("line\n")
    usual = os.open

    def refused(path: Any, *arguments: Any, **more: Any) -> int:
        if str(path) == str(tmp_path / "a/console.log"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return usual(path, *arguments, **more)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.settimeout(60)
        monkeypatch.setattr(os, "open", refused)
        follower.round()
        assert log.recv(4096).endswith(b"line"), "another console is passed on all the same"
        assert follower.trouble == "the console of a can't be read: Too many open files"
        assert follower.pause() is not None, "it is tried again"
        monkeypatch.setattr(os, "open", usual)
        follower.look_for_files()
        follower.round()
        assert log.recv(4096).endswith(b"line")
        log.setblocking(False)
        with pytest.raises(BlockingIOError):
            log.recv(4096)  # nothing is said to be missing
    assert follower.trouble == ""


def test_a_console_is_watched_before_it_is_read_so_one_look_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, step = tmp_path / "console.log", Console.step
    looks: list[StepOutcome] = []

    def looked(console: Console, send: Send) -> StepOutcome:
        outcome = step(console, send)
        if not looks:
            file.write_text("printed meanwhile\n")
        looks.append(outcome)
        return outcome

    monkeypatch.setattr(Console, "step", looked)
    file.touch()
    follower = Follower("host")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        log.setblocking(False)
        follower.obey({"do": "settings", "to": "journal", "socket": str(tmp_path / "log")})
        follower.obey(_order(tmp_path, "a"))
        follower.round()
        assert looks == [StepOutcome.REST]
        follower.note_changes()
        follower.round()
        assert parsed(log.recv(4096))["MESSAGE"] == b"printed meanwhile"
