"""Moves of real containers between two fleets with roots of their own, by a real ssh."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import Fleet, children_of, until
from .ssh_server import Server, serving

pytestmark = pytest.mark.system


@pytest.fixture
def other(fleet: Fleet) -> Iterator[Fleet]:
    found = Fleet()
    try:
        found.start_daemon()
        yield found
    finally:
        found.run("destroy", "--all", "--force", "--with-snapshots", "-q")
        found.remove()


@pytest.fixture
def server(other: Fleet, tmp_path: Path) -> Iterator[Server]:
    with serving(other, tmp_path) as found:
        yield found


def there(fleet: Fleet) -> dict[str, str]:
    return {each["name"]: each["state"] for each in fleet.records()}


def one_that_runs(fleet: Fleet, other: Fleet, name: str) -> bool:
    return [there(fleet).get(name), there(other).get(name)].count("running") == 1


def test_a_container_moves_with_its_files(fleet: Fleet, other: Fleet, server: Server) -> None:
    web = fleet.name("web")
    way = ("--ssh-config", str(server.config))
    fleet.create(web)
    fleet.inside(web, "echo kept >/srv/kept; truncate -s 1G /srv/sparse; chown 33:33 /srv/kept")
    other.ok("create", fleet.name("taken"), "--no-start", "--", "sleep", "infinity")  # so the ids are others
    refused = fleet.run("move", web, "root@127.0.0.1:22", *way)
    assert refused.status == 2
    moved = fleet.run("move", web, "other", *way, timeout=120)
    assert moved.status == 0, moved.err
    assert there(fleet) == {}
    assert not fleet.paths.container(web).directory.exists()
    assert there(other)[web] == "running"
    assert other.inside(web, "cat /srv/kept; stat -c '%u %s' /srv/kept /srv/sparse").split() == [
        "kept", "33", "5", "0", str(1 << 30)
    ]  # fmt: skip
    other.ok("stop", web)
    assert fleet.json("move", "--list") == []


def test_whatever_is_killed_exactly_one_runs(fleet: Fleet, other: Fleet, server: Server) -> None:
    """The client in the middle of the copy; the sending daemon likewise; the line; and then it moves."""
    web = fleet.name("web")
    way = ("--ssh-config", str(server.config))
    fleet.create(web)
    fleet.inside(web, "head -c 40M /dev/urandom >/srv/large")

    def moving() -> bool:
        return bool(fleet.client().moves()) and there(fleet).get(web) == "stopped"

    def quiet() -> bool:
        """Whether nothing of the former move is under way on the other host."""
        commands = any(" import " in line for line in other.helpers())
        return not (children_of(server.process.pid) or commands or any(record["busy"] for record in other.records()))

    def copying() -> subprocess.Popen[bytes]:
        client = fleet.spawn("move", web, "other", *way)
        until(lambda: moving() or client.poll() is not None, 60, "it is stopped here")
        assert client.poll() is None
        return client

    client = copying()
    client.send_signal(signal.SIGKILL)
    client.communicate()
    until(lambda: one_that_runs(fleet, other, web), 60, "it runs here again")
    until(quiet, what="what was copied there is removed there")

    client = copying()
    fleet.stop_daemon(signal.SIGKILL)
    fleet.start_daemon()
    client.communicate(timeout=120)
    assert client.returncode == 1
    until(lambda: one_that_runs(fleet, other, web), 60, "the next daemon starts it")
    until(quiet, what="what was copied there is removed there")

    moved = fleet.run("move", web, "other", *way, timeout=200)
    assert moved.status == 0, moved.err
    assert (there(fleet), there(other)[web]) == ({}, "running")
    assert other.inside(web, "stat -c %s /srv/large").strip() == str(40 << 20)

    server.end()
    fleet.create(web)
    cut = fleet.run("move", web, "other", *way)
    assert (cut.status, "can't be reached" in cut.err) == (1, True)
    assert there(fleet)[web] == "running"
