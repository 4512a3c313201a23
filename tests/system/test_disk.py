"""The share of the common disk that one container can take: bytes, inodes and logs.

Limits need a kernel with project quotas. tests/vm/test_system.py runs these tests in machines that have such a kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lxcfleet.host.kernel import quota
from lxcfleet.host.process import copying

from . import hogs
from .harness import SLEEP, Fleet, Ran, fleet_on_disk, source, until

pytestmark = pytest.mark.system

LIMIT = 16 << 20
SLACK = 64 << 10


@pytest.fixture
def plain_disk() -> Iterator[Fleet]:
    """A fleet on ext4 with mkfs's defaults: 5 % are kept for root, and no container's share is limited."""
    with fleet_on_disk() as fleet:
        yield fleet


@pytest.fixture
def limiting_disk() -> Iterator[Fleet]:
    """A fleet on ext4 with project quotas, which limit the share of each container."""
    try:
        with fleet_on_disk("-O", "project,quota", "-E", "quotatype=prjquota", options="loop,prjquota") as fleet:
            yield fleet
    except subprocess.CalledProcessError as error:
        if "mount" not in error.cmd:
            raise
        pytest.skip(f"this kernel has no project quotas: {error.stderr!r}")


def write(directory: Path, size: int) -> None:
    """Write this many bytes to the disk as root of the host."""
    file = directory / "ballast"
    with file.open("wb") as stream:
        stream.write(os.urandom(size))
        stream.flush()
        os.fsync(stream.fileno())
    file.unlink()


def fill(fleet: Fleet, name: str, attack: Callable[[], None] = hogs.fill_disk) -> int:
    """Have a container take all that it can get. Return the number that the attack prints."""
    ran = fleet.run("exec", name, "--", "python3", "-c", source(attack), timeout=600)
    assert ran.status == 0, ran
    return int(ran.out)


def ask_for(fleet: Fleet, name: str, disk: int) -> None:
    """Write another limit into a container's spec."""
    file = fleet.paths.container(name).spec
    lines = [line for line in file.read_text().splitlines() if not line.startswith("disk:")]
    file.write_text("\n".join([*lines, f"disk: {disk}", ""]))
    fleet.stop_daemon()
    fleet.start_daemon()


def projects(top: Path) -> set[int]:
    """The projects for which the directories and files below are counted."""
    found = set()
    for directory, _, files in os.walk(top):
        for path in (Path(directory), *(Path(directory, file) for file in files)):
            if stat.S_ISREG(path.lstat().st_mode) or stat.S_ISDIR(path.lstat().st_mode):
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                found.add(quota._attributes(handle)[3])
                os.close(handle)
    return found


def limit_of(fleet: Fleet, project: int) -> int:
    """The limit that the file system has for a project, in bytes."""
    record = ctypes.create_string_buffer(quota._RECORD.size)
    quota._control(fleet.paths.lxc, quota._Q_GETQUOTA, project, record)
    return int(quota._RECORD.unpack(record.raw)[0]) << 10


def test_the_disk_space_that_is_kept_for_root_stays_for_the_host(plain_disk: Fleet) -> None:
    fleet = plain_disk
    name = fleet.name("greedy")
    fleet.create(name)
    for _ in range(2):
        assert fill(fleet, name) < SLACK
        write(fleet.paths.lxc, 6 << 20)
        fleet.ok("restart", name)


def test_a_full_disk_ends_a_snapshot_and_an_import_and_leaves_nothing(plain_disk: Fleet, tmp_path: Path) -> None:
    fleet, web, new = plain_disk, plain_disk.name("web"), plain_disk.name("new")
    fleet.create(web)
    fleet.inside(web, "head -c 24M /dev/urandom >/srv/large")
    archive = tmp_path / "web.lxcfleet.tar.zst"
    fleet.ok("export", web, "-o", str(archive))
    found = os.statvfs(fleet.paths.lxc)
    ballast = fleet.paths.lxc / "ballast"
    with ballast.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(0, found.f_bavail * found.f_frsize - (8 << 20)))
    before = sorted(os.listdir(fleet.paths.lxc))
    for words in (
        ("snapshot", "create", web, "--name", "a", "--yes"), ("import", str(archive), "--name", new),
        ("restore-check", str(archive)),
    ):  # fmt: skip
        ran = fleet.run(*words)
        assert ran.status == 1, (words, ran)
        assert "room" in ran.err, (words, ran.err)
    assert json.loads(fleet.ok("snapshot", "list", "-f", "json")) == []
    assert fleet.states() == {web: "running"}
    assert not [each for each in os.listdir(fleet.paths.lxc) if each not in before and new in each]
    ballast.unlink()
    fleet.ok("import", str(archive), "--name", new)
    assert fleet.inside(new, "stat -c %s /srv/large").strip() == str(24 << 20)


def test_a_build_that_fills_the_disk_ends_and_leaves_nothing(plain_disk: Fleet) -> None:
    fleet, web = plain_disk, plain_disk.name("web")
    fleet.create(web)

    def bake(version: str, script: str) -> Ran:
        words = ("app", "bake", "shop", "--version", version, "--", "sh", "-ec", f"mkdir -p /opt/shop; {script}")
        return fleet.run(*words, timeout=300)

    def free() -> int:
        found = os.statvfs(fleet.paths.lxc)
        return found.f_bavail * found.f_frsize

    before = free()
    for script, why in (
        ("head -c 1G /dev/zero >/opt/shop/large", "No space left on device"),
        ("head -c 1G /dev/zero >/opt/shop/large || true", "there is no room for this release"),
        ("head -c 120M /dev/zero >/opt/shop/large", "there is no room for this release"),
    ):
        ran = bake("1", script)
        assert (ran.status, why in ran.err) == (1, True), (script, ran)
        assert fleet.states() == {web: "running"}
        assert json.loads(fleet.ok("app", "list", "-f", "json")) == []
        assert not fleet.paths.app("shop").exists()
        until(lambda: free() > before - (4 << 20), what="the space is free again")
    assert bake("1", "head -c 1G /dev/zero >/srv/large || true; rm /srv/large; echo small >/opt/shop/small").status == 0
    assert os.listdir(fleet.paths.release("shop", "1").tree) == ["small"]
    fleet.ok("app", "rm", "shop@1")


def test_one_container_can_not_take_the_disk_of_the_others(limiting_disk: Fleet) -> None:
    fleet = limiting_disk
    greedy, other = fleet.name("greedy"), fleet.name("other")
    fleet.create(greedy, options=("--disk", "16M"))
    fleet.create(other)
    free = os.statvfs(fleet.paths.lxc)
    made = fill(fleet, greedy, hogs.fill_inodes)
    assert quota.files_for(LIMIT) - 50 < made <= quota.files_for(LIMIT)
    assert free.f_ffree - os.statvfs(fleet.paths.lxc).f_ffree <= made + 50
    assert fleet.inside(other, "seq 500 | split -l 1 - /root/many && rm -r /root/* && echo done") == "done"
    fleet.inside(greedy, "rm -r /root/empty")
    for _ in range(2):
        assert fill(fleet, greedy) < SLACK
        assert (free.f_bfree - os.statvfs(fleet.paths.lxc).f_bfree) * free.f_frsize <= LIMIT + (1 << 20)
        assert fleet.inside(other, "head -c 30000000 /dev/zero >/root/mine && sync && rm /root/mine && echo done") == "done"
        write(fleet.paths.lxc, 6 << 20)
        record = fleet.record(greedy)
        assert record["disk_limit_bytes"] == LIMIT
        assert LIMIT - SLACK <= record["delta_bytes"] <= LIMIT
        fleet.ok("restart", greedy)
    # The container can make room for itself.
    assert fleet.inside(greedy, "rm -r /root/* && head -c 8000000 /dev/zero >/root/again && echo done") == "done"
    assert int(fleet.inside(greedy, "df -B1 --output=size / | tail -1")) == LIMIT


def test_a_limit_changes_while_the_container_runs(limiting_disk: Fleet) -> None:
    fleet = limiting_disk
    name, free = fleet.name("a"), fleet.name("b")
    fleet.create(name, options=("--disk", "16M"))
    fleet.create(free)
    pid = fleet.pid(name)
    fleet.ok("set", name, "disk=32M")
    assert fleet.inside(name, "head -c 24000000 /dev/zero >/root/more && sync && echo done") == "done"
    assert int(fleet.inside(name, "df -B1 --output=size / | tail -1")) == 32 << 20
    assert (fleet.record(name)["disk_limit_bytes"], fleet.pid(name)) == (32 << 20, pid)
    fleet.ok("set", name, "disk=0")
    assert fleet.inside(name, "head -c 40000000 /dev/zero >/root/more && sync && echo done") == "done"
    refused = fleet.run("set", name, free, "disk=64M")
    assert (refused.status, free in refused.err) == (1, True), refused
    assert fleet.record(name)["disk_limit_bytes"] is None
    fleet.ok("stop", free)
    fleet.ok("set", name, free, "disk=64M")
    fleet.ok("start", free)
    assert int(fleet.inside(free, "df -B1 --output=size / | tail -1")) == 64 << 20


def test_a_fleet_file_changes_the_size_of_a_volume(limiting_disk: Fleet, tmp_path: Path) -> None:
    fleet, file = limiting_disk, tmp_path / "fleet.yaml"
    name, volume = fleet.name("app"), fleet.name("data")
    group = f'{name}: {{command: [sleep, infinity], network: none, volumes: ["{volume}:/srv"]}}'

    def apply(said: str, status: int = 0) -> str:
        file.write_text(f"lxcfleet: 1\nfleet: shop\nvolumes: {{{volume}: {said}}}\ngroups: {{{group}}}\n")
        ran = fleet.run("apply", "-f", str(file))
        assert ran.status == status, ran
        return ran.err

    fill_some = "head -c 9000000 /dev/zero >/srv/file"
    apply("{}")
    assert "containers that have it run" in apply("{size: 8M}", 1)
    fleet.ok("stop", name)
    apply("{size: 8M}")
    fleet.ok("start", name)
    assert fleet.run("exec", name, "--", "sh", "-c", fill_some).status != 0
    apply("{size: 16M}")
    assert fleet.inside(name, f"{fill_some} && echo done") == "done"
    assert "9 MiB are on it" in apply("{size: 8M}", 1)
    apply("{}")
    assert fleet.inside(name, "head -c 20000000 /dev/zero >/srv/more && echo done") == "done"


def test_a_container_can_not_leave_its_limit(limiting_disk: Fleet) -> None:
    fleet = limiting_disk
    system, app = fleet.name("system"), fleet.name("app")
    fleet.create(system, command=(), options=("--disk", "64M"))
    fleet.create(app, options=("--disk", "16M"))
    for name in (system, app):
        ran = fleet.run("exec", name, "--", "python3", "-c", source(hogs.escape_limit))
        assert ran.status == 0, ran
        assert "refused" in ran.out
        assert not {line for line in ran.out.splitlines() if line.split()[0].isupper()}, ran.out
        # Every operation that makes files in an overlay.
        fleet.inside(
            name,
            "cd /etc; mv hosts hosts.old; ln hosts.old hosts; ln -s hosts link; mv link link2; rm -r apt; mkdir apt;"
            "mkdir -p a/b; mv a /root/a; mv debian_version /root; echo new >debian_version; rm profile; echo x >profile;"
            "mkfifo /root/fifo; mv /root/fifo /var; cp -a /etc/skel /root/skel; sed -i s/x/y/ profile",
        )
        own = fleet.paths.container(name)
        assert projects(own.delta) == projects(own.work) == {fleet.record(name)["first_id"]}


def test_a_delta_without_a_limit_is_limited_from_its_next_start(limiting_disk: Fleet) -> None:
    fleet = limiting_disk
    name = fleet.name("moved")
    fleet.create(name)
    fleet.inside(
        name,
        "cd /root; mkdir -p deep/er; echo text >deep/er/file; ln deep/er/file second; ln -s file deep/er/link;"
        "mkfifo -m 640 deep/fifo; chown 5:6 deep/fifo; rm /etc/hosts; rm -r /etc/apt; mkdir -p /etc/apt;"
        "chown -h 7 deep/er/link",
    )
    assert projects(fleet.delta(name)) == {0}
    before = sorted(subprocess.check_output(["find", fleet.delta(name), "-printf", "%P %y %m %U %G %l %t\n"]).splitlines())
    fleet.ok("stop", name)
    ask_for(fleet, name, LIMIT)
    fleet.ok("start", name)
    after = sorted(subprocess.check_output(["find", fleet.delta(name), "-printf", "%P %y %m %U %G %l %t\n"]).splitlines())
    assert after == before
    assert projects(fleet.delta(name)) == {fleet.record(name)["first_id"]}
    assert fleet.record(name)["disk_limit_bytes"] == LIMIT
    # Whiteouts, links and FIFOs can be replaced, moved and linked to: the file system counts them for the project, too.
    said = fleet.inside(
        name, "cd /root; ls /etc/apt; test ! -e /etc/hosts; echo new >/etc/hosts; mv deep/er/link moved; mv deep/fifo fifo;"
        "ln fifo fifo2; cat second /etc/hosts; stat -c %h second",
    )  # fmt: skip
    assert said.split() == ["text", "new", "2"]
    assert fill(fleet, name) < SLACK
    # The limit can be lifted again.
    fleet.ok("stop", name)
    ask_for(fleet, name, 0)
    fleet.ok("start", name)
    fleet.inside(name, "head -c 50000000 /dev/zero >/root/more")


def test_a_limit_is_removed_with_its_container(limiting_disk: Fleet) -> None:
    fleet = limiting_disk
    name = fleet.name("short")
    fleet.create(name, options=("--disk", "16M"))
    project = fleet.record(name)["first_id"]
    assert limit_of(fleet, project) == LIMIT
    fleet.ok("destroy", name, "--force")
    assert limit_of(fleet, project) == 0
    fleet.create(name)
    assert fleet.record(name)["first_id"] == project
    fleet.inside(name, "head -c 50000000 /dev/zero >/root/more")


def test_a_container_restored_from_a_backup_keeps_its_limit(limiting_disk: Fleet) -> None:
    fleet = limiting_disk
    name = fleet.name("restored")
    fleet.create(name, options=("--disk", "16M"))
    fleet.inside(name, "rm /etc/hosts; echo mine >/root/mine")
    fleet.ok("stop", name)
    own = fleet.paths.container(name)
    archive = fleet.paths.etc / "backup.tar"
    tar = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", str(fleet.paths.lxc)]
    subprocess.run([*tar, "-cf", str(archive), name], check=True)
    fleet.stop_daemon()
    shutil.rmtree(own.directory)
    subprocess.run([*tar, "-xf", str(archive)], check=True)
    fleet.start_daemon()
    fleet.ok("start", name)
    assert fleet.inside(name, "cat /root/mine; echo >/etc/hosts") == "mine"
    fill(fleet, name)
    assert fleet.record(name)["delta_bytes"] <= LIMIT


def test_a_limit_that_the_file_system_can_not_keep_is_refused(plain_disk: Fleet) -> None:
    fleet = plain_disk
    name = fleet.name("limited")
    refused = fleet.run("create", name, "--disk", "16M", *SLEEP)
    assert (refused.status, "project quotas" in refused.err) == (1, True), refused
    assert not fleet.states()
    found = {finding["check"]: finding for finding in fleet.json_any("doctor")["findings"]}
    assert found["disk-limits"]["level"] == "warning"
    assert "tune2fs -O project,quota" in found["disk-limits"]["hint"]
    # A limit that the file system kept once is not forgotten, but refused.
    fleet.create(name)
    fleet.ok("stop", name)
    ask_for(fleet, name, LIMIT)
    refused = fleet.run("start", name)
    assert (refused.status, "project quotas" in refused.err) == (1, True), refused
    ask_for(fleet, name, 0)
    fleet.ok("start", name)


def test_the_log_of_starts_does_not_grow_for_ever(plain_disk: Fleet) -> None:
    fleet = plain_disk
    name = fleet.name("restless")
    fleet.create(name)
    own = fleet.paths.container(name)
    for _ in range(2):
        own.lxc_log.write_bytes(b"x\n" * (1 << 20))
        fleet.ok("restart", name)
    sizes = [path.stat().st_size for path in own.directory.glob("lxc.log*")]
    assert sum(sizes) < (2 << 20) + SLACK


def test_what_is_mounted_in_a_delta_is_neither_counted_nor_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bind mount has the number of the same file system. The files of the operator that it shows were counted for the
    container, and were in its snapshots."""
    delta, home, work, to = (tmp_path / name for name in ("delta", "home", "work", "copy"))
    for each in (delta / "home", delta / "disk", delta / "etc", home / "joe", work, to):
        each.mkdir(parents=True)
    for each in (delta / "etc/own", delta / "etc/conf", home / "joe/file", tmp_path / "single"):
        each.write_text(each.name)
    link = home / "joe/link"
    link.symlink_to("file")
    former = link.lstat().st_ino
    marked: set[str] = set()
    monkeypatch.setattr(quota, "_mark", lambda handle, _: marked.add(os.readlink(f"/proc/self/fd/{handle}")))
    asker, _other = socket.socketpair()
    mounted = {"home": f"--bind {home}", "etc/conf": f"--bind {tmp_path}/single", "disk": "-t tmpfs lxcfleet"}
    with contextlib.ExitStack() as undo:
        for place, how in mounted.items():
            subprocess.run(["mount", *how.split(), str(delta / place)], check=True)
            undo.callback(lambda place=place: subprocess.run(["umount", str(delta / place)], check=True))
        quota._mark_tree(delta, 5, work)
        copying.copy(delta, to, asker.fileno())
    assert marked == {str(path) for path in (delta, delta / "etc", delta / "etc/own")}
    assert link.lstat().st_ino == former
    assert sorted(str(path.relative_to(to)) for path in to.rglob("*")) == ["disk", "etc", "etc/conf", "etc/own", "home"]
    assert (to / "etc/conf").read_text() == "conf"
