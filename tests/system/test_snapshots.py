"""Snapshots on real kernels: nothing of a file is lost, and whatever is killed, the container runs on with a whole delta."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.data import doubles

from .harness import TIMEOUT, Fleet, until

pytestmark = pytest.mark.system

_ANY = 0xFFFFFFFF
ODD = r"""
mkdir -p /srv/x && cd /srv/x
echo one >f; ln f g; chown 33:44 f; chmod 4755 f
ln -s /nowhere s; mkfifo p; mkdir -m 1777 "$(printf 'd\377\n')"; echo hi >"$(printf 'd\377\n')/$(printf '\351')"
truncate -s 10G sparse; printf x | dd of=sparse bs=1 seek=5G conv=notrunc 2>/dev/null
rm /usr/share/common-licenses/GPL-2; rm -r /usr/share/doc/bash; mkdir /usr/share/doc/bash; touch -d 2001-01-01 /srv/x
"""


def attributes(top: Path) -> list[tuple[Any, ...]]:
    """All that a file system knows of the files below a directory, and of the directory."""
    found = []
    for directory, below, files in os.walk(os.fsencode(top)):
        for path in [directory, *(os.path.join(directory, name) for name in below + files)]:
            status = os.lstat(path)
            directory_ = stat.S_ISDIR(status.st_mode)
            # The kernel links whiteouts to one in the overlay's work directory.
            links = 0 if directory_ or stat.S_ISCHR(status.st_mode) else status.st_nlink
            extra = {
                name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
            }  # fmt: skip
            plain = stat.S_ISREG(status.st_mode) and status.st_size < 1 << 20
            found.append((
                os.path.relpath(path, os.fsencode(top)), status.st_mode, status.st_uid, status.st_gid, status.st_rdev,
                links, 0 if directory_ else status.st_size, status.st_mtime_ns,
                tuple(sorted(extra.items())), Path(os.fsdecode(path)).read_bytes() if plain else b"", status.st_blocks,
            ))  # fmt: skip
    return sorted(set(found))


def with_own_ids(found: list[tuple[Any, ...]], first_id: int) -> list[tuple[Any, ...]]:
    """The same with the ids that the container itself has."""
    result = []
    for path, mode, user, group, *rest in found:
        owners = [each - first_id if first_id <= each < first_id + 65536 else each for each in (user, group)]
        extra = [(key, _with_own_ids(key, value, first_id)) for key, value in rest[4]]
        result.append((path, mode, *owners, *rest[:4], extra, *rest[5:]))
    return result


def _with_own_ids(key: str, value: bytes, first_id: int) -> bytes:
    if key == "security.capability":
        return value[:20] + struct.pack("<I", struct.unpack("<I", value[20:])[0] - first_id)
    if key != "system.posix_acl_access":
        return value
    lines = struct.iter_unpack("<HHI", value[4:])
    own = [(tag, rights, who if who == _ANY else who - first_id) for tag, rights, who in lines]
    return value[:4] + b"".join(struct.pack("<HHI", *line) for line in own)


def decorate(delta: Path, first_id: int) -> None:
    """What root inside can't make, or the container has no program for."""
    file = delta / "srv/x/f"
    entries = [(1, 7, _ANY), (2, 4, first_id + 77), (4, 5, _ANY), (16, 7, _ANY), (32, 5, _ANY)]
    os.setxattr(file, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries))
    os.setxattr(file, "user.note", b"\0\xff")
    # A capability of the container's root: version 3 has the id of that.
    os.setxattr(file, "security.capability", struct.pack("<6I", 0x03000001, 1 << 13, 0, 0, 0, first_id)[:24])
    os.setxattr(delta / "srv/x/s", "trusted.note", b"link", follow_symlinks=False)


def test_a_snapshot_has_all_of_a_delta_and_gives_it_back(fleet: Fleet) -> None:
    name = fleet.name("web")
    fleet.create(name)
    fleet.inside(name, ODD)
    decorate(fleet.delta(name), fleet.record(name)["first_id"])
    before = attributes(fleet.delta(name))
    made = fleet.json_any("snapshot", "create", name, "--name", "a")
    assert made["changed"], made
    (record,) = fleet.json_any("snapshot", "list", name)
    assert record["frozen_ms"] is not None
    kept = Path(record["path"])
    assert attributes(kept) == before
    assert any(stat.S_ISCHR(each[1]) and each[4] == 0 for each in before), "no whiteout"
    assert any(("trusted.overlay.opaque", b"y") in each[8] for each in before), "no opaque directory"
    assert stat.S_IMODE(os.lstat(kept.parents[2]).st_mode) == 0o700

    fleet.inside(name, "rm -r /srv/x; echo changed >/srv/y")
    fleet.ok("snapshot", "restore", name, "a", "--stop")
    assert fleet.inside(name, "cd /srv; ls; cat x/f x/d*/*; ls /usr/share/doc/bash") == "x\none\nhi"
    assert fleet.state(name) == "running"
    assert attributes(kept) == before
    assert len(fleet.json_any("snapshot", "list", name)) == 2
    assert fleet.run("destroy", name, "--force").status == 1
    fleet.ok("destroy", name, "--force", "--with-snapshots")
    assert not fleet.paths.snapshots.exists()


def test_a_copy_for_another_container_has_all_of_a_delta_with_other_ids(fleet: Fleet) -> None:
    name, other = fleet.name("web"), fleet.name("twin")
    fleet.create(name)
    fleet.ok("create", other, "--no-start", "--", "sleep", "infinity")
    fleet.inside(name, ODD + "echo 0123 >/etc/machine-id; mkdir -m 700 /srv/root-only; chown 4:4 /srv/root-only")
    first, second = (fleet.record(each)["first_id"] for each in (name, other))
    decorate(fleet.delta(name), first)
    host = fleet.delta(name) / "srv/of-the-host"
    host.write_text("an owner that the container has no id for")
    host.chmod(0o600)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        doubles.make(fleet.paths, (name, first), (other, second), ours.fileno())

    found, expected = (
        [each for each in with_own_ids(attributes(fleet.delta(of)), ids) if each[0] not in (b"etc", b"etc/machine-id")]
        for of, ids in ((other, second), (name, first))
    )
    assert found == expected
    assert not (fleet.delta(other) / "etc/machine-id").exists()
    fleet.ok("start", other)
    assert fleet.inside(other, "cd /srv; cat x/f x/d*/*; ls /usr/share/doc/bash; stat -c %u:%g x/f; cat /etc/machine-id") == (
        "one\nhi\n33:44"
    )
    fleet.ok("destroy", name, other, "--force")


@pytest.mark.parametrize("victim", ["daemon", "launcher"])
def test_whatever_is_killed_during_a_copy_the_container_goes_on(victim: str, fleet: Fleet) -> None:
    name = fleet.name("web")
    fleet.create(name)
    fleet.inside(name, "head -c 300M /dev/zero >/srv/big")
    done = set()
    for made in ("a", "b", "c", "d", "e"):  # on a busy machine a kill may come too late, when the copy is done
        broken_off = killed_in_a_copy(fleet, victim, name, made)
        done |= set() if broken_off and victim == "daemon" else {made}
        until(lambda: not fleet.paths.still(name).exists() and fleet.state(name) == "running", what="it runs again")
        until(lambda: not list(fleet.paths.snapshots.glob("*/.*")), what="nothing is left over")
        assert fleet.inside(name, "stat -c %s /srv/big") == str(300 << 20)
        assert {each["name"] for each in json.loads(fleet.ok("snapshot", "list", name, "-f", "json"))} == done
        if broken_off:
            break
    assert broken_off
    fleet.ok("destroy", name, "--force", "--with-snapshots")


def killed_in_a_copy(fleet: Fleet, victim: str, name: str, made: str) -> bool:
    """Whether this process was killed while the snapshot was made: a daemon that had made it has told its client so."""
    client = fleet.spawn("snapshot", "create", name, "--name", made)

    def is_frozen() -> bool:
        return fleet.paths.still(name).exists() and fleet.record(name)["state"] == "frozen"

    until(lambda: is_frozen() or client.poll() is not None, what="it is frozen")
    if client.poll() is not None:  # it was so for too short a time to be seen
        assert client.returncode == 0
        return False
    if victim == "daemon":
        fleet.stop_daemon(signal.SIGKILL)
        fleet.start_daemon()
        return client.wait(TIMEOUT) != 0 and not (fleet.paths.snapshots / name / made).exists()
    os.kill(fleet.servants()["launcher"], signal.SIGKILL)
    return client.wait(TIMEOUT) == 0


def test_a_backup_program_sees_the_container_s_owners_and_can_t_write(fleet: Fleet) -> None:
    name = fleet.name("web")
    fleet.create(name)
    fleet.inside(name, "echo one >/srv/f; chown 33:44 /srv/f; chmod 4755 /srv/f")
    script = "pwd; stat -c %u:%g srv/f .; echo x >srv/f || grep -c lxcfleet.*/backup/ /proc/self/mountinfo; exit 7"
    ran = fleet.run("backup", "run", name, "--", "sh", "-c", script)
    assert (ran.status, ran.out.splitlines()) == (7, [str(fleet.paths.backup(name)), "33:44", "0:0", "1"]), ran
    assert "Read-only file system" in ran.err
    assert fleet.json_any("snapshot", "list") == []
    assert str(fleet.paths.backup(name)) not in Path("/proc/self/mountinfo").read_text()
    assert fleet.run("backup", "run", name, "--", "/nowhere").status == 127


def test_what_a_backup_program_reads_stays_until_it_has_ended(fleet: Fleet) -> None:
    """Neither `destroy` nor `snapshot rm` takes it away: the program would find less and less, and call that a backup."""
    name = fleet.name("web")
    fleet.create(name)
    fleet.inside(name, "echo one >/srv/f")
    fleet.ok("snapshot", "create", name, "--name", "a")
    backup = fleet.spawn(
        "backup", "run", name, "--snapshot", "a", "--", "sh", "-c", "echo here; read line; cat srv/f", stdin=subprocess.PIPE
    )
    assert backup.stdout is not None
    assert backup.stdout.readline() == b"here\n"
    for typed in (("snapshot", "rm", name, "a"), ("destroy", name, "--force", "--with-snapshots")):
        ran = fleet.run(*typed)
        assert (ran.status, "backup run" in ran.err) == (1, True), ran
    assert fleet.state(name) == "running"
    out, err = backup.communicate(b"\n", timeout=TIMEOUT)
    assert (backup.returncode, out) == (0, b"one\n"), err
    fleet.ok("destroy", name, "--force", "--with-snapshots")
    assert fleet.json_any("snapshot", "list") == []
