#!/usr/bin/python3
"""Measure what a generation costs, and show what containers see of a patch: over sheets, and over the host as it is.

    /usr/bin/python3 bench/generations.py DIRECTORY [--host TREE] [--json FILE]

Needs root. DIRECTORY: an empty one. TREE: a copy of a host's root, on the same file system, which is changed; without it,
this host's /usr, /etc and dpkg's records are copied to DIRECTORY/host first. Nothing else of this host is touched: neither
its files nor its mount table. Seconds are told twice: by the clock, and those of the processor, which depend less on what
else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lxcfleet.base.generations import build, store
from lxcfleet.base.generations.record import Generation
from lxcfleet.base.generations.verify import verify
from lxcfleet.base.mount_plan import OPTIONS
from lxcfleet.host.kernel import syscalls
from lxcfleet.paths import Paths

COPIED = ("usr", "etc", "var/lib/dpkg", "var/lib/apt/lists")
ALONE = "coreutils"
"""The package of a small patch."""
MANY = 50
"""The packages of a large one."""

T = TypeVar("T")
Results = dict[str, dict[str, object]]


def copy_host(root: Path) -> None:
    """Copy what containers see of this host."""
    root.mkdir()
    for name in COPIED:
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if Path("/", name).is_dir():
            subprocess.run(["cp", "-ax", "--reflink=never", f"/{name}", str(target)], check=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(os.readlink(f"/{name}"))


@contextmanager
def timed(told: dict[str, object]) -> Iterator[None]:
    """Note the seconds that this takes."""
    clock, used = time.monotonic(), sum(os.times()[:4])
    yield
    told["seconds"] = round(time.monotonic() - clock, 2)
    told["of the processor"] = round(sum(os.times()[:4]) - used, 2)


def change_times(root: Path) -> dict[str, int]:
    """When each file was changed last, in owner, mode, links or content."""
    found = {}
    for directory, _, files in os.walk(root):
        for name in files:
            path = f"{directory}/{name}"
            found[path] = os.lstat(path).st_ctime_ns
    return found


def files_of(root: Path, packages: Iterable[str]) -> list[Path]:
    """The regular files of packages."""
    found = []
    for package in packages:
        for line in (root / f"var/lib/dpkg/info/{package}.list").read_text().splitlines():
            path = root / line.lstrip("/")
            if path.is_file() and not path.is_symlink():
                found.append(path)
    return found


def patch(files: Iterable[Path]) -> None:
    """Replace files as dpkg does: a new one under another name, then a rename."""
    for file in files:
        new = file.with_name(f"{file.name}.dpkg-new")
        shutil.copy2(file, new)
        os.rename(new, file)


class Bench:
    """The measurements, in the order in which they are made."""

    def __init__(self, work: Path, root: Path) -> None:
        self.paths, self.root = Paths(work / "lxc", work / "run", work / "etc"), root
        self.work = work
        self.results: Results = {}

    def freeze(self, what: str) -> Generation | None:
        """Freeze, and note what it took and which files of the host it touched."""
        told = self.results[what] = {}
        before = change_times(self.root)
        with timed(told):
            made = build.freeze(self.paths, what, root=self.root, now=time.time())
        self.compare(told, before)
        if made is not None:
            told |= {"MiB": round(made.bytes / (1 << 20), 2), "links": made.linked, "copies": made.copied}
        return made

    def compare(self, told: dict[str, object], before: dict[str, int]) -> None:
        """Note which files of the host were touched since."""
        after = change_times(self.root)
        told["host's files with another ctime"] = sum(after.get(path) != moment for path, moment in before.items())
        told["host's files"] = len(after)

    def undo_image(self, what: str, files: list[Path]) -> None:
        """The other design: the files that a patch replaces, in an image."""
        told = self.results[what] = {"files": len(files)}
        staged, image = self.work / "undo", self.work / "undo.ext4"
        with timed(told):
            for file in files:
                target = staged / file.relative_to(self.root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target)
            size = sum(-(-file.stat().st_size // 4096) * 4 + 1 for file in files) * 5 // 4 + 4096
            options = ["-q", "-m", "0", "-O", "^has_journal", "-d", str(staged), str(image), f"{size}k"]
            subprocess.run(["mkfs.ext4", *options], check=True, stdout=subprocess.DEVNULL)
        told["MiB"] = round(image.stat().st_blocks * 512 / (1 << 20), 2)
        shutil.rmtree(staged)
        image.unlink()

    def run(self) -> None:
        """All of it."""
        self.freeze("whole sheet")
        self.freeze("nothing changed")
        several = sorted(file.name.removesuffix(".list") for file in (self.root / "var/lib/dpkg/info").glob("*.list"))
        chosen = random.Random(1).sample(several, min(MANY, len(several)))
        for what, packages in ((f"{ALONE} patched", [ALONE]), (f"{len(chosen)} packages patched", chosen)):
            files = files_of(self.root, packages)
            self.undo_image(f"undo image, {what}", files)
            patch(files)
            self.freeze(what)
        told = self.results["verify"] = {}
        with timed(told):
            report = verify(self.paths, store.numbers(self.paths)[-1])
        told |= {"checked": report.checked, "written in place": len(report.written)}
        self.results["what a mounted container sees of a patch"] = self.apart(self.mixture)
        for number in store.numbers(self.paths):
            told = self.results[f"removal of generation {number}"] = {}
            before = change_times(self.root)
            with timed(told):
                store.remove(self.paths, number)
            self.compare(told, before)

    def apart(self, work: Callable[[], dict[str, object]]) -> dict[str, object]:
        """Run it in a child with a mount namespace of its own, which ends with it."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                syscalls.unshare_mounts()
                syscalls.make_slave(Path("/"))
                os.write(writing, json.dumps(work()).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        with open(reading, "rb") as pipe:
            answer = pipe.read()
        if os.waitpid(child, 0)[1]:
            raise SystemExit("the child failed")
        found: dict[str, object] = json.loads(answer)
        return found

    def mixture(self) -> dict[str, object]:
        """Mount the host's tree and the newest generation, patch two files, and look at both through both."""
        bench = self.root / "usr/share/lxcfleet-bench"
        bench.mkdir(exist_ok=True)
        known, new = bench / "looked-up-before", bench / "not-looked-up-before"
        for file in (known, new):
            file.unlink(missing_ok=True)
            file.write_text("old")
        info = self.root / "var/lib/dpkg/info/lxcfleet-bench.list"
        info.write_text(f"/{known.relative_to(self.root)}\n/{new.relative_to(self.root)}\n")
        build.freeze(self.paths, "two files", root=self.root, now=time.time())
        generation = store.load(self.paths, store.numbers(self.paths)[-1])
        sheets = [store.sheet(self.paths, name) for name in generation.sheets]
        views = {"live base": self.overlay("live", [self.root]), "generation": self.overlay("frozen", sheets)}
        found: dict[str, object] = {}
        for view in views.values():
            (view / known.relative_to(self.root)).read_bytes()
        for file in (known, new):
            fresh = file.with_name(f"{file.name}.dpkg-new")
            fresh.write_text("new")
            os.rename(fresh, file)
        for name, view in views.items():
            for file in (known, new):
                found[f"{name}, {file.name}"] = (view / file.relative_to(self.root)).read_text()
        libc = next((self.root / "usr/lib").glob("*/libc.so.6"))
        inside = views["generation"] / libc.relative_to(self.root)
        found["libc: the same inode in a generation and on the host"] = inside.stat().st_ino == libc.stat().st_ino
        with open(libc, "rb") as file_of_host:
            os.posix_fadvise(file_of_host.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        found["KiB of the host's libc in the page cache, dropped"] = cached(libc)
        inside.read_bytes()
        found["KiB of the host's libc in the page cache, after it was read in the container"] = cached(libc)
        return found

    def overlay(self, name: str, lower: list[Path]) -> Path:
        """Mount an overlay; returns where."""
        top = self.work / name
        for each in ("up", "work", "root"):
            (top / each).mkdir(parents=True, exist_ok=True)
        options = f"lowerdir={':'.join(map(str, lower))},upperdir={top}/up,workdir={top}/work,{OPTIONS}"
        syscalls.mount("bench", top / "root", "overlay", syscalls.MS_NODEV, options)
        return top / "root"


def cached(file: Path) -> int:
    """KiB of it in the page cache; fincore(1)."""
    argv = ["fincore", "--bytes", "--noheadings", "--output", "RES", str(file)]
    return int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout) >> 10


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--host", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    work: Path = arguments.directory.resolve()
    work.mkdir(exist_ok=True)
    if os.geteuid() or any(work.iterdir()):
        raise SystemExit("this needs root, and an empty directory")
    root: Path = arguments.host.resolve() if arguments.host else work / "host"
    if arguments.host is None:
        copy_host(root)
    bench = Bench(work, root)
    bench.run()
    for what, told in bench.results.items():
        print(what)
        for key, value in told.items():
            print(f"    {key}: {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(bench.results, indent=1) + "\n")


if __name__ == "__main__":
    main()
