"""Making or checking containers' files, and mounting their layers."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lxcfleet.base import devices, layers, obstacles, runtime
from lxcfleet.base.present import Shelf
from lxcfleet.base.stack import Layer, Stack
from lxcfleet.data import mounting, restoring
from lxcfleet.data.apps import store as apps
from lxcfleet.errors import Broken, FleetError, HostError
from lxcfleet.host.kernel import small, syscalls, tree
from lxcfleet.host.lxc import apparmor, language, liblxc
from lxcfleet.host.process import passing
from lxcfleet.launcher.children import secrets
from lxcfleet.launcher.children.answer import Reply, answer
from lxcfleet.launcher.forking import MAX_DATAGRAM
from lxcfleet.launcher.items.containers import PrepareItem
from lxcfleet.launcher.operations import CHILD_SECONDS
from lxcfleet.paths import Paths

if TYPE_CHECKING:
    from lxcfleet.base.merge.reconcile import RecordMerger



def prepare(_: None, reply: Reply, paths: Paths) -> None:
    """Make or check containers' files, mount their layers, and answer with the mount namespace of each.

    Batches come until the daemon has no more, so that one fork serves them all.
    """
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    for items in _batches(reply):
        bases = {item["generation"] for item in items if item["mount"]}
        if not all(os.path.ismount(paths.on(each).mask_mount) for each in bases):
            return  # a new launcher without mask: the daemon gets no answer, has the mask mounted, and asks again
        with contextlib.closing(Shelf()) as shelf:  # not for longer than a batch: another mask may be mounted by the next
            for item in items:
                signal.alarm(CHILD_SECONDS)
                try:
                    _prepare_one(item, reply, paths, home, shelf)
                except (OSError, FleetError) as error:
                    answer(reply, item["name"], error)


def _batches(reply: Reply) -> Iterator[list[PrepareItem]]:
    """The batches that the daemon sends on the reply socket, until it closes that."""
    while True:
        signal.alarm(0)
        message, descriptors = passing.received(reply, MAX_DATAGRAM, 1)
        if descriptors:
            with open(descriptors[0], "rb") as file:
                message = file.read()
        if not message:
            return
        yield json.loads(message)


def _prepare_one(item: PrepareItem, reply: Reply, paths: Paths, home: int, shelf: Shelf) -> None:
    name, stack = item["name"], Stack.from_json(item["stack"])
    if item["make"]:
        _make(paths, name, item)
    else:
        _check(paths, name, item, stack)
    apps.examine_layers(paths, stack)
    devices.check(item["devices"])
    if not item["mount"]:
        if not item["make"]:
            _check_mounts(paths, stack, item, shelf)
        answer(reply, name)
        return
    notes = _reconciler(paths, stack.standing).reconcile(name) if item["reconcile"] else []
    with layers.mask_stays(paths):
        syscalls.unshare_mounts()
    try:
        layers.mount(paths, stack, name, item["first_id"], item["disk"])
        config = item["files"]["config"]
        obstacles.refuse(paths.container(name), config, obstacles.mounted_at(paths.root_mount), run=item["app"])
        if item["app"]:
            runtime.mount(paths.root_mount, stack.bottom.tree(), item["first_id"] or 0)
        mounting.mount(paths, name, item["volumes"], item["first_id"])
        secrets.mount(paths, name, item["first_id"], item["secrets"], system=not item["app"])
        devices.mount(paths.devices_mount, item["devices"], item["first_id"] or 0)
        if item["language"] and (found := language.inside(paths.root_mount)) != language.USUAL:
            tree.write(paths.container(name).config, language.put(config, found))
        if item["started"] and not item["make"]:
            tree.write(paths.container(name).started, item["started"])
        elif not item["make"]:
            tree.keep_copy(paths.container(name).spec, paths.container(name).started)
        apparmor.allow_socket_locks(paths.apparmor)
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        answer(reply, name, descriptor=namespace, notes=notes)
        os.close(namespace)
    finally:
        syscalls.enter_mounts(home)


def _check_mounts(paths: Paths, stack: Stack, item: PrepareItem, shelf: Shelf) -> None:
    """Refuse to stop a container whose next start would fail, as something that it mounts is gone or has no place."""
    mounting.check(paths, item["volumes"], item["first_id"])
    with shelf.present(stack) as present:
        obstacles.refuse(paths.container(item["name"]), item["files"]["config"], present.mode, run=item["app"])
        mounting.check_places(present.mode, item["volumes"])


@functools.cache
def _reconciler(paths: Paths, lower: tuple[Layer, ...]) -> RecordMerger:
    """One Reconciler for all batches of this child, as long as containers have the same lower layers."""
    from lxcfleet.base.merge.reconcile import RecordMerger  # other children do not need it

    return RecordMerger(paths, lower)


def _make(paths: Paths, name: str, item: PrepareItem) -> None:
    """Put a new container's files together under another name, then rename them in one step."""
    new = paths.new(name)
    tree.remove(new.directory)
    owner = item["first_id"] or 0
    try:
        # Users of the host must not reach files that a container's root wrote, such as setuid programs.
        new.directory.mkdir(mode=0o700)
        new.delta.mkdir(mode=0o755)
        os.chown(new.delta, owner, owner)
        new.work.mkdir(mode=0o700)
        for file, text in item["files"].items():
            with (new.directory / file).open("w", encoding="utf-8") as stream:
                stream.write(text)
                if file == new.spec.name:  # after a power failure an empty one would break the container, whatever is in it
                    stream.flush()
                    os.fsync(stream.fileno())
        if item["mount"]:
            # What it is started with, as ``keep_copy`` has it: the directory is not in use yet, so it need not be replaced.
            new.started.write_text(item["started"] or item["files"][new.spec.name], encoding="utf-8")
        syscalls.rename_new(new.directory, paths.container(name).directory)
    except FileExistsError as error:
        tree.remove(new.directory)
        raise FleetError(f"{name} can't be created", why=f"{error.filename} is in the way") from error
    except OSError as error:
        tree.remove(new.directory)
        raise HostError.from_os_error(f"{name} can't be created", error) from error


def _check(paths: Paths, name: str, item: PrepareItem, stack: Stack) -> None:
    """Refuse to start if files differ from how we made them; bring LXC's configuration up to date."""
    own = paths.container(name)
    restoring.finish(paths, name)
    for directory, owner in ((own.delta, item["first_id"] or 0), (own.work, 0)):
        try:
            found = os.lstat(directory)
        except FileNotFoundError:
            raise Broken(
                f"{name} can't start: its directory {directory} is gone",
                hint="restore it from a backup, or remove the container with `lxcfleet destroy`",
            ) from None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner:
            raise Broken(
                f"{name} can't start: {directory} is not the directory that lxcfleet made",
                why=f"it should be a directory of uid {owner}, and has uid {found.st_uid}",
                hint=f"if you are sure of its contents: chown {owner}:{owner} {directory}",
            )
    os.chmod(own.directory, 0o700)
    liblxc.rotate_log(str(own.lxc_log))
    if os.statvfs(own.delta).f_flag & os.ST_RDONLY:
        raise HostError(
            f"{name} can't start", why=f"the file system of {own.delta} is mounted read-only",
            hint="`dmesg | tail` may tell why; after an error the kernel does that by itself",
        )  # fmt: skip
    for file, text in item["files"].items():
        path = own.directory / file
        with contextlib.suppress(FileNotFoundError):
            if small.content(path) == text.encode():
                continue
        tree.write(path, text)
    for layer in stack.lower:
        if layer.services is not None:
            from lxcfleet.base.services import layer as services  # most containers do without

            services.present(layer.services, name, stack.bottom)
