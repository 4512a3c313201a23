"""What the command line says of a patch whose rollout failed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lxcfleet.host.packages import database
from lxcfleet.patch.rejections import Rejection
from lxcfleet.patch.verify.evidence import fingerprint

from .conftest import Cli
from .real_daemon import Daemon
from .test_stale_contract import OLD

BAD = Rejection("", "2026-01-01T00:00:00Z", "web1", "it ended after its restart", {"app": ["1", "2"], "new": ["", "1"]})


@pytest.fixture
def bad(daemon: Daemon) -> Daemon:
    """A host whose packages were rejected as they are now."""
    daemon.fleet.add("web1")
    daemon.fleet["web1"].runs_old(OLD)
    object.__setattr__(daemon.parts.fleet.config.patch, "freeze", True)
    rejection = replace(BAD, patch=fingerprint(database.installed()))
    daemon.call(lambda: daemon.parts.rescue._rejections.note(rejection))
    return daemon


def test_patch_status_says_so(cli: Cli, bad: Daemon) -> None:
    ran = cli("patch", "status")
    assert ran.status == 4
    assert ran.out.splitlines()[3:] == [
        "rejected: web1: it ended after its restart (since 2026-01-01T00:00:00Z)",
        "          app 1 -> 2, new (new) -> 1",
        "          a newer patch is taken up; this one by: lxcfleet patch apply --force",
    ]
    record = json.loads(cli("patch", "status", "-f", "json").out)["notice"]["rejected"]
    assert (record["container"], record["packages"]) == ("web1", BAD.packages)
    del bad


def test_it_is_applied_only_with_force(cli: Cli, bad: Daemon) -> None:
    def pid() -> object:
        return json.loads(cli("info", "web1", "-f", "json").out)["pid"]

    before = pid()
    for more in ((), ("--dry-run",), ("web1",)):
        ran = cli("patch", "apply", *more)
        assert (ran.status, ran.err.splitlines()) == (1, [
            "lxcfleet: the host's packages were rejected as they are now",
            "  web1: it ended after its restart",
            "  install a mended version, which is taken up by itself; or: lxcfleet patch apply --force",
        ])  # fmt: skip
    assert pid() == before
    assert cli("patch", "apply", "--force").status in (0, 3)
    assert pid() != before
    del bad


def test_without_freeze_nobody_asks(cli: Cli, bad: Daemon) -> None:
    object.__setattr__(bad.parts.fleet.config.patch, "freeze", False)
    assert "rejected" not in cli("patch", "status").out
    assert cli("patch", "apply", "--dry-run").status == 0
