"""Volumes that come with archives of real containers: whole, with their owners, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pax
import pytest

from lxcfleet.data import arrivals
from lxcfleet.data.archives import head as heads
from lxcfleet.data.archives.entries import ACLS
from lxcfleet.host.kernel import syscalls, tree
from lxcfleet.launcher.children import archives
from lxcfleet.paths import Paths
from lxcfleet.spec.container.volumes import Volume

from .harness import TIMEOUT, Fleet, until
from .trees import Maker, acl, directories, half_made, look

pytestmark = pytest.mark.system


@pytest.fixture
def tidy(fleet: Fleet) -> Iterator[None]:
    """Removes the containers of a test, and then their volumes: none may be left half made."""
    yield
    fleet.run("destroy", "--all", "--force", "--with-snapshots", "-q")
    until(lambda: all(not each.startswith(".") for each in there(fleet)), 20, "nothing is left half made")
    for name in there(fleet):
        fleet.ok("volume", "rm", name)


def there(fleet: Fleet) -> list[str]:
    """The names in the directory of volumes."""
    return sorted(each.name for each in fleet.paths.volumes.iterdir()) if fleet.paths.volumes.is_dir() else []


def test_volumes_come_back_with_their_container(fleet: Fleet, tidy: None, tmp_path: Path) -> None:
    """A hundred random trees on a volume, with another range of ids on another volume."""
    data, name = "data", fleet.name("db")
    fleet.ok("volume", "create", data, "-l", "a=b")
    fleet.create(name, options=("-v", f"{data}:/srv/data"))
    fleet.inside(name, "cd /srv/data && echo hi >f && chown 33:1000 f && chmod 4755 f && truncate -s 10G sparse")
    fleet.inside(name, "chown 5:6 /srv/data")
    first = json.loads(fleet.ok("volume", "info", data, "-f", "json"))["first_id"]
    maker = Maker(20260102, first)
    for number in range(100):
        maker.tree(os.fsencode(fleet.paths.volume(data).data) + b"/%d" % number)
    before = look(os.fsencode(fleet.paths.volume(data).data), first)
    file = tmp_path / "db.zst"
    fleet.ok("export", name, "--volumes", "-o", str(file))
    checked = fleet.json("restore-check", "--with-volumes", str(file))["results"][0]
    assert (checked["status"], checked["differing"], there(fleet)) == ("checked", 0, [data])
    # Nothing is put on a volume that is here.
    ran = fleet.run("import", str(file), "--name", fleet.name("new"), "--with-volumes", "--trusted")
    assert (ran.status, f"a volume named {data} exists already" in ran.err) == (1, True), ran
    ran = fleet.run("import", str(file), "--name", fleet.name("kept"), "--with-volumes", "--keep-volumes", "--trusted")
    assert (ran.status, there(fleet)) == (0, [data]), ran
    fleet.inside(fleet.name("kept"), "echo shared >/srv/data/f")
    new = fleet.json("import", str(file), "--name", fleet.name("new"), "--with-volumes", "--volume", f"{data}=data2")
    assert (new["results"][0]["volumes"], new["results"][0]["started"], there(fleet)) == (["data2"], True, [data, "data2"])
    made = json.loads(fleet.ok("volume", "info", "data2", "-f", "json"))
    assert (made["labels"], made["containers"], made["first_id"] != first) == ({"a": "b"}, [fleet.name("new")], True)
    after = look(os.fsencode(fleet.paths.volume("data2").data), made["first_id"])
    differing = {path: (before[path], after.get(path)) for path in before if before[path] != after.get(path)}
    assert not differing, next(iter(differing.items()))
    assert after.keys() == before.keys()
    script = "cd /srv/data && stat -c '%u:%g %a %s' f . && cat f"
    assert fleet.inside(fleet.name("new"), script).split("\n")[0::2] == ["33:1000 4755 3", "hi"]
    assert fleet.inside(fleet.name("new"), "stat -c %u:%g /srv/data") == "5:6"
    # The whole of it again, with the volume gone.
    fleet.ok("destroy", name, fleet.name("kept"), "--force")
    fleet.ok("volume", "rm", data)
    fleet.ok("import", str(file), "--with-volumes")
    assert fleet.inside(name, "cat /srv/data/f") == "hi"


def of_volume(fleet: Fleet, file: Path, *members: bytes) -> Path:
    """An archive of a container ``bad`` with a volume ``data`` that has these members."""
    spec = {
        "init": "app", "command": ["sleep", "infinity"], "first_id": 1000000, "created": "2026-01-01T00:00:00Z",
        "volumes": ["data:/srv"],
    }  # fmt: skip
    kept = (Volume("data", first_id=2000000),)
    bad = heads.ArchiveHead(fleet.name("bad"), "1", "2026-01-01T00:00:00Z", "stopped", spec, volumes=kept)
    head = heads.render(bad).encode()
    top = pax.member(b"delta/", b"5", mode=b"0000755\0")
    data = pax.member(b"export.yaml", data=head) + top + b"".join(members) + pax.END
    file.write_bytes(subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout)
    return file


TOP = pax.member(b"volumes/data/", b"5", mode=b"0000755\0")


def test_hostile_volumes_leave_nothing(fleet: Fleet, tidy: None, tmp_path: Path) -> None:
    before = directories(fleet)
    out = pax.member(b"volumes/data/l", b"2", target=b"/tmp") + pax.member(b"volumes/data/l/lxcfleet-test-out", data=b"x")
    bad = {
        "link": (TOP, out),
        "other name": (TOP, pax.member(b"delta/x"), pax.member(b"volumes/data/x", b"1", target=b"delta/x")),
        "device": (TOP, pax.member(b"volumes/data/sda", b"3", major=b"0000010\0")),
        "id": (TOP, pax.member(b"volumes/data/x", uid=b"0200000\0")),
        "acl": (TOP, pax.member(b"volumes/data/x", attributes={b"SCHILY.xattr." + ACLS[0]: acl((2, 4, 1000033))})),
        "bomb": (TOP, pax.member(b"volumes/data/x", data=bytes(64 << 20))),
        "twice": (TOP, pax.member(b"volumes/data/1"), pax.member(b"volumes/data/1")),
        "top twice": (TOP, TOP),
        "no top": (),
        "file for a top": (pax.member(b"volumes/data"),),
        "other": (TOP, pax.member(b"volumes/other/x")),
        "above": (TOP, pax.member(b"volumes/x")),
    }
    for kind, members in bad.items():
        file = str(of_volume(fleet, tmp_path / "bad", *members))
        ran = fleet.run("import", file, "--with-volumes", "--limit", "32M", "-f", "json")
        assert ran.status in (1, 2), (kind, ran)
        assert ran.json["results"][0]["error"]["message"] == "this archive is refused", (kind, ran)
        assert (directories(fleet), there(fleet)) == (before, []), kind
    assert not Path("/tmp/lxcfleet-test-out").exists()
    whole = of_volume(fleet, tmp_path / "whole", TOP, pax.member(b"volumes/data/x", data=os.urandom(1 << 20)))
    (tmp_path / "cut").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert "not whole" in fleet.run("import", "--with-volumes", str(tmp_path / "cut")).err
    assert (directories(fleet), there(fleet)) == (before, [])
    fleet.ok("import", "--with-volumes", str(whole))
    assert there(fleet) == ["data"]


@pytest.mark.parametrize("victim", ["daemon", "launcher", "client"])
def test_a_kill_leaves_all_of_a_container_and_its_volumes_or_nothing(
    fleet: Fleet, tidy: None, victim: str, tmp_path: Path
) -> None:
    data = pax.member(b"volumes/data/x", data=os.urandom(4 << 20))
    whole = of_volume(fleet, tmp_path / "whole", TOP, data).read_bytes()
    importing = fleet.spawn("import", "-", "--with-volumes", stdin=subprocess.PIPE)
    assert importing.stdin is not None
    importing.stdin.write(whole[: len(whole) // 2])
    importing.stdin.flush()
    until(lambda: there(fleet), what="its volume is being unpacked")
    if victim == "daemon":
        fleet.stop_daemon(signal.SIGKILL)
    elif victim == "launcher":
        os.kill(fleet.servants()["launcher"], signal.SIGKILL)
    else:
        importing.kill()
    importing.stdin.close()
    importing.wait(TIMEOUT)
    if victim == "daemon":
        fleet.start_daemon()
    until(lambda: not half_made(fleet) and not there(fleet), 20, "nothing is left")
    until(lambda: fleet.run("info", fleet.name("bad")).status == 1, what="the daemon knows that nothing came of it")
    fleet.ok("import", "--with-volumes", str(tmp_path / "whole"))


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_each_step_of_the_last_part_leaves_all_or_nothing(fleet: Fleet, tmp_path: Path, *, after: bool) -> None:
    """From where all is unpacked to where the volumes have their names: killed there, and what the next daemon does."""
    paths = Paths(lxc=tmp_path / "lxc", run=tmp_path / "run", etc=tmp_path / "etc")
    new = paths.new("web.0")
    item: Any = {
        "name": "web", "files": {"lxcfleet.yaml": "x"}, "snapshot": "",
        "volumes": [{"directory": arrivals.directory(name, "0"), "name": name} for name in "ab"],
    }  # fmt: skip

    def make() -> None:
        new.directory.mkdir(parents=True)
        for each in item["volumes"]:
            (paths.volumes / each["directory"]).mkdir(parents=True)
        archives._keep(item, new, b"", paths)
        arrivals.finish(paths, paths.container("web"))

    steps: list[tuple[object, str]] = [
        (syscalls, "rename_new"), (tree, "sync_directory"), (tree, "sync_file_system"), (Path, "write_text"),
        (Path, "unlink"),
    ]  # fmt: skip
    seen = set()
    for where, step in steps:
        for time in range(1, 6):
            if not killed_at(make, where, step, time, after=after):
                shutil.rmtree(paths.lxc)
                break
            whole = paths.container("web").directory.is_dir()
            if whole:
                arrivals.finish(paths, paths.container("web"))
            made = sorted(each.name for each in paths.volumes.iterdir() if not each.name.startswith("."))
            assert made == (["a", "b"] if whole else []), (step, time)
            seen.add(whole)
            shutil.rmtree(paths.lxc)
    assert seen == {True, False}


def killed_at(work: Callable[[], object], where: object, step: str, time: int, *, after: bool) -> bool:
    """Do the work in a process that is killed at a step, the ``time``-th one of its name; whether it came so far."""
    pid = os.fork()
    if not pid:
        plain, count = getattr(where, step), 0

        def die(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == time and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            found = plain(*arguments, **options)
            if count == time:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        setattr(where, step, die)
        try:
            work()
        except BaseException:
            os._exit(2)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, step
    return os.WIFSIGNALED(status)
