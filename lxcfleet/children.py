"""What the launcher's children do: one operation each, then exit.

Requests and replies are JSON. Starting containers is the booter's: see host.booter.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any, NoReturn

from lxcfleet.base import layers
from lxcfleet.errors import Broken, FleetError, HostError
from lxcfleet.host import attach, kernel, lxc, quota, tree
from lxcfleet.names import ContainerPaths, Paths
from lxcfleet.patch import scan

if TYPE_CHECKING:
    from lxcfleet.base.reconcile import Reconciler


def run(message: bytes, descriptors: Sequence[int], paths: Paths, held: tuple[int, int]) -> NoReturn:
    """Do what ``message`` asks for and exit. ``held``: the launcher's request socket and the daemon's lock."""
    status = 1
    try:
        if not message:
            with open(descriptors[1], "rb") as file:
                message = file.read()
        operation, _, argument = message.partition(b" ")
        if operation in (b"attach", b"check"):
            for descriptor in held:  # a command may outlive the daemon, and must not hold its lock
                os.close(descriptor)
        if operation == b"attach":
            signal.alarm(0)
            attach.run(json.loads(argument), descriptors, str(paths.lxc))
        else:
            _OPERATIONS[operation.decode()](json.loads(argument), socket.socket(fileno=descriptors[0]), paths)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


Reply = socket.socket

MAX_DATAGRAM = 65536
CHILD_SECONDS = 120
"""No child may take longer: liblxc can wait for ever on a monitor that hangs."""


def _answer(
    reply: Reply, name: str, error: Exception | None = None, descriptor: int | None = None, notes: Sequence[str] = ()
) -> None:
    body = None
    if isinstance(error, FleetError):
        body = error.body()
    elif isinstance(error, OSError):
        body = HostError.from_os_error(f"{name} could not be prepared", error).body()
    elif error is not None:
        raise error
    message = json.dumps({"name": name, "error": body, "notes": list(notes)[:_NOTES]}).encode()
    socket.send_fds(reply, [message], [] if descriptor is None else [descriptor])


_NOTES = 20
"""So many fit into a datagram, and are worth reading; all are in the container's directory."""


@functools.cache
def _reconciler(paths: Paths) -> Reconciler:
    """One for all the batches of this child."""
    from lxcfleet.base.reconcile import Reconciler  # other children have no use for it

    return Reconciler(paths)


def _prepare(_: None, reply: Reply, paths: Paths) -> None:
    """Make or check containers' files, mount their layers, and answer with the mount namespace of each.

    Batches come until the daemon has no more: this child pays for its fork once.
    """
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    for items in _batches(reply):
        if any(item["mount"] for item in items) and not os.path.ismount(paths.mask_mount):
            return  # this launcher is a new one: unanswered, the daemon has it mount the mask, and asks again
        for item in items:
            try:
                _prepare_one(item, reply, paths, home)
            except (OSError, FleetError) as error:
                _answer(reply, item["name"], error)


def _batches(reply: Reply) -> Iterator[list[dict[str, Any]]]:
    """What the daemon says on the socket for replies, until it closes that."""
    while True:
        signal.alarm(0)
        message, descriptors, _, _ = socket.recv_fds(reply, MAX_DATAGRAM, 1)
        if descriptors:
            with open(descriptors[0], "rb") as file:
                message = file.read()
        if not message:
            return
        signal.alarm(CHILD_SECONDS)
        yield json.loads(message)


def _prepare_one(item: dict[str, Any], reply: Reply, paths: Paths, home: int) -> None:
    name = item["name"]
    if item["make"]:
        _make(paths, name, item)
    else:
        _check(paths, name, item)
    if not item["mount"]:
        _answer(reply, name)
        return
    notes = _reconciler(paths).reconcile(name) if item["reconcile"] else []
    kernel.unshare_mounts()
    try:
        layers.mount(paths, name, item["first_id"], item["disk"])
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        _answer(reply, name, descriptor=namespace, notes=notes)
        os.close(namespace)
    finally:
        kernel.enter_mounts(home)


def _make(paths: Paths, name: str, item: dict[str, Any]) -> None:
    """Put a new container's files together under another name, then give them theirs in one step."""
    new = paths.new(name)
    tree.remove(new.directory)
    owner = item["first_id"] or 0
    try:
        # The host's users must not get at what a container's root wrote: programs that are setuid, for one.
        new.directory.mkdir(mode=0o700)
        new.delta.mkdir(mode=0o755)
        os.chown(new.delta, owner, owner)
        new.work.mkdir(mode=0o700)
        for file, text in item["files"].items():
            (new.directory / file).write_text(text, encoding="utf-8")
        kernel.rename_new(new.directory, paths.container(name).directory)
    except FileExistsError as error:
        tree.remove(new.directory)
        raise FleetError(f"{name} can't be created", why=f"{error.filename} is in the way") from error
    except OSError as error:
        tree.remove(new.directory)
        raise HostError.from_os_error(f"{name} can't be created", error) from error


def _check(paths: Paths, name: str, item: dict[str, Any]) -> None:
    """Refuse to start over files that are not as we made them; bring LXC's configuration up to date."""
    own = paths.container(name)
    for directory, owner in ((own.delta, item["first_id"] or 0), (own.work, 0)):
        try:
            found = os.lstat(directory)
        except FileNotFoundError:
            raise Broken(
                f"{name} can't start: its directory {directory} is gone",
                hint="restore it from a backup, or remove the container with `lxcfleet destroy`",
            ) from None
        if not os.path.isdir(directory) or os.path.islink(directory) or found.st_uid != owner:
            raise Broken(
                f"{name} can't start: {directory} is not the directory that lxcfleet made",
                why=f"it should be a directory of uid {owner}, and has uid {found.st_uid}",
                hint=f"if you are sure of its contents: chown {owner}:{owner} {directory}",
            )
    os.chmod(own.directory, 0o700)
    lxc.rotate_log(str(own.lxc_log))
    if os.statvfs(own.delta).f_flag & os.ST_RDONLY:
        raise HostError(
            f"{name} can't start", why=f"the file system of {own.delta} is mounted read-only",
            hint="`dmesg | tail` may tell why; after an error the kernel does that by itself",
        )  # fmt: skip
    for file, text in item["files"].items():
        path = own.directory / file
        try:
            if path.read_text(encoding="utf-8") == text:
                continue
        except FileNotFoundError:
            pass
        tree.write(path, text)


def _remove(names: list[str], reply: Reply, paths: Paths) -> None:
    """Remove what is left of containers, given by the names of their directories."""
    for name in names:
        try:
            project = quota.own_project(ContainerPaths(paths.lxc / name).delta)
            tree.remove(paths.lxc / name)
            if project:
                quota.forget(paths.lxc, project)
            _answer(reply, name)
        except (OSError, FleetError) as error:
            _answer(reply, name, error)


def _inspect(names: list[str], reply: Reply, paths: Paths) -> None:
    """Process 1 of each container, as the host numbers it; null for one that does not run."""
    for name in names:
        reply.send(json.dumps({"name": name, "pid": lxc.init_pid(name, str(paths.lxc))}).encode())


def _freeze(names: list[str], reply: Reply, paths: Paths) -> None:
    for name in names:
        _answer(reply, name, None if lxc.freeze(name, str(paths.lxc)) else _refused(paths, name, "frozen"))


def _unfreeze(names: list[str], reply: Reply, paths: Paths) -> None:
    for name in names:
        _answer(reply, name, None if lxc.unfreeze(name, str(paths.lxc)) else _refused(paths, name, "unfrozen"))


def _check_health(item: dict[str, Any], reply: Reply, paths: Paths) -> None:
    """Run a command inside and answer with its exit status (null: it took too long) and what it printed."""
    name = item["name"]
    try:
        status, output = attach.check(name, str(paths.lxc), item["command"], item["environment"], item["timeout"])
    except FleetError as error:
        _answer(reply, name, error)
    else:
        reply.send(json.dumps({"name": name, "error": None, "status": status, "output": output}).encode())


def _stale(items: list[dict[str, Any]], reply: Reply, paths: Paths) -> None:
    """Look at what containers run. All in one memory file, as one answer may be larger than a datagram."""
    body, text = None, b"[]"
    try:
        found = scan.scan(map(scan.Target.from_json, items), paths.mask_mount)
        text = json.dumps([each.to_json() for each in found]).encode()
    except OSError as error:
        body = HostError.from_os_error("what containers run can't be compared", error).body()
    _answer_large(reply, body, text)


def _answer_large(reply: Reply, error: Any, text: bytes) -> None:
    memory = os.memfd_create("answer", os.MFD_CLOEXEC)
    with open(memory, "wb", closefd=False) as file:
        file.write(text)
    os.lseek(memory, 0, os.SEEK_SET)
    socket.send_fds(reply, [json.dumps({"error": error}).encode()], [memory])


def _shadows(items: list[tuple[str, str]], reply: Reply, paths: Paths) -> None:
    """Look for what hides the base's files in deltas, given by name and directory."""
    from lxcfleet.patch import shadow  # few need it

    body, text = None, b"[]"
    try:
        text = json.dumps([each.to_json() for each in shadow.find(items, paths.mask_mount)]).encode()
    except OSError as error:
        body = HostError.from_os_error("deltas can't be looked at", error).body()
    _answer_large(reply, body, text)


def _unshadow(item: dict[str, Any], reply: Reply, _: Paths) -> None:
    """Remove files from a delta that is not mounted."""
    from lxcfleet.patch import shadow

    try:
        shadow.remove(item["delta"], item["paths"])
        _answer(reply, item["name"])
    except OSError as error:
        failed = HostError.from_os_error(f"{item['name']}: not all could be removed", error)
        _answer(reply, item["name"], failed)


def _exposure(items: list[dict[str, Any]], reply: Reply, paths: Paths) -> None:
    """Look for what each container can read and should not; one line of JSON each, in one memory file."""
    from lxcfleet.base import exposure  # few need it

    body, found = None, []
    try:
        found = list(exposure.audit(paths, items))
    except (OSError, FleetError) as error:
        known = error if isinstance(error, FleetError) else HostError.from_os_error("the host can't be looked at", error)
        body = known.body()
    _answer_large(reply, body, json.dumps(found).encode())


def _mask(force: bool, reply: Reply, paths: Paths) -> None:
    """Bring the mask up to date and have it mounted in the launcher's mount namespace, which this child shares."""
    from lxcfleet.base import mask_mount  # see there

    try:
        mask_mount.refresh(paths, force)
        _answer(reply, "mask")
    except (OSError, FleetError) as error:
        _answer(reply, "mask", error)


def _release(_: None, reply: Reply, paths: Paths) -> None:
    """Unmount the mask, and remove what the base was like: no container is left that needs either."""
    from lxcfleet.base import mask_mount, reconcile  # see there

    mask_mount.release(paths)
    reconcile.forget_all(paths)
    _answer(reply, "mask")


def _routes(argument: dict[str, Any], reply: Reply, _: Paths) -> None:
    """What networks the host uses, and whether it has IPv6."""
    from lxcfleet.host import netlink, sysctl  # the first takes 30 MB along

    try:
        used = [str(network) for network in netlink.networks_in_use(argument["except"])]
        body = {"networks": used, "ipv6": sysctl.ipv6_available(), "error": None}
    except FleetError as error:
        body = {"error": error.body()}
    reply.send(json.dumps(body).encode())


def _network(argument: dict[str, Any], reply: Reply, _: Paths) -> None:
    """Have the fleet's bridge, and the packet filter's rules for it."""
    from lxcfleet.host import netlink, nft, resolved, sysctl

    try:
        addresses = [ip_interface(text) for text in argument["addresses"]]
        netlink.ensure_bridge(argument["bridge"], argument["hardware"], addresses, argument["ports"])
        nft.apply(argument["rules"])
        if argument["forward"]:
            sysctl.forward([argument["bridge"], *netlink.uplinks()])
        if argument["localhost"]:
            sysctl.route_localhost(argument["bridge"])
        _answer(reply, "network")
    except FleetError as error:
        _answer(reply, "network", error)
        return
    if argument["domain"]:
        reply.close()  # nobody waits for this
        resolved.tell(argument["bridge"], str(addresses[0].ip), argument["domain"])


def _bridge(argument: dict[str, str], reply: Reply, _: Paths) -> None:
    """The host's address on the operator's bridge."""
    from lxcfleet.host import netlink

    try:
        address = netlink.bridge_address(argument["bridge"])
        reply.send(json.dumps({"address": None if address is None else str(address), "error": None}).encode())
    except FleetError as error:
        reply.send(json.dumps({"error": error.body()}).encode())


def _join(argument: dict[str, Any], reply: Reply, _: Paths) -> None:
    """Have the packet filter's rules for the operator's bridge, and containers on it."""
    from lxcfleet.host import netlink, nft, sysctl

    try:
        nft.apply(argument["rules"])
        netlink.join_bridge(argument["bridge"], argument["ports"])
        if argument["forward"]:
            sysctl.forward([argument["bridge"], *netlink.uplinks()])
        _answer(reply, "join")
    except FleetError as error:
        _answer(reply, "join", error)


def _dhcp(items: list[dict[str, Any]], reply: Reply, paths: Paths) -> None:
    """Start containers' DHCP clients."""
    from lxcfleet.host import dhcp

    failure = None
    for item in items:
        try:
            client = dhcp.Client(item["name"], paths)
            client.start(item["pid"], item["began"], item["daemon"], privileged=item["privileged"])
        except (OSError, FleetError) as error:
            failure = failure or error
    _answer(reply, "dhcp", failure)


def _leased(argument: dict[str, Any], reply: Reply, _: Paths) -> None:
    """Which addresses the packet filter has seen given to whom."""
    from lxcfleet.host import nft

    body, text = None, b"[]"
    try:
        text = json.dumps(nft.pairs("bridge", argument["table"], "leased")).encode()
    except FleetError as error:
        body = error.body()
    _answer_large(reply, body, text)


def _publish(argument: dict[str, Any], reply: Reply, _: Paths) -> None:
    """Have ports of the host lead where they should."""
    from lxcfleet.host import nft, sysctl

    if argument["forward"]:
        from lxcfleet.host import netlink

    try:
        nft.apply(argument["rules"])
        if argument["localhost"]:
            sysctl.route_localhost(argument["bridge"])
        if argument["forward"]:
            sysctl.forward([argument["bridge"], *netlink.uplinks()])
        _answer(reply, "publish")
    except FleetError as error:
        _answer(reply, "publish", error)


def _rules(argument: dict[str, Any], reply: Reply, _: Paths) -> None:
    """Have nft read them."""
    from lxcfleet.host import nft

    try:
        nft.apply(argument["rules"])
        _answer(reply, "rules")
    except FleetError as error:
        _answer(reply, "rules", error)


def _forget_datagrams(members: list[str], reply: Reply, _: Paths) -> None:
    """Have nobody's datagrams go to these addresses any more by habit."""
    from lxcfleet.host import conntrack

    try:
        conntrack.forget_datagrams(members)
        _answer(reply, "datagrams")
    except FleetError as error:
        _answer(reply, "datagrams", error)


def _disconnect(argument: dict[str, Any], reply: Reply, _: Paths) -> None:
    """Take the fleet's bridge and its rules away."""
    from lxcfleet.host import netlink, nft

    try:
        if argument["bridge"]:
            netlink.remove_bridge(argument["bridge"])
        nft.apply(argument["rules"])
        _answer(reply, "network")
    except FleetError as error:
        _answer(reply, "network", error)


def _refused(paths: Paths, name: str, what: str) -> HostError:
    return HostError(f"{name} can't be {what}", why=f"liblxc's reason is in {paths.container(name).lxc_log}")


_OPERATIONS: dict[str, Callable[[Any, Reply, Paths], None]] = {
    "prepare": _prepare,
    "remove": _remove,
    "inspect": _inspect,
    "freeze": _freeze,
    "unfreeze": _unfreeze,
    "check": _check_health,
    "stale": _stale,
    "shadows": _shadows,
    "unshadow": _unshadow,
    "exposure": _exposure,
    "mask": _mask,
    "release": _release,
    "routes": _routes,
    "network": _network,
    "bridge": _bridge,
    "join": _join,
    "dhcp": _dhcp,
    "leased": _leased,
    "publish": _publish,
    "rules": _rules,
    "datagrams": _forget_datagrams,
    "disconnect": _disconnect,
}
