"""The verb ``patch rehearse``: a throwaway clone is made, tested and destroyed, whatever goes away meanwhile."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.api.rehearsals import RehearseRequest
from lxcfleet.containers.common import Common
from lxcfleet.containers.container import Container
from lxcfleet.containers.copies import copy_cost
from lxcfleet.errors import Busy, HostError, NotFound
from lxcfleet.patch.rehearsal import AT_ONCE, PREFIX, Judging, Rehearsals, clone_of
from lxcfleet.spec.container.merging import merge
from lxcfleet.spec.container.ports import parse_port, parse_publication
from lxcfleet.spec.container.secrets import parse_use
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.volumes import parse_mount
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.reading.terms import NetworkMode
from lxcfleet.spec.selection import Selection

from .conftest import Cli, Spawn, soon
from .real_daemon import Daemon


@pytest.fixture
def web(daemon: Daemon) -> Daemon:
    """A container to rehearse."""
    daemon.fleet.add("web1", labels={"tier": "front"})
    return daemon


def names(daemon: Daemon) -> list[str]:
    return [record["name"] for record in daemon.client.containers(Selection())]


def notes(daemon: Daemon) -> list[str]:
    place = daemon.paths.rehearsals
    return sorted(file.name for file in place.iterdir()) if place.is_dir() else []


def test_a_rehearsal_passes_and_leaves_nothing(cli: Cli, web: Daemon) -> None:
    before = web.client.info("web1")
    ran = cli("patch", "rehearse", "web1", "--test", "echo $LXCFLEET_CONTAINER; true", "-f", "json")
    assert ran.status == 0, ran.err
    record = json.loads(ran.out)
    assert (record["passed"], record["healthy"], record["changed"], record["generation"]) == (True, True, False, 0)
    assert record["tests"][0]["reason"] == record["clone"]
    assert record["clone"].startswith(PREFIX)
    assert record["differs"] == ["its delta is empty", "it has no labels and no ports"]
    assert names(web) == ["web1"]
    assert notes(web) == []
    assert web.client.info("web1")["pid"] == before["pid"]
    ran = cli("patch", "rehearse", "web1", "--test", "true")
    assert ran.out.splitlines()[0].startswith("web1 on the host's root: passed in ")
    assert ran.out.splitlines()[2].split() == ["test1", "good", "1", "of", "1", "-"]


def test_a_test_that_is_not_good_is_found(cli: Cli, web: Daemon) -> None:
    ran = cli("patch", "rehearse", "web1", "--test", "true", "--test", "echo no login; exit 2")
    assert ran.status == 4
    assert ran.err.splitlines()[:2] == [
        "lxcfleet: web1 does not do its work on the host's root", "  its test test2 is bad: exit status 2: no login",
    ]  # fmt: skip
    assert (names(web), notes(web)) == (["web1"], [])
    assert cli("patch", "rehearse", "web1", "--test", "exit 3", "-q").status == 4, "not known is not good"


def test_a_clone_that_does_not_start_is_found_and_what_can_not_be_tried_is_an_error(cli: Cli, web: Daemon) -> None:
    def fail(name: str) -> None:
        if name.startswith(PREFIX):
            web.model.fails[name] = HostError("no", why="its last lines:\noh", hint=f"`lxcfleet info {name}`")

    web.model.during = fail
    ran = cli("patch", "rehearse", "web1", "-f", "json")
    assert (ran.status, json.loads(ran.out)["why"]) == (4, "no: its last lines: oh"), "a hint about the clone, which is gone"
    assert (names(web), notes(web)) == (["web1"], [])
    assert cli("patch", "rehearse", "web9").status == NotFound.exit_status
    assert cli("patch", "rehearse", "web1", "--on", "7").status == 1
    assert cli("patch", "rehearse", "web1", "--on", "moon").status == 2
    assert cli("patch", "rehearse", "web1", "--test", "").status == 2


def test_a_clone_can_be_kept(cli: Cli, web: Daemon) -> None:
    record = json.loads(cli("patch", "rehearse", "web1", "--keep", "-f", "json").out)
    assert record["changed"]
    assert sorted(names(web)) == sorted(["web1", record["clone"]])
    assert notes(web) == []
    web.call(lambda: web.parts.tasks.do("cleanup", web.parts.rehearsals.clean_up))
    assert web.fleet[record["clone"]].spec.autostart is False
    cli("destroy", "--force", record["clone"])


def test_a_clone_can_have_a_copy_of_the_delta(cli: Cli, web: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    own = web.paths.container("web1")
    (own.delta / "etc").mkdir()
    (own.delta / "etc/machine-id").write_text("0123\n")
    (own.delta / "etc/own").write_text("mine\n")
    record = json.loads(cli("patch", "rehearse", "web1", "--delta", "copy", "--keep", "-f", "json").out)
    copied = web.paths.container(record["clone"]).delta
    assert [each.name for each in (copied / "etc").iterdir()] == ["own"], "a machine-id is not for two"
    assert (record["passed"], record["healthy"]) == (True, True)
    assert record["differs"][0] == "its delta is a copy, with a machine-id of its own"
    (note,) = record["notes"]
    assert note.startswith("web1 was frozen for ")
    assert web.client.info("web1")["state"] == "running"
    cli("destroy", "--force", record["clone"])
    # What is too much is refused before anything is made.
    web.model.place.shares = False
    monkeypatch.setattr(copy_cost, "FREELY", 1)
    refused = cli("patch", "rehearse", "web1", "--delta", "copy")
    assert refused.status == 1
    assert "would have to be copied" in refused.err
    assert cli("patch", "rehearse", "web1", "--delta", "copy", "--yes").status == 0
    web.model.place.free = 1
    assert "no room" in cli("patch", "rehearse", "web1", "--delta", "copy", "--yes").err
    assert cli("patch", "rehearse", "web1", "--delta", "half").status == 2
    assert (names(web), notes(web)) == (["web1"], [])


def test_a_copy_that_fails_leaves_nothing(cli: Cli, web: Daemon) -> None:
    calls = []

    def fail(name: str) -> None:
        calls.append(name)
        if name == "web1":
            raise HostError("not all can be copied", why="No space left on device")

    web.model.during = fail
    ran = cli("patch", "rehearse", "web1", "--delta", "copy", "--keep")
    assert (ran.status, "No space left" in ran.err) == (1, True), ran
    assert (names(web), notes(web), web.client.info("web1")["state"]) == (["web1"], [], "running")


def lasting(tmp_path: Path) -> tuple[str, Path]:
    """A test that ends once there is a file, and that file."""
    go = tmp_path / "go"
    return f"until test -e {go}; do sleep 0.05; done", go


def test_a_client_that_is_killed_leaves_nothing(web: Daemon, spawn: Spawn, tmp_path: Path) -> None:
    test, go = lasting(tmp_path)
    client = spawn("patch", "rehearse", "web1", "--test", test)
    soon(lambda: len(names(web)) == 2)
    client.send_signal(signal.SIGKILL)
    client.wait(60)
    go.touch()
    soon(lambda: names(web) == ["web1"] and not notes(web))


def test_ctrl_c_says_that_the_rehearsal_goes_on(web: Daemon, spawn: Spawn, tmp_path: Path) -> None:
    test, go = lasting(tmp_path)
    client = spawn("patch", "rehearse", "web1", "--test", test)
    soon(lambda: len(names(web)) > 1)
    client.send_signal(signal.SIGINT)
    _, err = client.communicate(timeout=60)
    assert (client.returncode, b"goes on in the daemon" in err) == (130, True)
    go.touch()
    soon(lambda: names(web) == ["web1"])


def test_what_a_killed_daemon_left_is_destroyed_and_nothing_else(web: Daemon) -> None:
    """It had written its note, and begun a clone."""
    left, other = f"{PREFIX}0badcafe", f"{PREFIX}12345678"
    web.fleet.add(left)
    web.fleet.add(other)
    web.paths.rehearsals.mkdir(parents=True)
    for name in (left, f"{PREFIX}deadbeef", "web1"):
        (web.paths.rehearsals / name).touch()
    web.call(lambda: web.parts.tasks.do("cleanup", web.parts.rehearsals.clean_up))
    soon(lambda: sorted(names(web)) == [other, "web1"] and notes(web) == ["web1"])


# the clone's spec


def test_a_clone_can_change_nothing_and_is_not_found() -> None:
    said = {
        "command": ("x",), "labels": {"a": "b"}, "ports": (parse_port("http=80"),), "publish": (parse_publication("80:80"),),
        "volumes": tuple(map(parse_mount, ["up:/srv/up", "/srv/own:/opt/own:rw", "tmpfs:/opt/x:size=4M"])),
        "secrets": (parse_use("pw"),), "depends_on": {"db": "healthy"}, "environment": {"A": "b"},
        "network": NetworkMode.BRIDGE, "memory": 1 << 30,
    }  # fmt: skip
    spec: Spec = replace(merge(said, {}, Config()), name="web1", fleet="shop", group="web", first_id=655360)
    made, differs = clone_of(spec, RehearseRequest("web1", on=4))
    assert (made.labels, made.ports, made.publish, made.depends_on, made.group) == ({}, (), (), {}, None)
    assert [str(each) for each in made.volumes] == [
        "up:/srv/up:ro", "/srv/own:/opt/own:ro", "tmpfs:/opt/x:size=4M",
    ]  # fmt: skip
    assert (made.generation, made.name, made.first_id, made.autostart) == (4, "", 0, False)
    assert (made.command, made.environment, made.memory) == (spec.command, spec.environment, spec.memory)
    assert (made.secrets, made.fleet) == (spec.secrets, "shop"), "the fleet's file declares the secret"
    bare, more = clone_of(spec, RehearseRequest("web1", secrets=False))
    assert (bare.secrets, bare.fleet) == ((), None)
    assert {*more} - {*differs} == {"it has no secrets"}


def test_no_more_rehearsals_begin_at_once_than_there_may_be() -> None:
    """Before, one counted only once its clone was about to be made."""
    begun: list[object] = []
    container = Container("web1", Spec("web1"))

    async def ask() -> list[object]:
        nobody: Any = None
        tasks: Any = SimpleNamespace(do=lambda *_, **__: begun.append(1))
        fleet = _Registry({"web1": container})
        common = Common(nobody, cast(Any, fleet), nobody, nobody, tasks=tasks)
        rehearsals = Rehearsals(common, nobody, nobody, nobody, Judging(nobody, nobody, nobody, nobody), nobody)
        asked = [asyncio.ensure_future(rehearsals.rehearse(RehearseRequest("web1"))) for _ in range(AT_ONCE + 1)]
        done, waiting = await asyncio.wait(asked, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        return [each.exception() for each in done]

    (refused,) = asyncio.run(ask())
    assert isinstance(refused, Busy)
    assert len(begun) == AT_ONCE


class _Registry(dict[str, Container]):
    async def observe(self) -> None:
        pass
