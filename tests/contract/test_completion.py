"""What the shell offers at TAB, as click's scripts for bash, zsh and fish ask for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lxcfleet.model import State

from .fake_server import FakeDaemon

CLIENT = str(Path(__file__).resolve().parents[2] / "bin/lxcfleet")


def offered(paths: dict[str, str], *words: str) -> list[str]:
    """What bash is offered for the last of the words."""
    environment = {
        **os.environ, **paths, "_LXCFLEET_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("lxcfleet", *words)),
        "COMP_CWORD": str(len(words)),
    }  # fmt: skip
    done = subprocess.run([sys.executable, CLIENT], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.fixture
def paths(fake: FakeDaemon) -> dict[str, str]:
    fake.fleet.add("web1", labels={"tier": "front"})
    fake.fleet.add("web2", labels={"tier": "front", "zone": "a"})
    fake.fleet.add("db", state=State.STOPPED)
    return fake.paths.environment()


def test_verbs_and_options(paths: dict[str, str]) -> None:
    assert offered(paths, "re") == ["restart"]
    assert "--until-boot" in offered(paths, "stop", "--u")
    assert offered(paths, "list", "-f", "j") == ["json"]


@pytest.mark.parametrize("verb", ["start", "stop", "info", "logs", "shell", "exec", "destroy", "wait", "list", "rm"])
def test_names(paths: dict[str, str], verb: str) -> None:
    assert offered(paths, verb, "w") == ["web1", "web2"]


def test_names_that_are_there_are_not_offered_again(paths: dict[str, str]) -> None:
    assert offered(paths, "restart", "web1", "web") == ["web2"]


def test_labels(paths: dict[str, str]) -> None:
    assert offered(paths, "restart", "-l", "") == ["tier=front", "zone=a"]
    assert offered(paths, "create", "x", "--label", "z") == ["zone=a"]


def test_the_command_after_dashes_is_not_ours(paths: dict[str, str]) -> None:
    assert offered(paths, "exec", "web1", "--", "we") == []


def test_without_a_daemon_there_is_nothing_to_offer_and_none_is_started(tmp_path: Path) -> None:
    nowhere = {f"LXCFLEET_{name}": str(tmp_path) for name in ("RUN", "LXC", "ETC")}
    assert offered(nowhere, "stop", "") == []
    assert list(tmp_path.iterdir()) == []
