"""What the daemon takes for an answer of a child, which may have run a hostile program; and what no program inherits."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

import lxcfleet
from lxcfleet.errors import HostError, NotFound
from lxcfleet.host.process.servant import Servant
from lxcfleet.launcher import client, operations
from lxcfleet.launcher.client import Died, HostLauncher, Launcher
from lxcfleet.launcher.items.containers import CheckItem
from lxcfleet.launcher.operations import LauncherOperation

ITEM: CheckItem = {"name": "web", "command": ["true"], "environment": {}, "timeout": 1.0}
GOOD: dict[str, Any] = {"name": "web", "error": None, "status": 0, "output": "well"}
Child = Callable[[socket.socket], object]


class Scripted:
    """A launcher of which each child does what the next of ``children`` does with its reply socket."""

    def __init__(self, *children: Child) -> None:
        self.children = list(children)
        self.held: list[socket.socket] = []
        """Copies of the reply sockets, which stay open as those of a program in a container would."""

    generation = 1

    async def send(self, _operation: LauncherOperation[Any, Any], _argument: bytes, descriptors: Sequence[int]) -> None:
        reply = socket.socket(fileno=os.dup(descriptors[0]))
        self.held.append(reply)
        self.children.pop(0)(reply)

    converse, ask, each, ask_large = Launcher.converse, Launcher.ask, Launcher.each, Launcher.ask_large


def ask(*children: Child, operation: Any = operations.CHECK, argument: Any = ITEM) -> Any:
    """What ``ask`` gives; no reply socket is closed before."""
    launcher = Scripted(*children)

    async def asking() -> Any:
        async with asyncio.timeout(60):
            return await cast(Launcher, launcher).ask(operation, argument)

    try:
        return asyncio.run(asking())
    finally:
        for each in launcher.held:
            each.close()


def saying(*messages: object) -> Child:
    def say(reply: socket.socket) -> None:
        for message in messages:
            reply.send(message if isinstance(message, bytes) else json.dumps(message).encode())

    return say


def giving(message: bytes) -> Child:
    """Send ``message`` with as many descriptors as a datagram may have."""

    def give(reply: socket.socket) -> None:
        with open(os.devnull, "rb") as null:
            socket.send_fds(reply, [message], [null.fileno()] * 253)

    return give


@pytest.fixture
def no_descriptor_left() -> Iterator[None]:
    gc.collect()  # what tests before this one left is not closed during it
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.usefixtures("no_descriptor_left")
@pytest.mark.parametrize("child", [
    pytest.param(saying(GOOD), id="its socket stays open"),
    pytest.param(saying(GOOD, *[b"more"] * 8), id="more answers"),
    pytest.param(saying(GOOD, {**GOOD, "status": 1}), id="another answer"),
    pytest.param(giving(json.dumps(GOOD).encode()), id="descriptors come along"),
])  # fmt: skip
def test_only_the_first_answer_of_a_check_counts(child: Child) -> None:
    """Before, all answers were kept until the socket was closed, which a program in the container decided; and the
    descriptors stayed open."""
    assert ask(child) == GOOD


@pytest.mark.usefixtures("no_descriptor_left")
@pytest.mark.parametrize("child", [
    saying(b"no JSON"), saying(b"\xff\xfe\xfd"), saying(b"[" * 60000), saying([GOOD]), saying("text"), saying({}),
    saying({**GOOD, "status": "0"}), saying({**GOOD, "status": True}), saying({**GOOD, "output": None}),
    saying({"name": "web", "error": None, "output": ""}), saying({**GOOD, "error": "text"}),
    saying({**GOOD, "error": {"message": "it has no code"}}), giving(b"no JSON"),
])  # fmt: skip
def test_an_answer_that_can_not_be_read_is_an_error_of_the_host(child: Child) -> None:
    """Before, it was a defect of the daemon, and whoever had asked ended: the health checks of a container."""
    with pytest.raises(HostError, match="can't be read"):
        ask(child)


@pytest.mark.usefixtures("no_descriptor_left")
def test_an_error_needs_no_outcome() -> None:
    error = NotFound("no container named web").body()
    assert ask(saying({"name": "web", "error": error, "notes": []}))["error"] == error


@pytest.mark.usefixtures("no_descriptor_left")
def test_descriptors_without_an_answer_are_none() -> None:
    """An empty datagram is taken for the end."""
    with pytest.raises(Died):
        ask(giving(b""), giving(b""))


@pytest.mark.usefixtures("no_descriptor_left")
def test_a_check_is_given_up_after_the_longest_time_that_its_child_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the child that is frozen on its way into the container holds the socket, though the child has ended."""
    monkeypatch.setattr(client, "CHILD_SECONDS", -ITEM["timeout"])
    monkeypatch.setattr(client, "_MORE_SECONDS", 0.01)
    with pytest.raises(Died, match="longer than it may"):
        ask(saying())


def test_the_launchers_own_children_are_waited_for() -> None:
    """What such a child held, as mounts and locks, is free once it has ended."""
    launcher = Scripted(saying({"name": "mask", "error": None, "notes": []}))

    async def asking() -> None:
        answer = asyncio.ensure_future(cast(Launcher, launcher).ask(operations.RELEASE, None))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not answer.done()
        launcher.held.pop().close()
        assert (await answer)["error"] is None

    asyncio.run(asking())


@pytest.mark.usefixtures("no_descriptor_left")
def test_answers_for_many_bring_no_descriptors() -> None:
    def child(reply: socket.socket) -> None:
        giving(b'{"name": "web", "pid": 1}')(reply)
        reply.shutdown(socket.SHUT_RDWR)

    launcher = Scripted(child)

    async def asking() -> list[Any]:
        return [each async for each in cast(Launcher, launcher).each(operations.INSPECT, ["web"])]

    assert asyncio.run(asking()) == [{"name": "web", "pid": 1}]
    launcher.held.pop().close()


@pytest.mark.usefixtures("no_descriptor_left")
def test_a_large_answer_without_its_file_is_an_error_of_the_host() -> None:
    """So it is where the daemon has no file descriptor left."""
    launcher = Scripted(saying({"error": None}))
    with pytest.raises(HostError, match="file descriptor"):
        asyncio.run(cast(Launcher, launcher).ask_large(operations.PUBLISHED, "fleet"))
    launcher.held.pop().close()


def test_the_client_sends_the_attacher_what_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation for the other process would end its child, and be made twice."""
    sent: dict[str, set[str]] = {"launcher": set(), "attacher": set()}

    async def send(servant: Servant, message: bytes, _: Sequence[int]) -> None:
        sent[servant._name].add(message.partition(b" ")[0].decode())

    monkeypatch.setattr(Servant, "send", send)
    launcher = HostLauncher.__new__(HostLauncher)
    launcher._launcher, launcher._attacher = (Servant(name, [], 0, {}) for name in sent)

    async def all_of_them() -> None:
        for operation in operations.ALL:
            await launcher.send(operation, b"{}", [])

    asyncio.run(all_of_them())
    assert sent["attacher"] == {*operations.OF_ATTACHER}
    assert sent["launcher"] == {*operations.ALL} - {*operations.OF_ATTACHER}


class Booter:
    """Takes a request, and answers when it is told to."""

    pid = None

    def __init__(self, failure: Exception | None = None) -> None:
        self._failure = failure
        self.asked = asyncio.Event()
        self.held: list[int] = []

    async def send(self, _: bytes, descriptors: Sequence[int]) -> None:
        """Keep copies, as the kernel does for the real one."""
        if self._failure is not None:
            raise self._failure
        self.held = [*map(os.dup, descriptors)]
        self.asked.set()


def booting(booter: Booter) -> HostLauncher:
    launcher = HostLauncher.__new__(HostLauncher)
    launcher._looked, launcher._booter = float("inf"), cast(Any, booter)
    return launcher


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_the_daemon_does_not_hold_the_mounts_of_what_is_being_started() -> None:
    """Before, it did until the container ran. Where its command had ended by then, the daemon was who unmounted the layers,
    and answered nobody until the host's disk had taken all that was written."""

    async def boot() -> None:
        booter = Booter()
        namespace = os.open(os.devnull, os.O_RDONLY)
        began = asyncio.create_task(booting(booter).boot("web", namespace))
        await booter.asked.wait()
        await asyncio.sleep(0)
        assert not is_open(namespace)
        os.write(booter.held[0], b"7")
        assert await began == 7
        for each in booter.held:
            os.close(each)

    asyncio.run(asyncio.wait_for(boot(), 60))


def test_mounts_that_can_not_be_handed_over_are_not_held() -> None:
    namespace = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(HostError, match="can't be reached"):
        asyncio.run(booting(Booter(HostError("the booter can't be reached"))).boot("web", namespace))
    assert not is_open(namespace)


def test_all_descriptors_are_received_so_that_no_program_inherits_them() -> None:
    """Before, health checks and tests had the reply socket of the child that they were of. Python's own ways to open
    something see to that, but recv_fds does not. The command line runs no program with what it receives."""
    root = Path(lxcfleet.__file__).parent
    received = {}
    for file in root.rglob("*.py"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if "cli" not in file.relative_to(root).parts and re.search(r"\.(recv_fds|recvmsg|recvmsg_into)\(", line):
                received[f"{file.name}: {line.strip()}"] = "recv_fds" not in line and "MSG_CMSG_CLOEXEC" in line
    assert len(received) >= 2
    assert [line for line, closed in received.items() if not closed] == []


def _serve_one() -> None:
    import os
    import socket

    from lxcfleet.launcher import forking

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    answers, reply = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, reply:
        socket.send_fds(ours, [b"x"], [reply.fileno(), 0])

    def work(_: bytes, passed: Sequence[int]) -> None:
        os.write(passed[0], repr([*map(os.get_inheritable, passed)]).encode())

    forking.serve(theirs, work, "x")
    print(answers.recv(100).decode())


@pytest.mark.reaches("processes", reason="a process that forks a child")
def test_a_child_of_the_launcher_passes_nothing_on() -> None:
    package = str(Path(lxcfleet.__file__).parent.parent)
    script = f"from __future__ import annotations\n{inspect.getsource(_serve_one)}\n_serve_one()"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": package}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("[False, False]\n", "")
