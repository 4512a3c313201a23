"""A launcher without LXC, mounts, network and root, below the real daemon: a small model of the host.

Everything that the daemon itself looks at is real: directories and specs on disk, the console's log, and for each running
container a monitor with its socket and its child (see booter). Everything that takes LXC or root's rights is a model:
mounts, the freezer, the packet filter, old code in containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from lxcfleet.base.changes import Changed
from lxcfleet.containers import store
from lxcfleet.data import arrivals, secrets, volumes
from lxcfleet.data.apps import store as apps
from lxcfleet.data.archives import head as heads
from lxcfleet.data.archives.head import ArchiveHead
from lxcfleet.errors import FleetError, HostError, Unsupported
from lxcfleet.host.facts.features import Features
from lxcfleet.host.kernel import tree, usage
from lxcfleet.host.lxc import monitor, monitor_fifo
from lxcfleet.host.packages.database import OwningPackage
from lxcfleet.host.process.cgroup import Payload
from lxcfleet.launcher import operations
from lxcfleet.launcher.children.answer import answer, answer_large
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.forking import MAX_DATAGRAM
from lxcfleet.launcher.items.archives import ExportItem, ImportItem
from lxcfleet.launcher.items.base import FitItem, MaskItem
from lxcfleet.launcher.items.containers import CheckItem, LimitItem, PrepareItem, TrialItem
from lxcfleet.launcher.items.cves import CveData, CveItem, CveSet, CveSets, FoundCve, UnreadSource
from lxcfleet.launcher.items.data import AppItem, DeliverItem, Fetched, FetchItem, MountsItem, VolumeItem
from lxcfleet.launcher.items.looks import DiffItem, ExposureItem, StaleItem, UnshadowItem, UsageItem, Used, UsedPath
from lxcfleet.launcher.items.network import LookupItem, RoutesItem
from lxcfleet.launcher.operations import LauncherOperation
from lxcfleet.patch.shadow.files import Shadow, ShadowFindings
from lxcfleet.patch.stale.judge import OldFile, StaleScan
from lxcfleet.paths import Paths
from lxcfleet.spec.container.apps import parse_release
from lxcfleet.spec.container.secrets import SourceKind, sources_from_json
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.volumes import MountKind, Volume, parse_mount, volumes_of

from . import commands, snapshots

BOOTER = Path(__file__).with_name("booter.py")
PROCESSES, MAPPINGS = 2, 8
"""How many processes and executable mappings each running container has in the model."""


@dataclass
class Model:
    """The state of the model, which tests can set."""

    old: dict[str, list[OldFile]] = field(default_factory=dict)
    """The old files that each container runs until it is started anew."""
    unread: dict[str, str] = field(default_factory=dict)
    """Why a container's processes can't be read."""
    compared: dict[str, int] = field(default_factory=dict)
    """How many files of packages are compared with those that each container is served."""
    wanted: Any = None
    """The served files that the daemon asked for last; None: none, or it has not asked."""
    unread_deltas: dict[str, str] = field(default_factory=dict)
    """Why a delta can't be read."""
    shadows: dict[str, list[Shadow]] = field(default_factory=dict)
    """The shadows in each container's delta."""
    packages: dict[str, dict[str, str]] = field(default_factory=dict)
    """The packages of containers whose packages differ from the host's."""
    installed: dict[str, str] = field(default_factory=lambda: {"libc6:amd64": "2.36-9", "libssl3:amd64": "3.0.22-1"})
    """The host's packages with their versions."""
    cves: list[FoundCve] = field(default_factory=list)
    """The CVEs that the host's packages have to do with."""
    asked_cves: list[str] = field(default_factory=list)
    """The CVEs that were asked for last."""
    unread_sources: list[UnreadSource] = field(default_factory=list)
    """The sources whose changelogs can't be read."""
    unknown_sets: dict[str, str] = field(default_factory=dict)
    """Why the packages of containers are not known."""
    cve_data: CveData | None = None
    successors: dict[str, list[str]] = field(default_factory=dict)
    dpkg_stamps: list[tuple[int, ...]] = field(default_factory=list)
    """What the next looks at dpkg's records find, the last first; none: always the same."""
    """The packages that took over from packages of these names."""
    loads: dict[str, float] = field(default_factory=dict)
    """How many processors each container uses all the time."""
    neighbours: int = 1024
    """The size of the host's neighbour table: the only limit of the model that `doctor --fix` can raise."""
    owners: dict[str, OwningPackage] = field(default_factory=dict)
    """The packages that own the host's files."""
    exposed: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    changes: dict[str, list[Changed]] = field(default_factory=dict)
    """What each container changed."""
    unfit: dict[str, list[str]] = field(default_factory=dict)
    """What each container's own packages would lack on any other base."""
    killed: set[str] = field(default_factory=set)
    """Containers and volumes whose look is the end of the process that looks."""
    sick: dict[str, str] = field(default_factory=dict)
    """The output of failing health checks, by container."""
    secrets: dict[str, str] = field(default_factory=dict)
    """Digests of the values that were fetched last, by the secret's key."""
    hidden: list[str] = field(default_factory=list)
    """The notes about what mounts hide."""
    place: snapshots.Place = field(default_factory=snapshots.Place)
    """The file system of snapshots."""
    fails: dict[str, FleetError] = field(default_factory=dict)
    """The errors that the launcher gives when a container is made, started or frozen, or a volume made."""
    during: Callable[[str], object] = str
    """Called with a container's name while it is made, started or frozen."""
    limited: Callable[[str], object] = str
    """Called with the name of each container that got other limits."""


_PACKED: dict[str, Any] = {
    "error": None, "done": False, "bytes": 0, "read": False, "entries": 0, "differences": [], "differing": 0
}  # fmt: skip

ABLE = Features(())
"""A host with all features."""


class FakeLauncher(Launcher):
    """Stands in for launcher and booter. A thread carries out each request, where the real launcher forks a child."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self.model = Model()
        self._connections: list[socket.socket] = []
        self._lock = threading.Lock()
        self._booting: tuple[socket.socket, subprocess.Popen[bytes]] | None = None
        """The connection to the booter and its process, once a container was started."""
        self._operations: dict[str, Callable[[Any, socket.socket], None]] = {
            operations.PREPARE: self._prepare,
            operations.REMOVE: self._remove,
            operations.INSPECT: self._inspect,
            operations.FREEZE: lambda names, reply: self._freeze(names, reply, "1"),
            operations.UNFREEZE: lambda names, reply: self._freeze(names, reply, "0"),
            operations.LIMIT: self._limit,
            operations.CHECK: self._check,
            operations.TRY: self._try,
            operations.STALE: self._stale,
            operations.SHADOWS: self._shadows,
            operations.CVES: self._cves,
            operations.UNSHADOW: self._unshadow,
            operations.MAKE_VOLUME: self._make_volume,
            operations.CHANGE_VOLUME: self._change_volume,
            operations.REMOVE_VOLUME: self._remove_volume,
            operations.SEAL_APP: self._seal_app,
            operations.VERIFY_APP: self._verify_app,
            operations.REMOVE_APP: self._remove_app,
            operations.CHECK_MOUNTS: self._check_mounts,
            operations.CHECK_KEYS: self._check_keys,
            operations.FETCH_SECRET: self._fetch_secret,
            operations.DELIVER_SECRETS: self._deliver_secrets,
            operations.EXPOSURE: self._exposure,
            operations.USED: self._used,
            operations.DIFF: self._diff,
            operations.FIT: self._fit,
            operations.ROUTES: self._routes,
            operations.LOOKUP: self._lookup,
            operations.MASK: self._mask,
            operations.FEATURES: self._features,
            operations.FORWARD: lambda _, reply: answer_large(reply, None, b"[]"),
            operations.PUBLISHED: lambda _, reply: answer_large(reply, None, b'{"ports": [], "name_servers": []}'),
            **snapshots.bound(paths, self.model.place, self._work),
            operations.LEASED: lambda _, reply: answer_large(reply, None, b"[]"),
        }

    @property
    def fifos(self) -> Path:
        """The directory in place of /run/lxc."""
        return self._paths.run / "lxc"

    @property
    def generation(self) -> int:
        """Always the first generation."""
        return 1

    @property
    def processes(self) -> dict[str, int]:
        """No processes."""
        return {}

    def start(self) -> None:
        """Nothing to do: the fake launcher needs no start."""

    async def renew(self, names: Collection[str]) -> None:
        """Nothing to do: the fake launcher never runs old code."""

    def close(self) -> None:
        """End the booter and all containers."""
        if self._booting is not None:
            self._booting[0].close()
            self._booting[1].wait()
        for name in monitor.claimed(str(self._paths.lxc)):
            self._kill(name)

    def hang_up(self) -> None:
        """Break off the connections of running commands, as happens if the launcher's child is killed."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _kill(self, name: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.killpg(int((self._group(name) / "cgroup.procs").read_text()), signal.SIGKILL)

    # -- requests --------------------------------------------------------------------------------------------

    async def send(self, operation: LauncherOperation[Any, Any], argument: bytes, descriptors: Sequence[int]) -> None:
        """Carry the request out in a thread, which gets descriptors of its own."""
        own = [os.dup(descriptor) for descriptor in descriptors]
        reply = socket.socket(fileno=own[0])
        work = self._operations.get(operation, lambda _, reply: answer(reply, operation))
        if operation == operations.ATTACH:
            work = partial(self._attach, descriptors=own[1:])
        if operation in (operations.EXPORT, operations.IMPORT):
            work = partial(self._archive, operation, archive=own[1])
        if operation == operations.FOREGROUND:
            work = partial(self._keep, descriptors=own[1:])
        threading.Thread(target=self._serve, args=(work, json.loads(argument), reply), daemon=True).start()

    def _serve(self, work: Callable[[Any, socket.socket], None], argument: Any, reply: socket.socket) -> None:
        reply.setblocking(True)
        with reply, contextlib.suppress(ConnectionError):  # the daemon has ended
            work(argument, reply)

    def _attach(self, request: dict[str, Any], connection: socket.socket, descriptors: list[int]) -> None:
        self._connections.append(connection)
        commands.serve(connection, request, descriptors)

    def _archive(self, operation: str, item: Any, reply: socket.socket, archive: int) -> None:
        if operation == operations.EXPORT:
            self._export(item, reply, archive)
        else:
            self._import(item, reply, archive)

    def _export(self, item: ExportItem, reply: socket.socket, archive: int) -> None:
        """An archive of the model is its head, and the delta's file ``data``."""
        with open(archive, "wb") as file:
            try:
                self._work(item["name"])
                head = ArchiveHead(
                    item["name"], item["version"], item["created"], item["still"], item["spec"], {"ID": "other"},
                    volumes=tuple(Volume(name, 1 << 30, {"a": "b"}, 400_000) for name in item["volumes"]),
                )  # fmt: skip
                file.write(heads.render(head).encode())
            except FleetError as error:
                reply.send(json.dumps({**_PACKED, "error": error.body()}).encode())
                return
        reply.send(json.dumps({**_PACKED, "bytes": 1000}).encode())
        reply.send(json.dumps({**_PACKED, "read": True}).encode())
        reply.send(json.dumps({**_PACKED, "bytes": 2000, "done": True}).encode())

    def _import(self, _: None, reply: socket.socket, archive: int) -> None:
        with open(archive, "rb") as file:
            text = file.read()
        answer_large(reply, None, text)
        item: ImportItem = json.loads(reply.recv(MAX_DATAGRAM) or b"null")
        if item is None or item["name"] in self.model.killed:
            return
        found: dict[str, Any] = {**_PACKED, "bytes": 2000, "entries": 7, "done": True}
        own = self._paths.container(item["name"])
        try:
            self._work(item["name"])
            if item["compare"] and self.model.changes:
                found |= {"differences": ["delta/x: has another content"], "differing": 3}
            if item["keep"]:
                own.directory.mkdir(mode=0o700)
                own.delta.mkdir()
                own.work.mkdir()
                for name, content in item["files"].items():
                    (own.directory / name).write_text(content, encoding="utf-8")
                for each in item["volumes"]:
                    new = self._paths.volumes / each["directory"]
                    new.mkdir(parents=True)
                    (new / "volume.yaml").write_text(each["record"], encoding="utf-8")
                    (new / "data").mkdir()
                if item["volumes"]:
                    note = arrivals.note({each["directory"]: each["name"] for each in item["volumes"]})
                    own.arrivals.write_text(note, encoding="utf-8")
        except FleetError as error:
            found = {**_PACKED, "error": error.body()}
        reply.send(json.dumps(found).encode())

    def _keep(self, _: dict[str, Any], connection: socket.socket, descriptors: list[int]) -> None:
        """A keeper that takes the command to have ended with 0 as soon as it has begun."""
        with socket.socket(fileno=descriptors[0]) as daemon:
            daemon.setblocking(True)
            said = json.loads(daemon.recv(MAX_DATAGRAM))
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        if "error" in said:
            connection.send(json.dumps(said).encode())
            return
        connection.send(json.dumps({"started": said["pid"]}).encode())
        connection.send(b'{"exit": 0, "renew": false}')

    async def boot(self, name: str, namespace: int, command: Sequence[str] = ()) -> int | None:
        """Start a monitor with its process 1."""
        os.close(namespace)
        return await asyncio.to_thread(self._boot, name)

    def _features(self, _: None, reply: socket.socket) -> None:
        reply.send(json.dumps(ABLE.to_json()).encode())

    def _requests(self) -> socket.socket:
        """The socket for requests to the booter, which is started at the first request."""
        with self._lock:
            if self._booting is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    fifo = monitor_fifo.path_of(self._paths.lxc)
                    arguments = ["-I", "-S", str(BOOTER), str(theirs.fileno()), str(self._paths.lxc), str(fifo)]
                    self._booting = ours, subprocess.Popen([sys.executable, *arguments], pass_fds=[theirs.fileno()])
            return self._booting[0]

    def _boot(self, name: str) -> int | None:
        spec = store.load(self._paths, name)
        assert isinstance(spec, Spec)
        own = self._paths.container(name)
        environment = {"PATH": os.environ["PATH"], "NAME": name, **spec.environment}
        words = [name, str(own.console_log), *(f"{key}={value}" for key, value in environment.items()), "", *spec.command]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            socket.send_fds(self._requests(), ["\0".join(words).encode()], [theirs.fileno()])
            theirs.close()
            said = ours.recv(64)
        pid: int | None = json.loads(said) if said else None
        self.model.old.pop(name, None)
        if pid is not None:
            group = self._group(name)
            group.mkdir(parents=True, exist_ok=True)
            files = {"cgroup.freeze": "0", "memory.current": "1500000", "pids.current": str(PROCESSES),
                     "cpu.stat": "usage_usec 250000\n", "cgroup.procs": str(pid)}  # fmt: skip
            for file, text in files.items():
                (group / file).write_text(text)
        return pid

    def _mask(self, _: MaskItem, reply: socket.socket) -> None:
        """A mask that hides nothing."""
        record = {"rules": "", "root": "/", "image": [], "operator": {}, "parts": {}, "watched": {}, "entries": {}}
        tree.write(self._paths.mask_record, json.dumps(record))
        answer(reply, "mask")

    # -- containers ------------------------------------------------------------------------------------------

    def _group(self, name: str) -> Path:
        return self._paths.run / "cgroup" / name

    def payload(self, _pid: int, name: str) -> Payload:
        """In place of host.process.cgroup.payload."""
        return Payload({"": str(self._group(name))})

    def still(self, payload: Payload, *, frozen: bool, seconds: float) -> bool:
        """In place of host.process.cgroup.still."""
        assert seconds > 0
        payload.write("freezer", "cgroup.freeze", str(int(frozen)))
        return True

    def forget_groups(self, cgroups: Iterable[str], _most: int | None = None) -> bool:
        """In place of host.process.cgroup.remove."""
        for each in cgroups:
            if each.startswith(f"{self._paths.run}/"):
                shutil.rmtree(each, ignore_errors=True)
        return True

    def _work(self, name: str) -> None:
        """Called in the middle of each change of a container. Raises the error that a test has set for the container."""
        self.model.during(name)
        if name in self.model.fails:
            raise self.model.fails[name]

    def _prepare(self, _: None, reply: socket.socket) -> None:
        while True:
            message, descriptors, _flags, _address = socket.recv_fds(reply, MAX_DATAGRAM, 1)
            if descriptors:
                with open(descriptors[0], "rb") as file:
                    message = file.read()
            if not message:
                return
            for item in json.loads(message):
                self._prepare_one(item, reply)

    def _prepare_one(self, item: PrepareItem, reply: socket.socket) -> None:
        name = item["name"]
        own = self._paths.container(name)
        try:
            if item["make"] or item["mount"]:  # else it is only seen that the container could start again
                self._work(name)
            if item["make"]:
                own.directory.mkdir(mode=0o700)
                own.delta.mkdir()
                own.work.mkdir()
            for file, text in item["files"].items():
                (own.directory / file).write_text(text, encoding="utf-8")
        except FleetError as error:
            answer(reply, name, error)
            return
        except OSError as error:
            answer(reply, name, HostError.from_os_error(f"{name} can't be prepared", error))
            return
        if item["mount"]:
            own.started.write_text(item["started"] or own.spec.read_text(encoding="utf-8"), encoding="utf-8")
        if item["mount"] and item["secrets"]:
            secrets.note_known(self._paths, name, self._digests(item["secrets"]))
        namespace = os.open(os.devnull, os.O_RDONLY) if item["mount"] else None
        answer(reply, name, descriptor=namespace)
        if namespace is not None:
            os.close(namespace)

    def _remove(self, names: list[str], reply: socket.socket) -> None:
        for name in names:
            shutil.rmtree(self._paths.lxc / name, ignore_errors=True)
            answer(reply, name)

    def _make_volume(self, item: VolumeItem, reply: socket.socket) -> None:
        own = self._paths.volume(item["name"])
        if item["name"] in self.model.fails:
            answer(reply, item["name"], self.model.fails[item["name"]])
            return
        own.data.mkdir(parents=True)
        own.record.write_text(item["record"])
        answer(reply, item["name"])

    def _change_volume(self, item: VolumeItem, reply: socket.socket) -> None:
        self._paths.volume(item["name"]).record.write_text(item["record"])
        answer(reply, item["name"])

    def _remove_volume(self, directory: str, reply: socket.socket) -> None:
        shutil.rmtree(self._paths.volumes / directory)
        answer(reply, directory)

    def _seal_app(self, item: AppItem, reply: socket.socket) -> None:
        name, version = item["name"], item["version"]
        if f"{name}@{version}" in self.model.fails:
            answer(reply, name, self.model.fails[f"{name}@{version}"])
            return
        own = self._paths.release(name, version)
        source = Path(item["source"]) / item["inside"].lstrip("/")
        shutil.copytree(source, own.tree)
        own.manifest.touch()
        release = apps.parse(name, version, item["record"].encode(), "request")
        size = sum(each.stat().st_size for each in own.tree.rglob("*") if each.is_file())
        own.record.write_text(apps.render(replace(release, digest="1234", size=size, files=len([*own.tree.rglob("*")]))))
        answer(reply, name)

    def _verify_app(self, item: AppItem, reply: socket.socket) -> None:
        release = f"{item['name']}@{item['version']}"
        answer(reply, release, self.model.fails.get(release))

    def _remove_app(self, leftover: str, reply: socket.socket) -> None:
        shutil.rmtree(self._paths.apps / leftover)
        answer(reply, leftover)

    def _check_mounts(self, item: MountsItem, reply: socket.socket) -> None:
        try:
            for name in {*volumes_of([parse_mount(text) for text in item["volumes"]])} - {*item["coming"]}:
                volumes.check(self._paths, name)
            for mount in map(parse_mount, item["volumes"]):
                if mount.source is MountKind.APP:
                    apps.check(self._paths, *parse_release(mount.what))
                    if mount.what in self.model.fails:
                        raise self.model.fails[mount.what]
        except FleetError as error:
            answer(reply, "mounts", error)
        else:
            answer(reply, "mounts", notes=self.model.hidden)

    def _check_keys(self, pairs: list[tuple[str, str]], reply: socket.socket) -> None:
        unknown = [key for key, _ in pairs if key == "lxc.environment.runtime"]  # as LXC 5
        answer(reply, "keys", Unsupported("LXC does not take these keys", why=", ".join(unknown)) if unknown else None)

    def _fetch_secret(self, item: FetchItem, reply: socket.socket) -> None:
        """A file, as the user who runs the tests can read it; other sources give their own words."""
        key, before = item["key"], self.model.secrets.get(item["key"])
        answered: Fetched = {"error": None, "digest": "", "changed": False}
        try:
            (source,) = sources_from_json({"it": item["source"]}).values()
            if item["anew"] or before is None:
                text = Path(source.what).read_bytes() if source.kind is SourceKind.FILE else str(source).encode()
                self.model.secrets[key] = hashlib.sha256(text).hexdigest()
            answered["digest"] = self.model.secrets[key]
            answered["changed"] = answered["digest"] != before
        except OSError as error:
            answered["error"] = HostError.from_os_error("it can't be read", error).body()
        reply.send(json.dumps(answered).encode())

    def _digests(self, items: list[Any]) -> dict[str, str]:
        wanted = [secrets.Item.from_json(each) for each in items]
        return {item.use.target: self.model.secrets[item.key] for item in wanted}

    def _deliver_secrets(self, items: list[DeliverItem], reply: socket.socket) -> None:
        found = [{"name": item["name"], "error": None, "digests": self._digests(item["secrets"])} for item in items]
        answer_large(reply, None, json.dumps(found).encode())

    def _inspect(self, names: list[str], reply: socket.socket) -> None:
        for name in names:
            procs = self._group(name) / "cgroup.procs"
            reply.send(json.dumps({"name": name, "pid": int(procs.read_text()) if procs.exists() else None}).encode())

    def _limit(self, items: list[LimitItem], reply: socket.socket) -> None:
        for item in items:
            for _, file, value in item["limits"]:
                (self._group(item["name"]) / file).write_text(value)
            self.model.limited(item["name"])
            answer(reply, item["name"])

    def _freeze(self, names: list[str], reply: socket.socket, state: str) -> None:
        for name in names:
            try:
                self._work(name)
                (self._group(name) / "cgroup.freeze").write_text(state)
                answer(reply, name)
            except FleetError as error:
                answer(reply, name, error)
            except OSError as error:
                answer(reply, name, HostError(f"{name} can't be frozen", why=str(error)))

    def _check(self, item: CheckItem, reply: socket.socket) -> None:
        """Answer for systemd, or run a health check's command as the user who runs the tests."""
        status: int | None
        if item["name"] in self.model.sick:
            status, output = 1, self.model.sick[item["name"]]
        elif any("systemctl" in word for word in item["command"]):
            status, output = 0, "systemd is running"
        else:
            try:
                done = subprocess.run(item["command"], capture_output=True, text=True, timeout=item["timeout"])
                status, output = done.returncode, done.stdout + done.stderr
            except subprocess.TimeoutExpired:
                status, output = None, ""
        reply.send(json.dumps({"name": item["name"], "error": None, "status": status, "output": output}).encode())

    def _try(self, item: TrialItem, reply: socket.socket) -> None:
        """Run a test's command as the user who runs the tests, with the container's name where the real one is inside."""
        environment = {"PATH": os.environ["PATH"], **item["environment"]}
        status: int | None
        try:
            done = subprocess.run(
                item["command"], capture_output=True, text=True, timeout=item["timeout"], env=environment
            )
            status, output = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            status, output = None, ""
        reply.send(json.dumps({"name": item["name"], "error": None, "status": status, "output": output}).encode())

    # -- checks ----------------------------------------------------------------------------------------------

    def _stale(self, ask: StaleItem, reply: socket.socket) -> None:
        model = self.model
        model.wanted = ask["wanted"]
        found = [
            StaleScan(
                name, PROCESSES, MAPPINGS, tuple(model.old.get(name, ())), model.unread.get(name, ""),
                model.compared.get(name, 0),
            )
            for name in (item["name"] for item in ask["targets"])
        ]
        answer_large(reply, None, json.dumps([each.to_json() for each in found]).encode())

    def _fit(self, item: FitItem, reply: socket.socket) -> None:
        found = [{"name": name, "broken": self.model.unfit.get(name, [])} for name in item["names"]]
        answer_large(reply, None, json.dumps(found).encode())

    def _shadows(self, items: list[tuple[str, str]], reply: socket.socket) -> None:
        found = [
            ShadowFindings(
                name,
                tuple(self.model.shadows.get(name, ())),
                self.model.packages.get(name),
                self.model.unread_deltas.get(name, ""),
            )
            for name, _ in items
        ]
        answer_large(reply, None, json.dumps([each.to_json() for each in found]).encode())

    def _cves(self, ask: CveItem, reply: socket.socket) -> None:
        """The model's CVEs are in all containers but those that have packages of their own: these have none of them."""
        model = self.model
        model.asked_cves = list(ask["cves"])
        found = [each for each in model.cves if not ask["cves"] or each["cve"] in ask["cves"]]
        numbers = list(range(len(found)))
        own = CveSet(found=[], unread=[], own=True, began=True)
        sets = [CveSet(found=numbers, unread=model.unread_sources, own=False, began=True), own]
        containers = {name: int(name in model.packages) for name, _ in ask["containers"] if name not in model.unknown_sets}
        named = sorted({each["cve"] for each in found})
        answered = CveSets(
            found=found, sets=sets, containers=containers, generations={}, problems=model.unknown_sets,
            named=named, data=model.cve_data,
        )  # fmt: skip
        answer_large(reply, None, json.dumps(answered).encode())

    def _unshadow(self, item: UnshadowItem, reply: socket.socket) -> None:
        shadows = self.model.shadows.get(item["name"], [])
        shadows[:] = [shadow for shadow in shadows if shadow.path not in item["paths"]]
        answer(reply, item["name"])

    def _exposure(self, items: list[ExposureItem], reply: socket.socket) -> None:
        found = [
            {"name": name, "exposed": self.model.exposed.get(name, []), "problem": self.model.unread.get(name)}
            for name in (item["name"] for item in items)
        ]
        answer_large(reply, None, json.dumps(found).encode())

    def _used(self, ask: UsageItem, reply: socket.socket) -> None:
        """Add up what is there: the model's deltas are directories."""
        found: list[Used] = []
        for name, directory in ask["targets"]:
            if name in self.model.killed:
                return
            result = usage.usage(directory, ask["depth"], ask["top"], ask["seconds"])
            whole, *paths = (
                UsedPath(path=path, disk_bytes=round(one.disk), apparent_bytes=round(one.apparent), items=one.items)
                for path, one in (("/", result.whole), *result.paths)
            )
            found.append(Used(name=name, whole=whole, paths=paths, cut=result.cut))
        answer_large(reply, None, json.dumps(found).encode())

    def _diff(self, ask: DiffItem, reply: socket.socket) -> None:
        changes = [each for each in self.model.changes.get(ask["name"], []) if each.path.startswith(ask["path"])]
        counts = Counter(each.kind.value for each in changes)
        listed = [each.to_json() for each in changes[: ask["most"]]]
        found = {"changes": listed, "counts": counts, "items": len(changes), "cut": len(listed) < len(changes)}
        answer_large(reply, None, json.dumps(found).encode())

    def _lookup(self, _: LookupItem, reply: socket.socket) -> None:
        reply.send(b'{"answered": true, "error": null}')

    def _routes(self, _: RoutesItem, reply: socket.socket) -> None:
        reply.send(json.dumps({"networks": ["192.0.2.0/24"], "ipv6": True, "error": None}).encode())
