"""The verbs ``verify`` and ``audit shadow``: the calls, and the command line."""

from __future__ import annotations

import json
import re
import socket

import pytest

from lxcfleet.api.findings import ShadowRecord
from lxcfleet.api.queries import VerifyRequest
from lxcfleet.api.requests import FixShadowsRequest
from lxcfleet.errors import InvalidInput, NotFound
from lxcfleet.patch.fallen import Fallen
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import State

from .conftest import Cli, Fleet
from .real_daemon import Daemon
from .test_stale_contract import OLD

LIBRARY = "/usr/lib/x86_64-linux-gnu/libssl.so.3"
SHADOW: ShadowRecord = {
    "path": LIBRARY, "kind": "file", "age": "older", "same": False, "package": "libssl3:amd64", "version": "3.0.22-1",
    "layer": "delta",
}  # fmt: skip


def test_fresh_containers_are_proven(fleet: Fleet) -> None:
    fleet.create("", count=2)
    proof = fleet.client.verify(VerifyRequest(fleet.all))
    assert proof["proven"]
    assert proof["packages"] == {}
    assert proof["base"]
    for record in proof["containers"]:
        assert record["proven"]
        assert (record["reasons"], record["old"], record["shadows"]) == ([], [], [])
        assert record["restarted"] is not None
        assert record["processes"] > 0


def test_packages_that_are_asked_for_are_named_with_their_versions(fleet: Fleet) -> None:
    fleet.create("a")
    (package,) = fleet.client.verify(VerifyRequest(fleet.all, ("libc6",)))["packages"]
    assert package.partition(":")[0] == "libc6"
    with pytest.raises(NotFound):
        fleet.client.verify(VerifyRequest(fleet.all, ("no-such-package",)))


def test_fresh_containers_have_no_shadows(fleet: Fleet) -> None:
    fleet.create("a")
    (record,) = fleet.client.shadows(fleet.all)
    assert (record["shadows"], record["diverged"], record["problem"]) == ([], None, None)


def test_only_shadows_are_removed(fleet: Fleet) -> None:
    fleet.create("a", start=False)
    (result,) = fleet.client.fix_shadows(FixShadowsRequest(fleet.all, ("/usr/bin/env",)))
    assert result["error"] is not None
    assert (result["error"]["code"], result["changed"]) == ("not-found", False)
    with pytest.raises(InvalidInput):
        fleet.client.fix_shadows(FixShadowsRequest(Selection(), ("/usr/bin/env",)))


def test_if_all_are_proven_the_status_is_0(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("web1")
    ran = cli("verify", "--package", "libssl3")
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert socket.gethostname() in lines[0]
    assert re.search(r", packages [0-9a-f]{16}: libssl3:amd64 3\.0\.22-1$", lines[0])
    assert lines[1].split() == ["NAME", "PROVEN", "RESTARTED", "PROCESSES", "OLD", "SHADOWS", "WHY", "NOT"]
    assert lines[2].split()[:2] == ["web1", "yes"]
    assert lines[3] == "proven: 1 of 1 container"


def test_nothing_is_proven_while_the_hosts_packages_change(cli: Cli, daemon: Daemon) -> None:
    """dpkg was at work between the looks at its records: some containers were compared with other files than the rest."""
    daemon.fleet.add("web1")
    daemon.model.dpkg_stamps = [(2,), (1,)]
    ran = cli("verify", "--package", "libssl3")
    assert ran.status == 4
    assert "its packages changed while containers were looked at" in ran.out
    assert cli("verify", "--package", "libssl3").status == 0


def test_a_package_is_found_by_the_name_that_it_had_before_a_release_upgrade(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("web1")
    daemon.model.installed["liblxc1t64:amd64"] = "1:6.0.4-4"
    daemon.model.successors["liblxc1"] = ["liblxc1t64:amd64"]
    ran = cli("verify", "--package", "liblxc1", "--package", "libc6")
    assert ran.status == 0
    assert "libc6:amd64 2.36-9, liblxc1t64:amd64 1:6.0.4-4 (asked for as liblxc1)" in ran.out.splitlines()[0]
    proof = json.loads(cli("verify", "-f", "json", "--package", "liblxc1:amd64").out)
    assert (proof["packages"], proof["renamed"]) == (
        {"liblxc1t64:amd64": "1:6.0.4-4"}, {"liblxc1:amd64": ["liblxc1t64:amd64"]},
    )  # fmt: skip
    assert json.loads(cli("verify", "-f", "json", "--package", "libc6").out)["renamed"] == {}
    ran = cli("verify", "--package", "nothing", "--package", "liblxc1")
    assert (ran.status, "no package 'nothing' is installed" in ran.err) == (1, True)
    assert "liblxc1" not in ran.err


def test_a_package_that_is_gone_from_the_host_is_known_by_the_files_that_it_had(cli: Cli, daemon: Daemon) -> None:
    """dpkg has nothing of it any more. What is not known is no proof."""
    daemon.fleet.add("web1")
    ran = cli("verify", "--package", "gone-lib")
    assert ran.status == 1
    assert "no package 'gone-lib' is installed on the host, and the files that it had are not known" in ran.err
    assert "nor was it removed since lxcfleet's daemon first began" in ran.err
    assert "`lxcfleet verify` without --package" in ran.err
    files = ["/usr/lib/libgone.so.1", "/usr/bin/gone"]
    daemon.paths.lost_files.write_text(json.dumps([["gone-lib:amd64", path, 1.0] for path in files]))
    for name in ("gone-lib", "gone-lib:amd64"):
        ran = cli("verify", "--package", name)
        assert (ran.status, ran.out.splitlines()[0].endswith(": gone-lib:amd64 (removed; 2 files of it known)")) == (0, True)
    proof = json.loads(cli("verify", "-f", "json", "--package", "gone-lib", "--package", "libc6").out)
    assert (proof["proven"], proof["gone"], list(proof["packages"])) == (True, {"gone-lib:amd64": 2}, ["libc6:amd64"])
    own = daemon.paths.container("web1").delta / "usr/bin"
    own.mkdir(parents=True)
    (own / "gone").write_text("#!/bin/sh\n")
    ran = cli("verify", "-f", "json", "--package", "gone-lib")
    assert (ran.status, json.loads(ran.out)["containers"][0]["reasons"]) == (
        4, ["it has 1 file of gone-lib:amd64 of its own, which the host has no more: /usr/bin/gone"],
    )  # fmt: skip
    assert cli("verify").status == 0


def test_a_container_that_a_patch_took_down_can_be_stopped_to_stay_down(cli: Cli, daemon: Daemon) -> None:
    web = daemon.fleet.add("web1")
    web.become(State.STOPPED)
    assert cli("stop", "web1").out == "web1  unchanged\n"
    container = daemon.parts.registry["web1"]
    fallen = Fallen(daemon.paths)
    daemon.call(lambda: fallen.note(container, "it ended after its restart", "2026-01-01T00:00:00Z"))
    ran = cli("verify")
    assert (ran.status, "a patch took it down, and it does not run: it ended after its restart" in ran.out) == (4, True)
    ran = cli("patch", "status")
    assert (ran.status, "down:     web1: a patch took it down: it ended after its restart" in ran.out) == (4, True)
    assert "web1: stay down, also after the host's next boot" in cli("stop", "web1", "--dry-run").out
    assert cli("stop", "web1").out == "web1  stopped\n"
    assert cli("stop", "web1").out == "web1  unchanged\n"
    ran = cli("verify")
    assert ran.status == 0
    assert "web1: a patch took it down, and it was stopped since: it ended after its restart" in ran.out
    ran = cli("patch", "status")
    assert (ran.status, "stopped:  web1: after a patch took it down: it ended after its restart" in ran.out) == (0, True)
    notice = json.loads(cli("patch", "status", "-f", "json").out)["notice"]
    assert (notice["down"], [each["name"] for each in notice["stopped"]]) == ([], ["web1"])
    assert cli("patch", "apply").status == 0
    assert web.state == State.STOPPED
    web.become(State.RUNNING)
    assert json.loads(cli("patch", "status", "-f", "json").out)["notice"]["stopped"] == []


def test_if_one_is_not_proven_the_status_is_4(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("web1")
    daemon.fleet.add("web2").runs_old(OLD)
    daemon.fleet.add("web3").can_not_be_looked_at("/proc/1/maps: Permission denied")
    ran = cli("verify")
    assert ran.status == 4
    assert "6 of its processes run old code" in ran.out
    assert ran.out.endswith("proven: 1 of 3 containers\n")
    assert (cli("verify", "-q").out, cli("verify", "-q").status) == ("web2\nweb3\n", 4)
    proof = json.loads(cli("verify", "-f", "json").out)
    assert [record["proven"] for record in proof["containers"]] == [True, False, False]
    assert cli("verify", "web1").status == 0
    assert cli("verify", "--package", "nothing").status == 1


def test_reasons_are_never_cut(cli: Cli, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.fleet.add("web1")
    web = daemon.fleet.add("web2")
    web.runs_old(OLD)
    web.can_not_be_looked_at("/proc/1/maps: Permission denied, once more")
    wide = cli("verify").out
    monkeypatch.setattr("lxcfleet.cli.ui.output.terminal_width", lambda: 70)
    narrow = cli("verify").out
    lines = narrow.splitlines()
    assert max(map(len, lines[1:])) <= 70
    assert "…" not in narrow
    assert lines[1].split() == ["NAME", "PROVEN", "RESTARTED", "PROCESSES", "OLD", "SHADOWS"]
    assert lines[4:-1] == [
        "    not all of it could be looked at: /proc/1/maps: Permission denied,",
        "      once more",
        "    6 of its processes run old code",
    ]
    monkeypatch.setattr("lxcfleet.cli.ui.output.terminal_width", lambda: 500)
    assert cli("verify").out.splitlines()[1:] == wide.splitlines()[1:]


def test_shadows_are_shown(cli: Cli, daemon: Daemon) -> None:
    daemon.fleet.add("web1")
    ran = cli("audit", "shadow")
    assert (ran.status, ran.out, ran.err) == (0, "", "lxcfleet: no shadows: 1 delta looked at\n")
    assert cli("audit", "shadow", "nix*").err == "lxcfleet: no container is chosen by that\n"
    daemon.fleet.add("web2").hides(SHADOW)
    daemon.model.packages["web2"] = {**daemon.model.installed, "jq:amd64": "1.6", "libssl3:amd64": "3.0.20"}
    ran = cli("audit", "shadow")
    assert ran.status == 4
    lines = ran.out.splitlines()
    assert lines[1].split() == ["web2", LIBRARY, "file", "older", "libssl3:amd64", "3.0.22-1"]
    assert lines[2:] == [
        "web2: has packages of its own: jq:amd64 1.6", "web2: has other versions: libssl3:amd64 3.0.20 (host: 3.0.22-1)",
    ]  # fmt: skip
    assert cli("audit", "shadow", "-q").out == "web2\n"
    daemon.fleet["web1"].can_not_be_looked_at("no", delta=True)
    assert cli("audit", "shadow", "web1").status == 3


def test_shadows_are_removed_from_stopped_containers_by_name(cli: Cli, daemon: Daemon) -> None:
    web = daemon.fleet.add("web1")
    web.hides(SHADOW)
    assert cli("audit", "shadow", "--fix", LIBRARY, "-y").status == 2, "nobody is chosen"
    assert cli("audit", "shadow", "web1", "--fix", LIBRARY, "-y").status == 1, "it runs"
    web.become(State.STOPPED)
    assert cli("audit", "shadow", "web1", "--fix", LIBRARY).status == 2, "nobody confirms"
    assert cli("audit", "shadow", "web1", "--fix", LIBRARY, "-q").status == 2, "nobody confirms, aloud or not"
    assert "nobody" not in cli("audit", "shadow", "web1", "--fix", "/none").err, "nothing to confirm"
    assert cli("audit", "shadow", "web1", "--fix", "/etc/passwd", "-y").status == 1
    assert cli("audit", "shadow", "web1", "--fix", LIBRARY, "--dry-run").out == "web1  would be changed\n"
    assert len(daemon.model.shadows["web1"]) == 1
    ran = cli("audit", "shadow", "web1", "--fix", LIBRARY, "-y")
    assert (ran.status, ran.out) == (0, "web1  removed\n")
    assert daemon.model.shadows["web1"] == []



def test_the_shadows_of_a_package_are_removed_as_a_whole(cli: Cli, daemon: Daemon) -> None:
    """A setting of the container's own stays, and so does what other packages have."""
    other, setting = SHADOW.copy(), SHADOW.copy()
    other["path"], other["package"] = "/usr/bin/other", "other"
    setting["path"] = "/etc/ssl/openssl.cnf"
    web = daemon.fleet.add("web1")
    for record in (SHADOW, other, setting):
        web.hides(record)
    fix = ("audit", "shadow", "web1", "--fix-package", "libssl3")
    assert "web1 is running" in cli(*fix, "-y").err
    web.become(State.STOPPED)
    unknown = cli("audit", "shadow", "web1", "--fix-package", "no-such", "-y")
    assert unknown.status == 1
    assert "no package 'no-such' is installed on the host" in unknown.err
    asked = cli(*fix)
    assert asked.status == 2
    assert LIBRARY in asked.err, "it shows what would go"
    assert len(daemon.model.shadows["web1"]) == 3
    ran = cli(*fix, "-f", "json", "-y")
    (result,) = json.loads(ran.out)["results"]
    assert (result["status"], result["removed"], list(result["kept"])) == ("removed", [LIBRARY], [setting["path"]])
    assert "web1: stays: /etc/ssl/openssl.cnf: a setting" in ran.err
    assert [shadow.path for shadow in daemon.model.shadows["web1"]] == ["/usr/bin/other", setting["path"]]
    again = cli(*fix, "-y")
    assert (again.status, again.out) == (0, "web1  unchanged\n")
