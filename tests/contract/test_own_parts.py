"""lxcfleet's own parts on the host: they count for ``stale``, ``verify`` and ``patch status`` while they run old code."""

from __future__ import annotations

import csv
import io
import json
import os

import pytest

from lxcfleet.api.queries import VerifyRequest
from lxcfleet.cli.verbs import verify
from lxcfleet.patch import own
from lxcfleet.patch.own import OwnProcess
from lxcfleet.patch.stale.judge import OldFile, Process, Why
from lxcfleet.spec.selection import Selection

from .conftest import Cli
from .real_daemon import Daemon

LIBRARY = "/usr/lib/x86_64-linux-gnu/libssl.so.3"
PARTS = ("lxcfleetd", "launcher", "booter", "responder", "dnsmasq")


@pytest.fixture(autouse=True)
def parts(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> dict[str, OwnProcess]:
    """All parts. Each can be replaced by one that runs old code."""
    found = {name: OwnProcess(name, 100 + number) for number, name in enumerate(PARTS)}
    monkeypatch.setattr(own, "_look", lambda _: [*found.values()])
    monkeypatch.setattr(verify, "PAUSE_SECONDS", 0.01)
    daemon.fleet.add("web1")
    return found


def grow_old(parts: dict[str, OwnProcess], *names: str) -> None:
    for name in names:
        process = Process(parts[name].pid, name)
        file = OldFile(LIBRARY, Why.MODULES, "base", (process,), "libssl3:amd64")
        parts[name] = OwnProcess(name, parts[name].pid, (file,))


def test_fresh_parts_are_told_and_count_for_nothing(cli: Cli, daemon: Daemon) -> None:
    assert [(part["name"], part["stale"], part["hint"]) for part in daemon.client.parts()] == [
        (name, False, "") for name in PARTS
    ]
    assert cli("stale").status == 0
    assert json.loads(cli("verify", "-f", "json").out)["parts"] == daemon.client.parts()
    assert cli("patch", "status").status == 0


def test_a_part_that_runs_old_code_is_stale(cli: Cli, parts: dict[str, OwnProcess]) -> None:
    grow_old(parts, "dnsmasq", "lxcfleetd")
    ran = cli("stale")
    assert (ran.status, ran.err) == (4, "")
    assert ran.out.splitlines() == [
        "lxcfleet's own lxcfleetd runs old code (libssl3:amd64): systemctl restart lxcfleet renews it; containers run on",
        "lxcfleet's own dnsmasq runs old code (libssl3:amd64): lxcfleet patch notify has it renewed once the host is quiet",
    ]
    records = json.loads(cli("stale", "-f", "json").out)
    assert [(r["name"], r["state"], r["stale"], len(r["files"])) for r in records] == [
        ("web1", "running", False, 0), ("lxcfleetd", "on the host", True, 1), ("dnsmasq", "on the host", True, 1),
    ]  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(cli("stale", "-f", "csv").out)))
    assert [row["name"] for row in rows] == ["web1", "lxcfleetd", "dnsmasq"]
    assert (cli("stale", "-q").status, cli("stale", "-q").out) == (4, ""), "names of containers only, to be restarted"
    assert cli("stale", "--nagios").out.startswith("LXCFLEET WARNING - lxcfleet's own lxcfleetd, dnsmasq run old code |")
    assert cli("stale", "web1").status == 0, "the parts are none of the chosen containers"
    ran = cli("patch", "status")
    assert ran.status == 4
    assert "own:      lxcfleet's own dnsmasq runs old code" in ran.out


def test_while_packages_change_nobody_needs_to_have_a_part_renewed(cli: Cli, parts: dict[str, OwnProcess]) -> None:
    grow_old(parts, "dnsmasq", "lxcfleetd")
    cli("patch", "notify")
    assert cli("stale").out.splitlines() == [
        f"lxcfleet's own {name} runs old code (libssl3:amd64): it is renewed once the host's packages stop changing"
        for name in ("lxcfleetd", "dnsmasq")
    ]


def test_nothing_is_proven_while_a_part_runs_old_code(cli: Cli, daemon: Daemon, parts: dict[str, OwnProcess]) -> None:
    grow_old(parts, "responder")
    ran = cli("verify")
    assert ran.status == 4
    assert "lxcfleet's own responder runs old code (libssl3:amd64)" in ran.out
    assert "proven: 1 of 1 container" in ran.out
    assert cli("verify", "web1").status == 0
    proof = daemon.client.verify(VerifyRequest(Selection(), ("libssl3",)))
    assert not proof["proven"]
    (old,) = [part for part in proof["parts"] if part["stale"]]
    assert (old["name"], [file["path"] for file in old["files"]]) == ("responder", [LIBRARY])
    assert daemon.client.verify(VerifyRequest(Selection(), ("libc6",)))["proven"], "an old file of another package"


def test_an_old_session_is_told_and_never_called_proven(
    cli: Cli, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing restarts it: it ends with its command."""
    file = OldFile("/lib/libc.so.6", Why.REPLACED, "base", (Process(77, "exec"),), "libc6:amd64")
    sessions = [OwnProcess(own.SESSION, 77, (file,), "web1", 1.7e9), OwnProcess(own.SESSION, 78)]
    monkeypatch.setattr(own, "_sessions", lambda _: sessions)
    daemon.fleet.add("web2")
    line = (
        "a session of `exec` in web1 since 2023-11-14T22:13:20Z (pid 77) runs old code (libc6:amd64):"
        " it ends with its command, and nothing restarts it"
    )
    for verb in ("stale", "verify"):
        ran = cli(verb)
        assert (ran.status, line in ran.out.splitlines()) == (4, True)
        ran = cli(verb, "web1")
        assert (ran.status, line in ran.out.splitlines()) == (4, True), "it is a session in a chosen container"
        assert cli(verb, "web2").status == 0
    assert cli("verify", "--package", "libssl3").status == 0, "an old file of another package"
    assert [(r["name"], r["stale"]) for r in json.loads(cli("stale", "-f", "json").out)] == [
        ("web1", False), ("web2", False), ("exec in web1", True),
    ]  # fmt: skip
    assert f"own:      {line}" in cli("patch", "status").out
    (told, _) = [part for part in daemon.client.parts() if part["name"] == "exec"]
    assert (told["container"], told["since"]) == ("web1", "2023-11-14T22:13:20Z")


def test_verify_waits_for_a_part_that_is_being_renewed(cli: Cli, daemon: Daemon, parts: dict[str, OwnProcess]) -> None:
    grow_old(parts, "dnsmasq")
    daemon.parts.own.renewing = ("dnsmasq",)
    asked = iter(range(100))

    def look(_: object) -> list[OwnProcess]:
        return [OwnProcess("dnsmasq", os.getpid())] if next(asked) > 2 else [*parts.values()]

    own._look = look  # type: ignore[assignment]
    told = cli("stale")
    assert (told.status, "it is being renewed" in told.out) == (0, True)
    ran = cli("verify")
    assert (ran.status, "runs old code" in ran.out) == (0, False)
