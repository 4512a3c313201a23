"""Completion at TAB, as click's scripts for bash, zsh and fish ask for it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lxcfleet.spec.states import State

from .real_daemon import Daemon

ROOT = Path(__file__).resolve().parents[2]
CLIENT = str(ROOT / "bin/lxcfleet")


def offered(paths: dict[str, str], *words: str) -> list[str]:
    """The completions that bash gets for the last of the words."""
    environment = {
        **os.environ, **paths, "_LXCFLEET_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("lxcfleet", *words)),
        "COMP_CWORD": str(len(words)),
    }  # fmt: skip
    done = subprocess.run([sys.executable, CLIENT], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.fixture
def paths(daemon: Daemon) -> dict[str, str]:
    daemon.fleet.add("web1", labels={"tier": "front"})
    daemon.fleet.add("web2", labels={"tier": "front", "zone": "a"})
    daemon.fleet.add("db", state=State.STOPPED)
    return daemon.paths.environment()


def test_verbs_and_options(paths: dict[str, str]) -> None:
    assert offered(paths, "re") == ["restart", "restore-check"]
    assert "--until-boot" in offered(paths, "stop", "--u")
    assert offered(paths, "list", "-f", "j") == ["json"]


@pytest.mark.parametrize("verb", ["start", "stop", "info", "logs", "shell", "exec", "destroy", "wait", "list", "rm"])
def test_names(paths: dict[str, str], verb: str) -> None:
    assert offered(paths, verb, "w") == ["web1", "web2"]


def test_names_on_the_line_are_not_offered_again(paths: dict[str, str]) -> None:
    assert offered(paths, "restart", "web1", "web") == ["web2"]


def test_what_set_can_change_and_the_words_for_it(paths: dict[str, str]) -> None:
    assert offered(paths, "set", "web1", "aut") == ["autostart="]
    assert {"network=bridge", "network=none", "network=host"} <= {*offered(paths, "set", "web1", "network=")}
    assert offered(paths, "set", "web1", "autostart=n") == ["autostart=no"]
    assert offered(paths, "set", "web1", "memory=") == []
    assert offered(paths, "set", "web1", "nix=") == []


def test_what_a_container_can_be_given_and_where_it_can_go(paths: dict[str, str], daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    for made in (("app", "add", "shop", str(tmp_path / "build"), "--version", "1"), ("volume", "create", "up")):
        assert subprocess.run([sys.executable, CLIENT, *made], env={**os.environ, **paths}, timeout=60).returncode == 0
    assert [each["release"] for each in daemon.client.apps()] == ["shop@1"]
    assert offered(paths, "app", "use", "web1", "sh") == ["shop@1"]
    assert offered(paths, "app", "use", "w") == ["web1", "web2"]
    assert offered(paths, "create", "x", "--app", "") == ["shop@1"]
    assert offered(paths, "create", "x", "-v", "u") == ["up"]
    assert offered(paths, "create", "x", "--depends-on", "d") == ["db"]
    assert offered(paths, "move", "w") == ["web1", "web2"]


def test_fleets_and_groups_that_can_be_scaled(paths: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    groups = "  api: {count: 1, command: [sleep, '900']}\n  one: {command: [sleep, '900']}\n"
    file.write_text(f"lxcfleet: 1\nfleet: shop\ngroups:\n{groups}")
    applied = subprocess.run([sys.executable, CLIENT, "apply", "-qf", str(file)], env={**os.environ, **paths}, timeout=60)
    assert applied.returncode == 0
    assert offered(paths, "scale", "") == ["api"]
    assert offered(paths, "fleet", "rm", "s") == ["shop"]


def test_labels(paths: dict[str, str]) -> None:
    assert offered(paths, "restart", "-l", "") == ["tier=front", "zone=a"]
    assert offered(paths, "create", "x", "--label", "z") == ["zone=a"]


def test_nothing_is_offered_within_the_command_after_dashes(paths: dict[str, str]) -> None:
    assert offered(paths, "exec", "web1", "--", "we") == []


def test_without_a_daemon_nothing_is_offered_and_none_is_started(tmp_path: Path) -> None:
    nowhere = {f"LXCFLEET_{name}": str(tmp_path) for name in ("RUN", "LXC", "ETC")}
    assert offered(nowhere, "stop", "") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("list we\t", "list web"),
        ("list -l z\t", "list -l zone=a "),
        ("list -l tier=f\t", "list -l tier=front "),
        ("list --label=tier=f\t", "list --label=tier=front "),
        ("list --format=j\t", "list --format=json "),
        ("list -l 'tier=f\t", "list -l 'tier=front' "),
        ("create x -e A= -p 80:80 -l z\t", "create x -e A= -p 80:80 -l zone=a "),
    ],
)
def test_bash(paths: dict[str, str], typed: str, becomes: str) -> None:
    """Bash's command line after a TAB. Bash splits words at = and :, which may be inside a label."""
    terminal, theirs = pty.openpty()
    environment = {**paths, "PATH": f"{ROOT}/bin:/usr/bin:/bin", "TERM": "dumb", "INPUTRC": "/dev/null", "PS1": ""}
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env=environment,
    )  # fmt: skip
    os.close(theirs)
    try:
        os.write(terminal, f"source {ROOT}/docs/completion.bash; PS1='ready:'\n".encode())
        seen(terminal, "\nready:")
        os.write(terminal, f"lxcfleet {typed}".encode())
        seen(terminal, f"lxcfleet {becomes}")
    finally:
        bash.kill()
        bash.wait()
        os.close(terminal)


def test_zsh_answers_the_first_tab(tmp_path: Path) -> None:
    """At the first TAB zsh only loads the file; the file's own code has to give the completions."""
    subprocess.run([sys.executable, ROOT / "docs/manual.py", tmp_path], check=True, timeout=60)
    script = (tmp_path / "completion.zsh").read_text()
    assert script.startswith("#compdef lxcfleet\n")
    assert "\n_lxcfleet_completion \"$@\"\n" in script.replace("\n    ", "\n")
    for page in ("lxcfleet.1", "lxcfleet.yaml.5", "lxcfleetd.8"):
        assert (tmp_path / page).read_text().isascii(), "in the locale C man leaves other characters out"


def seen(terminal: int, text: str) -> None:
    """Wait until the terminal has shown the text."""
    shown, deadline = "", time.monotonic() + 60
    while text not in shown:
        assert select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0], shown
        shown += os.read(terminal, 4096).decode(errors="replace").replace("\a", "")
