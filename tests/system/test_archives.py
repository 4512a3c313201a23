"""Archives of real containers: they come back on another host, and hostile ones leave nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pax
import pytest

from lxcfleet.api.archives import ExportContainer
from lxcfleet.base.merge import reconcile
from lxcfleet.data.archives import head as heads
from lxcfleet.paths import Paths

from .harness import Fleet, until

pytestmark = pytest.mark.system

TREES = 1000
ATTRIBUTES = (
    "trusted.overlay.opaque", "user.a", "user.b=%", "security.capability", "system.posix_acl_access",
    "system.posix_acl_default",
)  # fmt: skip
PASSWD = Path("/etc/passwd")
MARK = "lxcfleet-test-old"


def acl(*lines: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *line) for line in lines)


# -- random trees, made from outside ------------------------------------------------------------------------------


class Maker:
    """Makes random trees in a delta, with the owners that the container's own processes would give."""

    def __init__(self, seed: int, first_id: int) -> None:
        self._random = random.Random(seed)
        self._first_id = first_id

    def tree(self, top: bytes) -> None:
        """One tree."""
        directories, files = [top], list[bytes]()
        os.mkdir(top)
        self._dress(top)
        for number in range(self._random.randrange(1, 9)):
            name = b"%d-" % number + bytes(self._random.choice(range(1, 256)) for _ in range(self._random.randrange(9)))
            path = self._random.choice(directories) + b"/" + name.replace(b"/", b"\n")
            kind = self._random.choice(["directory", "file", "sparse", "link", "symlink", "whiteout", "fifo"])
            if kind == "link" and not files:
                continue
            self._make(kind, path, directories, files)
            if kind != "link":
                self._dress(path)

    def _make(self, kind: str, path: bytes, directories: list[bytes], files: list[bytes]) -> None:
        match kind:
            case "directory":
                os.mkdir(path)
                directories.append(path)
            case "file" | "sparse":
                with open(path, "wb") as file:
                    if kind == "sparse":  # holes at one end, at both, or in the middle
                        for _ in range(self._random.randrange(3)):
                            file.seek(self._random.randrange(1 << 22))
                            file.write(self._random.randbytes(5000))
                        file.truncate(max(file.seek(0, os.SEEK_END), self._random.randrange(1 << 34)))
                    else:
                        file.write(self._random.randbytes(self._random.randrange(20000)))
                files.append(path)
            case "link":
                os.link(self._random.choice(files), path, follow_symlinks=False)
            case "symlink":
                os.symlink(self._random.randbytes(9).replace(b"\0", b"/"), path)
                files.append(path)
            case "whiteout":
                os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
                files.append(path)
            case _:
                os.mkfifo(path)

    def _dress(self, path: bytes) -> None:
        one, first = self._random, self._first_id
        os.chown(path, first + one.randrange(65536), first + one.randrange(65536), follow_symlinks=False)
        status = os.lstat(path)
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(path, one.randrange(0o10000))
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            self._attributes(path, directory=stat.S_ISDIR(status.st_mode))
        moment = one.randrange(-(10**18), 4 * 10**18)
        os.utime(path, ns=(moment, moment), follow_symlinks=False)

    def _attributes(self, path: bytes, *, directory: bool) -> None:
        one, first = self._random, self._first_id
        if one.random() < 0.3:
            os.setxattr(path, one.choice(["user.a", "user.b=%"]), one.randbytes(20))
        if one.random() < 0.2 and not directory:
            os.setxattr(path, "security.capability", struct.pack("<6I", 0x03000001, 1 << 10, 0, 0, 0, first))
        if one.random() < 0.2 and directory:
            os.setxattr(path, "trusted.overlay.opaque", b"y")
        if one.random() < 0.3:
            who = first + one.randrange(65536)
            nobody = 0xFFFFFFFF
            value = acl((1, 7, nobody), (2, one.randrange(8), who), (4, 5, nobody), (16, 7, nobody), (32, 1, nobody))
            os.setxattr(path, f"system.posix_acl_{'default' if directory else 'access'}", value)


def look(top: bytes, first_id: int) -> dict[bytes, Any]:
    """All below a delta as its container has it, by path; written without a word of the product's."""
    found: dict[bytes, Any] = {}
    names: dict[int, list[bytes]] = {}
    todo = [b""]
    while todo:
        path = todo.pop()
        for each in os.scandir(os.path.join(top, path)):
            name = os.path.join(path, os.fsencode(each.name))
            status = os.lstat(os.path.join(top, name))
            kind = stat.S_IFMT(status.st_mode)
            seen: list[Any] = [kind, status.st_mode, status.st_uid - first_id, status.st_gid - first_id, status.st_mtime_ns]
            if stat.S_ISDIR(kind):
                todo.append(name)
            else:
                seen += [status.st_size, status.st_rdev]
            if stat.S_ISREG(kind) or stat.S_ISLNK(kind):  # tar makes several of a whiteout, which means the same
                names.setdefault(status.st_ino, []).append(name)
            if stat.S_ISLNK(kind):
                seen.append(os.readlink(os.path.join(top, name)))
            elif not stat.S_ISCHR(kind):
                place = os.path.join(top, name)
                seen.append({key: shifted(place, key, first_id) for key in attributes(place)})
            if stat.S_ISREG(kind):
                seen.append(content(os.path.join(top, name)))
            found[name] = seen
    for same in names.values():
        for name in same:
            found[name].append(sorted(same))
    return found


def attributes(path: bytes) -> list[str]:
    return [each for each in os.listxattr(path, follow_symlinks=False) if each in ATTRIBUTES]


def shifted(path: bytes, key: str, first_id: int) -> object:
    """An attribute with the ids that its container sees."""
    value = os.getxattr(path, key, follow_symlinks=False)
    if key.startswith("system."):
        lines = struct.iter_unpack("<HHI", value[4:])
        return [(tag, rights, who - first_id if tag in (2, 8) else who) for tag, rights, who in lines]
    if key == "security.capability":
        *rest, root = struct.unpack("<6I", value)
        return [*rest, root - first_id]
    return value


def content(path: bytes) -> list[tuple[int, bytes]]:
    """The parts of a file that are not zero, in blocks."""
    found: list[tuple[int, bytes]] = []
    at = 0
    with open(path, "rb") as file:
        while True:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // 4096 * 4096
            except OSError:
                return found
            if block := os.pread(file.fileno(), 4096, at).rstrip(b"\0"):
                found.append((at, block))
            at += 4096


# -- another host -------------------------------------------------------------------------------------------------


@pytest.fixture
def other() -> Iterator[Fleet]:
    """A fleet that knows nothing of the first one."""
    fleet = Fleet()
    try:
        fleet.start_daemon()
        yield fleet
        fleet.clean()
    finally:
        fleet.run("destroy", "--all", "--force", "-q")
        fleet.remove()


SCRIPT = """\
cd /srv && echo hi >f && chown 33:1000 f && chmod 4755 f && truncate -s 10G sparse &&
rm -rf /usr/share/doc/bash /usr/share/doc/dash && mkdir /usr/share/doc/dash &&
echo own:x:4321:4321::/:/bin/sh >>/etc/passwd && echo own:x:4321: >>/etc/group
"""


def aged(archive: Path) -> None:
    """Make an archive as if the base had been older: without an account that the present one has."""
    directory = archive.with_name("aged")
    directory.mkdir()
    subprocess.run(["tar", "--zstd", "--xattrs", "--xattrs-include=*", "-xpf", archive, "-C", directory], check=True)
    gone = PASSWD.read_bytes().splitlines(keepends=True)[-1]
    file = directory / "delta/etc/passwd"
    file.write_bytes(file.read_bytes().replace(gone, b""))
    packed = (directory / "base").read_bytes()
    files = {path: data.replace(gone, b"") for path, data in reconcile._unpack(packed).items()}
    (directory / "base").write_bytes(reconcile._pack(files))
    head = heads.parse((directory / "export.yaml").read_bytes())
    made = replace(head, snapshot=reconcile._digest(reconcile._pack(files)), version=MARK)
    (directory / "export.yaml").write_text(heads.render(made))
    options = ["--format=posix", "--numeric-owner", "--xattrs", "--xattrs-include=trusted.overlay.opaque", "--sparse"]
    options += ["--pax-option=delete=atime,delete=ctime", "--zstd", "-C", str(directory)]
    subprocess.run(["tar", "-c", *options, "-f", archive, "export.yaml", "base", "delta"], check=True)


def test_a_lost_host_comes_back_on_another_one(fleet: Fleet, other: Fleet, tmp_path: Path) -> None:
    """docs/backup.md has these commands."""
    web, trees = fleet.name("web"), fleet.name("trees")
    fleet.create(web)
    fleet.inside(web, SCRIPT)
    fleet.ok("create", trees, "--no-start", "--", "sleep", "infinity")
    first_id = fleet.record(trees)["first_id"]
    maker = Maker(20260101, first_id)
    for number in range(TREES):
        maker.tree(os.fsencode(fleet.delta(trees)) + b"/%d" % number)
    before = look(os.fsencode(fleet.delta(trees)), first_id)
    backup = tmp_path / "backup"
    backup.mkdir()
    exported = {each["name"]: each for each in fleet.json("export", "--all", "--to", str(backup))["results"]}
    assert exported[web]["frozen_ms"] > 0
    assert exported[trees]["frozen_ms"] is None
    assert fleet.state(web) == "running"
    # Plain tar reads it, and no name of this host's is in it.
    listing = ["tar", "--zstd", "--numeric-owner", "-tvf", exported[web]["file"]]
    listed = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    assert " 33/1000 " in " ".join(listed.split())
    aged(Path(exported[web]["file"]))
    # The first host is gone. Another one has other ranges of ids: the first of them is taken.
    other.ok("create", fleet.name("taken"), "--no-start", "--", "sleep", "infinity")
    files = [exported[name]["file"] for name in (web, trees)]
    assert [each["status"] for each in other.json("restore-check", *files)["results"]] == ["checked", "checked"]
    assert half_made(other) == []
    results = other.json("import", *files)["results"]
    assert [each["started"] for each in results] == [True, True]
    found = other.record(trees)
    assert found["first_id"] != first_id
    other.ok("stop", trees)
    after = look(os.fsencode(other.delta(trees)), found["first_id"])
    after = {path: seen for path, seen in after.items() if path.split(b"/")[0].isdigit()}
    assert len(after) > TREES
    differing = {path: (before[path], after.get(path)) for path in before if before[path] != after.get(path)}
    assert not differing, next(iter(differing.items()))
    assert after.keys() == before.keys()
    look_inside = "cd /srv && stat -c '%u:%g %a %s' f sparse && du -k sparse | cut -f1 && ls /usr/share/doc/dash && id -u own"
    assert other.inside(web, look_inside).split("\n") == ["33:1000 4755 3", "0:0 644 10737418240", "0", "4321"]
    assert other.run("exec", web, "--", "ls", "/usr/share/doc/bash").status != 0
    # What the newer base has, and the older one had not, is merged.
    name = PASSWD.read_text().splitlines()[-1].split(":")[0]
    assert other.run("exec", web, "--", "getent", "passwd", name).status == 0


# -- hostile archives ---------------------------------------------------------------------------------------------


def archive(fleet: Fleet, file: Path, *members: bytes) -> Path:
    """An archive of a container ``bad`` with these members."""
    spec = {"init": "app", "command": ["sleep", "infinity"], "first_id": 1000000, "created": "2026-01-01T00:00:00Z"}
    head = heads.render(heads.Head(fleet.name("bad"), "1", "2026-01-01T00:00:00Z", "stopped", spec)).encode()
    top = pax.member(b"delta/", b"5", mode=b"0000755\0")
    data = pax.member(b"export.yaml", data=head) + top + b"".join(members) + pax.END
    file.write_bytes(subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout)
    return file


def directories(fleet: Fleet) -> set[str]:
    """The names of all directories beside containers, but for the fleet's own records."""
    return {each.name for each in fleet.paths.lxc.iterdir()} - {fleet.paths.state.name, fleet.paths.running_record.name}


def test_hostile_archives_leave_nothing(fleet: Fleet, tmp_path: Path) -> None:
    before = directories(fleet)
    out = pax.member(b"delta/l", b"2", target=b"/tmp") + pax.member(b"delta/l/lxcfleet-test-out", data=b"x")
    bad = {
        "link": (out,),
        "device": (pax.member(b"delta/sda", b"3", major=b"0000010\0"),),
        "redirect": (pax.member(b"delta/d/", b"5", attributes={b"SCHILY.xattr.trusted.overlay.redirect": b"/etc"}),),
        "id": (pax.member(b"delta/x", uid=b"0200000\0"),),
        "bomb": (pax.member(b"delta/x", data=bytes(64 << 20)),),
        "twice": (pax.member(b"delta/1"), pax.member(b"delta/1")),
    }
    for kind, members in bad.items():
        ran = fleet.run("import", str(archive(fleet, tmp_path / kind, *members)), "--limit", "32M", "-f", "json")
        assert ran.status in (1, 2), (kind, ran)
        assert ran.json["results"][0]["error"]["message"] == "this archive is refused", (kind, ran)
        assert directories(fleet) == before, kind
    whole = archive(fleet, tmp_path / "whole", pax.member(b"delta/x", data=os.urandom(1 << 20)))
    for size in (10, 1000, whole.stat().st_size - 1):
        cut = tmp_path / "cut"
        cut.write_bytes(whole.read_bytes()[:size])
        assert "not whole" in fleet.run("import", str(cut)).err
    damaged = bytearray(whole.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "cut").write_bytes(damaged)
    assert fleet.run("import", str(tmp_path / "cut")).status != 0
    (tmp_path / "cut").write_bytes(whole.read_bytes() + b"more")
    assert fleet.run("import", str(tmp_path / "cut")).status != 0
    assert not Path("/tmp/lxcfleet-test-out").exists()
    assert directories(fleet) == before
    fleet.ok("import", str(whole))


def half_made(fleet: Fleet) -> list[str]:
    return [each.name for each in fleet.paths.lxc.iterdir() if each.name.startswith(Paths.NEW_PREFIX)]


@pytest.mark.parametrize("victim", ["daemon", "launcher", "client"])
def test_a_kill_in_the_middle_leaves_nothing_or_all(fleet: Fleet, victim: str, tmp_path: Path) -> None:
    whole = archive(fleet, tmp_path / "whole", pax.member(b"delta/x", data=os.urandom(4 << 20))).read_bytes()
    web = fleet.name("web")
    fleet.create(web)
    client = fleet.client()
    importing = fleet.spawn("import", "-", stdin=subprocess.PIPE)
    assert importing.stdin is not None
    importing.stdin.write(whole[: len(whole) // 2])
    importing.stdin.flush()
    until(lambda: half_made(fleet), what="it is being unpacked")
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    request: ExportContainer = {"export": web, "level": 1, "stopped": False, "volumes": False, "seconds": 60}
    os.set_blocking(writing, False)
    fleet.inside(web, "head -c 120M /dev/urandom >/srv/large")
    os.set_blocking(writing, True)
    with closing(client.attach(request, (null, writing, null))) as exporting:
        os.close(writing)
        until(lambda: fleet.state(web) == "frozen", what="it is frozen")
        if victim == "daemon":
            fleet.stop_daemon(signal.SIGKILL)
        elif victim == "launcher":
            os.kill(fleet.servants()["launcher"], signal.SIGKILL)
        else:
            importing.kill()
            exporting.close()
        if victim != "client":
            importing.stdin.close()
            assert importing.wait(60) == 1
    os.close(reading)
    os.close(null)
    if victim == "daemon":
        fleet.start_daemon()
    until(lambda: fleet.state(web) == "running", 20, "it runs again")
    until(lambda: not half_made(fleet), 20, "nothing is left")
    assert fleet.state(web) == "running"
    assert fleet.run("info", fleet.name("bad")).status == 1
    fleet.inside(web, "true")
    importing.stdin.close()
    importing.wait(60)


def test_a_slow_reader_does_not_keep_a_container_frozen(fleet: Fleet) -> None:
    web = fleet.name("web")
    fleet.create(web)
    fleet.inside(web, "head -c 120M /dev/urandom >/srv/large")
    client = fleet.client()
    reading, writing = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    request: ExportContainer = {"export": web, "level": 1, "stopped": False, "volumes": False, "seconds": 1}
    with closing(client.attach(request, (null, writing, null))) as connection:
        while "error" not in (message := json.loads(connection.recv(65536))):
            pass
    for descriptor in (reading, writing, null):
        os.close(descriptor)
    assert "not read after 1 s" in message["error"]["why"]
    assert fleet.state(web) == "running"
