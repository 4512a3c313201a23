"""export, import and restore-check by the command line, over the real daemon and a fake launcher."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.api.queries import EventsRequest
from lxcfleet.containers import store
from lxcfleet.containers.requests.actions import Actions
from lxcfleet.errors import HostError
from lxcfleet.launcher.client import Conversation
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.states import State

from .conftest import Cli, Spawn, soon
from .real_daemon import Daemon

SUFFIX = ".lxcfleet.tar.zst"
SLEEP = ("--", "sleep", "infinity")


def spec(daemon: Daemon, name: str) -> Spec:
    found = store.load(daemon.paths, name)
    assert isinstance(found, Spec)
    return found


def test_a_container_comes_back_from_its_archive(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    assert cli("create", "web", "-l", "tier=front", "-e", "A=b", *SLEEP).status == 0
    file = tmp_path / "web.zst"
    ran = cli("export", "web", "-o", str(file), "-f", "json")
    (result,) = json.loads(ran.out)["results"]
    assert (ran.status, result["status"], result["file"], result["bytes"]) == (0, "exported", str(file), 2000)
    assert result["frozen_ms"] >= 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["web.zst"]
    assert daemon.fleet["web"].state is State.RUNNING
    again = cli("import", str(file))
    assert (again.status, again.err.splitlines()[0]) == (1, f"lxcfleet: {file}: a container named web exists already")
    assert "--name NAME" in again.err
    planned = cli("import", str(file), "--name", "other", "--dry-run")
    assert (planned.status, planned.out.split()[:2]) == (0, ["other", "planned"])
    assert not daemon.paths.container("other").directory.exists()
    made = cli("import", str(file), "--name", "other", "-f", "json")
    body = json.loads(made.out)
    (result,) = body["results"]
    assert (made.status, body["changed"], result["name"], result["started"]) == (0, True, "other", True)
    assert "exported on other" in made.err
    old, new = spec(daemon, "web"), spec(daemon, "other")
    assert (new.labels, new.environment, new.command) == (old.labels, old.environment, old.command)
    assert new.first_id != old.first_id
    assert new.created != ""
    assert daemon.fleet["other"].state is State.RUNNING
    assert cli("import", str(file), "--name", "third", "--no-start", "-q").out == "third\n"
    assert daemon.fleet["third"].state is State.STOPPED
    assert cli("start", "third").status == 0
    words = {(each["container"], each["what"]) for each in daemon.client.events(EventsRequest())}
    assert {("web", "exported"), ("other", "imported"), ("other", "started")} <= words


def test_a_chosen_address_that_is_taken_here_is_given_up(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "web.zst"
    assert cli("create", "web", "--address", "10.201.0.9", "-e", "A=b", *SLEEP).status == 0
    assert cli("export", "web", "-o", str(file)).status == 0
    made = cli("import", str(file), "--name", "other")
    assert (made.status, "it gets another address: a container can't have 10.201.0.9: web has it" in made.err) == (0, True)
    assert spec(daemon, "other").static_addresses == ()
    assert cli("destroy", "web", "other", "--force").status == 0
    assert cli("import", str(file), "--name", "other").status == 0
    assert str(spec(daemon, "other").address) == "10.201.0.9/16"


def test_a_directory_of_archives_keeps_the_last_ones(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    assert cli("create", "web", "-n", "3", *SLEEP).status == 0
    assert cli("stop", "web3").status == 0
    ran = cli("export", "--all", "--to", str(tmp_path), "-q")
    assert (ran.status, ran.out.split()) == (0, ["web1", "web2", "web3"])
    assert {each.name for each in tmp_path.iterdir()} == {f"web{number}{SUFFIX}" for number in (1, 2, 3)}
    for file in tmp_path.iterdir():
        file.unlink()
    kept = [tmp_path / f"web1{SUFFIX}", tmp_path / f"web11.20200101T000000Z{SUFFIX}", tmp_path / "web1.20200101T000000Z.txt"]
    old = [tmp_path / f"web1.{year}0101T000000Z{SUFFIX}" for year in (2019, 2020, 2021)]
    for file in (*kept, *old):
        file.touch()
    refused = cli("export", "web1", "--to", "")
    assert (refused.status, "--to names no directory: it is empty" in refused.err) == (2, True), refused.err
    assert cli("export", "web1", "--to", str(tmp_path), "--keep", "2").status == 0
    left = {each.name for each in tmp_path.iterdir()} - {each.name for each in kept}
    assert old[-1].name in left
    assert len(left) == 2
    assert all(re.fullmatch(rf"web1\.[0-9]{{8}}T[0-9]{{6}}Z{re.escape(SUFFIX)}", name) for name in left)
    frozen = json.loads(cli("export", "web3", "-o", str(tmp_path / "x"), "-f", "json").out)["results"][0]["frozen_ms"]
    assert frozen is None


def test_a_failed_export_leaves_no_file_and_the_old_archive(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    assert cli("create", "web", "-n", "2", *SLEEP).status == 0
    (tmp_path / f"web1{SUFFIX}").write_text("old")
    daemon.model.during = lambda name: _fail(name == "web1")
    ran = cli("export", "--all", "--to", str(tmp_path), "-f", "json")
    assert (ran.status, [each["status"] for each in json.loads(ran.out)["results"]]) == (3, ["failed", "exported"])
    assert "the disk is gone" in ran.err
    assert {each.name for each in tmp_path.iterdir()} == {f"web{number}{SUFFIX}" for number in (1, 2)}
    assert (tmp_path / f"web1{SUFFIX}").read_text() == "old"
    daemon.model.during = str
    assert daemon.fleet["web1"].state is State.RUNNING
    assert cli("export", "web1", "-o", str(tmp_path / "no" / "x")).status == 2
    # Somebody else writes it.
    beside = tmp_path / f".web1{SUFFIX}.new"
    with beside.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        busy = cli("export", "web1", "--to", str(tmp_path))
        assert (busy.status, "is being written" in busy.err, beside.exists()) == (1, True, True)
    # A killed export left it.
    assert cli("export", "web1", "--to", str(tmp_path)).status == 0
    assert not beside.exists()


def _fail(now: bool) -> None:
    if now:
        raise HostError("the disk is gone", why="it was pulled out")


def test_a_container_is_held_while_it_is_exported(cli: Cli, daemon: Daemon, spawn: Spawn, tmp_path: Path) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    go = tmp_path / "go"
    begun = tmp_path / "begun"

    def wait(name: str) -> None:
        begun.touch()
        soon(go.exists)

    daemon.model.during = wait
    process = spawn("export", "web", "-o", str(tmp_path / "web.zst"))
    soon(begun.exists)
    refused = cli("destroy", "web", "--force")
    assert (refused.status, "web is busy: export" in refused.err) == (1, True), refused
    go.touch()
    assert process.wait(60) == 0
    daemon.model.during = str
    assert daemon.fleet["web"].state is State.RUNNING
    assert cli("destroy", "web", "--force").status == 0


def test_a_directory_that_is_not_there_is_told_before_anything_stands_still(
    cli: Cli, daemon: Daemon, tmp_path: Path
) -> None:
    assert cli("create", "web", "-n", "2", *SLEEP).status == 0
    ran = cli("export", "--all", "--to", str(tmp_path / "none"))
    assert (ran.status, f"mkdir -p {tmp_path / 'none'}" in ran.err) == (2, True), ran.err
    assert ran.err.count("there is no directory") == 1


def test_an_archive_takes_the_place_of_a_file_alone(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)  # as /dev/null and /dev/stdout are no files
    link.symlink_to(pipe)
    stdout, dangling = tmp_path / "stdout", tmp_path / "dangling"  # as in /dev: a link to a link in /proc
    with (tmp_path / "file").open("w") as file:
        (tmp_path / "to-file").symlink_to(f"/proc/{os.getpid()}/fd/{file.fileno()}")
        stdout.symlink_to("to-file")
        dangling.symlink_to("nowhere")
        for each in (stdout, tmp_path / "to-file", dangling):
            ran = cli("export", "web", "-o", str(each))
            assert (ran.status, "is no file" in ran.err, each.is_symlink()) == (2, True, True), ran
        assert stdout.is_file(), "as /dev/stdout if a command's output goes to a file"
    for path in (stdout, dangling, tmp_path / "to-file", tmp_path / "file"):
        path.unlink()
    for target, told in ((pipe, "is no file"), (link, "is no file"), (tmp_path, "is a directory"), ("/", "is a directory")):
        ran = cli("export", "web", "-o", str(target))
        assert (ran.status, told in ran.err) == (2, True), ran
    for verb in ("import", "restore-check"):
        ran = cli(verb, str(tmp_path))
        assert (ran.status, "is a directory" in ran.err) == (1 if verb == "restore-check" else 2, True), ran
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]
    assert pipe.is_fifo()
    assert link.is_symlink()


def test_only_stopped_ones_if_that_is_asked_for(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    ran = cli("export", "web", "--stopped", "-o", str(tmp_path / "x"))
    assert (ran.status, "it runs" in ran.err, [*tmp_path.iterdir()]) == (1, True, [])
    assert cli("stop", "web").status == 0
    assert cli("export", "web", "--stopped", "-o", str(tmp_path / "x")).status == 0


def test_an_archive_goes_through_a_pipe(cli: Cli, daemon: Daemon, spawn: Spawn) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    out = spawn("export", "web", "-o", "-")
    took = spawn("import", "-", "--name", "copy", stdin=out.stdout)
    assert (out.wait(60), took.wait(60)) == (0, 0)
    assert b"it was frozen for" in out.stderr.read() if out.stderr else False
    assert daemon.fleet["copy"].state is State.RUNNING


def test_a_full_disk_behind_stdout_is_named(cli: Cli, daemon: Daemon, spawn: Spawn) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    with open("/dev/full", "wb") as full:
        out = spawn("export", "web", "-o", "-", stdout=full)
        _, err = out.communicate(timeout=60)
    assert (out.returncode, b"stdout: No space left on device" in err) == (1, True), err


WRONG: dict[str, tuple[str, ...]] = {
    "no place": ("export", "web"),
    "two places": ("export", "web", "-o", "x", "--to", "."),
    "one file for two": ("export", "--all", "-o", "x"),
    "keep in a file": ("export", "web", "-o", "x", "--keep", "2"),
    "nothing chosen": ("export", "--to", "."),
    "level": ("export", "web", "-o", "x", "--level", "20"),
    "file of a fleet": ("export", "--fleet", "shop", "-o", "x"),
    "time of a fleet": ("export", "--fleet", "shop", "--max-freeze", "5"),
    "one name for two": ("import", "a", "b", "--name", "c"),
    "no file": ("import",),
    "name": ("import", "a", "--name", "A_"),
    "check of a pipe": ("restore-check", "-"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_makes_no_sense_is_refused(kind: str, cli: Cli, daemon: Daemon) -> None:
    assert cli("create", "web", "-n", "2", "-q", *SLEEP).status == 0
    ran = cli(*WRONG[kind])
    assert (ran.status, ran.out) == (2, ""), ran


def _changed(file: Path, *changes: tuple[str, str]) -> Path:
    text = file.read_text()
    for old, new in changes:
        assert old in text, text
        text = text.replace(old, new)
    made = file.with_name("changed")
    made.write_text(text)
    return made


def test_a_hostile_head_is_refused_and_leaves_nothing(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    assert cli("create", "web", "-l", "a=b", *SLEEP).status == 0
    file = tmp_path / "web.zst"
    assert cli("export", "web", "-o", str(file)).status == 0
    for old, new, told in (
        ("format: 1", "format: 3", "has format 3"), ('"pids"', '"paths"', "paths"), ('"pids": ', '"pids": -', "pids"),
        ('name: "web"', 'name: "../web"', "name"), ('"app"', '"system"', "command"), ("spec: {", "spec: {{", "line"),
        ('{"a": "b"}', '{"a b": "b"}', "label"), ('"created": "', '"created": "", "x": "', "x"),
        ('"environment": {}', '"environment": {"A\\n": ""}', "environment"), ('"first_id": 1', '"first_id": 0x', "first_id"),
    ):  # fmt: skip
        ran = cli("import", str(_changed(file, (old, new))), "--name", "new")
        assert ran.status in (1, 2), (old, ran)
        assert told in ran.err, (old, ran)
        assert len(ran.err.splitlines()) > 1, ran
        assert not daemon.paths.container("new").directory.exists()
    assert [each["name"] for each in json.loads(cli("list", "-f", "json").out)] == ["web"]


def test_what_a_spec_asks_of_the_host_takes_trust(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    assert cli("volume", "create", "data").status == 0
    assert cli("create", "web", "-v", "data:/srv", "-p", "8080:80", "--device", "tun",
               "--lxc", "lxc.sysctl.net.core.somaxconn=512", "--network", "bridge", *SLEEP).status == 0  # fmt: skip
    file = tmp_path / "web.zst"
    assert cli("export", "web", "-o", str(file)).status == 0
    assert cli("destroy", "web", "--force").status == 0
    ran = cli("import", str(file), "-f", "json")
    (result,) = json.loads(ran.out)["results"]
    assert (ran.status, result["error"]["code"]) == (1, "denied")
    for what in ("the volume data", "the device tun", "the port 8080", "the key lxc.sysctl.net", "--trusted"):
        assert what in ran.err, what
    assert not daemon.paths.container("web").directory.exists()
    ran = cli("import", str(file), "--trusted")
    assert ran.status == 0, ran
    assert spec(daemon, "web").devices == ("tun",)
    # Another host has no such volume.
    assert cli("destroy", "web", "--force").status == 0
    assert cli("volume", "rm", "data").status == 0
    ran = cli("import", str(file), "--trusted")
    assert (ran.status, "lxcfleet volume create data" in ran.err) == (2, True), ran
    assert not daemon.paths.container("web").directory.exists()


def test_an_import_that_fails_leaves_nothing(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    file = tmp_path / "web.zst"
    assert cli("export", "web", "-o", str(file)).status == 0
    daemon.model.fails["new"] = HostError("no space left on device", why="the disk is full", hint="make room")
    ran = cli("import", str(file), "--name", "new")
    assert (ran.status, "the disk is full" in ran.err) == (1, True)
    assert cli("info", "new").status == 1
    del daemon.model.fails["new"]
    daemon.model.killed.add("new")
    ran = cli("import", str(file), "--name", "new")
    assert (ran.status, "ended before it was done" in ran.err) == (1, True), ran
    assert cli("info", "new").status == 1
    daemon.model.killed.clear()
    # The name and the ids are free again.
    assert cli("import", str(file), "--name", "new").status == 0


def test_volumes_come_with_their_container(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    assert cli("volume", "create", "data").status == 0
    assert cli("volume", "create", "more").status == 0
    assert cli("create", "db", "-v", "data:/srv", "-v", "more:/more:ro", *SLEEP).status == 0
    file = tmp_path / "db.zst"
    assert cli("export", "db", "-o", str(file), "--volumes").status == 0
    assert cli("destroy", "db", "--force").status == 0
    # Nothing is put on a volume that is here, and nothing is half done: the second of the two is in the way.
    assert cli("volume", "rm", "data").status == 0
    ran = cli("import", str(file), "--with-volumes", "--trusted")
    assert (ran.status, "a volume named more exists already" in ran.err) == (1, True), ran
    assert [path.name for path in daemon.paths.volumes.iterdir()] == ["more"]
    assert cli("info", "db").status == 1
    # One that is here belongs to this host, so it takes trust; those that are made of the archive do not.
    keep = ("import", str(file), "--with-volumes", "--keep-volumes")
    ran = cli(*keep)
    assert (ran.status, "the volume more" in ran.err, "the volume data" in ran.err) == (1, True, False), ran
    planned = cli(*keep, "--trusted", "--dry-run", "-f", "json")
    assert json.loads(planned.out)["results"][0]["volumes"] == ["data"]
    assert not daemon.paths.volume("data").directory.exists()
    ran = cli(*keep, "--trusted", "-f", "json")
    (result,) = json.loads(ran.out)["results"]
    assert (ran.status, result["volumes"], result["started"]) == (0, ["data"], True), ran
    assert "the volume more is here already" in ran.err
    assert "is not limited to 1G any more" in ran.err
    (made,) = [each for each in json.loads(cli("volume", "list", "-f", "json").out) if each["name"] == "data"]
    assert (made["labels"], made["containers"]) == ({"a": "b"}, ["db"])
    assert not daemon.paths.container("db").arrivals.exists()
    # Another name for both: the spec goes by them.
    new = ("--with-volumes", "--volume", "data=data2", "--volume", "more=more2")
    assert cli("import", str(file), "--name", "db2", *new).status == 0
    assert [str(each) for each in spec(daemon, "db2").volumes] == ["data2:/srv", "more2:/more:ro"]
    for bad, told in (
        (("--volume", "data=x"), "take --with-volumes"),
        (("--with-volumes", "--volume", "other=x"), "no files of the volume other"),
        (("--with-volumes", "--volume", "data"), "OLD=NEW"),
        (("--with-volumes", "--volume", "data=../x"), "can't be a volume's"),
        (("--with-volumes", "--volume", "data=x", "--volume", "more=x"), "same name"),
    ):  # fmt: skip
        ran = cli("import", str(file), "--name", "db3", *bad)
        assert (ran.status, told in ran.err) == (2, True), ran
    strange = _changed(file, ("data:/srv", "host:/srv"))
    ran = cli("import", str(strange), "--name", "db3", "--with-volumes", "--volume", "more=more3", "--trusted")
    assert (ran.status, "which its container does not have" in ran.err) == (2, True), ran
    assert sorted(path.name for path in daemon.paths.volumes.iterdir()) == ["data", "data2", "more", "more2"]


def test_what_waits_for_a_secret_of_its_fleet_starts_once_that_is_declared(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    """As on another host, where nothing was applied yet."""
    shop, file = tmp_path / "shop.yaml", tmp_path / "db.zst"
    (tmp_path / "pw").write_text("x")
    (tmp_path / "pw").chmod(0o600)
    groups = "{db: {command: [sleep, infinity], secrets: [pw]}}"
    shop.write_text(f"lxcfleet: 1\nfleet: shop\nsecrets: {{pw: {{file: {tmp_path}/pw}}}}\ngroups: {groups}\n")
    assert cli("apply", "-f", str(shop)).status == 0
    assert cli("export", "db", "-o", str(file)).status == 0
    assert cli("destroy", "db", "--force").status == 0
    assert cli("fleet", "rm", "shop").status == 0
    ran = cli("import", str(file), "--trusted")
    assert (ran.status, "there is no secret pw" in ran.err) == (0, True), ran
    assert daemon.fleet["db"].state is State.BLOCKED
    applied = cli("apply", "-f", str(shop))
    assert applied.status == 0, applied
    soon(lambda: daemon.fleet["db"].state is State.RUNNING)
    assert cli("diff", "-f", str(shop)).status == 0


def test_volumes_of_an_import_that_fails_are_not_there(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    assert cli("volume", "create", "data").status == 0
    assert cli("create", "db", "-v", "data:/srv", *SLEEP).status == 0
    file = tmp_path / "db.zst"
    assert cli("export", "db", "-o", str(file), "--volumes").status == 0
    new = ("import", str(file), "--name", "new", "--with-volumes", "--volume", "data=new")
    daemon.model.fails["new"] = HostError("no space left on device", why="the disk is full", hint="make room")
    assert cli(*new).status == 1
    del daemon.model.fails["new"]
    daemon.model.killed.add("new")
    assert cli(*new).status == 1
    assert [path.name for path in daemon.paths.volumes.iterdir()] == ["data"]
    daemon.model.killed.clear()
    assert cli(*new).status == 0


def test_an_import_whose_client_goes_away_at_the_last_moment_leaves_nothing(
    cli: Cli, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the container got its name when the daemon had given its ids to others already, and knew it no more."""
    assert cli("create", "web", *SLEEP).status == 0
    file = tmp_path / "web.zst"
    assert cli("export", "web", "-o", str(file)).status == 0
    asked, heard = threading.Event(), threading.Event()
    end = Conversation.end

    async def end_of(conversation: Conversation[Any, Any]) -> None:
        heard.set()
        await end(conversation)

    def during(name: str) -> None:
        if name == "new":
            asked.set()
            heard.wait(60)

    daemon.model.during = during
    monkeypatch.setattr(Conversation, "end", end_of)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client, file.open("rb") as archive:
        client.connect(str(daemon.paths.attach_socket))
        request = {
            "unpack": "new", "trusted": False, "limit": 0, "start": False, "check": False, "dry_run": False
        }  # fmt: skip
        with open(os.devnull, "rb") as nothing:
            descriptors = [archive.fileno(), nothing.fileno(), nothing.fileno()]
            socket.send_fds(client, [json.dumps(request).encode()], descriptors)
        assert asked.wait(60)
    assert heard.wait(60)
    time.sleep(1)  # by then the child would have given it its name
    soon(lambda: "new" not in daemon.fleet)
    assert not daemon.paths.container("new").directory.exists()
    daemon.model.during = str
    assert cli("import", str(file), "--name", "new").status == 0


def test_some_of_several_archives(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    file = tmp_path / "web.zst"
    assert cli("export", "web", "-o", str(file)).status == 0
    ran = cli("import", str(file), str(tmp_path / "none"), "-f", "json")
    assert (ran.status, [each["status"] for each in json.loads(ran.out)["results"]]) == (1, ["failed", "failed"])
    assert cli("destroy", "web", "--force").status == 0
    ran = cli("import", str(file), str(tmp_path / "none"), "-f", "json")
    assert (ran.status, [each["status"] for each in json.loads(ran.out)["results"]]) == (3, ["imported", "failed"])


def test_a_container_that_does_not_start_is_there_and_that_is_told(
    cli: Cli, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("create", "db", *SLEEP).status == 0
    assert cli("create", "web", "--depends-on", "db=started", *SLEEP).status == 0
    file = tmp_path / "web.zst"
    assert cli("export", "web", "-o", str(file)).status == 0
    assert cli("destroy", "web", "db", "--force").status == 0
    ran = cli("import", str(file), "--name", "new", "-f", "json")
    (result,) = json.loads(ran.out)["results"]
    assert (ran.status, result["status"], result["started"]) == (0, "imported", False)
    assert "it waits: " in ran.err
    assert daemon.fleet["new"].state is State.BLOCKED
    ran = cli("import", str(_changed(file, ("db", "new"))), "--name", "new2", "--no-start")
    assert ran.status == 0
    ran = cli("import", str(_changed(file, ("db", "again"))), "--name", "again")
    assert (ran.status, "circle" in ran.err) == (2, True), ran
    assert cli("create", "bad", *SLEEP).status == 0
    assert cli("export", "bad", "-o", str(file)).status == 0
    assert cli("destroy", "bad", "--force").status == 0

    async def act(*_: object) -> None:
        raise HostError("it can't be mounted")

    with monkeypatch.context() as broken:
        broken.setattr(Actions, "act", act)
        ran = cli("import", str(file), "-f", "json")
    body = json.loads(ran.out)
    assert (ran.status, body["changed"], body["results"][0]["status"]) == (1, True, "not started"), ran
    assert "it is not started: it can't be mounted" in ran.err
    assert daemon.fleet["bad"].state is State.STOPPED
    ran = cli("import", str(file), "--name", "bad2")
    assert ran.status == 0, ran


def test_a_check_tells_each_difference_and_leaves_nothing(cli: Cli, daemon: Daemon, tmp_path: Path) -> None:
    assert cli("create", "web", *SLEEP).status == 0
    file = tmp_path / "web.zst"
    assert cli("export", "web", "-o", str(file)).status == 0
    ran = cli("restore-check", str(file))
    assert (ran.status, ran.out.split()[:2]) == (0, ["web", "checked"])
    daemon.model.changes["restore-check"] = []
    ran = cli("restore-check", str(file), "-f", "json")
    (result,) = json.loads(ran.out)["results"]
    assert (ran.status, result["status"], result["differing"]) == (1, "differs", 3)
    assert "delta/x: has another content" in ran.err
    assert "and 2 more" in ran.err
    assert cli("restore-check", str(_changed(file, ("format: 1", "format: 9")))).status == 1
    assert [each["name"] for each in json.loads(cli("list", "-f", "json").out)] == ["web"]
    assert {each.name for each in daemon.paths.lxc.iterdir() if each.name.startswith(Paths.NEW_PREFIX)} == set()
