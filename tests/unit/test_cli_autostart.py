"""The start of the daemon: once for any number of clients, and with the reason if it does not come up."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxcfleet.api.client import answers
from lxcfleet.cli import autostart, session
from lxcfleet.errors import FleetError, HostError, Unreachable
from lxcfleet.paths import Paths

pytestmark = pytest.mark.reaches("processes", reason="it is about starting a daemon")

DAEMON = """
import os, socket, time

with open(os.environ["LXCFLEET_RUN"] + "/starts", "a") as starts:
    starts.write(f"{os.getpid()}\\n")
time.sleep(0.1)
listener = socket.socket(socket.AF_UNIX)
with __import__("contextlib").suppress(OSError):
    os.unlink(os.environ["LXCFLEET_RUN"] + "/lxcfleet.sock")
listener.bind(os.environ["LXCFLEET_RUN"] + "/lxcfleet.sock")
listener.listen()
print(os.getsid(0) == os.getpid(), os.readlink("/proc/self/fd/0"), sorted(os.environ), flush=True)
time.sleep(60)
"""


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    """A place for a daemon, which is ended with its test. It is not below tmp_path, whose path is too long for a socket."""
    directory = Path(tempfile.mkdtemp(prefix="lxcfleet-"))
    monkeypatch.setattr(autostart, "PROGRAM", ["-c", DAEMON])
    yield Paths(directory / "lxc", directory / "run", directory / "etc")
    for pid in started(directory / "run"):
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    shutil.rmtree(directory)


def started(run: Path) -> list[int]:
    file = run / "starts"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_ten_clients_at_once_start_one_daemon(paths: Paths) -> None:
    problems: list[FleetError] = []

    def start() -> None:
        try:
            autostart.start(paths)
            assert answers(paths)
        except FleetError as error:
            problems.append(error)

    threads = [threading.Thread(target=start) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(started(paths.run)) == 1


def test_the_started_process_is_a_daemon(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "secret")
    autostart.start(paths)
    log = paths.run / "daemon.log"
    end = time.monotonic() + 60
    while not log.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    own_session, stdin, environment = log.read_text().split(maxsplit=2)
    assert (own_session, stdin) == ("True", "/dev/null")
    assert "PATH" in environment
    assert "LXCFLEET_ETC" in environment
    assert "SSH_AUTH_SOCK" not in environment
    assert paths.run.stat().st_mode & 0o777 == 0o755


def test_the_daemon_inherits_nothing_of_its_caller(paths: Paths) -> None:
    read, write = os.pipe()
    high = fcntl.fcntl(write, fcntl.F_DUPFD, 200)
    for descriptor in (write, high):
        os.set_inheritable(descriptor, True)
    autostart.start(paths)
    os.close(write)
    os.close(high)
    os.set_blocking(read, False)
    assert os.read(read, 1) == b""  # no other process has the other end any more
    os.close(read)


def test_a_daemon_that_answers_is_left_alone(paths: Paths) -> None:
    paths.run.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(paths.socket))
        listener.listen()
        autostart.start(paths)
    assert started(paths.run) == []


def test_a_socket_that_is_left_over_does_not_count(paths: Paths) -> None:
    paths.run.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(paths.socket))
    autostart.start(paths)
    assert len(started(paths.run)) == 1


def test_a_daemon_that_ends_is_reported_with_its_last_words(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.run.mkdir()
    (paths.run / "daemon.log").write_text("of another time\n")
    monkeypatch.setattr(autostart, "PROGRAM", ["-c", "print('no overlay here'); raise SystemExit(7)"])
    with pytest.raises(Unreachable) as caught:
        autostart.start(paths)
    assert caught.value.why == "it ended with status 7\nno overlay here"
    assert str(paths.run / "daemon.log") in caught.value.hint


def test_a_daemon_that_a_signal_ends_is_reported(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autostart, "PROGRAM", ["-c", "import os; os.kill(os.getpid(), 9)"])
    with pytest.raises(Unreachable) as caught:
        autostart.start(paths)
    assert caught.value.why == "signal 9 ended it"


def test_a_daemon_that_never_answers_is_reported(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autostart, "PATIENCE", 0.3)
    monkeypatch.setattr(autostart, "PROGRAM", ["-c", DAEMON.replace("sleep(0.1)", "sleep(60)")])
    with pytest.raises(Unreachable, match="did not answer within"):
        autostart.start(paths)
    end = time.monotonic() + 60
    while not started(paths.run):  # it is ended with this test, once it is known
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_run_directory_that_can_not_be_made_is_reported(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError):
        autostart.start(Paths(run=tmp_path / "file" / "run"))
    assert started(paths.run) == []


@pytest.mark.parametrize(
    ("root", "systemd", "may"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_who_may_start_it(monkeypatch: pytest.MonkeyPatch, root: bool, systemd: bool, may: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    monkeypatch.setattr(os.path, "isdir", lambda _: systemd)
    assert session._may_start() is may
