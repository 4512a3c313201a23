"""Running commands in containers over the attach socket: over a fake launcher, and over real LXC."""

from __future__ import annotations

import errno
import json
import os
import socket
from typing import Any

import pytest

from lxcfleet.api.client import Client
from lxcfleet.api.requests import CreateRequest

from .conftest import Fleet, soon
from .real_daemon import Daemon


class Attached:
    """A command in a container whose output comes through pipes."""

    def __init__(
        self, fleet: Fleet, *command: str, name: str | None = None, tty: bool = False, **environment: str
    ):
        out, write_out = os.pipe()
        err, write_err = os.pipe()
        read_in, self.stdin = os.pipe()
        self.stdout, self.stderr = open(out, "rb"), open(err, "rb")  # noqa: SIM115
        target = name or fleet.name("a")
        request: Any = {"name": target, "command": list(command), "environment": environment, "tty": tty}
        try:
            self.socket = fleet.client.attach(request, (read_in, write_out, write_err))
        finally:
            for descriptor in (read_in, write_out, write_err):
                os.close(descriptor)
        self.socket.settimeout(60)

    def say(self, data: bytes) -> None:
        os.write(self.stdin, data)
        os.close(self.stdin)

    def end(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(65536))
        self.socket.close()
        return message


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    fleet.create("a")
    return fleet


def test_attach_passes_output_and_status(running: Fleet) -> None:
    command = Attached(running, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert command.end() == {"exit": 7}
    assert (command.stdout.read(), command.stderr.read()) == (b"out\n", b"err\n")


def test_attach_passes_stdin(running: Fleet) -> None:
    command = Attached(running, "wc", "-c")
    command.say(b"x" * 1000)
    assert command.end() == {"exit": 0}
    assert command.stdout.read().split() == [b"1000"]


def test_attach_passes_the_environment(running: Fleet) -> None:
    command = Attached(running, "sh", "-c", 'echo "$MODE"', MODE="a b\nc")
    assert command.end() == {"exit": 0}
    assert command.stdout.read() == b"a b\nc\n"


def test_attach_passes_signals(running: Fleet) -> None:
    command = Attached(running, "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    assert command.stdout.readline() == b"ready\n"
    command.socket.send(b'{"signal": 15}')
    assert command.end() == {"exit": 9}


def test_a_command_that_a_signal_killed(running: Fleet) -> None:
    assert Attached(running, "sh", "-c", "kill -9 $$").end() == {"exit": 137}


def test_a_command_that_does_not_exist(running: Fleet) -> None:
    command = Attached(running, "/no/such/command")
    assert command.end() == {"exit": 127}
    assert b"/no/such/command" in command.stderr.read()


def test_a_command_that_can_not_be_run(running: Fleet) -> None:
    assert Attached(running, "/etc/passwd").end() == {"exit": 126}


def test_attach_to_an_unknown_container(fleet: Fleet) -> None:
    assert Attached(fleet, "true", name="no-such-container").end()["error"]["code"] == "not-found"


def test_attach_to_a_stopped_container(fleet: Fleet) -> None:
    fleet.create("a", start=False)
    assert Attached(fleet, "true").end()["error"]["code"] == "wrong-state"


def test_what_the_host_refuses_is_told(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, the daemon closed the connection without a word, as if the client had gone away."""
    daemon.create(CreateRequest("a", said={"command": ("sleep", "infinity")}))

    async def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(daemon.launcher, "send", full)
    ends = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
    request: Any = {"name": "a", "command": ["true"], "environment": {}, "tty": False}
    with daemon.client.attach(request, (ends[0], ends[1], ends[2])) as answer:
        answer.settimeout(60)
        error = json.loads(answer.recv(65536))["error"]
    assert (error["code"], error["why"]) == ("host-error", f"Too many open files (errno {errno.EMFILE})")
    for each in ends:
        os.close(each)


def test_the_command_gets_sighup_when_its_client_goes_away(running: Fleet) -> None:
    note = f"/tmp/{running.prefix}-hup"
    script = f"trap 'echo hup > {note}; exit' HUP; echo ready; while :; do sleep 0.05; done"
    command = Attached(running, "sh", "-c", script)
    assert command.stdout.readline() == b"ready\n"
    command.socket.close()

    def noted() -> bool:
        return Attached(running, "rm", note).end() == {"exit": 0}

    soon(noted)


def test_many_commands_at_once(running: Fleet) -> None:
    commands = [Attached(running, "sh", "-c", f"echo {number}; exit {number}") for number in range(20)]
    assert [command.end()["exit"] for command in commands] == list(range(20))
    assert [command.stdout.read() for command in commands] == [b"%d\n" % number for number in range(20)]


def test_a_terminal(running: Fleet) -> None:
    command = Attached(running, "sh", "-c", "tty && exit 5", tty=True)
    data, descriptors, _, _ = socket.recv_fds(command.socket, 65536, 1)
    assert json.loads(data) == {"terminal": True}
    (master,) = descriptors
    assert command.end() == {"exit": 5}
    assert b"/dev/" in os.read(master, 1000)
    os.close(master)
    assert command.stdout.read() == b""


def test_the_empty_command_is_a_shell(running: Fleet) -> None:
    command = Attached(running)
    command.say(b"echo $((6 * 7)); exit 4\n")
    assert command.end() == {"exit": 4}
    assert b"42\n" in command.stdout.read()


@pytest.mark.parametrize(
    "data",
    [
        b"{", b"[]", b"{}", b'{"name": 5}', b'{"name": "a", "command": "ls"}', b"[" * 100_000,
        b'{"name": "a", "command": ["\\ud800"]}', b'{"name": "a", "command": ["x"], "environment": {"A": "\\udbff"}}',
    ],
    ids=["cut", "list", "empty", "number", "text", "deep", "half a character", "half a character in a variable"],
)
def test_bad_attach_requests(client: Client, data: bytes) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
        open(os.devnull, "rb") as nothing,
    ):
        connection.connect(str(client._paths.attach_socket))
        socket.send_fds(connection, [data], [nothing.fileno()] * 3)
        connection.settimeout(60)
        assert json.loads(connection.recv(65536))["error"]["code"] == "invalid-input"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_attach_requests_without_descriptors(client: Client, count: int) -> None:
    request = {"name": "a", "command": ["true"], "environment": {}, "tty": False}
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection,
        open(os.devnull, "rb") as nothing,
    ):
        connection.connect(str(client._paths.attach_socket))
        socket.send_fds(connection, [json.dumps(request).encode()], [nothing.fileno()] * count)
        connection.settimeout(60)
        assert json.loads(connection.recv(65536))["error"]["code"] == "invalid-input"


@pytest.mark.parametrize("tty", [True, False])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_terminal_is_not_taken(running: Fleet, number: int, tty: bool) -> None:
    """A client of an earlier version, or of somebody else's making, would hand it to the container."""
    master, slave = os.openpty()
    null = os.open(os.devnull, os.O_RDWR)
    given = [null, null, null]
    given[number] = slave
    request: Any = {"name": running.name("a"), "command": ["true"], "environment": {}, "tty": tty}
    with running.client.attach(request, (given[0], given[1], given[2])) as sock:
        sock.settimeout(60)
        answer = json.loads(sock.recv(65536))
    for descriptor in (master, slave, null):
        os.close(descriptor)
    assert "a terminal must not be handed to a container" in answer["error"]["message"]
