"""The verb ``audit exposure``: the call over a fake launcher and over real LXC, and the command line."""

from __future__ import annotations

import json

import pytest

from lxcfleet.api.findings import ExposedRecord
from lxcfleet.errors import NotFound
from lxcfleet.spec.selection import Selection

from .conftest import Cli, Fleet
from .real_daemon import Daemon

KEY: ExposedRecord = {
    "path": "/etc/ssl/private/key.pem", "why": "not for other users (0600)", "rule": "hide: [/etc/ssl/private/key.pem]",
}  # fmt: skip


def test_a_new_container_exposes_nothing(fleet: Fleet) -> None:
    fleet.create("", count=2)
    records = fleet.client.exposure(fleet.all)
    assert [record["name"] for record in records] == [fleet.name(1), fleet.name(2)]
    for record in records:
        assert record["exposed"] == []
        assert record["problem"] is None


def test_a_stopped_container_exposes_nothing(fleet: Fleet) -> None:
    fleet.create("a", start=False)
    (record,) = fleet.client.exposure(fleet.all)
    assert (record["state"], record["exposed"]) == ("stopped", [])


def test_an_unknown_name_is_not_found(fleet: Fleet) -> None:
    with pytest.raises(NotFound):
        fleet.client.exposure(Selection((fleet.name("none"),)))


def test_nothing_exposed(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("web1")
    daemon.fleet.add("web2")
    ran = cli("audit", "exposure")
    assert (ran.status, ran.out) == (0, "")
    assert ran.err == "lxcfleet: nothing exposed: 2 running containers looked at\n"
    assert cli("audit", "exposure", "nix*").err == "lxcfleet: no container is chosen by that\n"


def test_exposed_files_are_shown(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("web1")
    daemon.fleet.add("web2")
    daemon.fleet["web2"].can_read(KEY)
    ran = cli("audit", "exposure")
    assert ran.status == 4
    assert KEY["path"] in ran.out
    assert KEY["rule"] in ran.out
    assert "web1" not in ran.out
    assert "lxcfleet restart web2" in ran.err
    assert (cli("audit", "exposure", "-q").out, cli("audit", "exposure", "web1").status) == ("web2\n", 0)
    records = json.loads(cli("audit", "exposure", "-f", "json").out)
    assert [len(record["exposed"]) for record in records] == [0, 1]
    assert cli("audit", "exposure", "-f", "csv").out.splitlines()[0] == "name,path,why,rule"


def test_a_container_that_could_not_be_looked_at_is_told(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("web1")
    daemon.fleet["web1"].can_not_be_looked_at("it ended")
    ran = cli("audit", "exposure")
    assert ran.status == 3
    assert "it ended" in ran.err
