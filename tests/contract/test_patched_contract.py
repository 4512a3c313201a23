"""What the command line says between a patch and its restart: of verify's depth, of the mixed view, and of a reboot."""

from __future__ import annotations

import json

import pytest

from lxcfleet.host.packages import reboot
from lxcfleet.spec.policies.windows import PatchPolicy
from lxcfleet.spec.states import State

from .conftest import Cli
from .real_daemon import Daemon
from .test_stale_contract import OLD

HINT = "lxcfleet: the host was patched, and web1 not restarted since"


@pytest.fixture
def web(daemon: Daemon) -> Daemon:
    daemon.fleet.add("web1")
    daemon.fleet.add("web2")
    return daemon


# verify --deep


@pytest.mark.parametrize(
    ("arguments", "changed", "documentation", "packages"),
    [
        ((), True, False, []),
        (("--deep",), True, True, []),
        (("--package", "libc6"), True, False, ["libc6:amd64"]),
        (("--deep", "--package", "libc6"), True, True, ["libc6:amd64"]),
    ],
)
def test_deep_compares_documentation_too(
    cli: Cli, web: Daemon, arguments: tuple[str, ...], changed: bool, documentation: bool, packages: list[str]
) -> None:
    assert cli("verify", *arguments).status == 0
    assert web.model.wanted == {"changed": changed, "documentation": documentation, "packages": packages}


def test_each_record_says_what_was_compared_and_what_was_not(cli: Cli, web: Daemon) -> None:
    web.model.compared["web1"] = 12
    plain = json.loads(cli("verify", "-f", "json").out)["containers"]
    deep = json.loads(cli("verify", "--deep", "-f", "json").out)["containers"]
    assert [record["compared"] for record in plain] == [12, 0]
    for record in plain:
        assert "documentation, manual pages and translations that it is served" in record["not_compared"]
    for record in deep:
        assert record["not_compared"] == [
            "memory without a file, and files that the container made itself",
            "files of no package, or changed by hand, that it is served, but does not run",
            "files in directories that do not belong to root",
        ]


def test_deep_goes_on_where_the_settings_leave_data_out(cli: Cli, web: Daemon) -> None:
    settings = web.parts.fleet.config.rollout
    object.__setattr__(settings, "data", False)
    assert cli("verify").status == 0
    assert web.model.wanted == {"changed": False, "documentation": False, "packages": []}
    assert cli("stale").status == 0
    assert web.model.wanted is None
    (record, _) = json.loads(cli("verify", "-f", "json").out)["containers"]
    assert "modules that interpreters have read" in record["not_compared"]
    assert any("have no more" in left for left in record["not_compared"])
    assert cli("verify", "--deep").status == 0
    assert web.model.wanted == {"changed": True, "documentation": True, "packages": []}


def test_a_record_says_so_if_nothing_could_be_compared(cli: Cli, web: Daemon) -> None:
    web.fleet["web1"].become(State.STOPPED)
    web.fleet["web2"].can_not_be_looked_at("/proc/1/root: Permission denied")
    stopped, unread = json.loads(cli("verify", "-f", "json").out)["containers"]
    assert stopped["not_compared"] == ["processes, as it does not run: it will start on a fresh mount"]
    assert unread["not_compared"][-1] == "the parts that could not be looked at: /proc/1/root: Permission denied"
    assert not unread["proven"]


# the mixed view


@pytest.mark.parametrize(("status", "told"), [(1, True), (127, True), (2, False), (0, False)])
def test_exec_tells_of_old_libraries_if_the_linker_may_have_failed(cli: Cli, web: Daemon, status: int, told: bool) -> None:
    web.fleet["web1"].runs_old(OLD)
    ran = cli("exec", "web1", "--", "sh", "-c", f"exit {status}")
    assert (ran.status, HINT in ran.err) == (status, told)
    assert HINT not in cli("exec", "web2", "--", "sh", "-c", f"exit {status}").err, "this one has none"


def test_exec_does_not_tell_of_old_files_that_are_no_libraries(cli: Cli, web: Daemon) -> None:
    module = OLD.copy()
    module["path"], module["why"] = "/usr/lib/python3/dist-packages/urllib3/util.py", "modules"
    web.fleet["web1"].runs_old(module)
    assert HINT not in cli("exec", "web1", "--", "false").err


def test_exec_in_many_tells_once(cli: Cli, web: Daemon) -> None:
    web.fleet["web1"].runs_old(OLD)
    assert cli("exec", "--all", "--", "false").err.count(HINT) == 1


def test_exec_where_nothing_can_be_looked_at_gives_the_commands_own_status(cli: Cli, web: Daemon) -> None:
    web.fleet["web1"].can_not_be_looked_at("/proc/1/maps: Permission denied")
    ran = cli("exec", "web1", "--", "false")
    assert (ran.status, HINT in ran.err) == (1, False)


@pytest.mark.parametrize("policy", [*PatchPolicy])
def test_patch_status_tells_of_the_mixed_view_unless_the_rollout_comes_at_once(
    cli: Cli, web: Daemon, policy: PatchPolicy
) -> None:
    object.__setattr__(web.parts.fleet.config.patch, "policy", policy)
    assert "meanwhile" not in cli("patch", "status").out
    web.fleet["web1"].runs_old(OLD)
    ran = cli("patch", "status")
    assert ran.status == 4
    told = "meanwhile: what is stale sees new programs beside old libraries" in ran.out
    assert told is (policy is not PatchPolicy.AUTO)


# a reboot of the host


def test_a_reboot_that_is_due_is_told_and_counts_for_its_packages_alone(
    cli: Cli, web: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = "linux-image-9.9.9-test"
    web.model.installed[kernel] = "9.9.9-1"
    monkeypatch.setattr(reboot, "due", list)
    assert "reboot" not in cli("patch", "status").out
    monkeypatch.setattr(reboot, "due", lambda: [kernel])
    assert f"reboot:   the host has to be rebooted for {kernel}" in cli("patch", "status").out
    ran = cli("verify")
    assert ran.status == 0
    assert f"lxcfleet: the host has to be rebooted for {kernel}: of these nothing is proven" in ran.err
    assert json.loads(cli("verify", "-f", "json").out)["reboot"] == [kernel]
    ran = cli("verify", "--package", kernel)
    assert ran.status == 4
    assert f"{kernel} takes effect with a reboot of the host: the host runs the kernel" in ran.out
    assert cli("verify", "--package", "libc6").status == 0
