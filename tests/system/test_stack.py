"""A fourth layer between delta and mask, as a real mount. The kernel merges the layers as ``present`` says.

Each test is in a mount namespace of its own. Needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from lxcfleet.base import exposure, layers
from lxcfleet.base.mask.mount import make_mount_points
from lxcfleet.base.present import Shelf
from lxcfleet.base.stack import Layer, Stack, stack_of
from lxcfleet.host.kernel import image
from lxcfleet.host.kernel.entries import Directory, Entry, File, Owner, Whiteout
from lxcfleet.host.kernel.mounts import OPAQUE
from lxcfleet.host.process import command
from lxcfleet.patch.shadow import files
from lxcfleet.patch.stale.scan import Target, scan
from lxcfleet.paths import Paths

from .harness import until
from .test_mask import apart

pytestmark = pytest.mark.system

T = TypeVar("T")
FIRST_ID = 1879048192 + 3901 * 65536
NAME = "four"
OURS = Owner(0o755, 0, 0)
PRIVATE = Owner(0o600, 0, 0)


@pytest.fixture
def host_files() -> Iterator[dict[str, Path]]:
    """Files of the host: one that only the base has, and one for each layer above, which provides it or takes it away."""
    top = Path(f"/usr/local/share/lxcfleet-test-stack-{os.getpid()}")
    top.mkdir(parents=True)
    made = {name: top / name for name in ("base", "mask", "app", "delta", "gone", "secret", "copied")}
    for name, path in made.items():
        path.write_text(f"the host's {name}\n")
        os.utime(path, (1000, 1000))
    for name in ("secret", "copied"):
        made[name].chmod(0o600)
    yield made
    shutil.rmtree(top)


class Mounted:
    """A container's directory with its layers where the launcher has them, in a mount namespace of its own."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.paths = Paths(lxc=top / "lxc", run=top / "run", etc=top / "etc")
        make_mount_points(self.paths)
        (self.paths.run / "fourth").mkdir()
        (top / "apps").mkdir()
        own = self.paths.container(NAME)
        for directory in (own.directory, own.delta, own.work):
            directory.mkdir(parents=True)
        os.chown(own.delta, FIRST_ID, FIRST_ID)
        mounted = str(self.paths.run / "fourth")
        app = Layer("app", str(top / "apps"), mounted, idmapped=True, hosts=False, neutral=False, opaque=OPAQUE)
        usual = stack_of(self.paths, NAME)
        self.stack = Stack((usual.top, app, *usual.lower))

    def put(self, layer: str, entries: dict[str, Entry]) -> None:
        """Mount an image with these files as the source of a layer. Missing directories are made."""
        place = Path(next(each.source for each in self.stack if each.name == layer))
        file = self.top / f"{layer}.ext4"
        file.unlink(missing_ok=True)
        (self.top / "making").mkdir(exist_ok=True)
        image.write(entries, str, self.top / "making", file)
        command.run(["/usr/bin/mount", "-t", "ext4", "-o", "loop,ro,nodev", str(file), str(place)])

    def mount(self) -> Path:
        """Mount the container's root; returns its path."""
        layers.mount(self.paths, self.stack, NAME, FIRST_ID, 0)
        return self.paths.root_mount

def in_a_namespace(work: Callable[[Mounted], T]) -> T:
    """Run ``work`` in a mount namespace of its own, which ends with it; returns its result."""
    top = Path(f"/var/lib/lxcfleet-test-stack-{os.getpid()}")
    top.mkdir(mode=0o755)
    try:
        return apart(lambda: work(Mounted(top)))
    finally:
        shutil.rmtree(top)


def masking(*paths: Path) -> dict[str, Entry]:
    """The entries of a layer that takes these paths away."""
    return {str(path): Whiteout() for path in paths} | above(*paths)


def above(*paths: Path) -> dict[str, Entry]:
    """The directories above these paths, as entries."""
    return {str(parent): Directory(OURS) for path in paths for parent in path.parents}


def text(content: str, owner: Owner = OURS) -> File:
    return File(content.encode(), owner)


def run(root: Path, *command: str) -> subprocess.Popen[bytes]:
    """Start a process whose mount namespace has nothing but the container's root."""
    script = 'cd "$1" && shift && mount --move . / && exec chroot . "$@"'
    running = subprocess.Popen(["unshare", "--mount", "sh", "-c", script, "sh", str(root), *command])
    name = Path(command[0]).name
    # It sleeps once it has begun: right after execve(2) it has its name, and nothing is mapped yet.
    until(lambda: Path(f"/proc/{running.pid}/stat").read_text().startswith(f"{running.pid} ({name}) S "))
    return running


def found_in(mounted: Mounted, path: Path) -> str | None:
    """The layer that provides ``path``, as ``present`` says; None if there is no such file."""
    shelf = Shelf()
    try:
        with shelf.present(mounted.stack) as present:
            found = present.find(str(path))
            return None if found.status is None else found.layer.name
    finally:
        shelf.close()


def test_the_kernel_merges_the_layers_as_the_stack_says(host_files: dict[str, Path]) -> None:
    """There are four layers, and files have the container's owners."""
    ours = [host_files[name] for name in ("base", "mask", "app", "delta", "gone")]

    def look(mounted: Mounted) -> dict[str, tuple[str | None, str | None, int]]:
        mounted.put("mask", {**above(*ours), str(ours[1]): text("mask"), str(ours[2]): text("mask")})
        app: dict[str, Entry] = {str(ours[2]): text("app"), str(ours[3]): text("app"), str(ours[4]): Whiteout()}
        mounted.put("app", {**above(*ours), **app})
        own = Path(f"{mounted.stack.top.source}{ours[3]}")
        own.parent.mkdir(parents=True)
        own.write_text("delta")
        for path in (own, *own.parents):
            if str(path).startswith(mounted.stack.top.source):
                os.chown(path, FIRST_ID, FIRST_ID)
        said = {path.name: found_in(mounted, path) for path in ours}
        root = mounted.mount()
        result = {}
        for path in ours:
            inside = Path(f"{root}{path}")
            there = inside.read_text().split()[-1] if inside.exists() else None
            result[path.name] = (said[path.name], there, inside.stat().st_uid if inside.exists() else 0)
        return result

    assert in_a_namespace(look) == {
        "base": ("base", "base", FIRST_ID),
        "mask": ("mask", "mask", FIRST_ID),
        "app": ("app", "app", FIRST_ID),
        "delta": ("delta", "delta", FIRST_ID),
        "gone": (None, None, 0),
    }


def test_a_program_of_the_fourth_layer_becomes_stale_when_the_layer_changes(host_files: dict[str, Path]) -> None:
    """The program is compared with the app layer, not with the host. It is also found as a shadow of the host's file."""
    program = host_files["app"]
    sleep = Path("/usr/bin/sleep").read_bytes()

    def look(mounted: Mounted) -> tuple[list[list[tuple[str, str, str]]], list[tuple[str, str, bool]]]:
        mounted.put("mask", above(program))
        mounted.put("app", {**above(program), str(program): File(sleep, OURS)})
        root = mounted.mount()
        running = run(root, str(program), "600")
        try:
            group = mounted.top / "cgroup"
            group.mkdir()
            (group / "cgroup.procs").write_text(f"{running.pid}\n")
            target = Target(NAME, running.pid, str(group), mounted.stack)
            stale = [_stale(target)]
            program.write_bytes(sleep + b"patched")  # the host's file, which no container sees
            stale.append(_stale(target))
            mounted.put("app", {**above(program), str(program): File(sleep + b"newer", OURS)})
            stale.append(_stale(target))
            mounted.put("app", masking(program))
            stale.append(_stale(target))
            mounted.put("app", {**above(program), str(program): File(sleep, OURS)})
            (delta,) = files.find([(NAME, mounted.stack)])
            return stale, [(shadow.path, shadow.layer, shadow.own) for shadow in delta.shadows]
        finally:
            running.kill()
            running.wait()

    path = str(program)
    stale, shadows = in_a_namespace(look)
    assert stale == [[], [], [(path, "replaced", "app")], [(path, "removed", "app")]]
    assert shadows == [(path, "app", False)]


def _stale(target: Target) -> list[tuple[str, str, str]]:
    (found,) = scan([target])
    assert found.problem == ""
    assert found.mappings > 0
    return [(file.path, str(file.why), file.layer) for file in found.files]


def test_a_secret_of_the_host_in_the_fourth_layer_is_an_exposure(host_files: dict[str, Path]) -> None:
    """A copy of a secret in an app layer is an exposure. A file of the app's own at the same path is none."""
    secret, copied = host_files["secret"], host_files["copied"]

    def look(mounted: Mounted) -> list[str]:
        mounted.put("mask", masking(secret, copied))
        own, copy = text("the app's own\n", PRIVATE), File(copied.read_bytes(), PRIVATE)
        mounted.put("app", {**above(secret), str(secret): own, str(copied): copy})
        root = mounted.mount()
        running = run(root, "sleep", "600")
        try:
            container = {"name": NAME, "pid": running.pid, "stack": mounted.stack.to_json()}
            (found,) = exposure.audit(mounted.paths, [container])
            assert found["problem"] is None
            return [each["path"] for each in found["exposed"] if str(secret.parent) in each["path"]]
        finally:
            running.kill()
            running.wait()

    assert in_a_namespace(look) == [str(copied)]
