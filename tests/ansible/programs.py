"""Ansible's own programs, with the collection of this checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLLECTION = Path(__file__).resolve().parents[2] / "ansible"

TIMEOUT = 600.0
"""Seconds that one program may take: a playbook starts Python for each task, on a machine that may be busy."""


def copy_collection(top: Path) -> Path:
    """Put the collection below a directory, in which Ansible finds it then: a copy, as it writes beside what it tests."""
    shutil.copytree(COLLECTION, top / "ansible_collections/lxcfleet/fleet", ignore=shutil.ignore_patterns("__pycache__"))
    return top


@dataclass(frozen=True)
class Ran:
    """What one program of Ansible's did."""

    status: int
    out: str
    err: str

    @property
    def tasks(self) -> list[dict[str, Any]]:
        """Each task's results by host, in the order of the playbook."""
        return [task["hosts"] for task in self._said["tasks"]]

    def task(self, name: str) -> dict[str, Any]:
        """The results by host of the task of that name, or of the last one; of all batches of hosts."""
        found = [task["hosts"] for task in self._said["tasks"] if task["name"] == name]
        return {host: result for hosts in found for host, result in hosts.items()}

    @property
    def stats(self) -> dict[str, dict[str, int]]:
        """Ansible's counts by host."""
        return dict(self._said["stats"])

    @property
    def _said(self) -> dict[str, Any]:
        return dict(json.loads(self.out))


class Programs:
    """Runs playbooks and programs."""

    def __init__(self, directory: Path, collections: Path, *, timeout: float = TIMEOUT) -> None:
        self.directory = directory
        self.path: list[Path] = []
        """What comes first when programs are looked for."""
        self._collections = collections
        self._timeout = timeout

    def environment(self) -> dict[str, str]:
        """What programs see besides what is for Ansible."""
        return dict(os.environ)

    def run(self, *words: str, **variables: str) -> Ran:
        """One program, whatever comes of it."""
        environment = {
            **self.environment(),
            "PATH": ":".join([*map(str, self.path), os.environ["PATH"]]),
            "HOME": str(self.directory),
            "ANSIBLE_COLLECTIONS_PATH": str(self._collections),
            "ANSIBLE_STDOUT_CALLBACK": "results",
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callbacks"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_RETRY_FILES_ENABLED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        }
        done = subprocess.run(
            words, env=environment, cwd=self.directory, capture_output=True, text=True, timeout=self._timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def play(self, *tasks: Mapping[str, Any], hosts: str = "localhost", options: tuple[str, ...] = (), **more: Any) -> Ran:
        """A playbook of these tasks; ``more``: what else it says."""
        text = json.dumps([{"hosts": hosts, "gather_facts": False, "tasks": [dict(task) for task in tasks], **more}])
        (self.directory / "playbook.yml").write_text(text)
        return self.run("ansible-playbook", "playbook.yml", *options)
