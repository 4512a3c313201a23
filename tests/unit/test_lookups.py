"""Whether containers get answers from the fleet's name server."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dns.message
import pytest

from lxcfleet.host.net import firewalls, lookup
from lxcfleet.network import lookups
from lxcfleet.network.lookups import Lookups, explain, verdict
from lxcfleet.runtime.bus import Bus, Event


@pytest.mark.parametrize(
    ("answers", "works"),
    [
        ([True], True),
        ([False, True], True),  # one container's own firewall, say
        ([False, None, False], False),
        ([None, True], True),
        ([None], None),
        ([], None),
    ],
)
def test_several_answers_are_one_verdict(answers: list[bool | None], works: bool | None) -> None:
    assert verdict(answers) is works


def test_the_cause_and_its_cure_are_named() -> None:
    ufw = explain(["web1"], "lxcfleet0", on_host=True, ufw=True)
    assert "ufw is on" in ufw.why
    assert ufw.hint.startswith("let it in: ufw allow in on lxcfleet0;")
    other = explain(["web1"], "lxcfleet0", on_host=True, ufw=False)
    assert "a firewall on the host" in other.why
    assert "port 53 in from lxcfleet0" in other.hint
    assert "does not answer" in explain(["web1"], "lxcfleet0", on_host=False, ufw=True).why


def test_ufw_is_on_or_not(tmp_path: Path) -> None:
    file = tmp_path / "ufw.conf"
    assert not firewalls.ufw_enabled(file)
    file.write_text("# ENABLED=yes\nENABLED=no\nLOGLEVEL=low\n")
    assert not firewalls.ufw_enabled(file)
    file.write_text("ENABLED=yes\n")
    assert firewalls.ufw_enabled(file)


def test_the_question_is_one_of_dns() -> None:
    asked = dns.message.from_wire(lookup.question("web1.fleet", 7))
    assert (asked.id, str(asked.question[0])) == (7, "web1.fleet. IN A")


@pytest.fixture
def server() -> Iterator[Callable[[bytes | None], int]]:
    """Starts a server that answers each query with these bytes after its number, or not at all; gives its port."""
    sockets: list[socket.socket] = []

    def start(answer: bytes | None) -> int:
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listening.bind(("127.0.0.1", 0))
        sockets.append(listening)

        def serve() -> None:
            while True:
                try:
                    query, client = listening.recvfrom(512)
                    if answer is not None:
                        listening.sendto(query[:2] + answer, client)
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        return int(listening.getsockname()[1])

    yield start
    for each in sockets:
        each.close()


@pytest.mark.reaches("loopback", reason="a server of the test's own listens there")
def test_a_server_answers_is_silent_or_is_not_there(server: Callable[[bytes | None], int]) -> None:
    assert lookup.answered("127.0.0.1", "web1.fleet", 60.0, server(struct.pack(">H", 0x8183)))
    port = server(None)
    assert not lookup.answered("127.0.0.1", "web1.fleet", 0.1, port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert not lookup.answered("127.0.0.1", "web1.fleet", 0.1, port)


class World:
    """A network with containers that get answers or do not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.answers: dict[str, bool | None] = dict.fromkeys(names, True)
        self.asked: list[str] = []
        self.events: list[str] = []
        bus = Bus()
        bus.subscribe("test", Event, lambda event: self.events.append(told.what) if (told := event.told()) else None)
        self.boxes = [
            SimpleNamespace(
                name=name, busy=None, addresses=("10.0.0.2",), running=SimpleNamespace(pid=1, began=1.0, age=100.0)
            )
            for name in names
        ]
        settings = SimpleNamespace(dns=True, domain="fleet", bridge="lxcfleet0")
        self.context = SimpleNamespace(settings=settings, up=True, running=lambda: self.boxes, ask=self._ask, bus=bus)

        async def gateway() -> IPv4Address:
            return IPv4Address("10.0.0.1")

        monkeypatch.setattr(lookup, "answered", lambda *_: True)
        self.lookups = Lookups(cast(Any, self.context), cast(Any, SimpleNamespace(gateway=gateway)))

    async def _ask(self, _: object, item: Any) -> dict[str, bool | None]:
        name = item["question"].removesuffix(".fleet")
        self.asked.append(name)
        return {"answered": self.answers[name]}

    def look(self) -> bool | None:
        asyncio.run(self.lookups.look())
        return self.lookups.work


def test_one_container_at_a_time_is_asked_from(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "a", "b", "c")
    assert [world.look() for _ in range(4)] == [True] * 4
    assert world.asked == ["a", "b", "c", "a"]
    assert (world.events, world.lookups.findings()) == ([], [])


def test_trouble_is_told_once_and_its_end_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "a", "b", "c", "d")
    world.answers = dict.fromkeys(world.answers, False)
    assert [world.look(), world.look()] == [False, False]
    assert world.asked[:3] == ["a", "b", "c"]
    (finding,) = world.lookups.findings()
    assert (finding.check, finding.level) == ("names", "fail")
    world.answers["d"] = True
    assert world.look() is True
    assert (world.events, world.lookups.findings()) == (["names-fail", "names-work"], [])


def test_what_one_container_does_in_its_own_network_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "a", "b")
    world.answers["a"] = False
    assert [world.look() for _ in range(4)] == [True] * 4
    assert world.events == []


def test_nothing_is_known_without_a_name_server_or_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "a")
    world.answers["a"] = False
    assert world.look() is False
    world.answers["a"] = None  # it has ended
    assert (world.look(), len(world.lookups.findings())) == (False, 1), "nothing is known to be better"
    world.boxes.clear()
    assert (world.look(), world.lookups.findings()) == (None, [])
    world.context.settings.dns = False
    assert world.look() is None
    assert world.events == ["names-fail"]


def test_those_that_have_just_begun_or_have_no_address_are_not_asked_from(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "a", "b", "c", "d")
    world.boxes[0].running.age = 0.1
    world.boxes[1].addresses = ()
    world.boxes[2].busy = "restart"
    assert world.look() is True
    assert world.asked == ["d"]


def test_a_change_of_the_rules_is_looked_at_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, "a")
    monkeypatch.setattr(lookups, "PAUSE_SECONDS", 0.0)

    async def sleep(_: float) -> None:
        """Take no time."""

    async def run() -> None:
        task = asyncio.create_task(world.lookups.run())
        while not world.asked:
            await real(0.01)
        world.lookups.wake()
        while len(world.asked) < 2:
            await real(0.01)
        task.cancel()

    real = asyncio.sleep
    monkeypatch.setattr(lookups, "asyncio", SimpleNamespace(sleep=sleep, wait_for=asyncio.wait_for))
    asyncio.run(asyncio.wait_for(run(), 60))
    assert world.asked == ["a", "a"]
