"""Archives of real containers: they come back on another host, and hostile ones leave nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pax
import pytest

from lxcfleet.api.archives import ExportContainer
from lxcfleet.base.merge import reconcile
from lxcfleet.data.archives import head as heads

from .harness import TIMEOUT, Fleet, until
from .trees import Maker, directories, half_made, look

pytestmark = pytest.mark.system

TREES = 1000
PASSWD = Path("/etc/passwd")
MARK = "lxcfleet-test-old"


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
    head = heads.render(heads.ArchiveHead(fleet.name("bad"), "1", "2026-01-01T00:00:00Z", "stopped", spec)).encode()
    top = pax.member(b"delta/", b"5", mode=b"0000755\0")
    data = pax.member(b"export.yaml", data=head) + top + b"".join(members) + pax.END
    file.write_bytes(subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout)
    return file


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
    cut.write_text("no archive\n")
    assert "this is no archive of a container" in fleet.run("import", str(cut)).err
    damaged = bytearray(whole.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "cut").write_bytes(damaged)
    assert fleet.run("import", str(tmp_path / "cut")).status != 0
    (tmp_path / "cut").write_bytes(whole.read_bytes() + b"more")
    assert fleet.run("import", str(tmp_path / "cut")).status != 0
    assert not Path("/tmp/lxcfleet-test-out").exists()
    assert directories(fleet) == before
    fleet.ok("import", str(whole))


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
            assert importing.wait(TIMEOUT) == 1
    os.close(reading)
    os.close(null)
    if victim == "daemon":
        fleet.start_daemon()
    until(lambda: fleet.state(web) == "running", 20, "it runs again")
    until(lambda: not half_made(fleet), 20, "nothing is left")
    assert fleet.state(web) == "running"
    until(lambda: fleet.run("info", fleet.name("bad")).status == 1, 20, "it is not known any more")
    fleet.inside(web, "true")
    importing.stdin.close()
    importing.wait(TIMEOUT)


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
