"""push, pull and exec --stdin-to-all, over the real daemon and a launcher that runs commands on this machine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from .conftest import Cli, Spawn
from .real_daemon import Daemon


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory to copy."""
    top = tmp_path / "site"
    (top / "sub").mkdir(parents=True)
    (top / "index").write_text("hello\n")
    (top / "index").chmod(0o640)
    (top / "link").symlink_to("index")
    return top


def test_files_are_put_into_containers(cli: Cli, daemon: Daemon, site: Path, tmp_path: Path) -> None:
    daemon.fleet.add("web1")
    target = tmp_path / "there" / "deep"
    owner = f"{os.geteuid()}:{os.getegid()}"
    planned = cli("push", "web1", "--dry-run", "--", str(site), str(target))
    assert (planned.status, planned.out, target.exists()) == (0, "web1  planned\n", False)
    ran = cli("push", "web1", "--owner", owner, "--", str(site), str(target))
    assert (ran.status, ran.out, ran.err) == (0, "web1  pushed\n", "")
    assert (target / "site/link").read_text() == "hello\n"
    assert (target / "site/index").stat().st_mode & 0o777 == 0o640
    assert json.loads(cli("push", "web1", "-f", "json", "--", str(site), str(target)).out)["changed"] is True


@pytest.mark.parametrize("words", [["push", "site", "web1:/srv"], ["pull", "web1:/srv", "."], ["push", "web1", "--", "/srv"]])
def test_what_is_written_as_for_scp_is_answered_with_an_example(cli: Cli, words: list[str]) -> None:
    ran = cli(*words)
    assert ran.status == 2
    assert f"for example: lxcfleet {words[0]} web1 -- " in ran.err


def test_files_are_taken_from_containers(cli: Cli, daemon: Daemon, site: Path, tmp_path: Path) -> None:
    for name in ("web1", "web2"):
        daemon.fleet.add(name)
    assert cli("pull", "web1", "--", f"{site}/sub", f"{site}/index", str(tmp_path / "one")).out == "web1  pulled\n"
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["index", "sub"]
    assert cli("pull", "web*", "--", str(site), str(tmp_path / "all")).status == 0
    assert [(tmp_path / "all" / name / "site/link").read_text() for name in ("web1", "web2")] == ["hello\n"] * 2
    (site / "out").symlink_to("/etc")
    ran = cli("pull", "web1", "--", str(site), str(tmp_path / "again"))
    assert ran.status == 1
    assert "out: this link leads out" in ran.err
    assert (tmp_path / "again/site/index").read_text() == "hello\n"


def test_what_gives_too_much_or_no_archive_leaves_nothing(
    cli: Cli, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.fleet.add("web1")
    fakes = tmp_path / "bin"
    fakes.mkdir()
    tar = fakes / "tar"
    monkeypatch.setenv("PATH", f"{fakes}:{os.environ['PATH']}")
    for script, why in (
        ("yes", "gives more than 4M"),
        ("echo nonsense", "is no whole archive"),
        ("exit 3", "status 3"),
        ("echo 'tar: \033[2J' >&2; exit 2", "tar: \\x1b[2J"),
    ):
        tar.write_text(f"#!/bin/sh\n{script}\n")
        tar.chmod(0o755)
        ran = cli("pull", "web1", "--limit", "4M", "--", "/srv", str(tmp_path / "got"))
        assert (ran.status, why in ran.err) == (1, True), ran
        assert not list(tmp_path.glob("got/*"))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("push", "web1"), "what is copied is not said"),
        (("push", "web1", "--", "only"), "what is copied is not said"),
        (("push", "web1", "--", "/missing", "/srv"), "No such file"),
        (("push", "web1", "--", "/dev/null", "/srv"), "a device"),
        (("push", "web1", "--", "/", "/srv"), "whole root"),
        (("push", "web1", "--", "/etc/hostname", "srv"), "no absolute path"),
        (("push", "web1", "--owner", "www-data", "--", "/etc/hostname", "/srv"), "UID:GID"),
        (("push", "--", "/etc/hostname", "/srv"), "no container chosen"),
        (("pull", "web1", "--", "srv", "."), "no absolute path"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_copied(
    cli: Cli, daemon: Daemon, arguments: tuple[str, ...], why: str
) -> None:
    daemon.fleet.add("web1")
    ran = cli(*arguments)
    assert (ran.status, why in ran.err) == (2, True), ran


def test_each_command_gets_all_of_stdin(daemon: Daemon, spawn: Spawn) -> None:
    for number in range(5):
        daemon.fleet.add(f"web{number}")
    process = spawn("exec", "web*", "--stdin-to-all", "-f", "json", "--", "sha1sum", stdin=subprocess.PIPE)
    out, err = process.communicate(os.urandom(200_000))
    assert (process.returncode, err) == (0, b"")
    results = json.loads(out)
    assert len({result["stdout"] for result in results}) == 1
    assert len(results) == 5


def test_a_command_that_reads_no_stdin_ends_all_the_same(daemon: Daemon, spawn: Spawn) -> None:
    daemon.fleet.add("web1")
    process = spawn("exec", "web1", "--stdin-to-all", "--", "echo", "done", stdin=subprocess.PIPE)
    assert process.communicate(bytes(1 << 20))[0] == b"web1: done\n"
    assert process.returncode == 0
