"""Base, mask and delta of real clones: what a clone sees, what it can change, and when it sees a changed base."""

from __future__ import annotations

import itertools
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lxcfleet.spec.reading.terms import RANGE_SIZE

from .harness import SLEEP, TIMEOUT, Fleet, until

pytestmark = pytest.mark.system


@pytest.fixture
def base_file() -> Iterator[Path]:
    """A file on the host that clones see."""
    path = Path(f"/usr/local/share/lxcfleet-test-{uuid.uuid4().hex}")
    path.write_text("old\n")
    yield path
    path.unlink(missing_ok=True)


def replace(path: Path, text: str) -> None:
    """Put another file in the place of ``path``, as dpkg does."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


def plain(program: str, *arguments: str, fleet: Fleet) -> subprocess.CompletedProcess[str]:
    """Run one of LXC's own programs as LXC's users call it: without lxcfleet's environment."""
    return subprocess.run(
        [program, "-P", str(fleet.paths.lxc), *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def plain_start(fleet: Fleet, name: str) -> None:
    started = plain("lxc-start", "-n", name, fleet=fleet)
    assert started.returncode == 0, (started, fleet.ok("logs", name, "--lxc"))
    until(lambda: fleet.state(name) == "running", 10, "the daemon notices the container")


def restart(fleet: Fleet, name: str) -> None:
    fleet.ok("restart", name)


def stop_and_start(fleet: Fleet, name: str) -> None:
    fleet.ok("stop", name)
    fleet.ok("start", name)


def stop_and_start_without_us(fleet: Fleet, name: str) -> None:
    fleet.ok("stop", name)
    plain_start(fleet, name)


def stop_and_start_both_without_us(fleet: Fleet, name: str) -> None:
    assert plain("lxc-stop", "-n", name, "-t", "2", fleet=fleet).returncode == 0
    plain_start(fleet, name)


FRESH = [restart, stop_and_start, stop_and_start_without_us, stop_and_start_both_without_us]


@pytest.mark.parametrize("again", FRESH)
def test_a_change_of_the_base_comes_with_the_next_start(
    fleet: Fleet, base_file: Path, again: Callable[[Fleet, str], None]
) -> None:
    name = fleet.name("a")
    fleet.create(name)
    assert fleet.inside(name, f"cat {base_file}") == "old"
    fleet.inside(name, "echo kept >/var/lib/kept; rm /etc/debian_version; echo mine >/etc/issue")
    before = fleet.pid(name)

    replace(base_file, "new\n")
    added = base_file.with_name(f"{base_file.name}-added")
    added.write_text("added\n")
    try:
        again(fleet, name)
        assert fleet.pid(name) != before
        assert fleet.inside(name, f"cat {base_file} {added}") == "new\nadded"
        # The delta is kept.
        assert fleet.inside(name, "cat /var/lib/kept /etc/issue; ls /etc/debian_version 2>&1 || :").startswith(
            "kept\nmine\nls: cannot access"
        )
        assert Path("/etc/debian_version").exists()
    finally:
        added.unlink()


def test_a_change_of_the_base_disturbs_no_running_container(fleet: Fleet, base_file: Path) -> None:
    name = fleet.name("a")
    fleet.create(name)
    assert fleet.inside(name, f"cat {base_file}") == "old"
    before = fleet.pid(name)
    replace(base_file, "new\n")
    assert fleet.inside(name, f"cat {base_file}") in ("old", "new")
    assert (fleet.pid(name), fleet.state(name)) == (before, "running")


def test_a_container_that_reboots_gets_a_fresh_mount(fleet: Fleet, base_file: Path) -> None:
    name = fleet.name("a")
    fleet.create(name, command=())
    fleet.ok("wait", name, "--for", "healthy")
    fleet.inside(name, f"cat {base_file}; echo kept >/var/lib/kept")
    before = fleet.pid(name)
    replace(base_file, "new\n")

    fleet.run("exec", name, "--", "systemctl", "reboot")
    until(lambda: fleet.record(name)["pid"] not in (None, before), 20, "the container is back")
    fleet.ok("wait", name, "--for", "healthy")
    assert fleet.inside(name, f"cat {base_file} /var/lib/kept") == "new\nkept"
    assert [event["message"] for event in fleet.events("resumed")] == ["rebooted from inside"]
    until(lambda: not fleet.half_done(), what="the note that it was to start goes")


def test_a_container_started_by_plain_lxc_reboots_too(fleet: Fleet, base_file: Path) -> None:
    name = fleet.name("a")
    fleet.create(name, command=(), options=("--no-start",))
    plain_start(fleet, name)
    fleet.ok("wait", name, "--for", "healthy")
    before = fleet.pid(name)
    replace(base_file, "new\n")
    fleet.run("exec", name, "--", "systemctl", "reboot")
    until(lambda: fleet.record(name)["pid"] not in (None, before), 20, "the container is back")
    assert fleet.inside(name, f"cat {base_file}") == "new"


def test_a_container_that_reboots_without_a_daemon_is_started_by_the_next(fleet: Fleet, base_file: Path) -> None:
    name = fleet.name("a")
    fleet.create(name, command=())
    fleet.ok("wait", name, "--for", "healthy")
    before = fleet.pid(name)
    fleet.stop_daemon()
    attached = plain("lxc-attach", "-n", name, "--", "systemctl", "reboot", fleet=fleet)
    assert attached.returncode in (0, 137, 143, 255), attached
    until(fleet.paths.container(name).pending.exists, 20, "the container's hook leaves a note")
    until(lambda: not fleet.processes(), 10, "the container stops")
    replace(base_file, "new\n")
    fleet.start_daemon()
    until(lambda: fleet.record(name)["pid"] not in (None, before), 20, "the container is back")
    assert fleet.inside(name, f"cat {base_file}") == "new"


def test_lxc_ls_and_lxc_info_know_the_containers(fleet: Fleet) -> None:
    name, idle = fleet.name("a"), fleet.name("b")
    fleet.create(name)
    fleet.create(idle, options=("--no-start",))
    rows = plain("lxc-ls", "-f", "-F", "NAME,STATE,UNPRIVILEGED", fleet=fleet).stdout.splitlines()
    assert sorted(row.split() for row in rows[1:]) == [[name, "RUNNING", "true"], [idle, "STOPPED", "true"]]
    assert f"{fleet.pid(name)}" in plain("lxc-info", "-n", name, "-pH", fleet=fleet).stdout


def test_the_hosts_mount_table_does_not_grow(fleet: Fleet) -> None:
    fleet.create(fleet.name("first"))
    before = fleet.host_mounts()
    fleet.ok("create", fleet.name("c"), "-n", "20", *SLEEP)
    assert fleet.host_mounts() == before
    fleet.ok("restart", "--all")
    assert fleet.host_mounts() == before
    assert fleet.mounts() == []


def test_each_container_has_ids_of_its_own(fleet: Fleet) -> None:
    fleet.ok("create", fleet.name("c"), "-n", "5", *SLEEP)
    firsts = []
    for record in fleet.records():
        first = fleet.record(record["name"])["first_id"]
        for kind in ("uid_map", "gid_map"):
            shown = Path(f"/proc/{record['pid']}/{kind}").read_text().split()
            assert shown == ["0", str(first), str(RANGE_SIZE)]
        assert os.stat(f"/proc/{record['pid']}").st_uid == first
        assert fleet.delta(record["name"]).stat().st_uid == first
        firsts.append(first)
    firsts.sort()
    assert all(later - earlier >= RANGE_SIZE for earlier, later in itertools.pairwise(firsts))


def test_the_ids_of_a_destroyed_container_are_used_again(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    first = fleet.record(name)["first_id"]
    fleet.ok("destroy", name, "--force")
    fleet.create(name)
    assert fleet.record(name)["first_id"] == first


def test_a_privileged_container_is_shown_as_such(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name, options=("--privileged",))
    assert Path(f"/proc/{fleet.pid(name)}/uid_map").read_text().split() == ["0", "0", "4294967295"]
    record = fleet.record(name)
    assert (record["privileged"], record["first_id"]) == (True, None)
    row = next(line for line in fleet.ok("list").splitlines() if line.startswith(name))
    assert "app,privileged" in row
    assert fleet.records()[0]["privileged"] is True


ATTACKS = [
    "echo x >/etc/debian_version; cat /etc/debian_version",
    "mount -o remount,rw / && false",
    "echo x >/proc/1/root/usr/bin/env",
    "rm -rf /usr/share/doc",
    "mount --bind / /mnt && echo x >/mnt/usr/bin/tini-static",
    "mount -t overlay -o lowerdir=/ overlay /mnt",
    "umount -l /; rm -f /usr/bin/python3",
    "mv /usr/lib/os-release /usr/lib/os-release.gone",
    "chown -R 1:1 /usr/share/misc; chmod 777 /usr/share/misc",
    "touch -d 1999-01-01 /usr/bin/env",
    "ln /usr/bin/env /usr/bin/env2",
    "setfattr -n user.x -v y /usr/bin/env",
    "echo 1 >/proc/sysrq-trigger",
    "echo x >/proc/sys/kernel/core_pattern",
    "echo 100 >/proc/sys/vm/swappiness",
    "nsenter --mount=/proc/1/ns/mnt touch /usr/bin/lxcfleet-test-escaped",
]


@pytest.fixture(scope="module")
def probe() -> Callable[[], dict[str, object]]:
    """Tells the state of the host's files that the attacks below are about."""

    def look() -> dict[str, object]:
        paths = (
            "/etc/debian_version", "/usr/bin/env", "/usr/bin/env2", "/usr/share/doc", "/usr/bin/python3",
            "/usr/lib/os-release", "/usr/share/misc", "/usr/bin/tini-static", "/usr/bin/lxcfleet-test-escaped",
        )  # fmt: skip
        seen: dict[str, object] = {}
        for path in paths:
            if os.path.lexists(path):
                found = os.lstat(path)
                seen[path] = (found.st_mtime_ns, found.st_uid, found.st_mode, found.st_size, found.st_ino, found.st_nlink)
        for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/swappiness", "/etc/debian_version"):
            seen[f"content of {path}"] = Path(path).read_text()
        return seen

    return look


@pytest.mark.parametrize("options", [(), ("--privileged",)], ids=["unprivileged", "privileged"])
def test_the_base_can_not_be_changed_from_inside(
    fleet: Fleet, probe: Callable[[], dict[str, object]], options: tuple[str, ...]
) -> None:
    names = [fleet.name(f"a{number}") for number in range(4)]
    before = probe()
    fleet.create(*names, options=options)
    # LXC's proc:mixed keeps these sysctls from the root of a privileged container, too.
    for number, attack in enumerate(ATTACKS):
        fleet.run("exec", names[number % len(names)], "--", "sh", "-c", attack)
        assert probe() == before, attack
    fresh = fleet.name("b")
    fleet.create(fresh)
    assert fleet.inside(fresh, "cat /etc/debian_version") == Path("/etc/debian_version").read_text().strip()


def test_an_unprivileged_root_makes_no_devices_and_changes_no_kernel_settings(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    for forbidden in ("mknod /dev/disk b 254 0", "mknod /disk c 1 1", "date -s 2001-01-01", "swapoff -a && false"):
        assert fleet.run("exec", name, "--", "sh", "-c", forbidden).status != 0, forbidden


def test_containers_do_not_see_each_other(fleet: Fleet) -> None:
    one, two = fleet.name("a"), fleet.name("b")
    fleet.create(one, two)
    fleet.inside(one, "echo secret >/etc/only-here; mkdir -p /srv/x; echo y >/srv/x/y")
    assert fleet.run("exec", two, "--", "cat", "/etc/only-here").status == 1
    assert fleet.inside(two, "ls /srv; ls /var/lib/lxc 2>/dev/null; ls /run/lxcfleet* 2>/dev/null || :") == ""
    assert fleet.inside(two, f"ls -d {fleet.paths.lxc} {fleet.paths.run} {fleet.paths.etc} 2>/dev/null || :") == ""
    assert fleet.inside(two, f"grep -c {fleet.paths.lxc} /proc/self/mountinfo || :") == "1"  # in the overlay's options
    assert fleet.inside(two, "ls /proc | grep -c '^[0-9]'") <= "9"
    assert (fleet.delta(one) / "etc/only-here").read_text() == "secret\n"
    assert not (fleet.delta(two) / "etc/only-here").exists()


def test_no_mount_of_the_host_is_left_in_a_container(fleet: Fleet) -> None:
    """A path into a mount of the launcher or the host would be a way out of the container."""
    for options in ((), ("--privileged",)):
        name = fleet.name(f"a{len(options)}")
        fleet.create(name, options=options)
        mounts = [line.split()[4] for line in fleet.inside(name, "cat /proc/self/mountinfo").splitlines()]
        tops = {"/" + mount.split("/")[1] for mount in mounts}
        assert tops <= {"/", "/dev", "/proc", "/sys", "/run", "/tmp"}
        assert not any(mount.startswith("/run/") for mount in mounts)
