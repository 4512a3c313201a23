"""Volumes on real kernels: owners in containers with different ids, hostile guests, and what a crash leaves."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lxcfleet.data import mounting, volumes
from lxcfleet.errors import InvalidInput, Unsupported
from lxcfleet.host.kernel import syscalls, tree
from lxcfleet.paths import Paths
from lxcfleet.spec.container.volumes import Volume

from .harness import SLEEP, Fleet, until

pytestmark = pytest.mark.system

AS_33 = "setpriv --reuid 33 --regid 33 --clear-groups"


@pytest.fixture
def volume(fleet: Fleet) -> Iterator[str]:
    """A volume by the name of ``data``, which is removed after the test's containers."""
    fleet.ok("volume", "create", "data", "--ensure")
    yield "data"
    fleet.ok("destroy", "--all", "--force", "-q")
    assert fleet.paths.volume("data").data.is_dir()
    fleet.ok("volume", "rm", "data")
    assert not list(fleet.paths.volumes.iterdir())


def refused(fleet: Fleet, name: str, script: str) -> str:
    ran = fleet.run("exec", name, "--", "sh", "-c", script)
    assert ran.status != 0, ran
    return ran.err


def test_containers_with_different_ids_share_a_volume(fleet: Fleet, volume: str) -> None:
    one, two, three = map(fleet.name, ("one", "two", "three"))
    fleet.create(one, two, options=("-v", f"{volume}:/srv/data"))
    fleet.create(three, options=("--privileged", "-v", f"{volume}:/srv/data:ro", "-v", "tmpfs:/tmp:size=8M:mode=1777"))
    assert fleet.record(one)["first_id"] != fleet.record(two)["first_id"]
    fleet.inside(one, f"install -d -o 33 -g 33 /srv/data/w; {AS_33} sh -c 'echo one >/srv/data/w/a'")
    fleet.inside(two, f"{AS_33} sh -c 'echo two >>/srv/data/w/a; echo two >/srv/data/w/b'")
    for name in (one, two, three):
        assert fleet.inside(name, "stat -c '%u:%g %n' /srv/data /srv/data/w/*; cat /srv/data/w/a").split("\n") == [
            "0:0 /srv/data", "33:33 /srv/data/w/a", "33:33 /srv/data/w/b", "one", "two",
        ]  # fmt: skip
    own = fleet.paths.volume(volume)
    first = json.loads(fleet.ok("volume", "info", volume, "-f", "json"))["first_id"]
    assert os.lstat(own.data / "w/b").st_uid == first + 33
    assert stat.S_IMODE(os.lstat(own.directory).st_mode) == 0o700
    assert first not in (fleet.record(one)["first_id"], fleet.record(two)["first_id"])

    # What is read-only stays so, and set-id bits and devices mean nothing.
    assert "Read-only" in refused(fleet, three, "touch /srv/data/x")
    refused(fleet, one, "umount /srv/data")
    refused(fleet, one, "mount -o remount,bind,suid /srv/data")
    fleet.inside(one, "cp /bin/sh /srv/data/sh; chmod 4755 /srv/data/sh")
    assert fleet.inside(two, f"{AS_33} /srv/data/sh -p -c 'id -u'") == "33"

    # Programs that run from a volume are not the host's.
    fleet.inside(two, "cp /bin/sleep /srv/data/nap; setsid /srv/data/nap 1000 </dev/null >/dev/null 2>&1 &")
    until(lambda: "nap" in fleet.inside(two, "ps -e"), 10, "the program runs")
    assert fleet.ok("stale") == ""

    # It outlives containers, and is not removed while one has it.
    assert one in fleet.run("volume", "rm", volume).err
    fleet.ok("destroy", one, two, "--force")
    assert fleet.run("volume", "rm", volume).status == 1
    fleet.create(one, options=("-v", f"{volume}:/opt/again"))
    assert fleet.inside(one, "cat /opt/again/w/b") == "two"


def test_a_link_that_a_container_left_leads_nowhere(fleet: Fleet, volume: str) -> None:
    name = fleet.name("web")
    fleet.create(name, options=("-v", f"{volume}:/srv/data"))
    fleet.inside(name, "mkdir /srv/trap; ln -s /etc /srv/trap/link; ln -s ../../../../../../etc /srv/data/link")
    fleet.ok("set", name, f"volumes={volume}:/srv/data,tmpfs:/srv/trap/link/new:size=8M", "--no-restart")
    ran = fleet.run("restart", name)
    assert ran.status == 1
    assert "is not stopped" in ran.err
    assert "/srv/trap/link is a link" in ran.err
    assert fleet.state(name) == "running"

    # A link on a volume is found only at the start itself, as the volume is not mounted before.
    fleet.ok("set", name, f"volumes={volume}:/srv/data,tmpfs:/srv/data/link/new:size=8M", "--no-restart")
    assert "/srv/data/link is a link" in fleet.run("restart", name).err
    assert not Path("/etc/new").exists()
    fleet.ok("set", name, f"volumes={volume}:/srv/data,tmpfs:/srv/data/deep/er:size=8M")

    # Plain lxc-start mounts the same, and directories that it made on the volume are root's inside.
    fleet.ok("stop", name)
    subprocess.run(["lxc-start", "-P", str(fleet.paths.lxc), "-n", name], check=True, timeout=60)
    until(lambda: fleet.state(name) == "running", 10, "the daemon notices the container")
    assert fleet.inside(name, "stat -c %u /srv/data/deep; stat -f -c %T /srv/data/deep/er /srv/data").split() == [
        "0", "tmpfs", "ext2/ext3",
    ]  # fmt: skip

    # A volume that is gone keeps a container from starting, and from being stopped for that.
    own = fleet.paths.volume(volume).directory
    own.rename(own.with_name("elsewhere"))
    try:
        ran = fleet.run("restart", name)
        assert "is not stopped" in ran.err
        assert f"there is no volume {volume}" in ran.err
        assert fleet.state(name) == "running"
    finally:
        own.with_name("elsewhere").rename(own)


def test_a_directory_of_the_host_keeps_its_owners_unless_it_is_given_away(fleet: Fleet, tmp_path: Path) -> None:
    name = fleet.name("web")
    shared, own = tmp_path / "shared", tmp_path / "own"
    for directory in (shared, own):
        directory.mkdir(mode=0o755)
        (directory / "file").write_text("host's\n")
        (directory / "file").chmod(0o600)
    ran = fleet.run("create", name, "-v", f"{own}:/opt/own:rw:owner=container", *SLEEP)
    if ran.status == 0:  # the directory for tests' files keeps other users out
        fleet.ok("destroy", name, "--force")
    else:
        assert "setuid" in ran.err
    own.chmod(0o700)
    fleet.create(name, options=("-v", f"{shared}:/opt/shared", "-v", f"{own}:/opt/own:rw:owner=container"))
    refused(fleet, name, "cat /opt/shared/file")
    refused(fleet, name, "touch /opt/shared/new")
    assert fleet.inside(name, "cat /opt/own/file; echo new >/opt/own/new; stat -c %u /opt/own/new") == "host's\n0"
    assert os.lstat(own / "new").st_uid == 0


# -- without a daemon ---------------------------------------------------------------------------------------------

FIRST = 0x7FFD0000
STEPS: list[tuple[object, str]] = [
    (os, "chown"), (volumes, "try_mount"), (tree, "write"), (syscalls, "rename_new"), (tree, "sync_directory"), (os, "rmdir"),
]  # fmt: skip


def killed(work: Callable[[], object], where: object, step: str, *, after: bool) -> bool:
    """Do ``work`` in a child that is killed before or after a step; gives whether it came so far."""
    real = getattr(where, step)
    pid = os.fork()
    if pid == 0:

        def die(*arguments: object, **options: object) -> None:
            if after:
                real(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(where, step, die)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "lxc", tmp_path / "run", tmp_path / "etc")


@pytest.mark.parametrize("after", [False, True])
def test_a_volume_is_whole_or_left_over_wherever_its_making_is_killed(paths: Paths, after: bool) -> None:
    volume = Volume("data", first_id=FIRST, created="2026-01-01T00:00:00Z")
    reached = set()
    for where, step in STEPS:
        if killed(lambda: volumes.make(paths, volume), where, step, after=after):
            reached.add(step)
        names = volumes.names(paths)
        assert names in ([], ["data"])
        for name in names:
            assert volumes.check(paths, name) == volume
            volumes.retire(paths, name)
        left = volumes.leftovers(paths)
        assert all(volumes.was(each, "data") for each in left)
        for each in left:
            volumes.remove(paths, each)
        assert not list(paths.volumes.iterdir())
    assert reached >= {"chown", "try_mount", "write", "rename_new", "sync_directory"}


@pytest.mark.parametrize("after", [False, True])
def test_a_volume_is_there_or_left_over_wherever_its_removal_is_killed(paths: Paths, after: bool) -> None:
    volume = Volume("data", first_id=FIRST, created="2026-01-01T00:00:00Z")
    outside = paths.lxc.parent / "kept"
    outside.write_text("kept")

    def remove() -> None:
        volumes.retire(paths, "data")
        for each in volumes.leftovers(paths):
            volumes.remove(paths, each)

    for where, step in ((syscalls, "rename_new"), (tree, "sync_directory"), (os, "unlink"), (os, "rmdir")):
        volumes.make(paths, volume)
        (paths.volume("data").data / "link").symlink_to(outside)
        (paths.volume("data").data / "deep" / "er").mkdir(parents=True)
        assert killed(remove, where, step, after=after)
        if volumes.names(paths):
            assert volumes.check(paths, "data") == volume
            assert (paths.volume("data").data / "deep").is_dir()
        else:
            assert FIRST in volumes.ids(paths) or not list(paths.volumes.glob("*/data"))
        remove()
        assert not list(paths.volumes.iterdir())
    assert outside.read_text() == "kept"


def test_what_a_container_must_not_have_of_the_host_is_refused(paths: Paths, tmp_path: Path) -> None:
    volumes.make(paths, Volume("data", first_id=FIRST))
    (tmp_path / "link").symlink_to("/srv")
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["mount", "--bind", str(tmp_path), str(other)], check=True)
    try:
        for path, why in (
            (paths.volume("data").data, "lxcfleet's own files"),
            (tmp_path, "lxcfleet's own files"),
            (other, "lxcfleet's own files"),
            (other / "lxc", "lxcfleet's own files"),
            (Path("/proc"), "kernel's proc"),
            (tmp_path / "link", "a link"),
            (tmp_path / "link" / "x", "a link"),
            (tmp_path / "missing", "no such directory"),
            (Path("/etc/passwd"), "no directory"),
        ):
            with pytest.raises(InvalidInput) as caught:
                mounting.check(paths, [f"{path}:/opt/x"], FIRST)
            assert why in caught.value.why, path
    finally:
        subprocess.run(["umount", str(other)], check=True)


def test_a_file_system_that_can_not_shift_owners_is_refused(paths: Paths) -> None:
    top = paths.lxc.parent / "layers"
    for name in ("lower", "upper", "work"):
        (top / name).mkdir(parents=True)
    paths.volumes.mkdir(parents=True)
    options = f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "lxcfleet", str(paths.volumes)], check=True)
    try:
        with pytest.raises(Unsupported, match="can't be mounted in a container"):
            volumes.make(paths, Volume("data", first_id=FIRST))
        assert not list(paths.volumes.iterdir())
        (paths.volumes / "other").mkdir()
        elsewhere = Paths(top / "lxc", top / "run", top / "etc")
        with pytest.raises(Unsupported):
            mounting.check(elsewhere, [f"{paths.volumes}/other:/opt/x:owner=container"], FIRST)
    finally:
        subprocess.run(["umount", str(paths.volumes)], check=True)


def test_nothing_is_removed_while_something_is_mounted_in_it(paths: Paths) -> None:
    volumes.make(paths, Volume("data", first_id=FIRST))
    place = paths.volume("data").data / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "lxcfleet", str(place)], check=True)
    try:
        (place / "file").write_text("kept")
        with pytest.raises(Exception, match="can't be removed") as caught:
            volumes.retire(paths, "data")
        assert "is mounted at" in str(caught.value)
        assert (place / "file").read_text() == "kept"
    finally:
        subprocess.run(["umount", str(place)], check=True)
