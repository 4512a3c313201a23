"""Starts while dpkg is at work, on the base from before the patch."""

from __future__ import annotations

import json

import pytest

from lxcfleet.base.generations import store as generations
from lxcfleet.base.generations.record import Generation
from lxcfleet.containers import store
from lxcfleet.spec.states import State

from .conftest import Cli
from .real_daemon import Daemon


@pytest.fixture
def patching(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """dpkg is at work, and generation 8 was frozen before."""
    made = Generation(
        number=8, created="2026-01-01T00:00:00Z", why="before a patch", sheets=("s1",), files=1, bytes=1, linked=1, copied=0,
        packages="0" * 64, linked_foreign=0,
    )  # fmt: skip
    generations.sheet(daemon.paths, "s1").mkdir(parents=True)
    generations.save(daemon.paths, made)
    daemon.fleet.add("web1")
    daemon.fleet.add("web2", state=State.STOPPED)
    daemon.call(lambda: daemon.parts.bases.note(8))
    monkeypatch.setattr(daemon.parts.bases, "_at_work", lambda: True)
    return daemon


def base(daemon: Daemon, name: str) -> tuple[int | None, int]:
    """The generation of its run, and of its spec."""
    container = daemon.parts.registry[name]
    assert container.wanted is not None
    assert store.load(daemon.paths, name) == container.wanted, "the spec on disk stays as it was"
    return (container.spec.generation if container.spec and container.running else None), container.wanted.generation


def test_all_starts_get_the_frozen_base_and_the_rollout_moves_them(
    cli: Cli, patching: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("start", "web2").status == 0
    assert cli("restart", "web1").status == 0
    assert cli("create", "web3", "--", "sleep", "inf").status == 0
    assert [base(patching, name) for name in ("web1", "web2", "web3")] == [(8, 0)] * 3
    ran = cli("stale")
    assert ran.status == 4
    assert ran.out.count("generation 8") == 3
    assert [each["base"] for each in json.loads(cli("stale", "-f", "json").out)] == [8, 8, 8]
    # Another daemon finds them so.
    started = store.started(patching.paths, "web2")
    assert started is not None
    assert started.generation == 8
    # dpkg is done.
    monkeypatch.setattr(patching.parts.bases, "_at_work", lambda: False)
    ran = cli("patch", "apply", "--max-unavailable", "100%")
    assert ran.status == 0, ran
    assert [base(patching, name) for name in ("web1", "web2", "web3")] == [(0, 0)] * 3
    assert cli("stale").status == 0


def test_one_that_ends_is_as_it_was_asked_for(cli: Cli, patching: Daemon) -> None:
    assert cli("restart", "web1").status == 0
    assert cli("stop", "web1").status == 0
    container = patching.parts.registry["web1"]
    assert (container.spec, container.desired) == (container.wanted, None)
    assert base(patching, "web1") == (None, 0)


def test_without_a_frozen_base_all_is_as_ever(cli: Cli, patching: Daemon) -> None:
    patching.call(lambda: patching.parts.bases.note(None))
    assert cli("restart", "web1").status == 0
    assert base(patching, "web1") == (0, 0)
    assert cli("stale").status == 0
