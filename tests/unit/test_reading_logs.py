"""What `lxcfleet logs` shows of several consoles, and moments as people give them."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lxcfleet.api.records import LineRecord
from lxcfleet.daemon.http import log_file
from lxcfleet.errors import InvalidInput
from lxcfleet.logs import reading, rotated
from lxcfleet.logs.reading import Reading, Tail
from lxcfleet.logs.times import Times
from lxcfleet.spec.reading.moments import parse_since

NOW = datetime(2026, 3, 5, 18, 30, 15, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("10s", "2026-03-05T18:30:05+01:00"), ("5m", "2026-03-05T18:25:15+01:00"), ("5min", "2026-03-05T18:25:15+01:00"),
        ("2h", "2026-03-05T16:30:15+01:00"), ("2h ago", "2026-03-05T16:30:15+01:00"),
        ("2 hours ago", "2026-03-05T16:30:15+01:00"), ("1 minute ago", "2026-03-05T18:29:15+01:00"),
        ("90 secs", "2026-03-05T18:28:45+01:00"), ("1 week ago", "2026-02-26T18:30:15+01:00"),
        ("1d", "2026-03-04T18:30:15+01:00"), ("now", "2026-03-05T18:30:15+01:00"),
        ("today", "2026-03-05T00:00+01:00"), ("Yesterday", "2026-03-04T00:00+01:00"), ("7:05", "2026-03-05T07:05+01:00"),
        ("17:05:09", "2026-03-05T17:05:09+01:00"), ("2026-02-28", "2026-02-28T00:00+01:00"),
        ("2026-02-28 10:00", "2026-02-28T10:00+01:00"), ("2026-02-28T10:00:00Z", "2026-02-28T10:00+00:00"),
    ],
)  # fmt: skip
def test_moments(text: str, moment: str) -> None:
    assert parse_since(text, NOW) == datetime.fromisoformat(moment).timestamp()


@pytest.mark.parametrize(
    "text", ["", "tomorrow", "25:00", "2026-13-01", "10", "-5m", "9999999999d", "5 parsecs", "ago", "5 ago", "5mago"]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no time"):
        parse_since(text, NOW)


class World:
    """Directories of containers that have printed something."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._times: dict[str, Times] = {}

    def print(self, name: str, at: float, text: str) -> None:
        """A container prints something at that time."""
        directory = self.root / name
        directory.mkdir(exist_ok=True)
        file = directory / "console.log"
        with file.open("a") as log:
            log.write(text)
        times = self._times.setdefault(name, Times(str(directory / "console.times")))
        end = file.stat().st_size
        times.note(at, file.stat().st_ino, end - len(text), end)

    def rotate(self, name: str) -> None:
        """As liblxc does it."""
        file = self.root / name / "console.log"
        file.rename(f"{file}.1")
        file.touch()

    def chosen(self) -> dict[str, Path]:
        """All containers."""
        return {each.name: each for each in sorted(self.root.iterdir())}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def shown(world: World, lines: int = 0, since: float = 0.0) -> list[tuple[str, str]]:
    """What a client is shown."""

    async def read() -> list[LineRecord]:
        batches = [some async for some in Reading(world.chosen, lines, since).records(follow=False)]
        return [one for some in batches for one in some]

    return [(record["container"], record["text"]) for record in asyncio.run(read())]


def test_lines_of_several_come_in_the_order_of_time_across_rotations(world: World) -> None:
    world.print("a", 10, "a1\r\na2\r\n")
    world.print("b", 11, "b1\r\n")
    world.rotate("a")
    world.print("a", 12, "a3\r\n")
    world.print("b", 13, "b2\r\nb3")
    assert [text for _, text in shown(world)] == ["a1", "a2", "b1", "a3", "b2", "b3"]
    assert shown(world, since=12) == [("a", "a3"), ("b", "b2"), ("b", "b3")]
    assert [text for _, text in shown(world, lines=2)] == ["a2", "a3", "b2", "b3"]
    assert [text for _, text in shown(world, lines=100)] == ["a1", "a2", "b1", "a3", "b2", "b3"]


def test_a_line_on_both_sides_of_a_rotation_is_one(world: World) -> None:
    world.print("a", 10, "one\ntw")
    world.rotate("a")
    world.print("a", 11, "o\nthree\n")
    assert [text for _, text in shown(world)] == ["one", "two", "three"]


def test_lines_whose_time_is_not_known_come_first(world: World) -> None:
    world.print("b", 10, "b1\n")
    (world.root / "a").mkdir()
    (world.root / "a" / "console.log").write_text("a1\n\x1b[31ma2\x1b[0m\n")
    assert [text for _, text in shown(world)] == ["a1", "a2", "b1"]
    assert [text for _, text in shown(world, since=1)] == ["b1"]


@pytest.mark.parametrize("lines", [1, 2, 3, 20_000, 29_999, 30_000])
def test_the_last_lines_of_a_large_file(world: World, lines: int) -> None:
    world.print("a", 10, "".join(f"{number}\n" for number in range(30_000)))
    assert [text for _, text in shown(world, lines)] == [str(number) for number in range(30_000 - lines, 30_000)]


def test_a_long_line_is_shown_in_pieces(world: World) -> None:
    world.print("a", 10, "x" * 200_000 + "\nend\n")
    pieces = [text for _, text in shown(world)]
    assert "".join(pieces) == "x" * 200_000 + "end"
    assert max(map(len, pieces)) <= reading.LONGEST


def test_following_goes_on_across_rotations_and_takes_up_new_containers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FOLLOW_SECONDS", 0.0)
    world.print("a", 10, "a1\n")

    async def follow() -> list[str]:
        texts: list[str] = []
        records = Reading(world.chosen, 0, 0.0).records(follow=True)
        async for some in records:
            texts += [one["text"] for one in some]
            if texts[-1] == "a1":
                world.print("a", 11, "a2\nhalf")
            elif texts[-1] == "a2":
                world.rotate("a")
                world.print("a", 12, " whole\n")
            elif texts[-1] == "half whole":
                world.print("b", 13, "b1\n")
            elif texts[-1] == "b1":
                break
        await records.aclose()  # type: ignore[attr-defined]
        return texts

    assert asyncio.run(asyncio.wait_for(follow(), 60)) == ["a1", "a2", "half whole", "b1"]


def test_what_was_missed_between_two_looks_is_not_read_twice(world: World) -> None:
    world.print("a", 10, "one\n")
    tail = Tail(world.root / "a", "a", 0)
    assert [each.text for each in tail.lines()] == [b"one"]
    for number in (2, 3):
        world.rotate("a")
        world.print("a", 11, f"{number}\n")
    assert [each.text for each in tail.lines(now=1.0)] == [rotated.MISSED, b"2", b"3"]
    tail.close()


def test_one_that_prints_more_than_is_read_in_one_look_is_looked_at_again_at_once(world: World) -> None:
    """After each look a pause came, so a busy container's file was overwritten before it was read."""
    world.print("a", 10, "begin\n")
    many = "x" * 99 + "\n"
    count = 3 * reading.BLOCKS * rotated.BLOCK // len(many)
    sleeps = 0

    async def follow() -> int:
        nonlocal sleeps
        texts = 0
        async for some in (records := Reading(world.chosen, 0, 0.0).records(follow=True)):
            if some[0]["text"] == "begin":
                world.print("a", 11, many * count)
                continue
            texts += len(some)
            if texts >= count:
                break
        await records.aclose()  # type: ignore[attr-defined]
        return texts

    async def counted(seconds: float) -> None:
        nonlocal sleeps
        sleeps += 1
        await plain(seconds)

    plain = asyncio.sleep
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lxcfleet.logs.reading.asyncio.sleep", counted)
        assert asyncio.run(asyncio.wait_for(follow(), 60)) == count
    assert sleeps == 1


@pytest.mark.parametrize("which", ["console.log", "console.log.1"])
@pytest.mark.parametrize("before", [True, False])
def test_a_file_that_is_rotated_during_the_look_is_read_once(
    world: World, monkeypatch: pytest.MonkeyPatch, which: str, before: bool
) -> None:
    """Another rotation comes just before, or just after, one of the two looks that tell which file is the next one."""
    world.print("a", 10, "one\n")
    tail = Tail(world.root / "a", "a", 0)
    assert [each.text for each in tail.lines()] == [b"one"]
    world.rotate("a")
    world.print("a", 11, "two\n")
    look, asked = rotated._inode, list[Path]()

    def rotate() -> None:
        world.rotate("a")
        world.print("a", 12, "three\n")

    def rotated_meanwhile(path: Path) -> int | None:
        first = path.name == which and path not in asked
        asked.append(path)
        if first and before:
            rotate()
        found = look(path)
        if first and not before:
            rotate()
        return found

    monkeypatch.setattr(rotated, "_inode", rotated_meanwhile)
    texts = [each.text for _ in range(3) for each in tail.lines(now=1.0)]
    tail.close()
    assert [text for text in texts if text != rotated.MISSED] == [b"two", b"three"]


def test_a_single_log_is_followed_across_rotations(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the former file has its new name already, and the next one is not there yet, and across two at once."""
    monkeypatch.setattr(log_file, "FOLLOW_SECONDS", 0.0)
    world.print("a", 10, "zero\none\n")
    file = world.root / "a" / "console.log"

    async def follow() -> bytes:
        seen = b""
        pieces = log_file.pieces(str(file), 1, follow=True)
        empty = 0
        async for piece in pieces:
            seen += piece
            empty = 0 if piece else empty + 1
            if empty < 3:
                continue
            if file.exists() and seen.endswith(b"one\n"):
                file.rename(f"{file}.1")
            elif not file.exists():
                file.write_text("two, which is longer\n")
            elif seen.endswith(b"longer\n"):
                for text in ("three\n", "four, which is longer\n"):
                    world.rotate("a")
                    world.print("a", 12, text)
            else:
                break
            empty = 0
            if seen.endswith(b"four, which is longer\n"):
                break
        await pieces.aclose()  # type: ignore[attr-defined]
        return seen

    missed = b"\r\n" + rotated.MISSED + b"\r\n"
    expected = b"one\ntwo, which is longer\n" + missed + b"three\nfour, which is longer\n"
    assert asyncio.run(asyncio.wait_for(follow(), 60)) == expected
