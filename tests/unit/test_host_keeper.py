"""The host's features: the daemon never finds them out in its own process."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import lxcfleet
from lxcfleet.containers.host_keeper import HostKeeper
from lxcfleet.errors import HostError
from lxcfleet.host.facts import features, idfiles
from lxcfleet.host.facts.features import Features, Probe
from lxcfleet.launcher.children import host
from lxcfleet.paths import Paths

FOUND = Features((Probe("lxc", "ok", "LXC 5.0.2"), Probe("tini", "fail", "is missing", "apt install")))


class FakeLauncher:
    """A launcher whose children answer when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.may_answer = asyncio.Event()
        self.error: HostError | None = None
        self.answers: dict[str, Any] = {"features": json.loads(json.dumps(FOUND.to_json())), "root_ids": {"error": None}}

    async def ask(self, operation: str, argument: Any) -> Any:
        self.asked.append((operation, argument))
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return self.answers[operation]


async def keeping(answers: bool = True) -> tuple[HostKeeper, FakeLauncher]:
    launcher = FakeLauncher()
    if answers:
        launcher.may_answer.set()
    return HostKeeper(cast(Any, launcher)), launcher


def test_the_hosts_features_reach_the_daemon_unchanged() -> None:
    assert Features.from_json(json.loads(json.dumps(FOUND.to_json()))) == FOUND


def test_the_first_question_waits_and_keeps_no_other_work_waiting() -> None:
    async def ask() -> None:
        keeper, launcher = await keeping(answers=False)
        asking = [asyncio.create_task(keeper.features()) for _ in range(3)]
        for _ in range(5):  # other requests get their turns meanwhile
            await asyncio.sleep(0)
        assert not any(task.done() for task in asking)
        asking[0].cancel()  # a client that goes away takes the answer from no other
        launcher.may_answer.set()
        assert await asyncio.gather(*asking[1:]) == [FOUND, FOUND]
        assert await keeper.features() == FOUND
        assert launcher.asked == [("features", None)]

    asyncio.run(asyncio.wait_for(ask(), 60))


def test_features_are_tried_again_after_a_reload_and_after_a_failure() -> None:
    async def ask() -> None:
        keeper, launcher = await keeping()
        await keeper.features()
        keeper.forget()
        launcher.error = HostError("the launcher ended")
        for _ in range(2):
            with pytest.raises(HostError, match="the launcher ended"):
                await keeper.features()
        launcher.error = None
        assert await keeper.features() == FOUND
        assert len(launcher.asked) == 4

    asyncio.run(asyncio.wait_for(ask(), 60))


def test_ids_are_given_by_a_child() -> None:
    async def give() -> list[tuple[str, Any]]:
        keeper, launcher = await keeping()
        await keeper.give_root_ids(100000, 165535)
        launcher.answers["root_ids"] = {"error": HostError("usermod failed").body()}
        with pytest.raises(HostError, match="usermod failed"):
            await keeper.give_root_ids(100000, 165535)
        return launcher.asked

    assert asyncio.run(asyncio.wait_for(give(), 60)) == [("root_ids", [100000, 165535])] * 2


def told(child: Callable[[Any, socket.socket, Paths], None], argument: Any) -> Any:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        child(argument, theirs, Paths())
        return json.loads(ours.recv(65536))


def test_the_child_answers_with_its_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "read", lambda _: FOUND)
    assert Features.from_json(told(host.features, None)) == FOUND


def test_the_child_answers_whether_the_ids_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(idfiles, "add_root_range", lambda first, last: given.append((first, last)))
    assert told(host.root_ids, [1, 2])["error"] is None
    assert given == [(1, 2)]

    def fail(*_: int) -> None:
        raise HostError("usermod failed")

    monkeypatch.setattr(idfiles, "add_root_range", fail)
    assert told(host.root_ids, [1, 2])["error"]["message"] == "usermod failed"


OF_THE_DAEMON = ("capacity", "containers", "daemon", "health", "network", "patch", "runtime")
NOT_IN_THE_LOOP = {"daemon/prepare.py": "a program of its own, for installers"}
FOR_CHILDREN = {f"lxcfleet.host.facts.{name}" for name in ("features", "idfiles", "features.read")}


def test_the_daemon_itself_neither_tries_the_host_out_nor_runs_usermod() -> None:
    """The daemon has threads, so a forked child can inherit a lock that nobody ever releases; and both can take long."""
    top = Path(lxcfleet.__file__).parent
    wrong = []
    for file in (file for room in OF_THE_DAEMON for file in sorted((top / room).rglob("*.py"))):
        imports = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        if {f"{node.module}.{alias.name}" for node in imports for alias in node.names} & FOR_CHILDREN:
            wrong.append(os.fspath(file.relative_to(top)))
    assert wrong == list(NOT_IN_THE_LOOP)
