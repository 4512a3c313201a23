"""Tests of a group, from the fleet file to the rollout's status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Cli, Ran

FILE = """\
lxcfleet: 1
fleet: shop
groups:
  web:
    count: 3
    command: [sleep, "9900"]
    network: none
    rollout:
      max_unavailable: 1
      healthy_deadline: 5
      tests:
        - {name: smoke, run: [sh, -c, 'test "$LXCFLEET_GROUP" = web; echo "up $LXCFLEET_CONTAINER"; test ! -e BAD/$LXCFLEET_CONTAINER']}
        - {name: extra, run: [sh, -c, "echo slow; exit 3"], required: false}
"""  # noqa: E501


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A directory: a file there makes the test of the container of that name fail."""
    (tmp_path / "bad").mkdir()
    return tmp_path / "bad"


def apply(cli: Cli, bad: Path, *changes: tuple[str, str]) -> Ran:
    text = FILE.replace("BAD", str(bad))
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (bad.parent / "fleet.yaml").write_text(text)
    return cli("apply", "-f", str(bad.parent / "fleet.yaml"))


def test_the_tests_of_a_group_gate_its_rollouts(cli: Cli, bad: Path) -> None:
    assert apply(cli, bad).status == 0
    ran = cli("restart", "--all", "--rolling", "-f", "json")
    assert ran.status == 0, ran.err
    record = json.loads(ran.out)
    assert [each["phase"] for each in record["containers"]] == ["done"] * 3
    web3 = record["containers"][2]
    assert web3["failing_before"] == {"extra": "not known: slow"}
    assert web3["tests"] == [
        {"name": "smoke", "verdict": "good", "reason": "up web3", "required": True, "passed": 1, "passes": 1},
        {"name": "extra", "verdict": "not known", "reason": "slow", "required": False, "passed": 0, "passes": 1},
    ]
    table = [line.split() for line in cli("rollout", "status").out.splitlines()]
    assert ["web3", "smoke", "good", "1", "of", "1", "up", "web3"] in table


def test_a_test_that_begins_to_fail_halts_and_one_that_failed_does_not(cli: Cli, bad: Path) -> None:
    assert apply(cli, bad).status == 0
    (bad / "web1").touch()
    # The daemon hears of web2's trouble only after web2 was restarted: its own restart breaks it, as it were.
    breaks = ("test ! -e", "n=$(cat TMP 2>/dev/null || echo 0); [ $LXCFLEET_CONTAINER = web2 ] && echo $((n + 1)) >TMP;"
              " [ $n = 0 ] || [ $LXCFLEET_CONTAINER = web1 ] && test ! -e")  # fmt: skip
    assert apply(cli, bad, (breaks[0], breaks[1].replace("TMP", str(bad / "count")))).status == 0
    ran = cli("restart", "--all", "--rolling", "-f", "json")
    assert ran.status == 3, ran.err
    record = json.loads(ran.out)
    assert {each["name"]: each["phase"] for each in record["containers"]} == {
        "web1": "done", "web2": "failed", "web3": "waiting",
    }  # fmt: skip
    assert record["containers"][0]["note"].startswith("failing before: smoke (bad: exit status 1: up web1), extra")
    assert record["halted"]["container"] == "web2"
    assert record["halted"]["why"] == "its test smoke was bad 5 s after its start: exit status 1: up web2"
    assert "its test smoke was bad 5 s after its start: exit status 1: up web2" in ran.err


def test_a_command_of_the_host_in_a_fleet_file_is_refused(cli: Cli, bad: Path) -> None:
    ran = apply(cli, bad, ("run: [sh, -c, \"echo slow; exit 3\"]", "where: host, run: [/bin/sh, -c, id]"))
    assert ran.status == 2
    assert "extra: only a profile of the settings may name a command of the host" in ran.err
