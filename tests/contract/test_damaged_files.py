"""Whatever stands in the place of a file that lxcfleet keeps: the daemon starts, says which file it can't use, and the other
containers work."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.api.client import Client
from lxcfleet.api.queries import EventsRequest
from lxcfleet.api.requests import CreateRequest
from lxcfleet.daemon import serving
from lxcfleet.errors import FleetError
from lxcfleet.paths import Paths
from lxcfleet.paths.container import ContainerPaths
from lxcfleet.paths.kept import KeptPaths
from lxcfleet.paths.release import ReleasePaths
from lxcfleet.paths.roots import Roots
from lxcfleet.paths.run import RunPaths
from lxcfleet.paths.snapshot import SnapshotPaths
from lxcfleet.paths.volume import VolumePaths
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action

from .real_daemon import Daemon

HURT, WELL = "hurt", "well"
FOREVER = ("sleep", "infinity")

OF_CONTAINER = (
    "spec", "former_spec", "started", "config", "pending", "base_record", "restoring", "move", "arrivals", "fallen", "exit",
    "tests", "foreground", "runs", "stopping", "secrets", "console_times", "console_sent",
)  # fmt: skip
OF_FLEET = (
    "app_history", "bakes", "drained", "events", "rescued", "held", "rejected", "last_change", "undone_change", "hmac_key",
    "running_record", "rebooted", "logs_begun", "mask_record", "health", "rollout", "rollout_packages", "resolv_conf",
    "network_record", "notice", "notice_done", "patch_base", "well_before", "booted", "rebooting", "package_lists",
    "lost_files", "package_sightings", "dnsmasq_config", "dnsmasq_pid", "stand_in_config", "stand_in_pid", "responder_pid",
    "freezes",
)  # fmt: skip
"""The files that are read, by the names of their paths."""

NO_RECORD: dict[type, set[str]] = {
    ContainerPaths: {"delta", "work", "part_work", "base_snapshot", "console_log", "lxc_log"},
    KeptPaths: {
        "volumes", "volume", "new_volume", "gone_volume", "apps", "app", "release", "new_release", "gone_release",
        "container",
        "new", "gone", "snapshots", "snapshots_of", "snapshot", "config_file", "mask_rules", "base_snapshots",
        "base_snapshot",
        "rehearsals", "generations", "sheets", "sheets_elsewhere", "generation_record", "fleets", "change_sets", "profiles",
        "sysctl_file",
    },
    RunPaths: {
        "socket", "attach_socket", "lock", "owed_starts", "owed_start", "lock_of", "mask_image", "base_mount", "sheet_mount",
        "mask_mount", "next_mask_mount", "services_mount", "app_mount", "root_mount", "devices_mount", "archive_mount",
        "part_mount", "user_namespace", "secrets", "backup", "stills", "still", "apparmor", "hosts", "starting", "leases",
        "uplink_names", "joining", "sessions", "keepers", "foreground", "clients",
    },
    VolumePaths: {"data"}, ReleasePaths: {"manifest", "stamp", "image", "tree"},
    SnapshotPaths: {"delta", "base_record", "base_snapshot"},
}  # fmt: skip
"""What is no file that the daemon reads as a record: directories, mounts, sockets, images, and what OTHERS has."""

OTHERS: dict[str, Callable[[Paths], Path]] = {
    "volume": lambda paths: paths.volume(HURT).record,
    "release": lambda paths: paths.release(HURT, "1").record,
    "snapshot": lambda paths: paths.snapshot(HURT, "one").record,
    "generation": lambda paths: paths.generation_record(7),
    "fleet": lambda paths: paths.fleets / f"{HURT}.json",
    "change set": lambda paths: paths.change_sets / "0123.json",
    "rehearsal": lambda paths: paths.rehearsals / HURT,
    "owed start": lambda paths: paths.owed_start(HURT),
    "still": lambda paths: paths.still(HURT),
    "starting": lambda paths: paths.starting / HURT,
    "lease": lambda paths: paths.leases / HURT,
    "name": lambda paths: paths.hosts / HURT,
    "uplink's names": lambda paths: paths.uplink_names(HURT),
    "session": lambda paths: paths.sessions / "999999",
    "keeper": lambda paths: paths.keepers / HURT,
    "client": lambda paths: paths.clients / f"{HURT}.pid",
    "joining": lambda paths: paths.joining(HURT),
}
FILES: dict[str, Callable[[Paths], Path]] = {
    **{key: lambda paths, key=key: getattr(paths.container(HURT), key) for key in OF_CONTAINER},  # type: ignore[misc]
    **{key: lambda paths, key=key: getattr(paths, key) for key in OF_FLEET},  # type: ignore[misc]
    **OTHERS,
}
ALONE = ("spec", "drained")
"""Where one of these can't be used, the others of its container are not read, and nothing is started on this host."""
GROUPS = (*ALONE, "others")
TOLD = (
    "bakes", "held", "health", "rollout", "running_record", "well_before", "booted",
    "exit", "foreground", "move", "fallen", "arrivals", "fleet", "volume", "release", "generation",
)  # fmt: skip
"""Files that are read as soon as the daemon starts, or is asked what there is, and that nothing can stand in for."""


def _content(text: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(text)


def _cut(file: Path) -> None:
    text = file.read_bytes() if file.is_file() else b'{"version": 1, "na'
    file.unlink(missing_ok=True)
    file.write_bytes(text[: len(text) // 2])


def _large(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(100 << 20)


def _other_words(file: Path) -> None:
    """The same keys, each with a value of another type."""
    try:
        data = json.loads(file.read_bytes())
    except (OSError, ValueError):
        data = dict.fromkeys(("version", "boot", "exit", "course", "running", "since", "names", "members", "status"), 0)
    values = ["\ud800", {"x": [1e300]}, [[]], -1, 1e300, None, True, "9" * 30]

    def others(data: Any) -> Any:
        if not isinstance(data, dict):
            return {"a": data, "b": values}
        found = enumerate(data.items())
        return {key: others(each) if isinstance(each, dict) else values[n % len(values)] for n, (key, each) in found}

    file.unlink(missing_ok=True)
    file.write_text(json.dumps(others(data)))


def _endless_times(file: Path) -> None:
    """The same keys, and all numbers are beyond the end of time."""
    try:
        text = file.read_text()
    except (OSError, ValueError):
        text = '{"at": 1.5, "since": 1.5, "until": 1.5}'
    file.unlink(missing_ok=True)
    file.write_text(re.sub(r"(?<=[ \[])[0-9.]+(?=[,\]}\n])", "1e300", text))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": _content(b""),
    "cut": _cut,
    "null": _content(b"null\n"),
    "a list": _content(b'["a", 1, null, {}]\n'),
    "a number": _content(b"7"),
    "a text": _content(b'"text"'),
    "an empty mapping": _content(b"{}"),
    "nested": _content(b"[" * 10_000 + b"]" * 10_000),
    "nested mappings": _content(b'{"a": ' * 10_000 + b"1" + b"}" * 10_000),
    "infinite": _content(b'{"at": 1e999, "since": -Infinity, "hurt": [NaN], "exit": {"at": 1e999}, "version": 1e999}'),
    "mapping of mappings": _content(json.dumps({HURT: {HURT: {}}, WELL: {"until": {}}, "version": {}}).encode()),
    "mapping of lists": _content(json.dumps({HURT: [[]], WELL: [1, 2, 3, 4, 5, 6, 7], "version": []}).encode()),
    "other words": _other_words,
    "endless times": _endless_times,
    "no text": _content(b"\xff\xfe\x80" * 20),
    "large": _large,
    "a directory": Path.mkdir,
    "a named pipe": os.mkfifo,
    "a dangling link": lambda file: file.symlink_to("/nonexistent/file"),
    "a link to itself": lambda file: file.symlink_to(file.name),
}
KEEPS = {"cut", "other words", "endless times"}
"""Damages of what was there before."""


NO_FILES = {"a directory"}
"""Damages that keep a file from being written there, too."""
WRITTEN = {"mask_record", "resolv_conf", "network_record"}
"""Files without which no container starts. They are written anew before that; where they can't be, the error names them."""


class Next(Daemon):
    """A daemon that goes on where another one ended, as the real one does."""

    async def _recover(self) -> None:
        real = serving.Daemon.__new__(serving.Daemon)
        real._paths, real._parts, real._unfinished = self.paths, self.parts, []
        self.parts.prober.repeat(self.parts.registry)
        await self.parts.foregrounds.recover()
        await self.parts.secrets.tidy_up()
        await real._recover()
        self.parts.fleet.boot.begin()
        self._real = real

    def _further_tasks(self) -> list[asyncio.Task[None]]:
        parts, tasks = self.parts, self.parts.tasks
        return [
            tasks.do("cleanup", lambda: self._real._clean(parts.leftovers.gone)),
            tasks.do("cleanup-volumes", parts.fleet.volumes.clean_up),
            tasks.do("cleanup-apps", parts.apps.clean_up),
            tasks.do("cleanup-bakes", parts.baking.clean_up),
            tasks.do("cleanup-generations", parts.generations.clean_up),
            tasks.do("cleanup-rehearsals", parts.rehearsals.clean_up),
            tasks.do("secrets-begin", self._real._secrets),
            tasks.keep("secrets", parts.secrets.run),
        ]


PLAIN = (
    "server", "fleets", "drain", "moves", "volumes", "apps", "generations", "secrets", "operations", "metrics", "targets",
    "parts", "notice", "rollout",
)  # fmt: skip
"""Questions that take no argument."""


def answers(client: Client) -> str:
    """All that the daemon answers, errors too. None of them is one that the daemon has no words for."""
    questions: dict[str, Callable[[], Any]] = {name: getattr(client, name) for name in PLAIN}
    questions["list"] = lambda: client.containers(Selection())
    questions["events"] = lambda: client.events(EventsRequest())
    for name in (HURT, WELL):
        questions[f"info {name}"] = lambda name=name: client.info(name)  # type: ignore[misc]
    said: list[str] = []
    unforeseen: list[bool] = []
    for what, ask in questions.items():
        try:
            found = ask()
            said.append(str(found if isinstance(found, (dict, list, type(None))) else [*found]))
        except FleetError as error:
            said.append(f"{what}: {error}")
            unforeseen += ["unexpectedly" in str(error)]
    assert not any(unforeseen), said
    return "\n".join(said)


def hurt(paths: Paths, how: str, keys: Sequence[str]) -> None:
    """Do the damage to each of these files."""
    for key in keys:
        file = FILES[key](paths)
        file.parent.mkdir(parents=True, exist_ok=True)
        if how not in KEEPS and file.is_dir():
            shutil.rmtree(file)
        elif how not in KEEPS:
            file.unlink(missing_ok=True)
        DAMAGES[how](file)


def of(daemon: Daemon, action: Action, name: str) -> str:
    """Act on a container; the error in words, if it failed."""
    (result,) = daemon.act(action, name)["results"]
    assert "unexpectedly" not in str(result["error"])
    return str(result["error"] or "")


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("keys", [("spec",), ("drained",), tuple(key for key in FILES if key not in ALONE)], ids=GROUPS)
def test_a_damaged_file_harms_no_other_container_and_is_told_of(
    tmp_path: Path, keys: Sequence[str], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Daemon(tmp_path) as daemon:
        for name in (HURT, WELL):
            daemon.create(CreateRequest(name, said={"command": FOREVER}))
            daemon.act(Action.STOP, name)
    keys = [key for key in keys if not (key in WRITTEN and how in NO_FILES)]
    hurt(daemon.paths, how, keys)
    caplog.clear()
    with Next(tmp_path) as daemon:
        said = answers(daemon.client)
        assert {each["name"] for each in daemon.client.containers(Selection())} >= {WELL}
        if keys != ["drained"]:
            assert of(daemon, Action.START, WELL) == ""
            assert of(daemon, Action.STOP, WELL) == ""
        elif how != "a dangling link":  # that is none
            assert daemon.client.drain() is not None
        said += of(daemon, Action.START, HURT) if HURT in said else ""
    log = caplog.text
    assert "unexpectedly" not in log
    if how == "a directory" and "pending" in keys:  # any text would count as that it is to run
        assert str(daemon.paths.container(HURT).pending) in log
    if how.startswith("nested"):
        assert not [key for key in keys if key in (*TOLD, *ALONE) and str(FILES[key](daemon.paths)) not in log + said]


def test_each_path_is_among_the_files_or_among_what_is_no_file() -> None:
    """A new file that is kept has to be in one of the tables above."""
    named = {ContainerPaths: {*OF_CONTAINER}, KeptPaths: {*OF_FLEET}, RunPaths: {*OF_FLEET}}
    roots = {name for name, _ in inspect.getmembers(Roots)}
    for kind, others in NO_RECORD.items():
        paths = {
            name for name, member in inspect.getmembers(kind)
            if name not in roots and not name.startswith("_") and not isinstance(member, (str, int, Path))
        }  # fmt: skip
        known = named.get(kind, set())
        assert paths - known - others - {"record"} == set(), kind
        assert others <= paths, kind
