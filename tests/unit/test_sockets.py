"""The program that holds a port of the host."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

import psutil
import pytest

from lxcfleet.errors import InvalidInput
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.net import socket_diag, sockets
from lxcfleet.host.net.sockets import PortInUse
from lxcfleet.spec.container.ports import PROTOCOLS, Publication, parse_publication

pytestmark = pytest.mark.reaches("host sockets", "loopback", reason="it is about who has a port")


def taken(port: int, protocol: str) -> tuple[PortInUse, Publication]:
    publication = parse_publication(f"{port}:80/{protocol}")
    with pytest.raises(PortInUse) as caught:
        sockets.check_free(publication)
    return caught.value, publication


@pytest.mark.parametrize(("kind", "protocol"), [(socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")])
def test_the_error_names_the_program(kind: socket.SocketKind, protocol: str) -> None:
    with socket.socket(socket.AF_INET, kind) as held:
        held.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            held.listen()
        error, publication = taken(held.getsockname()[1], protocol)
        told = sockets.told_by_whom(error, sockets.users(publication))
        assert told.message == error.message
        assert told.why == f"by {Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
    assert sockets.told_by_whom(error, sockets.users(publication)) is error  # the port is free now


def test_a_failure_to_find_the_program_is_no_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuse)
    with socket.create_server(("127.0.0.1", 0)) as held:
        error, publication = taken(held.getsockname()[1], "tcp")
        assert sockets.told_by_whom(error, sockets.users(publication)) is error


def test_a_program_at_another_address_has_nothing_to_do_with_it() -> None:
    with socket.create_server(("127.0.0.2", 0)) as other:
        port = other.getsockname()[1]
        with socket.create_server(("127.0.0.3", port)):
            held = {f"{text}:{port}:80" for text in ("127.0.0.1", "[::]")}
            assert [each for each in held if os.getpid() in sockets.users(parse_publication(each))] == []
            for text in (f"127.0.0.2:{port}:80", f"0.0.0.0:{port}:80", f"{port}:80"):
                assert sockets.users(parse_publication(text)).keys() == {os.getpid()}
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        port = both.getsockname()[1]
        for text in (f"127.0.0.2:{port}:80", f"0.0.0.0:{port}:80", f"[2001:db8::1]:{port}:80"):
            assert sockets.users(parse_publication(text)).keys() == {os.getpid()}


@pytest.mark.parametrize("address", ["224.0.0.1", "255.255.255.255", "127.255.255.255", "[ff02::1]"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_an_address_of_many_is_none_of_the_hosts(address: str, protocol: str) -> None:
    """The kernel lets sockets be bound there: the port would be accepted, and lead to nothing."""
    with pytest.raises(InvalidInput, match="the host does not have the address"):
        sockets.check_free(parse_publication(f"{address}:8080:80/{protocol}"))


def test_sockets_that_wait_for_others_are_found_by_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel's list of them, and by /proc where there is none."""
    with contextlib.ExitStack() as held:
        found: dict[tuple[str, int], str] = {}
        for kind, protocol in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
            for address in ("0.0.0.0", "127.0.0.1", "::", "::1", "::ffff:127.0.0.1"):
                one = held.enter_context(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind))
                one.bind((address, 0))
                if protocol == "tcp":
                    one.listen()
                found[protocol, one.getsockname()[1]] = address
        connected = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        connected.connect(("127.0.0.1", 9))
        others = {key for key, address in found.items() if address in ("0.0.0.0", "::")}
        for seen in (sockets.listening(os.getpid(), PROTOCOLS), sockets._listed(os.getpid(), PROTOCOLS)):
            assert seen is not None
            assert seen & found.keys() == others
            assert ("udp", connected.getsockname()[1]) not in seen
        assert {protocol for protocol, _ in sockets.listening(os.getpid(), ["udp"]) or ()} == {"udp"}

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket_diag, "listening", refuse)
    assert sockets.listening(os.getpid(), ["tcp"]) == sockets._listed(os.getpid(), ["tcp"])


def test_a_process_that_has_ended_listens_nowhere() -> None:
    assert sockets.listening(2**22 + 1, ["tcp"]) is None  # pid_max(5) is never above 2**22


def test_the_look_into_another_network_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if there is no such socket; a daemon that can't ends."""
    entered: list[str] = []
    ended: list[bool] = []
    here = os.readlink("/proc/thread-self/ns/net")

    def enter(namespace: int) -> None:
        entered.append(os.readlink(f"/proc/self/fd/{namespace}"))
        if len(entered) == 4:
            raise OSError(errno.EPERM, "")

    def fail(*_: object) -> None:
        raise OSError(errno.EPROTONOSUPPORT, "")

    monkeypatch.setattr(syscalls, "enter_network", enter)
    monkeypatch.setattr(socket, "socket", fail)
    monkeypatch.setattr(os, "abort", lambda: ended.append(True))
    for wanted in ([], [True]):
        with pytest.raises(OSError, match=r"^\[Errno 93\] $"):
            socket_diag.listening(os.getpid(), ["tcp"])
        assert ended == wanted
    assert entered == [here] * 4
