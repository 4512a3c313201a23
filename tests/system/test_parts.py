"""Hosts with file systems of their own at /opt, /usr/local and /var/lib: one overlay for each, and one delta.

The fleet's host is a mount namespace in which these file systems are mounted. Its mounts propagate as under systemd.
The machine that runs the tests has none of these mounts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import ROOT, SLEEP, Fleet, alive, until

pytestmark = pytest.mark.system

SETUP = """
set -e
mount --make-rshared /
for part in opt local other; do
    mkfs.ext4 -q -F -E root_owner=0:0 {images}/$part 16M
done
mount -o loop,nosuid {images}/opt /opt
mount -o loop {images}/local /usr/local
mount --bind /var/lib /var/lib
mkdir -p /opt/tool/deep/down /opt/elsewhere /usr/local/bin /usr/local/share/doc
cp /usr/bin/sleep /opt/tool/sleep
echo public >/opt/tool/deep/down/file
echo secret >/opt/tool/key
chmod 600 /opt/tool/key
chmod 3775 /opt/tool/deep
echo kept >/opt/replaced
echo 'echo local' >/usr/local/bin/said
chmod 755 /usr/local/bin/said
mount -t tmpfs tmpfs /opt/elsewhere
echo elsewhere >/opt/elsewhere/file
"""


class Host:
    """A mount namespace for a fleet's daemon."""

    def __init__(self, images: Path) -> None:
        self.images = images
        self._holder = subprocess.Popen(["unshare", "--mount", "--propagation", "slave", "sleep", "infinity"])
        self.within = ("nsenter", f"--target={self._holder.pid}", "--mount", "--")
        own = os.stat("/proc/self/ns/mnt").st_ino
        until(lambda: os.stat(f"/proc/{self._holder.pid}/ns/mnt").st_ino != own)
        until(lambda: Path(f"/proc/{self._holder.pid}/comm").read_text() == "sleep\n")

    def run(self, script: str) -> str:
        """Run a shell script on this host. It must succeed; returns what it printed."""
        done = subprocess.run([*self.within, "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (script, done.stdout, done.stderr)
        return done.stdout.strip()

    def mount_opt(self) -> None:
        """Mount /opt, and the file system below it, as at first."""
        self.run(f"mount -o loop,nosuid {self.images}/opt /opt && mount -t tmpfs tmpfs /opt/elsewhere")

    def unmount_opt(self) -> None:
        """Unmount /opt: then it is a directory of the root file system."""
        self.unmount("/opt/elsewhere", "/opt")

    def unmount(self, *points: str) -> None:
        """Unmount these. A process of the daemon's may be looking at what is there for a moment."""
        for point in points:
            command = [*self.within, "umount", point]
            until(lambda: subprocess.run(command, capture_output=True).returncode == 0, what=f"{point} is unmounted")  # noqa: B023

    def end(self) -> None:
        """End the process that holds the namespace."""
        self._holder.kill()
        self._holder.wait()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    if os.geteuid() != 0 or shutil.which("lxc-start") is None:
        pytest.skip("needs root and LXC")
    made = Host(tmp_path_factory.mktemp("parts"))
    try:
        made.run(SETUP.format(images=made.images))
        yield made
    finally:
        made.end()
    listed = ["losetup", "--list"]
    until(lambda: str(made.images) not in subprocess.check_output(listed, text=True), 20, "no loop device is left")


@pytest.fixture(scope="module")
def own_fleet(host: Host) -> Iterator[Fleet]:
    fleet = Fleet()
    fleet.within = host.within
    try:
        fleet.start_daemon()
        yield fleet
        fleet.clean()
    finally:
        fleet.run("destroy", "--all", "--force", "-q")
        fleet.remove()
    fleet.assert_no_traces()
    assert fleet.helpers() == []


@pytest.fixture(params=[(), ("--privileged",)], ids=["unprivileged", "privileged"])
def name(request: pytest.FixtureRequest, fleet: Fleet) -> str:
    """An app container."""
    new = fleet.name("a")
    fleet.create(new, options=request.param)
    return new


def stale(fleet: Fleet) -> dict[str, list[str]]:
    records = fleet.run("stale", "-f", "json").json
    assert [record["problem"] for record in records] == [None] * len(records)
    return {record["name"]: [file["path"] for file in record["files"]] for record in records if record["stale"]}


def exposed(fleet: Fleet) -> dict[str, list[str]]:
    records = fleet.run("audit", "exposure", "-f", "json").json
    return {record["name"]: [each["path"] for each in record["exposed"]] for record in records}


def test_doctor_names_the_parts_of_the_base(fleet: Fleet) -> None:
    findings = {each["check"]: each for each in fleet.run("doctor", "-f", "json").json["findings"]}
    assert findings["root-filesystem"]["level"] == "ok"
    assert all(f"{point} (ext4)" in findings["root-filesystem"]["message"] for point in ("/opt", "/usr/local"))
    assert findings["idmapped-root"]["message"].startswith("/, /opt, /usr/local, /var/lib can be shown")
    assert "empty-directories" not in findings


def test_a_clone_sees_the_hosts_files_in_each_part_and_no_secrets(fleet: Fleet, name: str) -> None:
    assert fleet.inside(name, "cat /opt/tool/deep/down/file; said") == "public\nlocal"
    assert fleet.inside(name, "ls /opt/tool /opt/elsewhere /opt/lost+found; ls /var/lib/lxc*; true") == (
        "/opt/elsewhere:\n\n/opt/lost+found:\n\n/opt/tool:\ndeep\nsleep"
    )
    assert fleet.inside(name, "stat -c '%a %u %g' / /opt /opt/tool/deep /usr/local /var /var/lib").splitlines() == [
        "755 0 0", "755 0 0", "3775 0 0", "755 0 0", "755 0 0", "755 0 0"
    ]  # fmt: skip
    assert fleet.inside(name, "dpkg-query -W -f '${Status}' libc6") == "install ok installed"
    assert "nosuid" in fleet.inside(name, "findmnt -no OPTIONS /opt")
    assert exposed(fleet) == {name: []}


def test_files_written_in_any_part_are_in_the_one_delta_and_stay(fleet: Fleet, host: Host, name: str) -> None:
    fleet.inside(
        name,
        "echo new >/opt/tool/new; echo more >>/opt/tool/deep/down/file; rm /opt/replaced; rm -rf /opt/lost+found;"
        "mkdir /opt/replaced; echo mine >/usr/local/bin/mine; mkdir -p /var/lib/mine; echo root >/etc/mine",
    )
    delta = fleet.delta(name)
    first = fleet.record(name)["first_id"] or 0
    for path in ("opt/tool/new", "opt/tool/deep/down/file", "usr/local/bin/mine", "var/lib/mine", "etc/mine"):
        assert (delta / path).stat().st_uid == first, path
    assert host.run("cat /opt/tool/deep/down/file /opt/replaced; ls /opt/tool") == "public\nkept\ndeep\nkey\nsleep"
    assert not Path("/var/lib/mine").exists()
    fleet.ok("restart", name)
    seen = fleet.inside(name, "cat /opt/tool/new /opt/tool/deep/down/file /usr/local/bin/mine /etc/mine; ls -A /opt")
    assert seen == "new\npublic\nmore\nmine\nroot\nelsewhere\nreplaced\ntool"
    assert fleet.inside(name, "stat -c %F /opt/replaced /var/lib/mine") == "directory\ndirectory"


def test_a_patch_of_a_part_makes_a_container_stale_until_its_restart(fleet: Fleet, host: Host) -> None:
    name = fleet.name("a")
    fleet.create(name, command=("--", "/opt/tool/sleep", "infinity"))
    assert stale(fleet) == {}
    host.run("cd /opt/tool && cp -p sleep sleep.new && echo other >>sleep.new && mv sleep.new sleep")
    assert stale(fleet) == {name: ["/opt/tool/sleep"]}
    fleet.ok("restart", name)
    assert stale(fleet) == {}


def test_a_file_that_becomes_private_is_an_exposure_and_hidden_at_the_next_start(fleet: Fleet, host: Host) -> None:
    """The file is deep down in a part, and the daemon is not restarted."""
    old, new = fleet.name("old"), fleet.name("new")
    file = "/opt/tool/deep/down/file"
    try:
        fleet.create(old)
        host.run(f"chmod 640 {file}")
        assert exposed(fleet) == {old: [file]}
        fleet.create(new)
        assert exposed(fleet) == {old: [file], new: []}
        assert fleet.run("exec", new, "--", "cat", file).status != 0
    finally:
        host.run(f"chmod 644 {file}")


def test_no_part_can_be_unmounted_from_inside(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    assert fleet.inside(name, "umount /opt || umount -l /opt || mount --bind / /mnt || echo refused") == "refused"
    assert fleet.inside(name, "mount --rbind / /mnt && umount /mnt/opt || cat /mnt/opt/tool/deep/down/file") == "public"


def test_system_containers_and_plain_lxc_start_have_the_parts_too(fleet: Fleet, host: Host) -> None:
    name, system = fleet.name("a"), fleet.name("s")
    fleet.create(name)
    fleet.create(system, command=())
    fleet.ok("wait", system, "--for", "healthy")
    assert fleet.inside(system, "systemctl is-system-running; cat /opt/tool/deep/down/file") == "running\npublic"
    fleet.ok("stop", name)
    host.run(f"lxc-start -P {fleet.paths.lxc} -n {name}")
    until(lambda: fleet.state(name) == "running", 10, "the daemon notices the container")
    assert fleet.inside(name, "cat /opt/tool/deep/down/file; ls /opt/tool") == "public\ndeep\nsleep"


def test_the_host_may_unmount_a_part_and_mount_something_else(fleet: Fleet, host: Host) -> None:
    name = fleet.name("a")
    fleet.create(name)
    fleet.inside(name, "echo mine >/opt/mine")
    try:
        host.unmount_opt()
        assert fleet.inside(name, "cat /opt/tool/deep/down/file") == "public"
        fleet.ok("restart", name)
        assert fleet.inside(name, "cat /opt/mine; ls /opt/tool 2>/dev/null; true") == "mine"
        host.run(f"mount -o loop {host.images}/other /opt && echo seen >/opt/seen && echo no >/opt/no && chmod 600 /opt/no")
        fleet.ok("restart", name)
        assert fleet.inside(name, "cat /opt/mine /opt/seen; ls /opt") == "mine\nseen\nlost+found\nmine\nseen"
        host.unmount("/opt")
    finally:
        host.mount_opt()
    fleet.ok("restart", name)
    assert fleet.inside(name, "cat /opt/mine /opt/tool/deep/down/file") == "mine\npublic"


@pytest.mark.parametrize("instead", ["ln -s /srv /opt", "echo file >/opt", "mkdir /opt; echo mine >/opt/mine", "true"])
def test_a_containers_own_file_in_the_place_of_a_part_stays(fleet: Fleet, host: Host, instead: str) -> None:
    """The container made it before the host mounted the part. Nothing is mounted over it, nor where its link leads."""
    name = fleet.name("a")
    look = "stat -c '%F' /opt; ls /opt/; cat /opt"
    fleet.ok("stop", "--all")
    host.unmount_opt()
    try:
        fleet.create(name)
        fleet.inside(name, f"rm -rf /opt; {instead}")
        before = fleet.run("exec", name, "--", "sh", "-c", look)
    finally:
        host.mount_opt()
    fleet.ok("restart", name)
    after = fleet.run("exec", name, "--", "sh", "-c", look)
    assert (after.out, after.status) == (before.out, before.status)
    assert fleet.inside(name, "findmnt -no TARGET /opt; findmnt -no TARGET /usr/local") == "/usr/local"


SMALL = """
import sys, time
from pathlib import Path
from lxcfleet.base.generations import build
from lxcfleet.paths import Paths
from system import small_root
paths, root = Paths.from_environment(), Path(sys.argv[1])
if sys.argv[2] == "make":
    small_root.make(root, greet="1", other="1")
    (root / "opt/tool").mkdir()
    small_root.replace(root / "opt/tool/said", "opt 1")
elif sys.argv[2] == "patch":
    small_root.install(root, greet="2", other="1")
    small_root.replace(root / "opt/tool/said", "opt 2")
else:
    print(":".join(build.freeze(paths, "a test", root=root, now=time.time()).sheets))
"""


def test_containers_stand_on_generations_of_several_file_systems(fleet: Fleet, host: Host) -> None:
    """A small root with a /usr and a /opt on disks of their own: all goes back together."""
    root = fleet.paths.state / "root"
    place = root / "usr" / fleet.paths.sheets_elsewhere
    environment = " ".join(f"{key}={value}" for key, value in fleet.paths.environment().items())
    python = f"cd {ROOT} && {environment} PYTHONPATH={ROOT}:{ROOT}/tests /usr/bin/python3 -c '{SMALL}' {root}"
    host.run(
        f"mkdir -p {root}/usr {root}/opt && mkfs.ext4 -q -F {host.images}/usr 64M"
        f" && mount -o loop {host.images}/usr {root}/usr && rmdir {root}/usr/lost+found"
        f" && mkfs.ext4 -q -F {host.images}/small 16M && mount -o loop,nosuid {host.images}/small {root}/opt"
        f" && rmdir {root}/opt/lost+found && {python} make"
    )
    try:
        assert host.run(f"{python} freeze") == "s1:s1.opt:s1.usr"
        name, other = fleet.name("a"), fleet.name("b")
        fleet.create(name, other)
        fleet.inside(name, "echo mine >/opt/mine")
        assert fleet.run("rollback", name, "--to", "1").status == 0
        look = "cat /usr/lib/greet /opt/tool/said; echo; echo /opt/* /usr/.lxc*; "
        look += "while read -r line; do case $line in *' /opt '*) echo $line;; esac; done </proc/mounts"
        *seen, mounted = fleet.inside(name, look).splitlines()
        assert seen == ["greet 1", "opt 1", "/opt/mine /opt/tool /usr/.lxc*"]
        assert "nosuid" in mounted.split()[3].split(","), mounted
        host.run(f"{python} patch")
        assert host.run(f"{python} freeze") == "s2:s2.opt:s2.usr:s1:s1.opt:s1.usr"
        fleet.ok("restart", name)
        assert fleet.inside(name, "cat /usr/lib/greet /opt/tool/said") == "greet 1\nopt 1"
        assert fleet.run("rollback", name, "--to", "2").status == 0
        assert fleet.inside(name, "cat /usr/lib/greet /opt/tool/said") == "greet 2\nopt 2"
        assert exposed(fleet) == {name: [], other: []}
        assert stale(fleet)[name], "its programs are the small root's, and not the host's"
        assert host.run(f"ls {place}") == "CACHEDIR.TAG\ns1.usr\ns2.usr"
        # A part that is not mounted is told before the container is stopped.
        pid = fleet.pid(name)
        host.run(f"mv {place} {place}-")
        ran = fleet.run("restart", name)
        assert ran.status == 1, ran
        assert f"{place}/s2.usr/tree is gone, or its file system is not mounted" in ran.err
        assert fleet.pid(name) == pid
        assert fleet.run("generation", "verify", "2").status == 4
        host.run(f"mv {place}- {place}")
        assert fleet.run("generation", "verify", "2").status == 0
        fleet.ok("destroy", name, "--force")
        assert "the last good one" in fleet.run("generation", "rm", "1", "2").err
        fleet.ok("generation", "rm", "--last", "1", "2")
        assert host.run(f"ls -A {root}/usr {root}/opt | tr -d '\n'") == f"{root}/opt:tool{root}/usr:binliblib64sbin"
    finally:
        host.unmount(f"{root}/usr", f"{root}/opt")


def test_a_daemon_takes_over_the_containers_of_a_killed_one(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    pid = fleet.pid(name)
    fleet.stop_daemon(9)
    fleet.start_daemon()
    assert fleet.pid(name) == pid
    fleet.ok("restart", name)
    assert not alive(pid)
    assert fleet.inside(name, "cat /opt/tool/deep/down/file") == "public"
    fleet.create(fleet.name("b"), command=SLEEP)
