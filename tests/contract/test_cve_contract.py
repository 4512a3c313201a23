"""The verb ``cve``, and ``verify --cve``: the call, and the command line in front of it."""

from __future__ import annotations

import csv
import io
import json
import time
from typing import Any

import pytest

from lxcfleet.launcher.items.cves import FoundCve
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import State

from .conftest import Cli
from .real_daemon import Daemon
from .test_stale_contract import OLD

CLOSED, OPEN = "CVE-2026-0001", "CVE-2026-0002"
NO_DATA = "lxcfleet: it is not known which CVEs no version closes yet: "
NO_DATA += "the setting `cve: {source: …}` names no data of debsecan\n"


def found(cve: str = CLOSED, **more: Any) -> FoundCve:
    each: dict[str, Any] = {
        "cve": cve, "source": "openssl", "packages": ["libssl3"], "names": ["libssl3", "libssl3:amd64"], "disk": "fixed",
        "own": False, "began": False, "without": [], "fixed": "3.0.22-1", "line": f"* {cve}: a hole", "words": "closed",
        "urgency": "", "remote": None, "description": "", **more,
    }  # fmt: skip
    return each  # type: ignore[return-value]


@pytest.fixture
def web(daemon: Daemon) -> Daemon:
    for name in ("web1", "web2", "web3", "web4"):
        daemon.fleet.add(name)
    daemon.model.cves = [found(), found(OPEN, source="bash", packages=["bash"], disk="open", without=["bash 5.2"], fixed="")]
    return daemon


def test_states_of_all_containers(cli: Cli, web: Daemon) -> None:
    web.fleet["web2"].runs_old(OLD)
    ran = cli("cve")
    assert ran.status == 4
    header, *lines = ran.out.splitlines()
    assert header.split() == ["CVE", "PACKAGE", "STATE", "CONTAINERS", "WHY"]
    assert [" ".join(line.split()) for line in lines] == [
        "CVE-2026-0001 openssl patched, old code runs 1: web2 6 of its processes run old code",
        "CVE-2026-0001 openssl proven 3: web1 web3 web4 -",
        "CVE-2026-0002 bash open 4: web1 web2 web3 and 1 more it has bash 5.2",
    ]
    assert ran.err == NO_DATA


def test_only_the_chosen_ones(cli: Cli, web: Daemon) -> None:
    web.fleet["web2"].runs_old(OLD)
    assert cli("cve", "web1", "web3").status == 0
    assert cli("cve", "nix*").err == "lxcfleet: no container is chosen by that\n"


def test_filters(cli: Cli, web: Daemon) -> None:
    web.fleet["web2"].runs_old(OLD)
    assert (cli("cve", "-q").out, cli("cve", "-q").status) == (f"{CLOSED}\n{OPEN}\n", 4)
    assert (cli("cve", "-q", "--package", "bash").out, cli("cve", "-q", "--package", "bash").status) == (f"{OPEN}\n", 0)
    assert cli("cve", "-q", "--package", "libssl3:amd64").out == f"{CLOSED}\n"
    assert (cli("cve", "-q", "--state", "open").out, cli("cve", "--state", "open").status) == (f"{OPEN}\n", 0)
    assert cli("cve", "--state", "none").status == 2
    nothing = cli("cve", "--state", "unknown")
    assert (nothing.out, nothing.err) == ("", f"lxcfleet: no such CVE was found for 4 containers\n{NO_DATA}")


def test_other_forms(cli: Cli, web: Daemon) -> None:
    web.fleet["web2"].runs_old(OLD)
    ran = cli("cve", "-f", "json")
    record = json.loads(ran.out)
    assert (ran.status, record["containers"], record["sets"]) == (4, ["web1", "web2", "web3", "web4"], 2)
    assert record["data"] is None
    (first, _) = record["cves"]
    assert first["places"][0] == {
        "state": "old-code-runs", "why": ["6 of its processes run old code"], "containers": ["web2"],
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(cli("cve", "-f", "csv").out)))
    assert [(row["cve"], row["state"], row["count"]) for row in rows] == [
        (CLOSED, "old-code-runs", "1"), (CLOSED, "proven", "3"), (OPEN, "open", "4"),
    ]  # fmt: skip


def test_what_is_not_known_is_said(cli: Cli, web: Daemon) -> None:
    web.model.cves = []
    web.model.unread_sources = [{"source": "vim", "packages": ["vim"], "why": "it has no changelog"}]
    web.model.unknown_sets = {"web3": "its status can't be read"}
    ran = cli("cve")
    assert (ran.status, ran.out) == (0, "")
    assert ran.err.splitlines()[1:3] == [
        "lxcfleet: nothing is known of web3: its status can't be read",
        "lxcfleet: it is not known which CVEs the change of vim closed in web1, web2, web4: it has no changelog",
    ]
    assert [each["source"] for each in web.client.cves(Selection())["unread"]] == ["", "vim"]


def test_the_words_of_a_partial_fix_are_shown(cli: Cli, web: Daemon) -> None:
    web.model.cves = [found(disk="doubt", words="partly", line="* partially fix CVE-2026-0001")]
    ran = cli("cve")
    assert ran.status == 0
    assert "unknown" in ran.out
    assert "its changelog says: * partially fix CVE-2026-0001" in ran.out


def test_old_data_is_a_warning(cli: Cli, web: Daemon) -> None:
    web.model.cve_data = {"file": "/srv/debsecan/bookworm", "modified": time.time() - 9 * 86400, "problem": ""}
    assert "9 days old, older than 7 days: it lacks all that was found since" in cli("cve").err
    assert "older than 7 days" in cli("cve", "-f", "json").err
    web.model.cve_data["modified"] = time.time() - 86400
    assert cli("cve").err.endswith("1 days old\n")
    assert cli("cve", "-f", "json").err == ""
    web.model.cve_data.update({"modified": 0.0, "problem": "there is no file for bookworm"})
    assert "lxcfleet: it is not known which CVEs no version closes yet: there is no file for bookworm" in cli("cve").err


def test_containers_that_could_not_be_looked_at(cli: Cli, web: Daemon) -> None:
    web.fleet["web1"].can_not_be_looked_at("/proc/1/root: Permission denied")
    record = web.client.cves(Selection(("web1",)))
    (place,) = record["cves"][1]["places"]
    assert place["state"] == "unknown"
    assert place["why"] == ["not all of it could be looked at: /proc/1/root: Permission denied"]


def test_no_containers(cli: Cli, daemon: Daemon) -> None:
    assert (cli("cve").status, cli("cve").err) == (0, "lxcfleet: no containers\n")


def test_proof_of_one_cve(cli: Cli, web: Daemon) -> None:
    ran = cli("verify", "--cve", CLOSED.lower())
    assert (ran.status, web.model.asked_cves) == (0, [CLOSED])
    assert f"{CLOSED} (libssl3)" in ran.out
    assert f"{CLOSED}: * {CLOSED}: a hole" in ran.out
    assert web.model.wanted == {"changed": True, "documentation": False, "packages": ["libssl3:amd64"]}
    web.fleet["web2"].runs_old(OLD)
    ran = cli("verify", "--cve", CLOSED, "-f", "json")
    proof = json.loads(ran.out)
    assert (ran.status, proof["proven"]) == (4, False)
    assert [each["proven"] for each in proof["containers"]] == [True, False, True, True]
    (reason,) = proof["containers"][1]["reasons"]
    assert reason == f"{CLOSED}, openssl: patched, old code runs: 6 of its processes run old code"
    assert proof["cves"] == [{"cve": CLOSED, "packages": ["libssl3"], "named": True, "line": f"* {CLOSED}: a hole"}]


def test_no_proof_without_knowledge(cli: Cli, web: Daemon) -> None:
    assert cli("verify", "-q", "--cve", OPEN).out == "web1\nweb2\nweb3\nweb4\n"
    ran = cli("verify", "web1", "--cve", "CVE-1999-0001")
    assert ran.status == 4
    assert "which packages have CVE-1999-0001 is not known: no changelog of an installed package names it" in ran.out
    assert cli("verify", "--cve", "1999-1").status == 2


def test_a_container_that_has_none_of_its_packages(cli: Cli, web: Daemon) -> None:
    web.model.packages["web4"] = {"x:amd64": "1"}
    assert cli("verify", "web4", "--cve", OPEN).status == 0
    assert cli("verify", "web3", "--cve", OPEN).status == 4
    web.model.unknown_sets = {"web4": "no status"}
    assert "its packages are not known: no status" in cli("verify", "web4", "--cve", OPEN).out


def test_a_stopped_container_starts_with_the_fix(cli: Cli, web: Daemon) -> None:
    web.fleet["web1"].become(State.STOPPED)
    assert cli("verify", "web1", "--cve", CLOSED).status == 0
