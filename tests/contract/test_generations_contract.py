"""The verb ``rollback``: containers whose own packages would break on another base are left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lxcfleet.base.generations import packages, store
from lxcfleet.base.generations.record import Generation, dump
from lxcfleet.host.packages import database
from lxcfleet.spec.states import State

from .conftest import Cli
from .real_daemon import Daemon

NEEDS = "nginx 1.22-9 needs libssl3 (>= 3.0.15), and with generation 3 it has libssl3 3.0.11"


@pytest.fixture
def generation(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> int:
    """A generation with an older package than the host."""
    store.sheet(daemon.paths, "s3").mkdir(parents=True)
    made = Generation(3, "2026-01-01T00:00:00Z", ("s3",), "test", 1, 1, 0, 0, "", 0)
    Path(daemon.paths.generation_record(3)).write_text(dump(made))
    monkeypatch.setattr(packages, "of", lambda *_: {"libc6:amd64": "2.36-9", "libssl3:amd64": "3.0.11"})
    return 3


def bases(cli: Cli) -> dict[str, int]:
    records = [json.loads(cli("info", name, "-f", "json").out) for name in ("web1", "web2")]
    return {each["name"]: each["spec"].get("generation", 0) for each in records}


def test_a_container_whose_own_packages_would_break_is_left_alone_and_says_why(
    cli: Cli, daemon: Daemon, generation: int
) -> None:
    for name in ("web1", "web2"):
        daemon.fleet.add(name, start=False)
    daemon.launcher.model.unfit["web2"] = [NEEDS]
    dry = cli("rollback", "web*", "--to", "3", "--dry-run")
    assert dry.status == 3
    assert f"web2 is left alone: its own packages would break on generation 3\n  {NEEDS}\n" in dry.err
    ran = cli("rollback", "web*", "--to", "3", "-f", "json")
    record = json.loads(ran.out)
    assert (ran.status, record["containers"], record["left"]) == (3, ["web1"], {"web2": [NEEDS]})
    assert bases(cli) == {"web1": generation, "web2": 0}
    ran = cli("rollback", "web*", "--to", "3")
    assert (ran.status, "nothing to do" in ran.err) == (1, False), ran
    ran = cli("rollback", "web*", "--to", "3", "--ignore-depends")
    assert (ran.status, bases(cli)) == (0, {"web1": generation, "web2": generation})
    # The way to the host's root is one as well.
    daemon.launcher.model.unfit = {"web1": ["x"]}
    assert cli("rollback", "web*", "--to", "host").status == 3
    assert bases(cli) == {"web1": generation, "web2": 0}


def test_a_rollback_that_is_refused_for_a_rollout_changes_none_of_them(cli: Cli, daemon: Daemon, generation: int) -> None:
    daemon.fleet.add("web1", state=State.STOPPED)
    daemon.fleet.add("web2")
    daemon.fleet.add("other")
    assert cli("restart", "--rolling", "other", "--min-healthy-time", "600", "--no-wait").status == 0
    ran = cli("rollback", "web*", "--to", str(generation), "--until", "2w")
    assert (ran.status, "a rollout is under way" in ran.err) == (1, True)
    assert bases(cli) == {"web1": 0, "web2": 0}
    assert json.loads(cli("generation", "list", "-f", "json").out)[0]["held"] == []
    assert cli("rollout", "abort").status == 0


def test_the_way_to_the_hosts_root_tells_its_packages_as_the_way_back_does(
    cli: Cli, daemon: Daemon, generation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "installed", lambda *_, **__: {"libc6:amd64": "2.36-9", "libssl3:amd64": "3.0.15"})
    for name in ("web1", "web2"):
        daemon.fleet.add(name, start=False)
    there = cli("rollback", "web1", "--to", "3")
    assert "\n  libssl3:amd64: 3.0.15 -> 3.0.11\n" in there.err
    assert "libc6" not in there.err
    for more in (("--dry-run",), ()):
        back = cli("rollback", "web*", "--to", "host", *more)
        assert "1 container" in back.err
        assert "\n  libssl3:amd64: 3.0.11 -> 3.0.15\n" in back.err
    again = cli("rollback", "web*", "--to", "host", "-f", "json")
    assert json.loads(again.out)["packages"] == {}


def test_set_refuses_a_base_on_which_own_packages_would_break(cli: Cli, daemon: Daemon, generation: int) -> None:
    for name in ("web1", "web2"):
        daemon.fleet.add(name, start=False)
    daemon.launcher.model.unfit["web2"] = [NEEDS]
    for more in ((), ("--dry-run",), ("--no-restart",)):
        refused = cli("set", "web*", "generation=3", *more)
        assert refused.status == 1
        flat = ": ".join(line.strip() for line in refused.err.splitlines())
        assert f"nothing was changed: packages of web2 would break on generation 3: web2: {NEEDS}" in flat
        assert "--ignore-depends" in flat
    assert cli("set", "web1", "generation=3").status == 0, "its packages go along"
    assert bases(cli) == {"web1": generation, "web2": 0}
    assert cli("set", "web2", "memory=64M").status == 0, "it keeps its base"
    assert cli("set", "web2", "generation=3", "--ignore-depends").status == 0
    assert cli("set", "web2", "generation=0").status == 1, "the way to the host's root is one as well"
    assert bases(cli) == {"web1": generation, "web2": generation}


def test_an_undo_to_a_generation_that_is_gone_is_refused_before_it_begins(
    cli: Cli, daemon: Daemon, generation: int
) -> None:
    daemon.fleet.add("web1")
    quick = ("--min-healthy-time", "0", "--healthy-deadline", "60")
    for to in (str(generation), "host"):
        assert cli("rollback", "web1", "--to", to, *quick).status == 0
    before = daemon.client.rollout()
    Path(daemon.paths.generation_record(generation)).unlink()
    ran = cli("rollout", "undo")
    assert ran.status == 1
    assert "web1 can't get its former spec back; nothing is changed" in ran.err
    assert "there is no generation 3" in ran.err
    assert daemon.client.rollout() == before


def test_a_file_names_a_generation_for_new_and_for_existing_containers(
    cli: Cli, daemon: Daemon, generation: int, tmp_path: Path
) -> None:
    file = tmp_path / "fleet.yaml"

    def apply(more: str) -> tuple[int, str]:
        file.write_text(f"lxcfleet: 1\nfleet: shop\ngroups:\n  web: {{count: 2{more}}}\n")
        ran = cli("apply", "-f", str(file), "--min-healthy-time", "0", "--max-unavailable", "2")
        return ran.status, ran.err

    assert apply(", generation: 4")[0] == 1, "there is no such one"
    assert cli("list", "-q").out == ""
    assert apply(f", generation: {generation}")[0] == 0
    assert bases(cli) == {"web1": generation, "web2": generation}
    daemon.launcher.model.unfit["web2"] = [NEEDS]
    status, err = apply("")
    assert (status, "packages of web2 would break on the host's root" in err) == (1, True), err
    daemon.launcher.model.unfit.clear()
    assert apply("")[0] == 0
    assert bases(cli) == {"web1": 0, "web2": 0}
    assert cli("diff", "-f", str(file)).status == 0
