"""Containers whose published ports are closed: nobody is led to them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.host.net import sockets
from lxcfleet.network.opening import OPEN_SECONDS, is_open, is_watched
from lxcfleet.spec.container.health import CheckKind, HealthCheck
from lxcfleet.spec.container.ports import parse_publication
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import NetworkMode

from .network_parts import Names, context_of, own_paths, run

WEB = Spec(
    "web1", labels={"role": "web"}, network=NetworkMode.BRIDGE, address=IPv4Interface("10.0.0.2/24"),
    publish=(parse_publication("80:8080"), parse_publication("53:5353/udp")),
)  # fmt: skip
OPEN = {("tcp", 8080), ("udp", 5353)}


def test_only_published_ports_without_a_check_are_looked_at() -> None:
    assert is_watched(WEB)
    assert not is_watched(replace(WEB, publish=()))
    assert not is_watched(replace(WEB, health=HealthCheck(CheckKind.TCP, port=80)))
    assert not is_watched(None)


def test_all_published_ports_are_to_be_open_or_time_to_be_up() -> None:
    assert is_open(WEB, OPEN, 0.1)
    assert not is_open(WEB, {("tcp", 8080), ("tcp", 5353)}, 0.1)
    assert is_open(WEB, set(), OPEN_SECONDS)
    assert is_open(WEB, None, 0.1)


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:0009 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0200000A:0016 0300000A:C350 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
   3: 0000000000000000FFFF00000100007F:000A 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 4
   4: 00000000000000000000000001000000:000B 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 5
   5: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 6
   6: 00000000:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 7 1 0
"""


def test_programs_that_listen_for_others_are_found() -> None:
    assert set(sockets.waiting(TABLE, "tcp")) == {8080, 80}
    assert set(sockets.waiting(TABLE, "udp")) == {5353}


def test_a_container_is_a_member_once_its_program_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listening: set[tuple[str, int]] = set()
    monkeypatch.setattr(sockets, "listening", lambda pid, protocols: set(listening))
    monkeypatch.setattr("lxcfleet.network.discovery.CLOSED_SECONDS", 0.001)

    async def play() -> None:
        web = Container("web1", WEB)
        run(web)
        cast(SimpleNamespace, web.running).age = 0.1
        paths = own_paths(tmp_path)
        own = Names(context_of(paths, web))
        own.discovery.publish(web)
        assert (paths.hosts / "web1").read_text() == "10.0.0.2 web1.fleet\n"
        assert own.membership.members() == []
        listening.update(OPEN)
        while not own.membership.members():
            await asyncio.sleep(0.001)
        assert (paths.hosts / "web1").read_text() == "10.0.0.2 web1.fleet web.role.fleet\n"

    asyncio.run(play())


def test_looks_on_a_busy_host_follow_each_other_as_fast_as_on_an_idle_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, pauses grew with the time that others had the processor: twenty containers had no clients for ten seconds."""
    asked, pauses = list[set[str]](), list[float]()
    sleep = asyncio.sleep

    def slowly(pid: int, protocols: set[str]) -> set[tuple[str, int]]:
        asked.append(protocols)
        time.sleep(0.05)  # another program has the processor
        return OPEN if len(asked) > 3 else set()

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(sockets, "listening", slowly)
    monkeypatch.setattr(asyncio, "sleep", note)

    async def play() -> None:
        web = Container("web1", WEB)
        run(web)
        cast(SimpleNamespace, web.running).age = 0.1
        own = Names(context_of(own_paths(tmp_path), web))
        own.discovery.publish(web)
        while not own.membership.members():
            await sleep(0)

    asyncio.run(play())
    assert max(pauses) < 20 * 0.05
    assert all(each == {publication.protocol for publication in WEB.publish} for each in asked)


def test_a_name_that_can_not_be_written_keeps_no_other_from_its_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, all that came to listen in the same moment got no client any more."""
    listening: set[tuple[str, int]] = set()
    monkeypatch.setattr(sockets, "listening", lambda pid, protocols: set(listening))
    monkeypatch.setattr("lxcfleet.network.discovery.CLOSED_SECONDS", 0.001)

    async def play() -> None:
        both = [Container(name, replace(WEB, name=name)) for name in ("web1", "web2")]
        for each in both:
            run(each)
            cast(SimpleNamespace, each.running).age = 0.1
        paths = own_paths(tmp_path)
        own = Names(context_of(paths, *both))
        for each in both:
            own.discovery.publish(each)
        (paths.run / "hosts.web1").mkdir()
        listening.update(OPEN)
        while len(own.membership.members()) < 2:
            await asyncio.sleep(0.001)
        assert (paths.hosts / "web2").read_text() == "10.0.0.2 web2.fleet web.role.fleet\n"

    asyncio.run(asyncio.wait_for(play(), 20))
