"""The verb ``rollback``: containers whose own packages would break on another base are left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lxcfleet.base.generations import packages, store
from lxcfleet.base.generations.record import Generation, dump

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
