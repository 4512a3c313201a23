"""Scenarios of faults.py: verbs about what is beside a container, by the command line, which itself has no faults."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lxcfleet.base.generations import build

from . import small_root
from .harness import SLEEP, until

if TYPE_CHECKING:
    from .faults import Stage


def _nothing(_: Stage) -> None:
    pass


@dataclass(frozen=True)
class Scenario:
    """One action on the container. ``before`` and ``after`` are states, with ``absent`` among them."""

    before: str
    after: str
    act: Callable[[Stage], list[str]]
    """Does it; returns the error texts that were given, which are none if the answer was that all is done."""
    ready: Callable[[Stage], None] = _nothing
    """Makes what the action needs, and removes what a former trial has left, without faults."""
    left: Callable[[Stage], list[str]] = lambda _: []
    """What such an action may have left half-made."""


def _say(stage: Stage, *arguments: str) -> list[str]:
    """The errors of one command line."""
    ran = stage.fleet.run(*arguments)
    return [] if ran.status == 0 else [ran.err]


# -- snapshots ---------------------------------------------------------------------------------------------------------


def _no_snapshots(stage: Stage) -> None:
    if json.loads(stage.fleet.ok("snapshot", "list", stage.name, "-f", "json")):
        stage.fleet.ok("snapshot", "rm", stage.name, "--all")


def _one_snapshot(stage: Stage) -> None:
    _no_snapshots(stage)
    (stage.fleet.delta(stage.name) / "precious").write_text("kept")
    stage.fleet.ok("snapshot", "create", stage.name, "--name", "one")


def _half_snapshots(stage: Stage) -> list[str]:
    known = {each["path"] for each in json.loads(stage.fleet.ok("snapshot", "list", "-f", "json"))}
    there = stage.fleet.paths.snapshots.glob("*/*")
    return [str(path) for path in there if not any(each.startswith(str(path)) for each in known)]


# -- archives ----------------------------------------------------------------------------------------------------------


def _archive(stage: Stage) -> Path:
    return stage.fleet.paths.etc / "archive.tar.zst"


def _exported(stage: Stage) -> list[str]:
    """An archive is either whole or not there."""
    file = _archive(stage)
    file.unlink(missing_ok=True)
    said = _say(stage, "export", stage.name, "-o", str(file))
    stage.faults.disarm()
    assert file.exists() != bool(said), said
    if not said:
        stage.fleet.ok("restore-check", str(file))
    return said


def _have_archive(stage: Stage) -> None:
    name = stage.fleet.name("a")
    if not _archive(stage).exists():
        if name not in stage.fleet.states():
            stage.fleet.ok("create", name, *SLEEP)
        stage.fleet.ok("export", name, "-o", str(_archive(stage)))
    if name in stage.fleet.states():
        stage.fleet.ok("destroy", name, "--force", "--with-snapshots")


# -- volumes, apps, secrets, generations ----------------------------------------------------------------------------------


def _import(stage: Stage) -> list[str]:
    """A container that is there and could not be started is told, and its status says so."""
    ran = stage.fleet.run("import", str(_archive(stage)))
    return [] if ran.status == 0 and "it is not started" not in ran.err else [ran.err]


def _volume(stage: Stage) -> list[str]:
    return _say(stage, "volume", "create", "v", "--ensure") or _say(stage, "volume", "rm", "v")


def _no_volume(stage: Stage) -> None:
    stage.fleet.run("volume", "rm", "v")


def _app(stage: Stage) -> list[str]:
    with tempfile.TemporaryDirectory() as source:
        (Path(source) / "x").write_text("1\n")
        return _say(stage, "app", "add", "shop", source, "--version", "1") or _say(stage, "app", "rm", "shop@1")


def _no_app(stage: Stage) -> None:
    stage.fleet.run("app", "rm", "shop@1")


def _bake(stage: Stage) -> list[str]:
    script = "mkdir -p /opt/baked && echo 1 >/opt/baked/x"
    baked = _say(stage, "app", "bake", "baked", "--version", "1", "--network", "none", "--", "sh", "-c", script)
    return baked or _say(stage, "app", "rm", "baked@1")


def _no_baked(stage: Stage) -> None:
    stage.fleet.run("app", "rm", "baked@1")


def _half_stored(stage: Stage) -> list[str]:
    """What is in a store of apps or volumes with a name that no release and no volume has."""
    return [str(path) for each in ("apps", "volumes") for path in (stage.fleet.paths.state / each).glob("**/.*")]


def _half_baked(stage: Stage) -> list[str]:
    """The same. A clone that could not be destroyed is noted for the next daemon."""
    if any(name.startswith("bake") for name in stage.fleet.states()):
        stage.fleet.stop_daemon()
        stage.start_daemon()
        until(lambda: not any(name.startswith("bake") for name in stage.fleet.states()), 20, "the clone is destroyed")
    return _half_stored(stage)


def _have_generation(stage: Stage) -> None:
    root = stage.fleet.paths.state / "root"
    if not root.exists():
        root.mkdir(parents=True)
        small_root.make(root, greet="1")
        assert build.freeze(stage.fleet.paths, "trial", root=root, now=time.time()) is not None
    if stage.fleet.json("info", stage.name)["spec"].get("generation", 0):
        _move_to(stage, "host")


def _move_to(stage: Stage, base: str) -> list[str]:
    last = stage.client.rollout()
    if last is not None and last["status"] not in ("done", "aborted"):
        stage.client.rollout_abort()
    return _say(stage, "rollback", stage.name, "--to", base, "--no-wait") or stage.followed()


def _rollback(stage: Stage) -> list[str]:
    return _move_to(stage, "1")


def _rehearse(stage: Stage) -> list[str]:
    return _say(stage, "patch", "rehearse", stage.name)


VERBS = {
    "snapshot": Scenario(
        "running", "running", lambda stage: _say(stage, "snapshot", "create", stage.name, "--name", "one"),
        _no_snapshots, _half_snapshots,
    ),
    "restore": Scenario(
        "running", "running", lambda stage: _say(stage, "snapshot", "restore", stage.name, "one", "--stop"),
        _one_snapshot, _half_snapshots,
    ),
    "export": Scenario("running", "running", _exported),
    "import": Scenario("absent", "running", _import, _have_archive),
    "volume": Scenario("running", "running", _volume, _no_volume, _half_stored),
    "app": Scenario("running", "running", _app, _no_app, _half_stored),
    "bake": Scenario("running", "running", _bake, _no_baked, _half_baked),
    "rollback": Scenario("running", "running", _rollback, _have_generation),
    "rehearse": Scenario("running", "running", _rehearse),
}  # fmt: skip
