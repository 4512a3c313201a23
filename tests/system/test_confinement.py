"""A clone's confinement: root in a container makes every attempt of docs/security.md.

An attempt prints each success with its first word in capitals. A test fails on those lines, and on changes on the host.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.host.process import cgroup

from . import attacks, hogs
from .harness import SLEEP, TIMEOUT, Fleet, source, until

pytestmark = pytest.mark.system

MARK = "lxcfleet-test-confined"
APPARMOR = Path("/sys/kernel/security/apparmor").is_dir()


class Clones:
    """One container of each kind, for all tests of this module."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.names = {kind: fleet.name(kind) for kind in ("app", "system", "privileged", "other")}
        fleet.create(self.names["app"])
        fleet.create(self.names["other"])
        fleet.create(self.names["system"], command=())
        fleet.create(self.names["privileged"], options=("--privileged",))
        fleet.ok("wait", "--all", "--for", "healthy")

    def attack(self, kind: str, function: Callable[..., None], *arguments: Any) -> list[str]:
        """Run an attack in a container. Return the lines that it prints."""
        ran = self.fleet.run("exec", self.names[kind], "--", "python3", "-c", source(function, arguments))
        assert ran.status == 0, ran
        return ran.out.splitlines()

    def hog(self, function: Callable[..., None]) -> tuple[subprocess.Popen[bytes], str]:
        """Start an attack that holds a resource. Return the process and the first line that it prints."""
        process = self.fleet.spawn("exec", self.names["app"], "--", "python3", "-c", source(function, ()))
        assert process.stdout is not None
        return process, process.stdout.readline().decode()

    def inside(self, kind: str, script: str) -> str:
        """Run a shell script in a container. Return its output."""
        return self.fleet.inside(self.names[kind], script)


@pytest.fixture(scope="module")
def clones(own_fleet: Fleet) -> Clones:
    return Clones(own_fleet)


@pytest.fixture
def hogging(clones: Clones) -> Iterator[Callable[[Callable[..., None]], str]]:
    """Starts an attack that takes all it can of a resource. The fixture ends the attack after the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(function: Callable[..., None]) -> str:
        process, said = clones.hog(function)
        running.append(process)
        return said

    yield start
    for process in running:
        process.terminate()
        process.wait(TIMEOUT)
    # The resource is free when the attack's last process has gone, and a fork bomb has many.
    clones.fleet.ok("restart", clones.names["app"], "--timeout", "0")


def succeeded(lines: list[str]) -> list[str]:
    """The lines that tell of a success. Their first word is in capitals."""
    return [line for line in lines if line and line.split()[0].strip(":").isupper()]


KINDS = ("app", "system", "privileged")
UNPRIVILEGED = ("app", "system")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=UNPRIVILEGED)
def unprivileged(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def marker() -> Iterator[Path]:
    """A file of the host that clones may read."""
    file = Path(f"/usr/share/{MARK}")
    file.write_text("the host's\n")
    yield file
    file.unlink()


@pytest.fixture
def secrets() -> Iterator[list[Path]]:
    """Files that clones must not see: a private file, and files in directories that the mask hides."""
    private = Path(f"/etc/{MARK}.d/private")
    files = [private, Path(f"/root/{MARK}"), Path(f"/var/lib/{MARK}/data"), Path(f"/etc/ssh/ssh_host_{MARK}_key")]
    made = [file for file in files if file.parent.parent.is_dir()]
    for file in made:
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"secret of {MARK}\n")
        file.chmod(0o600)
    yield made
    for file in made:
        file.unlink()
        if MARK in file.parent.name:
            file.parent.rmdir()


# -- devices and the kernel ----------------------------------------------------------------------------------


def test_the_hosts_disk_can_be_neither_read_nor_mounted(clones: Clones, kind: str) -> None:
    device = os.stat("/").st_dev
    assert succeeded(clones.attack(kind, attacks.make_device, os.major(device), os.minor(device))) == []


def test_dangerous_system_calls_are_refused(clones: Clones, kind: str) -> None:
    answers = dict(line.split(": ") for line in clones.attack(kind, attacks.system_calls))
    keys = {answers.pop(call) for call in ("add_key", "keyctl")}
    assert keys == {"38"}, "ENOSYS: crun goes on without a keyring then"
    assert set(answers.values()) == {"1"}, answers  # EPERM


def test_no_file_is_opened_by_its_handle(clones: Clones, kind: str) -> None:
    assert succeeded(clones.attack(kind, attacks.file_handles)) == []


def test_the_kernels_settings_can_not_be_changed(clones: Clones, unprivileged: str) -> None:
    def settings() -> list[str]:
        files = [Path(f"/proc/sys/{name}") for name in ("kernel/core_pattern", "fs/file-max", "kernel/modprobe")]
        return [file.read_text() for file in files if file.exists()]

    before = settings()
    # A container may change the limits of its own user namespace: they bind nobody else.
    said = clones.attack(unprivileged, attacks.kernel_settings)
    assert [line for line in succeeded(said) if "/proc/sys/user/" not in line] == []
    assert settings() == before


def test_nesting_lets_programs_make_containers_and_change_no_setting(own_fleet: Fleet) -> None:
    """The whole proc and sysfs that it takes are as useless to root inside as those of all containers."""
    name = own_fleet.name("nesting")
    own_fleet.create(name, options=("--nesting",))
    make = "unshare --user --map-root-user --pid --fork --mount-proc echo made"
    assert own_fleet.inside(name, make) == "made"
    plain = own_fleet.name("plain")
    own_fleet.create(plain)
    assert own_fleet.run("exec", plain, "--", "sh", "-c", make).status != 0
    files = "proc/sys/kernel/core_pattern proc/sys/vm/drop_caches proc/sysrq-trigger sys/power/state sys/kernel/uevent_helper"
    write = f"for file in {files}; do (echo 1 >/dev/.lxc/$file) 2>/dev/null && echo $file; done; true"
    assert own_fleet.inside(name, write) == ""
    assert own_fleet.inside(name, "head -c 1 /dev/.lxc/proc/kcore /dev/.lxc/proc/kmsg 2>/dev/null; true") == ""


def test_a_command_of_exec_is_confined_like_its_container(clones: Clones, kind: str) -> None:
    script = "grep -E '^(CapBnd|Seccomp|NoNewPrivs)' /proc/{}/status; cat /proc/{}/attr/current 2>/dev/null || :"
    assert clones.inside(kind, script.format("self", "self")) == clones.inside(kind, script.format(1, 1))
    assert "Seccomp:\t2" in clones.inside(kind, "cat /proc/self/status")


def test_no_process_has_a_dropped_capability(clones: Clones, kind: str) -> None:
    for who in ("1", "self"):
        line = clones.inside(kind, f"grep CapBnd /proc/{who}/status").split()[1]
        # mac_override, mac_admin, sys_module, sys_rawio and sys_time; linux/capability.h
        assert not int(line, 16) & sum(1 << number for number in (32, 33, 16, 17, 25))


@pytest.mark.skipif(not APPARMOR, reason="this kernel has no AppArmor")
def test_apparmor_confines_a_container(clones: Clones, kind: str) -> None:
    pid = clones.fleet.pid(clones.names[kind])
    assert "lxc-" in Path(f"/proc/{pid}/attr/current").read_text()


# -- the base, the mask and the deltas -----------------------------------------------------------------------


def test_a_container_can_not_find_a_delta(clones: Clones, kind: str) -> None:
    """A container finds neither its own delta nor another's, though both are on the base's file system."""
    name = f"{MARK}-in-a-delta"
    clones.inside("other", f"echo secret >/{name}")
    assert (clones.fleet.delta(clones.names["other"]) / name).exists()
    assert clones.attack(kind, attacks.find, name) == []


def test_a_file_that_the_mask_hides_stays_hidden(clones: Clones, secrets: list[Path], kind: str) -> None:
    clones.fleet.ok("restart", clones.names[kind])
    said = clones.attack(kind, attacks.uncover, [str(path) for path in secrets])
    assert [line for line in said if MARK in line and "secret of" in line] == []
    assert all(f"secret of {MARK}" in path.read_text() for path in secrets)


def test_the_overlay_can_not_be_steered(clones: Clones, kind: str) -> None:
    done = succeeded(clones.attack(kind, attacks.attributes))
    assert done == [] or kind == "privileged"
    # Root of the host may set trusted attributes. The overlay keeps its own attributes apart (since 6.7 by other names).
    written = os.listxattr(clones.fleet.delta(clones.names[kind]) / "own")
    assert not {"trusted.overlay.redirect", "trusted.overlay.metacopy"} & set(written)


def test_the_base_can_not_be_changed(clones: Clones, marker: Path, kind: str) -> None:
    before = os.lstat(marker)
    digest = hashlib.sha256(marker.read_bytes()).digest()
    clones.fleet.ok("restart", clones.names[kind])
    assert clones.attack(kind, attacks.change_base, str(marker)) == ["tried"]
    after = os.lstat(marker)
    assert hashlib.sha256(marker.read_bytes()).digest() == digest
    assert (after.st_mode, after.st_uid, after.st_mtime_ns, after.st_ctime_ns, after.st_nlink) == (
        before.st_mode, before.st_uid, before.st_mtime_ns, before.st_ctime_ns, before.st_nlink,
    )  # fmt: skip
    assert not Path("/linked").exists()


def test_a_setuid_program_in_a_delta_is_out_of_reach(clones: Clones, kind: str) -> None:
    """Root in a privileged container can make real setuid-root programs. No user of the host may reach them."""
    clones.inside(kind, f"cp /bin/sh /{MARK}-sh && chmod 4755 /{MARK}-sh")
    program = clones.fleet.delta(clones.names[kind]) / f"{MARK}-sh"
    assert program.stat().st_mode & 0o4000
    script = f"import os; os.setgid(65534); os.setuid(65534); os.execv({str(program)!r}, ['sh', '-c', 'id -u'])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.stdout == ""
    assert "PermissionError" in ran.stderr


def test_users_of_the_host_see_nothing_of_a_container(clones: Clones, own_fleet: Fleet) -> None:
    name = own_fleet.name("secret")
    own_fleet.create(name, options=("-e", "PASSWORD=s3cret"))
    own = own_fleet.paths.container(name)
    files = [own.config, own.spec, own.console_log, own.lxc_log, own.delta, own_fleet.paths.mask_record,
             own_fleet.paths.mask_image]  # fmt: skip
    script = "import os, sys; os.setgid(65534); os.setuid(65534)\nfor f in sys.argv[1:]: print(os.access(f, os.R_OK))"
    ran = subprocess.run([sys.executable, "-c", script, *map(str, files)], capture_output=True, text=True, check=True)
    assert set(ran.stdout.split()) == {"False"}
    pid = own_fleet.pid(name)
    until(lambda: b"tini" in Path(f"/proc/{pid}/cmdline").read_bytes())
    assert b"s3cret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert own_fleet.inside(name, "echo $PASSWORD; tr '\\0' '\\n' </proc/1/environ | grep PASS") == "PASSWORD=s3cret"
    own_fleet.ok("destroy", name, "--force")


# -- the host and other containers ---------------------------------------------------------------------------


def test_sockets_of_the_host_can_not_be_reached(clones: Clones, kind: str) -> None:
    with socket.socket(socket.AF_UNIX) as abstract, socket.socket() as local:
        abstract.bind(f"\0{MARK}")
        abstract.listen()
        local.bind(("127.0.0.1", 0))
        local.listen()
        assert succeeded(clones.attack(kind, attacks.reach, MARK, local.getsockname()[1])) == []


def test_processes_of_others_can_not_be_reached(clones: Clones, kind: str) -> None:
    bystander = subprocess.Popen(["sleep", "infinity"])
    try:
        said = clones.attack(kind, attacks.processes_of_others, bystander.pid)
        assert [line for line in succeeded(said) if "another user" not in line] == []
        clones.fleet.run("exec", clones.names[kind], "--", "sh", "-c", "kill -9 -1")
        assert bystander.poll() is None
        clones.fleet.ok("restart", clones.names[kind])  # an app container has ended with its command
    finally:
        bystander.kill()
        bystander.wait()


def test_a_container_can_not_leave_its_cgroup(clones: Clones, unprivileged: str) -> None:
    assert succeeded(clones.attack(unprivileged, attacks.escape_cgroup)) == []


# -- limits, and starving others -----------------------------------------------------------------------------


def test_each_container_has_inotify_instances_of_its_own(clones: Clones, hogging: Callable[..., str]) -> None:
    count = int(hogging(hogs.hog_inotify).split()[0])
    assert count >= 50  # all instances of its own, under any uid
    script = "import ctypes; print(ctypes.CDLL(None).inotify_init() >= 0)"
    assert clones.inside("other", f"python3 -c '{script}'") == "True"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "True\n"


def test_a_fork_bomb_ends_at_the_limit(clones: Clones, hogging: Callable[..., str]) -> None:
    count = int(hogging(hogs.hog_processes).split()[0])
    assert 3500 < count < 4096
    assert clones.inside("other", "sh -c 'echo alive'") == "alive"


def test_kernel_keys_are_refused(clones: Clones, kind: str) -> None:
    assert clones.attack(kind, hogs.hog_keys) == ["0"]


def test_the_kernel_keeps_terminals_for_the_host(clones: Clones, hogging: Callable[..., str]) -> None:
    """The kernel keeps kernel.pty.reserve terminals for the host. Where AppArmor forbids a container to mount devpts,
    each container has 1,024 terminals of its own."""
    hogging(hogs.hog_ptys)
    for descriptor in os.openpty():
        os.close(descriptor)
    if APPARMOR:
        assert clones.inside("other", "python3 -c 'import os; os.openpty(); print(True)'") == "True"


def test_each_container_has_a_number_of_namespaces_of_its_own(clones: Clones, hogging: Callable[..., str]) -> None:
    assert int(hogging(hogs.hog_namespaces)) > 100
    assert clones.inside("other", "unshare -m -u -i true && echo made") == "made"


def test_mounts_end_at_the_limit_of_one_namespace(clones: Clones, hogging: Callable[..., str]) -> None:
    assert "No space" in hogging(hogs.hog_mounts)
    assert clones.inside("other", "mount -t tmpfs x /mnt && umount /mnt && echo mounted") == "mounted"


@pytest.mark.skipif(not cgroup.unified(), reason="only cgroup v2 can limit the number of cgroups")
def test_cgroups_end_at_the_limit(clones: Clones) -> None:
    assert int(clones.attack("system", hogs.hog_cgroups)[0].split()[0]) <= 4096


def test_the_console_can_not_fill_the_disk(own_fleet: Fleet) -> None:
    name = own_fleet.name("chatty")
    script = "head -c 8000000 /dev/zero | tr '\\0' x; echo; echo the end; exec sleep infinity"
    own_fleet.create(name, command=("--", "sh", "-c", script))
    own = own_fleet.paths.container(name)
    until(lambda: own_fleet.ok("logs", name, "-n", "1") == "the end\n", what="all that it wrote has been dealt with")
    logs = [path.stat().st_size for path in own.directory.glob("console.log*")]
    assert len(logs) == 2
    assert sum(logs) <= 2 * (1024 + 64) << 10
    own_fleet.ok("destroy", name, "--force")


def limit(fleet: Fleet, name: str, controller: str, legacy: str, modern: str) -> str:
    """The value of a limit in a container's cgroup."""
    directories = cgroup.payload(fleet.pid(name), name).directories
    top, own = (directories[controller], legacy) if controller in directories else (directories[""], modern)
    return Path(top, own).read_text().strip()


def test_a_containers_limits_hold(own_fleet: Fleet) -> None:
    name = own_fleet.name("limited")
    limits = ("--memory", "64M", "--oom", "process", "--cpus", "0.5", "--pids", "32", "--no-new-privs")
    own_fleet.ok("create", name, *limits, *SLEEP)
    assert limit(own_fleet, name, "memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert limit(own_fleet, name, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "50000"
    assert limit(own_fleet, name, "pids", "pids.max", "pids.max") == "32"
    eat = "head -c 100000000 /dev/zero | tail -c 90000000 | wc -c"
    assert own_fleet.run("exec", name, "--", "sh", "-c", eat).out.strip() != "90000000"
    assert own_fleet.state(name) == "running"
    bomb = "import os, time\nfor _ in range(100):\n if os.fork() == 0: time.sleep(5); os._exit(0)"
    assert "BlockingIOError" in own_fleet.run("exec", name, "--", "python3", "-c", bomb).err
    assert "NoNewPrivs:\t1" in own_fleet.inside(name, "cat /proc/1/status")
    record = own_fleet.record(name)
    assert (record["memory_limit_bytes"], record["cpus_limit"], record["processes_limit"]) == (64 << 20, 0.5, 32)
    own_fleet.ok("restart", name)
    assert limit(own_fleet, name, "pids", "pids.max", "pids.max") == "32"
    own_fleet.ok("destroy", name, "--force")


def test_info_tells_how_a_container_is_confined(clones: Clones, kind: str) -> None:
    record = clones.fleet.record(clones.names[kind])
    assert record["processes_limit"] == 4096
    words = {"users", "system calls", "apparmor", "capabilities", "new privileges", "devices", "proc and sys"}
    assert set(record["confinement"]) == words
    assert limit(clones.fleet, clones.names[kind], "pids", "pids.max", "pids.max") == "4096"
    said = clones.fleet.ok("info", clones.names[kind])
    assert all(f"{word}:" in said for word in words)


HELD = {"tun": "net/tun", "fuse": "fuse", "kvm": "kvm"}


def test_a_container_has_the_devices_that_it_was_given_and_no_others(fleet: Fleet) -> None:
    """As nodes of its own: root inside opens them, though those of the host's are root's outside."""
    there = [name for name, path in HELD.items() if (Path("/dev") / path).exists()]
    assert there, "any Linux that runs containers has one of them"
    name, other = fleet.name("with"), fleet.name("without")
    fleet.create(name, options=[word for each in there for word in ("--device", each)])
    fleet.create(other)
    for each in there:
        path, status = f"/dev/{HELD[each]}", (Path("/dev") / HELD[each]).stat()
        look = f"stat -c %t:%T {path} && stat -c %u {path} && exec 3<>{path}"
        seen = fleet.inside(name, look).split()
        assert seen == [f"{os.major(status.st_rdev):x}:{os.minor(status.st_rdev):x}", "0"]
        assert fleet.run("exec", other, "--", "test", "-e", path).status == 1
    if "kvm" in there:  # KVM_GET_API_VERSION: it works, and is not only there
        ask = "import fcntl; print(fcntl.ioctl(open('/dev/kvm', 'rb+'), 0xAE00))"
        assert fleet.ok("exec", name, "--", "python3", "-c", ask).strip() == "12"
    assert not (fleet.paths.run / "devices").is_mount()
    assert fleet.run("create", fleet.name("x"), "--device", "mem").status == 2
    fleet.ok("stop", name, "--timeout", "0")
    subprocess.run(["lxc-start", "-P", str(fleet.paths.lxc), "-n", name], check=True, timeout=TIMEOUT)
    until(lambda: fleet.state(name) == "running", 20)
    assert fleet.inside(name, f"stat -c %u /dev/{HELD[there[0]]}") == "0", "plain lxc-start gives it the same"
