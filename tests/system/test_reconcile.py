"""A container has packages and accounts of its own. Each start merges the host's with them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import SLEEP, Fleet, until

pytestmark = pytest.mark.system

STATUS = Path("/var/lib/dpkg/status")
STANZA = "Package: {name}\nStatus: install ok installed\nPriority: optional\nSection: misc\nMaintainer: x <x@example.org>\nArchitecture: all\nVersion: {version}\nDescription: test\n\n"  # noqa: E501
MARK = "lxcfleet-test-merge"


@contextlib.contextmanager
def changing(file: Path, lock: str) -> Iterator[list[str]]:
    """Yields a file's parts (dpkg's stanzas, or lines) to be changed, and writes them back. The file is locked meanwhile."""
    separator = "\n\n" if file == STATUS else "\n"
    with open(lock, "a", encoding="ascii") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)  # as dpkg(1) and lckpwdf(3) do
        text = file.read_text(errors="surrogateescape")
        parts = [part for part in text.split(separator) if part.strip()]
        yield parts
        new = file.with_name(f"{file.name}.{MARK}")
        new.write_text("".join(f"{part}{separator}" for part in parts), errors="surrogateescape")
        shutil.copystat(file, new)
        new.rename(file)


PASSWD, GROUP = Path("/etc/passwd"), Path("/etc/group")
LOCKS = {STATUS: "/var/lib/dpkg/lock", PASSWD: "/etc/.pwd.lock", GROUP: "/etc/.pwd.lock"}


@pytest.fixture
def host() -> Iterator[None]:
    """The host's files. In the end a test's additions are taken out again; what others wrote meanwhile stays."""
    yield
    for file, lock in LOCKS.items():
        if MARK in file.read_text(errors="surrogateescape"):
            with changing(file, lock) as parts:
                parts[:] = [part for part in parts if not ours(part)]


def ours(part: str) -> bool:
    """Whether a stanza or a line is one of these tests'."""
    return part.startswith((f"Package: {MARK}-", f"{MARK}:"))


def install_on_host(name: str, version: str) -> None:
    """Write down what dpkg does when it installs or upgrades a package on the host."""
    with changing(STATUS, LOCKS[STATUS]) as parts:
        parts[:] = [part for part in parts if not part.startswith(f"Package: {name}\n")]
        parts.append(STANZA.format(name=name, version=version).strip("\n"))


def install_inside(fleet: Fleet, container: str, name: str, version: str) -> None:
    """Write down the same in a container."""
    script = (
        "import sys; p = '/var/lib/dpkg/status'; t = open(p, errors='surrogateescape').read(); name = sys.argv[1]\n"
        "parts = [x for x in t.split('\\n\\n') if x.strip() and not x.startswith(f'Package: {name}\\n')]\n"
        "open(p, 'w', errors='surrogateescape').write('\\n\\n'.join(parts) + '\\n\\n' + sys.argv[2])"
    )
    fleet.ok("exec", container, "--", "python3", "-c", script, name, STANZA.format(name=name, version=version))


def version(fleet: Fleet, container: str, name: str) -> str:
    """A package's version as dpkg-query tells it in a container; empty if it knows no such package."""
    return fleet.run("exec", container, "--", "dpkg-query", "-W", "-f", "${Version}", name).out.strip()


def test_the_hosts_patches_are_seen_beside_local_packages(fleet: Fleet, host: None) -> None:
    name = fleet.name("a")
    install_on_host(f"{MARK}-shared", "1")
    fleet.create(name)
    install_inside(fleet, name, f"{MARK}-local", "5")
    install_on_host(f"{MARK}-shared", "2")
    assert version(fleet, name, f"{MARK}-shared") == "1"  # hidden by the delta
    fleet.ok("restart", name)
    assert version(fleet, name, f"{MARK}-shared") == "2"
    assert version(fleet, name, f"{MARK}-local") == "5"
    assert fleet.record(name)["conflicts"] == []
    assert fleet.run("exec", name, "--", "dpkg", "--audit").status == 0
    install_on_host(f"{MARK}-shared", "3")
    fleet.ok("restart", name)
    assert version(fleet, name, f"{MARK}-shared") == "3"
    status = (fleet.delta(name) / "var/lib/dpkg/status").stat()
    first = fleet.record(name)["first_id"]
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (first, first, 0o644)


def test_a_conflict_of_package_versions_is_reported_and_not_decided(fleet: Fleet, host: None) -> None:
    name = fleet.name("a")
    install_on_host(f"{MARK}-shared", "1")
    fleet.create(name)
    install_inside(fleet, name, f"{MARK}-shared", "1+local")
    install_on_host(f"{MARK}-shared", "2")
    fleet.ok("restart", name)
    assert version(fleet, name, f"{MARK}-shared") == "1+local"
    (told,) = fleet.record(name)["conflicts"]
    assert told == f"package {MARK}-shared:all: 1+local here, 2 on the host"
    assert [event["message"] for event in fleet.events("conflict") if event["container"] == name] == [told]
    assert told in fleet.ok("info", name)


def test_accounts_of_host_and_container_are_merged(fleet: Fleet, host: None) -> None:
    name = fleet.name("a")
    fleet.create(name)
    fleet.inside(name, "useradd --system --no-create-home local-app && passwd -d local-app")
    with changing(PASSWD, LOCKS[PASSWD]) as parts:
        parts.append(f"{MARK}:x:64999:64999::/:/usr/sbin/nologin")
    fleet.ok("restart", name)
    assert fleet.inside(name, f"id -u {MARK} && id -u local-app").split()[0] == "64999"
    assert "local-app" in fleet.inside(name, "getent shadow local-app")


def test_a_user_of_the_host_is_in_no_group_of_the_container(fleet: Fleet, host: None) -> None:
    name = fleet.name("a")
    fleet.create(name)
    fleet.inside(name, "groupadd -g 64998 secretreaders && useradd --system --no-create-home local-app")
    with changing(GROUP, LOCKS[GROUP]) as parts:
        parts.append(f"{MARK}:x:64998:")
    with changing(PASSWD, LOCKS[PASSWD]) as parts:
        parts.append(f"{MARK}:x:64998:64998::/:/usr/sbin/nologin")
    fleet.ok("restart", name)
    assert fleet.inside(name, f"id {MARK} 2>/dev/null || getent group 64998") == "secretreaders:x:64998:"
    reason = "that secretreaders has here, and left out"
    assert sorted(fleet.record(name)["conflicts"]) == [
        f"group {MARK}: new on the host with the id {reason}", f"user {MARK}: new on the host with the group id {reason}"
    ]  # fmt: skip


def test_a_container_that_changed_nothing_has_the_hosts_records(fleet: Fleet, host: None) -> None:
    name = fleet.name("a")
    fleet.create(name)
    install_on_host(f"{MARK}-shared", "1")
    fleet.ok("restart", name)
    assert version(fleet, name, f"{MARK}-shared") == "1"
    assert not (fleet.delta(name) / "var/lib/dpkg/status").exists()


def test_plain_lxc_start_merges_too(fleet: Fleet, host: None) -> None:
    name = fleet.name("a")
    install_on_host(f"{MARK}-shared", "1")
    fleet.create(name)
    install_inside(fleet, name, f"{MARK}-local", "5")
    fleet.ok("stop", name)
    install_on_host(f"{MARK}-shared", "2")
    subprocess.run(["lxc-start", "-P", str(fleet.paths.lxc), name], check=True, timeout=60)
    assert version(fleet, name, f"{MARK}-shared") == "2"
    assert version(fleet, name, f"{MARK}-local") == "5"


@pytest.mark.parametrize(
    "trap",
    [
        "rm /var/lib/dpkg/status; ln -s /etc/shadow /var/lib/dpkg/status",
        "rm /var/lib/dpkg/status; mkfifo /var/lib/dpkg/status",
        "rm /var/lib/dpkg/status; mkdir /var/lib/dpkg/status",
        "rm -rf /var/lib/dpkg; ln -s /etc /var/lib/dpkg",
        "rm -rf /var/lib/dpkg",
        "head -c 1000000 /dev/urandom >/var/lib/dpkg/status",
        "ln -s /etc/shadow /var/lib/dpkg/.lxcfleet-new; echo >>/var/lib/dpkg/status",
        "mkdir /var/lib/dpkg/.lxcfleet-new; echo >>/var/lib/dpkg/status",
    ],
)
def test_traps_in_the_delta_change_no_file_of_the_host(fleet: Fleet, host: None, trap: str) -> None:
    """A container's root may put anything into the delta. The host's files stay as they are, and the container starts."""
    name = fleet.name("a")
    shadow = Path("/etc/shadow").read_bytes()
    fleet.create(name)
    fleet.inside(name, trap)
    install_on_host(f"{MARK}-shared", "2")
    fleet.run("restart", name)
    if fleet.state(name) != "running":  # then the start fails with the reason, until the obstacle is removed
        assert "mkdir" in trap
    assert Path("/etc/shadow").read_bytes() == shadow
    assert f"Package: {MARK}-shared" in STATUS.read_text(errors="surrogateescape")


def test_reconciling_can_be_turned_off(fleet: Fleet, host: None) -> None:
    name = fleet.name("a")
    install_on_host(f"{MARK}-shared", "1")
    fleet.settings(fleet.usual + "reconcile: false\n")
    fleet.stop_daemon()
    fleet.start_daemon()
    try:
        fleet.create(name)
        install_inside(fleet, name, f"{MARK}-local", "5")
        install_on_host(f"{MARK}-shared", "2")
        fleet.ok("restart", name)
        assert version(fleet, name, f"{MARK}-shared") == "1"
    finally:
        fleet.settings(fleet.usual)
        fleet.stop_daemon()
        fleet.start_daemon()


def test_snapshots_of_the_base_are_shared_and_do_not_pile_up(fleet: Fleet, host: None) -> None:
    fleet.ok("create", fleet.name("n"), "-n", "4", *SLEEP)
    records = [json.loads(file.read_text())["base"] for file in fleet.paths.lxc.glob("*/base.json")]
    assert len(records) == 4
    assert len(set(records)) == 1
    kept = fleet.paths.base_snapshot(records[0]).stat()
    assert kept.st_mode & 0o077 == 0
    assert kept.st_nlink == 5
    install_on_host(f"{MARK}-shared", "1")
    fleet.ok("restart", "--all")
    for directory in fleet.directories():
        (own,) = Path(directory).glob("base-*")
        assert own.name != f"base-{records[0]}"  # inode numbers may be used again, so names tell snapshots apart
        assert own.stat().st_nlink == 5


def restored(fleet: Fleet, name: str, *leave_out: str) -> None:
    """Back a container up without the files that match, destroy the fleet and restore it, as docs/backup.md says."""
    archive = fleet.paths.etc / "backup.tar"
    tar = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--hard-dereference", "-C", str(fleet.paths.lxc)]
    fleet.ok("stop", name)
    subprocess.run([*tar, "-cf", str(archive), *(f"--exclude={each}" for each in leave_out), name], check=True)
    fleet.ok("destroy", "--all", "--force")
    until(lambda: not fleet.paths.base_snapshots.exists(), what="no snapshot of the base is kept")
    subprocess.run([*tar, "-xf", str(archive)], check=True)
    fleet.stop_daemon()
    fleet.start_daemon()


def test_a_restored_container_is_merged(fleet: Fleet, host: None) -> None:
    name = fleet.name("a")
    install_on_host(f"{MARK}-shared", "1")
    fleet.create(name)
    install_inside(fleet, name, f"{MARK}-local", "5")
    restored(fleet, name)
    for now in ("2", "3"):
        install_on_host(f"{MARK}-shared", now)
        fleet.ok("restart", name)
        assert version(fleet, name, f"{MARK}-shared") == now
        assert version(fleet, name, f"{MARK}-local") == "5"
        assert fleet.record(name)["conflicts"] == []


def test_a_container_restored_without_its_snapshot_of_the_base_reports_it(fleet: Fleet, host: None) -> None:
    name = fleet.name("a")
    install_on_host(f"{MARK}-shared", "1")
    fleet.create(name)
    install_inside(fleet, name, f"{MARK}-local", "5")
    restored(fleet, name, "base-*")
    for now in ("2", "3"):
        install_on_host(f"{MARK}-shared", now)
        fleet.ok("restart", name)
        (told,) = fleet.record(name)["conflicts"]
        assert "docs/packages.md" in told
        assert version(fleet, name, f"{MARK}-shared") == "1"
    # docs/packages.md tells the way out: go back to the host's records, and install the container's own packages again.
    fleet.ok("stop", name)
    (fleet.delta(name) / "var/lib/dpkg/status").unlink()
    fleet.ok("start", name)
    assert fleet.record(name)["conflicts"] == []
    assert version(fleet, name, f"{MARK}-shared") == "3"
    install_inside(fleet, name, f"{MARK}-local", "5")
    install_on_host(f"{MARK}-shared", "4")
    fleet.ok("restart", name)
    assert version(fleet, name, f"{MARK}-shared") == "4"
    assert version(fleet, name, f"{MARK}-local") == "5"
