"""What is done to a fleet while the daemon is killed, see killing; what it begins with, and what gives the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lxcfleet.paths import Paths

from .killing import Survivor, files_in

BEFORE = """\
lxcfleet: 1
fleet: shop
secrets: {{pw: {{file: {directory}/pw}}}}
volumes: {{up: {{labels: {{v: a}}}}}}
profiles:
  base: {{network: none, environment: {{MODE: a}}, stop_timeout: 3}}
groups:
  db: {{profiles: [base], command: [sleep, infinity], memory: 128M, volumes: ["up:/srv"], secrets: ["pw,on_change=restart"]}}
  web:
    count: 2
    profiles: [base]
    command: [sh, -c, "trap 'echo told' USR1; while :; do sleep infinity & wait; done"]
    depends_on: {{db: started}}
    secrets: ["pw,on_change=signal:USR1"]
  old: {{profiles: [base], command: [sleep, infinity]}}
"""
AFTER = (
    ("MODE: a", "MODE: b"), ("128M", "64M"), ("v: a", "v: b"), ("count: 2", "count: 1"), ("  old:", "  new:"),
    ("/pw}", "/other}"), ("volumes: {up:", "volumes: {more: {}, up:"),
)  # fmt: skip
"""Restarts, a live change, a volume that changes, one container too many, one new, one gone, another source, a new volume."""
NOTHING = "lxcfleet: 1\nfleet: shop\ngroups: {}\n"
ONE = ("--max-unavailable", "1", "--canaries", "0", "--min-healthy-time", "0")
_STATE = "lxc/.lxcfleet"
_PAST = (
    "run/cgroup", "run/lxc", "run/digests.json", "run/health.json", "run/rollout", f"{_STATE}-running",
    *(f"{_STATE}/{name}" for name in ("events", "rollouts", "last-change.json")),
)  # fmt: skip
_ENDINGS = ("/exit.json", f"{_STATE}/volumes")
"""What tells of the past, or is of the model."""


class Stage:
    """What is tried: a command, what it begins with, and what gives the rest of it after a kill."""

    def __init__(self, daemon: Survivor, directory: Path) -> None:
        self.daemon, self.directory = daemon, directory
        self.file = directory / "fleet.yaml"

    def write(self, *changes: tuple[str, str]) -> None:
        """Write the fleet's file."""
        text = BEFORE.format(directory=self.directory)
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        self.file.write_text(text)

    def apply(self, *more: str) -> None:
        """Apply the file to its end."""
        self.daemon.ok("apply", "-f", str(self.file), *ONE, *more)

    def ready(self) -> None:
        """Have what is there before."""

    def act(self) -> None:
        """What is broken off."""
        raise NotImplementedError

    def go_on(self) -> None:
        """What gives the rest, once nothing goes on by itself any more."""
        self.act()

    def there(self) -> Any:
        """What there is."""
        paths, names = self.daemon.paths, self.daemon.call(lambda: [*self.daemon.parts.registry])
        specs = {
            each.name: [line for line in paths.container(each.name).spec.read_text().splitlines()
                        if not line.startswith(("created:", "first_id:"))]
            for each in names
        }  # fmt: skip
        configs = {each.name: paths.container(each.name).config.read_text().splitlines() for each in names}
        runs = {each.name: _environment(each.running.pid) if each.running is not None else [] for each in names}
        fleets = {file.name: json.loads(file.read_text()) | {"time": ""} for file in files_in(paths.fleets)}
        records = {each.name: (each / "volume.yaml").read_text() for each in files_in(paths.volumes)}
        volumes = {name: [line for line in text.splitlines() if _lasts(line)] for name, text in records.items()}
        return {"specs": specs, "configs": configs, "runs": runs, "fleets": fleets, "volumes": volumes, "files": self.files()}

    def files(self) -> list[str]:
        """All that is on disk, but for what tells of the past."""
        paths = (str(path.relative_to(self.directory)) for path in self.directory.rglob("*") if not path.is_socket())
        return sorted(path for path in paths if not path.startswith(_PAST) and not path.endswith(_ENDINGS))


def _lasts(line: str) -> bool:
    return not line.startswith(("created:", "first_id:"))


def _environment(pid: int) -> list[str]:
    return [each for each in Path(f"/proc/{pid}/environ").read_text().split("\0") if each.startswith(("MODE=", "NAME="))]


class Create(Stage):
    """Into an empty host."""

    def ready(self) -> None:
        """Nothing."""
        self.file.write_text(NOTHING)
        self.apply("--prune=all")
        for volume in files_in(self.daemon.paths.volumes):
            self.daemon.ok("volume", "rm", volume.name)
        self.daemon.ok("fleet", "rm", "shop")
        self.write()

    def act(self) -> None:
        self.apply()


class Change(Stage):
    """All kinds of changes."""

    def ready(self) -> None:
        """The former file, applied."""
        self.write()
        self.apply("--prune=all")
        if (self.daemon.paths.volumes / "more").exists():
            self.daemon.ok("volume", "rm", "more")
        self.write(*AFTER)

    def act(self) -> None:
        self.apply("--prune=all")


class Prune(Stage):
    """All containers go."""

    def ready(self) -> None:
        """All containers of the file."""
        self.write()
        self.apply()
        self.file.write_text(NOTHING)

    def act(self) -> None:
        self.apply("--prune=all")


class Undo(Stage):
    """A rollout that restarted some, and changed another at once."""

    changes = AFTER[:2]

    def ready(self) -> None:
        """A changed file, applied."""
        self.write()
        self.apply()
        self.write(*self.changes)
        self.apply()

    def act(self) -> None:
        self.daemon.ok("rollout", "undo")
        self.daemon.rest()

    def go_on(self) -> None:
        """It goes on by itself, if it had begun."""
        self.write()
        last = self.daemon.parts.rollouts.ledger.last
        if last is None or not last.undoes:
            self.act()


class Refresh(Stage):
    """A value that others have to be told of."""

    def ready(self) -> None:
        """All know the former value."""
        self.write()
        self.apply()
        self.daemon.rest()
        self.known = _told(self.daemon.paths)
        (self.directory / "pw").write_text(os.urandom(8).hex())

    def act(self) -> None:
        self.daemon.ok("secret", "refresh", "pw")
        self.daemon.rest()

    def there(self) -> Any:
        value = json.loads((self.daemon.paths.run / "digests.json").read_text())["shop/pw"]
        known = {name: [*each.values()] == [value] for name, each in _told(self.daemon.paths).items()}
        return super().there() | {"know it": known}


def _told(paths: Paths) -> dict[str, Any]:
    found = {each.name: paths.container(each.name).secrets for each in files_in(paths.lxc)}
    return {name: json.loads(file.read_text()) for name, file in sorted(found.items()) if file.exists()}


class RemoveVolume(Stage):
    """A volume that nobody uses, beside one that is used."""

    def ready(self) -> None:
        """The volume."""
        self.write()
        self.apply()
        self.daemon.ok("volume", "create", "spare", "--ensure")

    def act(self) -> None:
        self.daemon.ok("volume", "rm", "spare")

    def go_on(self) -> None:
        """It is gone, or there as before."""
        if (self.daemon.paths.volumes / "spare").exists():
            self.act()


STAGES: dict[str, type[Stage]] = {
    "create": Create, "change": Change, "prune": Prune, "undo": Undo, "refresh": Refresh, "volume-rm": RemoveVolume,
}  # fmt: skip
