"""Having many containers prepared by one child."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable
from typing import Any

import pytest

from lxcfleet.containers.reconciling.preparer import Preparer
from lxcfleet.errors import HostError
from lxcfleet.launcher.children.answer import answer
from lxcfleet.launcher.client import Conversation, Reply


class _Launcher:
    """A launcher whose child sends the answers of the test."""

    generation = 1

    def __init__(self, notes: dict[str, list[str]]) -> None:
        self._notes = notes

    async def converse(self, _: str) -> Conversation[Any, Any]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs, open(os.devnull, "rb") as namespace:
            for name, notes in self._notes.items():
                answer(theirs, name, descriptor=namespace.fileno(), notes=notes)
            await asyncio.sleep(0)
            theirs.detach()  # otherwise the child would wait for more
        return Conversation(ours, 1)


@pytest.mark.parametrize(
    ("note", "count"),
    [("x" * 100_000, 1), ("\0" * 900, 30), ("\U0001f600" * 300, 30), ("short", 1)],
    ids=["long", "many", "wide", "short"],
)
def test_the_notes_about_one_container_keep_no_other_from_its_start(note: str, count: int) -> None:
    """A container's root writes the records that the notes are about, such as a package's version, as long as it likes."""

    async def prepare() -> list[Any]:
        launcher: Any = _Launcher({"bad": [note] * count, "good": []})

        async def before(_: Iterable[int]) -> None:
            pass

        preparer = Preparer(launcher, 1, before)
        items: list[Any] = [{"name": name, "generation": 0} for name in ("bad", "good")]
        asked = [preparer.submit(item) for item in items]
        replies: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
        preparer.close()
        return replies

    replies = asyncio.run(asyncio.wait_for(prepare(), 60))
    assert [isinstance(reply, HostError) for reply in replies] == [False, False]
    for reply in replies:
        os.close(reply.descriptor)
    assert replies[0].body["notes"][0][:5] == note[:5]


class _Fragile:
    """A launcher whose children answer one after the other, and are killed by the container ``bad``."""

    generation = 1

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    async def converse(self, _: str) -> Any:
        launcher = self

        class Child:
            generation = 1

            async def say(self, items: list[Any]) -> None:
                self.left = [item["name"] for item in items]
                launcher.batches.append(list(self.left))

            async def hear(self) -> Any:
                name = self.left.pop(0)
                if name == "bad":
                    return None
                body = {"name": name, "error": None, "notes": []}
                return Reply(body, None)

            def close(self) -> None:
                pass

        return Child()


def test_the_culprit_of_a_batch_is_found_and_the_others_go_on() -> None:
    """Three innocent containers failed after 241 s, as the records of a fourth took too long, twice."""
    launcher: Any = _Fragile()

    async def prepare() -> list[Any]:
        async def before(_: Iterable[int]) -> None:
            pass

        preparer = Preparer(launcher, 1, before)
        asked = [preparer.submit({"name": name, "generation": 0}) for name in ("a", "bad", "b", "c")]  # type: ignore[typeddict-item]
        replies: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
        preparer.close()
        return replies

    replies = asyncio.run(asyncio.wait_for(prepare(), 60))
    assert [isinstance(reply, HostError) for reply in replies] == [False, True, False, False]
    assert launcher.batches == [["a", "bad", "b", "c"], ["b", "c"], ["bad"]]


def test_an_answer_for_which_nobody_waits_any_more_keeps_no_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, the descriptor of a namespace stayed open if its start was broken off in the moment in which it came."""

    async def prepare() -> None:
        launcher: Any = _Launcher({"web": []})

        async def before(_: Iterable[int]) -> None:
            pass

        preparer = Preparer(launcher, 1, before)
        item: Any = {"name": "web", "generation": 0}
        asked = asyncio.ensure_future(preparer.submit(item))
        await asyncio.sleep(0)
        (_, future), *_ = preparer._waiting

        def keep(conversation: Any) -> None:  # in the moment of the answer
            asked.cancel()
            conversation.close()

        monkeypatch.setattr(preparer, "_keep", keep)
        with pytest.raises(asyncio.CancelledError):
            await asked
        descriptor = future.result().descriptor
        assert descriptor is not None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        preparer.close()

    asyncio.run(asyncio.wait_for(prepare(), 30))


def test_a_child_is_ready_for_what_is_expected() -> None:
    """One is enough, and none is made beside one that is there; what comes before a batch is done all the same.

    A failure is that of whoever submits something.
    """

    async def prepare() -> list[str]:
        did: list[str] = []
        fragile = _Fragile()

        class Launcher:
            generation = 1

            async def converse(self, operation: str) -> Any:
                did.append("child")
                return await fragile.converse(operation)

        async def before(bases: Iterable[int]) -> None:
            did.append(f"look at {sorted(bases)}")
            if did == ["look at [3]"]:
                raise HostError("it can't be looked at")

        launcher: Any = Launcher()
        preparer = Preparer(launcher, 1, before)
        for _ in range(3):
            preparer.expect(3)
            preparer.expect(3)
            for _ in range(5):
                await asyncio.sleep(0)
        did.append("submitted")
        item: Any = {"name": "good", "generation": 3}
        await preparer.submit(item)
        preparer.close()
        return did

    looks = ["look at [3]"]
    assert asyncio.run(asyncio.wait_for(prepare(), 60)) == [*looks, *looks, "child", *looks, "submitted", *looks]
