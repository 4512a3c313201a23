"""The paths of one container."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


def snapshot_name(name: str) -> str:
    """The name of the copy that a container keeps of one of the base's files."""
    return f"base-{os.path.basename(name)}"


@dataclass(frozen=True)
class ContainerPaths:
    """Where one container's files are."""

    directory: Path

    MOVE = "move.json"
    ARRIVALS = "arrivals.json"

    @cached_property
    def spec(self) -> Path:
        """The spec that the operator asked for: the record that everything else follows from."""
        return self.directory / "lxcfleet.yaml"

    @cached_property
    def former_spec(self) -> Path:
        """The spec before the change that is being made; nothing reads it after a crash."""
        return self.directory / ".lxcfleet.yaml.former"

    @cached_property
    def started(self) -> Path:
        """The spec that its run has: the one that it was started with, and what was changed live since."""
        return self.directory / "started.yaml"

    @cached_property
    def config(self) -> Path:
        """LXC's configuration, written from the spec."""
        return self.directory / "config"

    @cached_property
    def delta(self) -> Path:
        """The overlay's upper directory: the container's only mutable state."""
        return self.directory / "delta"

    @cached_property
    def work(self) -> Path:
        """The overlay's work directory."""
        return self.directory / "work"

    def part_work(self, point: str) -> Path:
        """The work directory of the overlay of a part; see host.kernel.mounts."""
        return self.directory / f"work{point.replace('/', '-')}"

    @cached_property
    def pending(self) -> Path:
        """Holds what is to become of the container, in one word, until that is so; see containers.desired."""
        return self.directory / "pending"

    @cached_property
    def base_record(self) -> Path:
        """The record of the base as of the container's last start; see base.merge.reconcile."""
        return self.directory / "base.json"

    def base_snapshot(self, name: str) -> Path:
        """Its own name for a file of ``Paths.base_snapshots``, so that a copy of its directory has it, too."""
        return self.directory / snapshot_name(name)

    @cached_property
    def restoring(self) -> Path:
        """Is there while its delta is exchanged for that of a snapshot; see data.restoring."""
        return self.directory / "restoring.json"

    @cached_property
    def move(self) -> Path:
        """Is there while it moves to another host or from one; see spec.moves."""
        return self.directory / self.MOVE

    @cached_property
    def arrivals(self) -> Path:
        """Is there while volumes that came with it in an archive have not got their names yet; see data.arrivals."""
        return self.directory / self.ARRIVALS

    @cached_property
    def fallen(self) -> Path:
        """Says that a patch took it down; see patch.fallen."""
        return self.directory / "fallen.json"

    @cached_property
    def exit(self) -> Path:
        """How its last run ended, and when it is started again; see containers.exits."""
        return self.directory / "exit.json"

    @cached_property
    def tests(self) -> Path:
        """Its tests that were not good when its last rollout was through with it; see patch.rollout.known."""
        return self.directory / "tests.json"

    @cached_property
    def foreground(self) -> Path:
        """Says that `lxcfleet run` runs it, or did so last; see containers.foreground."""
        return self.directory / "foreground.json"

    @cached_property
    def runs(self) -> Path:
        """Is there while it runs; see containers.supervision.supervision."""
        return self.directory / "runs"

    @cached_property
    def stopping(self) -> Path:
        """The command line of each lxc-stop that may have waited for its end; see containers.lxc_config."""
        return self.directory / "stopping"

    @cached_property
    def secrets(self) -> Path:
        """Digests of the secrets that its program knows of; no values. See containers.secrets.keeper."""
        return self.directory / "secrets.json"

    @cached_property
    def console_log(self) -> Path:
        """The output of the container's console, and so of an app container's command."""
        return self.directory / "console.log"

    @cached_property
    def console_times(self) -> Path:
        """When that was printed; see logs.times."""
        return self.directory / "console.times"

    @cached_property
    def console_sent(self) -> Path:
        """How far it was passed on to the host's log; see logs.position."""
        return self.directory / "console.sent"

    @cached_property
    def lxc_log(self) -> Path:
        """The messages of liblxc about starts and stops."""
        return self.directory / "lxc.log"
