"""Fixtures: the real daemon over a fake launcher, a client of it, and the command line in front of it.

Tests with the fixture ``fleet`` also run over real LXC, if LXCFLEET_CONTRACT_SOCKET_DIR names the directory with the
sockets of a running daemon. Such tests create containers with unique names, and remove them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import leftovers
import pytest

from lxcfleet.api.client import Client
from lxcfleet.api.records import OperationRecord, ResultRecord
from lxcfleet.api.requests import ActionRequest, CreateRequest
from lxcfleet.cli import main, session
from lxcfleet.cli.session import Session
from lxcfleet.paths import Paths
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action

from .real_daemon import Daemon

REAL = "LXCFLEET_CONTRACT_SOCKET_DIR"

BOTH: list[Any] = ["over-fakes", *([pytest.param("real", marks=pytest.mark.system)] if REAL in os.environ else [])]

FOREVER = ("sleep", "infinity")


LONGEST = {"test_kills", "test_moves_contract"}
"""Modules whose tests take the longest. Where several processes share the tests, no process has them left at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They come first."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(autouse=True)
def _no_real_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here may start a daemon, or reach another daemon through variables of the caller's environment."""
    monkeypatch.setattr(session, "_may_start", lambda: False)
    for name in [name for name in os.environ if name.startswith("LXCFLEET_") and name != REAL]:
        monkeypatch.delenv(name)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """The real daemon over a fake launcher. Not below tmp_path, whose path can be too long for a socket's address."""
    directory = Path(tempfile.mkdtemp(prefix="lxcfleet-"))
    leftovers.note("directory", str(directory))
    try:
        with Daemon(directory) as running:
            yield running
    finally:
        remove(directory)


def remove(directory: Path) -> None:
    """Remove it with all that is in it. What the daemon had asked for last, a thread of the launcher or a process may just be
    making there."""

    def gone() -> bool:
        shutil.rmtree(directory, ignore_errors=True)
        return not directory.exists()

    soon(gone)


def soon(condition: Callable[[], Any]) -> Any:
    """Wait until ``condition`` gives a true value, and give that value. A busy machine may take its time."""
    end = time.monotonic() + 120
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)
    return value


@dataclass
class Fleet:
    """A client, and names of containers that only this test uses."""

    client: Client
    daemon: Daemon | None
    """The real daemon over a fake launcher; None: the client talks to a daemon with real LXC."""
    prefix: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}x")

    @property
    def all(self) -> Selection:
        """All of this test's containers."""
        return Selection((f"{self.prefix}*",))

    def name(self, rest: object) -> str:
        """A container's name that only this test uses."""
        return f"{self.prefix}{rest}"

    def end(self, operation: OperationRecord) -> OperationRecord:
        """Follow the operation, and give it once it has ended."""
        items = list(self.client.follow(operation["id"]))
        assert all("results" not in item for item in items[:-1])
        return cast(OperationRecord, items[-1])

    def create(
        self, name: object = "", *, count: int | None = None, ensure: bool = False, start: bool = True, **said: Any
    ) -> OperationRecord:
        """Create app containers that only sleep, and wait for the end."""
        said = {"command": FOREVER, **said}
        return self.end(self.client.create(CreateRequest(self.name(name), count, ensure, start, said=said)))

    def act(self, action: Action, *names: object, **more: Any) -> list[ResultRecord]:
        """Act on all of this test's containers, or on some, and wait for the end."""
        selection = Selection(tuple(self.name(name) for name in names)) if names else self.all
        return self.end(self.client.act(ActionRequest(action, selection, timeout=1.0, **more)))["results"]

    def states(self) -> dict[str, str]:
        """The containers' states, by name without the prefix."""
        return {
            record["name"].removeprefix(self.prefix): record["state"]
            for record in self.client.containers(self.all)
        }

    def create_speaking(self, name: str, text: str) -> None:
        """Create a container that prints ``text`` on its console."""
        self.create(name, command=("sh", "-c", f"printf '{text}'; exec sleep infinity"))


@pytest.fixture(params=BOTH)
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A fleet over a fake launcher, and the same over real LXC."""
    if request.param == "real":
        made = Fleet(Client(Paths(run=Path(os.environ[REAL])), timeout=60), None)
    else:
        daemon = request.getfixturevalue("daemon")
        made = Fleet(daemon.client, daemon)
    try:
        yield made
    finally:
        made.act(Action.DESTROY, force=True)


@pytest.fixture
def client(fleet: Fleet) -> Client:
    """A client of the daemon."""
    return fleet.client


@dataclass
class Ran:
    """The outcome of one command line."""

    status: int
    out: str
    err: str


Cli = Callable[..., Ran]


@pytest.fixture
def cli(daemon: Daemon, capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """Runs a command line in this process."""

    def run(*arguments: str) -> Ran:
        capfdbinary.readouterr()
        status = main.run(list(arguments), Session(daemon.paths))
        out, err = capfdbinary.readouterr()
        return Ran(status, out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape"))

    return run


def rows(text: str) -> list[list[str]]:
    """The words of a table's rows; the columns must be aligned."""
    lines = text.splitlines()
    return [line.split() for line in lines]


Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn(daemon: Daemon) -> Iterator[Spawn]:
    """Starts a command line as a process of its own, for signals and terminals."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *arguments: str, program: Sequence[str] = ("-m", "lxcfleet.cli.main"), **options: Any
    ) -> subprocess.Popen[bytes]:
        root = Path(main.__file__).parents[2]
        environment = {**os.environ, **daemon.paths.environment(), "PYTHONPATH": str(root), "TERM": "vt100"}
        pipe = subprocess.PIPE
        options = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, "env": environment, **options}
        process = subprocess.Popen([sys.executable, *program, *arguments], **options)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
