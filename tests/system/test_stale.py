"""Old code is found in real containers after the host's files were changed as dpkg changes them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from lxcfleet.spec.selection import Selection

from .harness import Fleet, until

pytestmark = pytest.mark.system

SCRIPT = "#!/bin/sh\nwhile :; do sleep 1; done\n"


class Software:
    """Programs in the base that clones see and no package owns."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o755)
        for name in ("one", "two"):
            shutil.copy("/usr/bin/sleep", directory / name)
        self.write("job", SCRIPT)
        self.write("serve.py", "import time\nwhile True: time.sleep(1)\n")

    def write(self, name: str, text: str) -> None:
        """Write a script that may be run."""
        (self.directory / name).write_text(text)
        (self.directory / name).chmod(0o755)

    def library(self) -> Path:
        """Make a library that a program may load."""
        source = next(path for path in Path("/usr/lib").glob("*-linux-gnu/libz.so.1"))
        return Path(shutil.copy(source, self.directory / "libown.so"))

    def command(self, name: str) -> Sequence[str]:
        """The command of an app container that runs a program."""
        return ("--", str(self.directory / name), "infinity")

    def replace(self, name: str, more: bytes = b"\n# new\n") -> None:
        """Rename a new file over the old one, as dpkg does. It is a copy with ``more`` at its end."""
        path = self.directory / name
        new = path.with_name(f"{name}.dpkg-new")
        shutil.copy2(path, new)
        with new.open("ab") as file:
            file.write(more)
        new.rename(path)


@pytest.fixture
def software() -> Iterator[Software]:
    made = Software(Path(f"/opt/lxcfleet-test-{os.getpid()}"))
    yield made
    shutil.rmtree(made.directory)


@contextmanager
def running(fleet: Fleet, name: str, *command: str, called: str) -> Iterator[None]:
    """Run a command in a container meanwhile."""
    client = fleet.spawn("exec", name, "--", *command)
    try:
        until(lambda: called in fleet.inside(name, "cat /proc/[0-9]*/comm 2>/dev/null || true"), what=f"{called} runs")
        yield
    finally:
        client.kill()
        client.wait()
        client.communicate()


def old(fleet: Fleet, *chosen: str) -> dict[str, list[tuple[str, str, str]]]:
    """The stale files of each stale container: path, reason, and the layer that provides the path now."""
    ran = fleet.run("stale", "-f", "json", *chosen)
    records = ran.json
    found = {r["name"]: [(f["path"], f["why"], f["layer"]) for f in r["files"]] for r in records if r["stale"]}
    assert ran.status == (4 if found else 0), ran
    assert [r["problem"] for r in records] == [None] * len(records)
    return found


def test_exactly_the_containers_that_map_a_changed_file_are_stale(fleet: Fleet, software: Software) -> None:
    one, two, other, privileged = (fleet.name(name) for name in ("one", "two", "other", "privileged"))
    fleet.create(one, command=software.command("one"))
    fleet.create(two, command=software.command("two"))
    fleet.create(privileged, command=software.command("one"), options=["--privileged"])
    fleet.create(other)
    assert old(fleet) == {}
    software.replace("one")
    expected = [(str(software.directory / "one"), "replaced", "base")]
    assert old(fleet) == {one: expected, privileged: expected}
    assert fleet.run("stale", "-q").out == f"{one}\n{privileged}\n"
    # A process started in the old mount may find the old file, and is stale as well. A restart mounts anew.
    fleet.ok("restart", one, privileged)
    assert old(fleet) == {}
    (software.directory / "two").unlink()
    assert old(fleet) == {two: [(str(software.directory / "two"), "removed", "base")]}


def test_another_file_of_the_same_content_is_not_stale(fleet: Fleet, software: Software) -> None:
    """For example after the way back to a former version: only containers that run the other version are stale."""
    one, job, new = (fleet.name(name) for name in ("one", "job", "new"))
    fleet.create(one, command=software.command("one"))
    fleet.create(job, command=software.command("job"))
    before = {name: (software.directory / name).read_bytes() for name in ("one", "job")}
    for name in before:
        software.replace(name)
    fleet.create(new, command=software.command("one"))
    assert set(old(fleet)) == {one, job}
    for name, content in before.items():
        (software.directory / name).unlink()
        software.write(name, "")
        (software.directory / name).write_bytes(content)
    assert old(fleet) == {new: [(str(software.directory / "one"), "replaced", "base")]}


def test_a_script_behind_an_interpreters_options_is_found(fleet: Fleet, software: Software) -> None:
    path = str(software.directory / "job")
    bash, python = fleet.name("bash"), fleet.name("python")
    fleet.create(bash, command=("--", "bash", "-euo", "pipefail", path))
    fleet.create(python, command=("--", "python3", "-Werror::SyntaxWarning", str(software.directory / "serve.py")))
    until(lambda: all("processes" in record for record in fleet.json_any("stale")), 10)
    for name in ("job", "serve.py"):
        software.replace(name)
    assert set(old(fleet)) == {bash, python}


ALONE = """
import ctypes, sys, threading, time
ctypes.CDLL(sys.argv[1])
threading.Thread(target=time.sleep, args=(1e6,)).start()
ctypes.CDLL(None).syscall(60, 0)  # this thread ends, and the other one runs on
"""


def test_a_process_whose_first_thread_has_ended_is_looked_at(fleet: Fleet, software: Software) -> None:
    """Its other threads run on. /proc has neither its root nor its program, except by their numbers."""
    library, threads = str(software.library()), fleet.name("threads")
    fleet.create(threads, command=("--", "python3", "-c", ALONE, library))
    until(lambda: fleet.inside(threads, "grep -l 'State:.*zombie' /proc/[0-9]*/status || true"), what="it ended")
    assert old(fleet) == {}
    software.replace("libown.so")
    assert old(fleet) == {threads: [(library, "replaced", "base")]}


def test_scripts_and_commands_started_with_exec_are_found(fleet: Fleet, software: Software) -> None:
    job, serve, shell = (fleet.name(name) for name in ("job", "serve", "shell"))
    fleet.create(job, command=software.command("job"))
    fleet.create(serve, command=("--", "python3", "-u", str(software.directory / "serve.py")))
    fleet.create(shell)
    with running(fleet, shell, *software.command("two")[1:], called="two"):
        assert old(fleet) == {}
        os.link(software.directory / "job", software.directory / "hard-link")
        (software.directory / "serve.py").chmod(0o644)
        for name in ("job", "serve.py", "two"):
            software.replace(name)
        path = str(software.directory)
        found = old(fleet)
    assert found == {
        job: [(f"{path}/job", "replaced", "base")],
        serve: [(f"{path}/serve.py", "replaced", "base")],
        shell: [(f"{path}/two", "replaced", "base")],
    }


def test_a_file_that_the_delta_provides_is_compared_with_the_deltas(fleet: Fleet, software: Software) -> None:
    name, path = fleet.name("a"), software.directory / "one"
    fleet.create(name)
    fleet.inside(name, f"touch {path}")  # the container has a copy of its own now
    fleet.ok("restart", name)
    with running(fleet, name, str(path), "infinity", called="one"):
        software.replace("one")
        assert old(fleet) == {}, "a patch of the base doesn't reach the delta's file: a matter for `audit shadow`"
        fleet.inside(name, f"cp {path} {path}.new; mv {path}.new {path}")
        assert old(fleet) == {name: [(str(path), "replaced", "delta")]}
        fleet.inside(name, f"rm {path}")
        assert old(fleet) == {name: [(str(path), "removed", "delta")]}


MAPS = """
import ctypes, mmap, os, sys
CODE = mmap.PROT_READ | mmap.PROT_EXEC
def run(fd):
    os.write(fd, b"x" * 4096)
    keep.append(mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, CODE))
keep = [mmap.mmap(-1, 4096, prot=CODE)]
run(os.memfd_create("code"))
for path in ("/var/tmp/code", "/tmp/code", "/run/code"):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o755)
    run(fd)
    os.unlink(path)
print("mapped", flush=True)
import time
time.sleep(1000)
"""


def test_memory_and_files_that_a_process_makes_for_itself_are_not_stale(fleet: Fleet) -> None:
    """The process maps memfds, anonymous memory, and deleted files of its own in the delta and elsewhere."""
    name = fleet.name("a")
    fleet.create(name, command=("--", "python3", "-c", MAPS))
    until(lambda: "mapped" in fleet.ok("logs", name), what="the process has mapped them")
    (record,) = fleet.client().stale(Selection())
    assert record["mappings"] > 5
    assert old(fleet) == {}


def test_processes_that_come_and_go_while_they_are_read_are_no_error(fleet: Fleet) -> None:
    names = [fleet.name(f"storm{number}") for number in range(3)]
    fleet.create(*names, command=("--", "sh", "-c", "while :; do /bin/true & /bin/true & wait; done"))
    for _ in range(20):
        records = fleet.client().stale(Selection())
        assert [record["files"] for record in records] == [[]] * 3


def test_a_container_within_a_container_is_not_stale(fleet: Fleet, software: Software) -> None:
    """A container engine makes another root in the container, which has software of its own."""
    name = fleet.name("a")
    fleet.create(name, options=["--privileged"])
    path = software.directory / "one"
    script = f"mkdir -p /root/r{path.parent}; cp {path} /root/r{path}; "
    script += "mount -t tmpfs none /mnt; cp -a /root/r/. /mnt; for d in usr lib lib64 bin; do "
    script += f"[ ! -e /$d ] || {{ mkdir -p /mnt/$d; mount --bind /$d /mnt/$d; }}; done; exec chroot /mnt {path} 1000"
    with running(fleet, name, "sh", "-c", script, called="one"):
        software.replace("one")
        assert old(fleet) == {}


SANDBOX = """
set -e
mount -t tmpfs none /mnt
mkdir -p /mnt/usr /mnt/opt /mnt/old /mnt/dev
mount --rbind /dev /mnt/dev
mount --bind /usr /mnt/usr
mount --bind /opt /mnt/opt
for link in bin lib lib64; do ln -s usr/$link /mnt/$link; done
cd /mnt
pivot_root . old
exec "$@"
"""
"""A root of its own in a mount namespace of its own, as services with TemporaryFileSystem=/ and sandboxes have."""


@pytest.mark.parametrize("options", [(), ("--privileged",)], ids=["ids of its own", "privileged"])
def test_a_process_with_a_root_of_its_own_runs_old_files_of_the_container(
    fleet: Fleet, software: Software, options: Sequence[str]
) -> None:
    name, path, job = fleet.name("a"), software.directory / "one", software.directory / "job"
    fleet.create(name, options=options)
    both = f"{path} 1000 >/dev/null 2>&1 & exec sh {job}"
    with running(fleet, name, "unshare", "-m", "sh", "-c", SANDBOX, "sh", "sh", "-c", both, called="one"):
        assert old(fleet) == {}
        software.replace("one")
        software.replace("job")
        assert old(fleet) == {name: [(str(job), "replaced", "base"), (str(path), "replaced", "base")]}


IN_MEMORY = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
print("moving", flush=True)
for line in open("/proc/self/maps").read().splitlines():
    words = line.split()
    if words[1][2] == "x" and len(words) == 6 and words[5].startswith("/"):
        first, last = (int(word, 16) for word in words[0].split("-"))
        new = libc.mmap(None, ctypes.c_size_t(last - first), 7, 0x22, -1, ctypes.c_long(0))
        ctypes.memmove(new, first, last - first)
        size = ctypes.c_size_t(last - first)
        libc.mremap(ctypes.c_void_p(new), size, size, 3, ctypes.c_void_p(first))
print("moved", flush=True)
time.sleep(1000)
"""
"""Text in memory without a file, as programs have that want large pages for it."""


def test_a_program_that_has_moved_itself_into_memory_is_looked_at(fleet: Fleet, software: Software) -> None:
    name, path = fleet.name("a"), Path(shutil.copy(os.path.realpath("/usr/bin/python3"), software.directory / "snake"))
    fleet.create(name, command=("--", str(path), "-c", IN_MEMORY))
    until(lambda: "moved" in fleet.ok("logs", name), what="no file is mapped any more")
    assert old(fleet) == {}
    software.replace(path.name)
    assert old(fleet) == {name: [(str(path), "replaced", "base")]}


def test_a_script_behind_a_link_that_leads_elsewhere_by_now_is_old(fleet: Fleet, software: Software) -> None:
    """As a package's scripts switch those of /etc/alternatives. The other file may be older than the process."""
    name, link = fleet.name("a"), software.directory / "alternative"
    software.write("other", SCRIPT)
    link.symlink_to("job")
    fleet.create(name, command=("--", "sh", str(link)))
    assert old(fleet) == {}
    (new := link.with_name("new")).symlink_to("other")
    new.rename(link)
    assert old(fleet) == {name: [(str(link), "replaced", "base")]}


def test_a_script_in_a_directory_that_was_exchanged_is_old(fleet: Fleet, software: Software) -> None:
    """Files that move with their directory keep their times."""
    name, app, new = fleet.name("a"), software.directory / "app", software.directory / "new"
    for each, text in ((app, SCRIPT), (new, f"{SCRIPT}# new\n")):
        each.mkdir()
        (each / "run").write_text(text)
    fleet.create(name, command=("--", "sh", str(app / "run")))
    assert old(fleet) == {}
    app.rename(app.with_name("former"))
    new.rename(app)
    assert old(fleet) == {name: [(str(app / "run"), "replaced", "base")]}


def test_a_script_that_is_gone_or_that_was_opened_for_its_interpreter_is_old(fleet: Fleet, software: Software) -> None:
    gone, opened, number, box = (fleet.name(name) for name in ("gone", "opened", "number", "box"))
    job, other = software.directory / "job", software.directory / "other"
    software.write("other", SCRIPT)
    fleet.create(gone, command=("--", "sh", str(other)))
    fleet.create(opened, command=("--", "sh", "-c", f"exec sh <{job}"))
    fleet.create(number, command=("--", "bash", "-c", f"exec bash /dev/fd/7 7<{job}"))
    fleet.create(box, command=("--", "busybox", "sh", "-e", str(job)))
    assert old(fleet) == {}
    software.replace("job")
    other.unlink()
    replaced = [(str(job), "replaced", "base")]
    assert old(fleet) == {
        gone: [(str(other), "removed", "base")], opened: replaced, number: replaced, box: replaced,
    }  # fmt: skip


CHROOTED = """
import ctypes, os, sys, time
ctypes.CDLL(sys.argv[1])
os.mkdir("/run/empty")
os.chroot("/run/empty")
os.chdir("/")
print("chrooted", flush=True)
time.sleep(1000)
"""


def test_a_process_that_called_chroot_is_looked_at(fleet: Fleet, software: Software) -> None:
    """Processes of dovecot and stunnel do so, in a directory below /run, which is a file system of its own."""
    name, library = fleet.name("a"), software.library()
    fleet.create(name, command=("--", "python3", "-c", CHROOTED, str(library)))
    until(lambda: "chrooted" in fleet.ok("logs", name), what="the process has called chroot")
    assert old(fleet) == {}
    software.replace(library.name)
    assert old(fleet) == {name: [(str(library), "replaced", "base")]}


def test_a_file_that_is_mounted_a_second_time_is_named_by_its_first_path(fleet: Fleet, software: Software) -> None:
    """A service with BindPaths= has such a mount: no layer has its path."""
    name, path = fleet.name("a"), software.directory / "one"
    fleet.create(name)
    shutil.copy(path, software.directory / "single")
    script = f"mount --bind {path.parent} /mnt; touch /srv/one; mount --bind {path} /srv/one; "
    with running(fleet, name, "sh", "-c", f"{script} /srv/one 1000 >/dev/null 2>&1 & exec /mnt/single 1000", called="single"):
        until(lambda: "one" in fleet.inside(name, "cat /proc/[0-9]*/comm"), what="the other program runs")
        assert old(fleet) == {}
        software.replace("one")
        software.replace("single")
        expected = [str(path), str(path.with_name("single"))]
        assert old(fleet) == {name: [(each, "replaced", "base") for each in expected]}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet whose deltas are in another file system than the base, where inode numbers may be the same."""
    fleet, image = Fleet(), tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(2 << 30)
    fleet.paths.lxc.mkdir()
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["/usr/bin/mount", "-o", "loop", image, fleet.paths.lxc], check=True)
    (fleet.paths.lxc / "lost+found").rmdir()
    try:
        fleet.start_daemon()
        yield fleet
        fleet.clean()
    finally:
        fleet.run("destroy", "--all", "--force", "-q")
        fleet.stop_daemon()
        umount = ["/usr/bin/umount", str(fleet.paths.lxc)]
        until(lambda: subprocess.run(umount, capture_output=True).returncode == 0, what="the disk is not used any more")
        fleet.remove()


def test_stale_files_are_told_apart_with_deltas_in_a_file_system_of_their_own(elsewhere: Fleet, software: Software) -> None:
    one, two = elsewhere.name("one"), elsewhere.name("two")
    path = software.directory / "one"
    elsewhere.create(one, two, command=software.command("one"))
    assert old(elsewhere) == {}
    software.replace("one")
    expected = [(str(path), "replaced", "base")]
    assert old(elsewhere) == {one: expected, two: expected}
    elsewhere.inside(two, f"cp {path} {path}.new; mv {path}.new {path}")
    assert old(elsewhere) == {one: expected, two: [(str(path), "replaced", "delta")]}
    elsewhere.ok("restart", one, two)
    assert old(elsewhere) == {}
