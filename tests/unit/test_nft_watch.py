"""The watch over the packet filter's tables, and messages that the kernel could not deliver."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable
from functools import partial

import pytest

from lxcfleet.host.net import nft_watch
from lxcfleet.host.net.nft_watch import TableWatch

from .nft_messages import (
    DELETED_ELEMENT,
    DELETED_OBJECT,
    DELETED_RULE,
    DELETED_TABLE,
    NEW_CHAIN,
    NEW_GENERATION,
    NEW_RULE,
    NEW_TABLE,
    Netlink,
    mark,
    message,
    watched_netlink,
)

INET, BRIDGE = 1, 7


@pytest.fixture
def netlink(monkeypatch: pytest.MonkeyPatch) -> Netlink:
    return watched_netlink(monkeypatch)


def told(netlink: Netlink, happens: Callable[[], None], loads: Callable[[], int | None] = lambda: 0) -> list[str]:
    """What the watch tells when that happens."""
    heard: list[str] = []

    async def watch() -> None:
        gone, unknown, changed = (partial(heard.append, word) for word in ("gone", "unknown", "changed"))
        own = TableWatch("own", gone, unknown, changed, loads)
        happens()
        for _ in range(10):
            await asyncio.sleep(0)
        own.close()

    asyncio.run(watch())
    return heard


def test_a_removed_table_is_told_at_the_end_of_its_transaction(netlink: Netlink) -> None:
    def remove() -> None:
        netlink.say(message(DELETED_TABLE, "own") + message(NEW_GENERATION))

    assert told(netlink, remove) == ["changed", "gone"]


@pytest.mark.parametrize("kind", [NEW_TABLE, NEW_CHAIN, NEW_RULE, DELETED_RULE, DELETED_ELEMENT, DELETED_OBJECT])
def test_whatever_another_program_changes_is_told(netlink: Netlink, kind: int) -> None:
    """A rule or an element more or less, a set that was flushed, another policy of a chain, a limit that is gone, and the
    rules of yesterday, as `nft -f` loads a saved ruleset. Before, only chains without any rule and missing tables were."""

    def change() -> None:
        netlink.say(message(kind, "own", "guard") + message(NEW_RULE, "own", "guard") + message(NEW_GENERATION))
        netlink.say(message(kind, "other", "guard") + message(NEW_GENERATION))

    assert told(netlink, change) == ["changed", "gone", "changed"]


def test_what_we_load_ourselves_is_not_told(netlink: Netlink) -> None:
    def load() -> None:
        for kind in (DELETED_RULE, DELETED_TABLE, DELETED_ELEMENT):
            netlink.say(mark() + message(kind, "own", "guard"))
            netlink.say(message(NEW_RULE, "own") + message(NEW_GENERATION))

    assert told(netlink, load) == ["changed"] * 3


def test_a_change_after_a_load_of_our_own_is_told(netlink: Netlink) -> None:
    def change() -> None:
        netlink.say(mark() + message(NEW_TABLE, "own") + message(NEW_GENERATION))
        netlink.say(message(DELETED_RULE, "own", "guard") + message(NEW_GENERATION))

    assert told(netlink, change) == ["changed", "changed", "gone"]


@pytest.mark.parametrize(("there", "heard"), [(True, ["changed"]), (False, ["changed", "gone"])])
def test_after_an_overflow_the_kernel_is_asked_whether_the_table_is_there(
    netlink: Netlink, monkeypatch: pytest.MonkeyPatch, there: bool, heard: list[str]
) -> None:
    """What was lost may have been its removal; but a load of many rules of our own overflows the buffer as well."""
    monkeypatch.setattr(nft_watch, "is_there", lambda table: there)

    def overflow() -> None:
        netlink.say(message(DELETED_TABLE, "own"))
        netlink.lose()

    assert told(netlink, overflow) == heard


@pytest.mark.parametrize(("made", "ours", "heard"), [
    (0, 0, []), (1, 1, []), (3, 3, []), (1, 0, ["unknown"]), (3, 2, ["unknown"]), (2, 3, ["unknown"]),
])  # fmt: skip
def test_what_others_may_have_changed_while_messages_were_lost_is_told(
    netlink: Netlink, monkeypatch: pytest.MonkeyPatch, made: int, ours: int, heard: list[str]
) -> None:
    """Each transaction is counted by the kernel. Before, a changed rule stayed for ever if its message was lost: only
    missing tables were seen."""
    numbers, loaded = [(1 << 32) - 1, (made - 1) % (1 << 32)], [0]
    monkeypatch.setattr(nft_watch, "generation", lambda: numbers.pop(0))
    monkeypatch.setattr(nft_watch, "is_there", lambda table: True)

    def overflow() -> None:
        loaded[0] = ours
        netlink.lose()

    assert told(netlink, overflow, lambda: loaded[0]) == ["changed", *heard]


def test_transactions_of_which_all_is_known_are_counted_no_more(netlink: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft_watch, "generation", lambda: 0)

    def another() -> None:
        netlink.say(message(NEW_TABLE, "other") + message(NEW_GENERATION, generation=7))
        monkeypatch.setattr(nft_watch, "generation", lambda: 7)
        monkeypatch.setattr(nft_watch, "is_there", lambda table: True)
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, netlink.lose)

    assert told(netlink, another) == ["changed", "changed"]


def test_loads_of_our_own_are_counted_once_they_are_over(netlink: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft_watch, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(nft_watch, "is_there", lambda table: True)
    numbers = [0]
    monkeypatch.setattr(nft_watch, "generation", lambda: numbers[0])
    answers: list[int | None] = [1, None, None, 0]

    def overflow() -> None:
        numbers[0] = 1
        netlink.lose()

    assert told(netlink, overflow, answers.pop) == ["changed"]
    assert answers == []


def test_a_table_that_is_gone_is_told_while_we_load(netlink: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft_watch, "is_there", lambda table: False)
    assert told(netlink, netlink.lose, lambda: None) == ["changed", "gone"]


def test_the_kernel_is_asked_once_it_drops_no_more_messages(netlink: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the buffer is read to its end, the kernel drops messages and does not say so again."""
    read: list[bool] = []

    def is_there(_: str) -> bool:
        read.append(netlink.empty())
        return True

    monkeypatch.setattr(nft_watch, "is_there", is_there)

    def overflow() -> None:
        netlink.lose()
        for _ in range(3):
            netlink.say(message(NEW_TABLE, "other"))

    assert told(netlink, overflow) == ["changed"]
    assert read == [True]


def test_a_table_that_is_there_again_counts_if_its_message_was_lost(
    netlink: Netlink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load begins with its removal: that came, and the rest did not."""

    def is_there(_: str) -> bool:
        netlink.say(message(NEW_GENERATION))
        return True

    monkeypatch.setattr(nft_watch, "is_there", is_there)

    def overflow() -> None:
        netlink.lose()
        netlink.say(message(DELETED_TABLE, "own"))

    assert told(netlink, overflow) == ["changed", "changed"]


def test_the_watch_goes_on_after_an_overflow(netlink: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_there(_: str) -> bool:
        netlink.say(message(DELETED_TABLE, "own") + message(NEW_GENERATION))
        return True

    monkeypatch.setattr(nft_watch, "is_there", is_there)

    def overflow() -> None:
        netlink.lose()
        netlink.say(mark() + message(DELETED_TABLE, "own"))

    assert told(netlink, overflow) == ["changed", "changed", "gone"]


def test_the_rest_of_a_load_of_our_own_that_lost_its_mark_is_not_told(
    netlink: Netlink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be repeated for ever, as the next load loses messages as well."""
    monkeypatch.setattr(nft_watch, "is_there", lambda table: True)

    def overflow() -> None:
        netlink.lose()
        netlink.say(message(NEW_RULE, "own") + message(NEW_GENERATION))

    assert told(netlink, overflow) == ["changed", "changed"]


def test_a_socket_that_gives_errors_does_not_keep_the_loop(netlink: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each error ends one read: the loop goes on between them."""
    turns: list[int] = []

    def is_there(_: str) -> bool:
        turns.append(netlink.failed)
        return True

    monkeypatch.setattr(nft_watch, "is_there", is_there)

    def overflow() -> None:
        for _ in range(3):
            netlink.lose()
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, lambda: turns.append(netlink.failed))

    told(netlink, overflow)
    assert turns[0] < 3
    assert turns[-1] == 3


def test_a_kernel_that_does_not_answer_is_asked_again(netlink: Netlink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft_watch, "_PAUSE_SECONDS", 0.0)
    answers: list[bool | OSError] = [False, OSError(errno.ENOBUFS, "No buffer space available")]

    def is_there(_: str) -> bool:
        answer = answers.pop()
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(nft_watch, "is_there", is_there)
    assert told(netlink, netlink.lose) == ["changed", "gone"]


class Asked:
    """A socket that answers questions for tables as the kernel does."""

    def __init__(self, present: set[int], error: int = errno.ENOENT) -> None:
        self._present, self._error = present, error
        self._family = 0

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *_: object) -> None:
        """It is closed."""

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def sendto(self, data: bytes, _: object) -> None:
        """A question for one table."""
        size, kind, flags = struct.unpack_from("=IHH", data)
        assert (size, kind, flags) == (len(data), 0xA01, 1)
        assert (size % 4, data[20:28]) == (0, b"\x08\x00\x01\x00own\x00")
        self._family = data[16]

    def recv(self, _: int) -> bytes:
        """The answer."""
        if self._family in self._present:
            return message(NEW_TABLE, "own")
        return struct.pack("=IHHIIi", 36, 2, 0, 0, 0, -self._error) + bytes(16)


@pytest.mark.parametrize(("present", "there"), [({INET, BRIDGE}, True), ({INET}, False), ({BRIDGE}, False), (set(), False)])
def test_the_fleets_tables_are_there_or_not(monkeypatch: pytest.MonkeyPatch, present: set[int], there: bool) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: Asked(present))
    assert nft_watch.is_there("own") is there


def test_the_kernel_tells_the_number_of_the_last_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Numbered(Asked):
        def sendto(self, data: bytes, _: object) -> None:
            asked.append(struct.unpack_from("=IH", data)[1])

        def recv(self, _: int) -> bytes:
            return message(NEW_GENERATION, generation=0x1020304)

    monkeypatch.setattr(socket, "socket", lambda *_: Numbered(set()))
    assert (nft_watch.generation(), asked) == (0x1020304, [0xA10])


def test_an_error_does_not_say_that_a_table_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: Asked(set(), errno.ENOMEM))
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        nft_watch.is_there("own")
