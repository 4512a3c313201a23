"""Holding containers on generations, by the command line."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest

from lxcfleet.base.generations import packages, store
from lxcfleet.base.generations.record import Generation
from lxcfleet.patch.holds import today

from .conftest import Cli
from .real_daemon import Daemon


def in_30_days() -> date:
    """Asked for by each test: a run may last beyond midnight."""
    return today() + timedelta(days=30)


@pytest.fixture
def web(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """web1 and web2 on generation 3, and db on the host's root."""
    made = Generation(
        number=3, created="2026-01-01T00:00:00Z", why="before a patch", sheets=("s1",), files=1, bytes=1, linked=1, copied=0,
        packages="0" * 64, linked_foreign=0,
    )  # fmt: skip
    own = {**daemon.model.installed, "libc6:amd64": "0"}
    store.sheet(daemon.paths, "s1").mkdir(parents=True)
    store.save(daemon.paths, made)
    monkeypatch.setattr(packages, "of", lambda *_: own)
    for name in ("web1", "web2", "db"):
        daemon.fleet.add(name)
    for name in ("web1", "web2"):
        container = daemon.parts.registry[name]
        object.__setattr__(container.spec, "generation", 3)
        object.__setattr__(container.wanted, "generation", 3)
    return daemon


def test_a_hold_is_seen_everywhere(cli: Cli, web: Daemon) -> None:
    day = in_30_days()
    ran = cli("generation", "hold", "web1", "--until", "30d", "--why", "the vendor")
    assert (ran.status, ran.out) == (0, f"web1 held until {day}\n")
    assert f"web1 held until {day} (the vendor)" in cli("generation", "list").out
    (record,) = json.loads(cli("generation", "list", "-f", "json").out)
    assert [(each["name"], each["until"], each["past"]) for each in record["held"]] == [("web1", str(day), False)]
    one, two = json.loads(cli("verify", "web1", "web2", "-f", "json").out)["containers"]
    assert one["reasons"][0] == f"on generation 3, held until {day}, 1 package behind (libc6:amd64)"
    assert two["reasons"][0] == "on generation 3, 1 package behind (libc6:amd64)"
    findings = json.loads(cli("doctor", "-f", "json").out)["findings"]
    (said,) = (each["message"] for each in findings if "generation 3" in each["message"])
    assert said.endswith(f"web1 held until {day} (the vendor)")
    metrics = b"".join(web.client.metrics()).decode()
    assert 'lxcfleet_container_held_until_timestamp_seconds{container="web1"}' in metrics
    assert 'lxcfleet_container_held_until_timestamp_seconds{container="web2"}' not in metrics


def test_a_number_means_a_generation_and_release_ends_it(cli: Cli, web: Daemon) -> None:
    day = in_30_days()
    ran = cli("generation", "hold", "3", "--until", str(day), "-q")
    assert (ran.status, ran.out) == (0, "web1\nweb2\n")
    again = json.loads(cli("generation", "hold", "3", "--until", str(day), "-f", "json").out)
    assert (again["changed"], again["chosen"]) == (False, ["web1", "web2"])
    ran = cli("generation", "release", "web1", "--dry-run")
    assert ran.out == "web1 would go along with the next patch that goes well\n"
    ran = cli("generation", "release", "3")
    assert ran.out.splitlines() == [f"{name} goes along with the next patch that goes well" for name in ("web1", "web2")]
    assert json.loads(web.paths.rescued.read_bytes()) == {"web1": 3, "web2": 3}
    ran = cli("generation", "release", "--all")
    assert (ran.status, ran.out) == (0, "")
    assert "nothing to do" in ran.err


def test_mistakes_are_told(cli: Cli, web: Daemon) -> None:
    del web
    ran = cli("generation", "hold", "db", "--until", "2w")
    assert ran.status == 1
    assert "db can't be held" in ran.err
    assert cli("generation", "hold", "7", "--until", "2w").status == 1
    assert cli("generation", "hold", "web1").status == 2
    for whom, until in (("web1", "soon"), ("web1", "2020-01-01"), ("", "2w"), ("0", "2w")):
        assert cli("generation", "hold", *([whom] if whom else []), "--until", until).status == 2, (whom, until)
    assert cli("generation", "release").status == 2
    assert cli("rollback", "web1", "--to", "host", "--until", "2w").status == 2
    assert cli("rollback", "web1", "--why", "x").status == 2


def test_a_rollback_holds_what_it_moves_and_what_stands_there_already(cli: Cli, web: Daemon) -> None:
    ran = cli("rollback", "web1", "db", "--to", "3", "--until", "2w", "--dry-run", "-f", "json")
    assert json.loads(ran.out)["until"] == str(today() + timedelta(days=14))
    assert not web.paths.held.exists()
    ran = cli("rollback", "web1", "--to", "3", "--until", "2w")
    held = f"lxcfleet: they are held there until {today() + timedelta(days=14)}\n"
    assert (ran.status, ran.err) == (0, f"lxcfleet: nothing to do: all of them stand on generation 3 already\n{held}")
    assert [*json.loads(web.paths.held.read_bytes())] == ["web1"]
    ran = cli("rollback", "web1", "db", "--to", "3", "--until", "2w", "--dry-run")
    first, *packages_, last, when = ran.err.splitlines()
    assert first == "lxcfleet: 1 container would get generation 3; restarted in waves: db"
    assert "  libc6:amd64: 2.36-9 -> 0" in packages_, ran
    assert last.endswith("deltas, volumes and the host stay as they are")
    assert when.startswith("lxcfleet: they would be held there until ")
