"""Access to the API: the role of each client, and the calls that it may make."""

from __future__ import annotations

import socket

import pytest

from lxcfleet.api.calls import CALLS
from lxcfleet.daemon.http.access import Access, Role, refuse
from lxcfleet.errors import Denied
from lxcfleet.host.process.peer import Peer, peer

FULL, READERS = 990, 991


def caller(uid: int, *groups: int) -> Peer:
    return Peer(1, uid, frozenset(groups))


@pytest.mark.parametrize(
    ("who", "role"),
    [
        (caller(0), Role.ALL),
        (caller(1000, FULL), Role.ALL),
        (caller(1000, 1000, READERS), Role.READ),
        (caller(1000, FULL, READERS), Role.ALL),
        (caller(1000, 1000), Role.NOTHING),
    ],
)
def test_roles_follow_from_groups(who: Peer, role: Role) -> None:
    assert Access(FULL, READERS).judge(who) is role


def test_a_group_that_does_not_exist_admits_nobody() -> None:
    assert Access(None, None).judge(caller(1000, 1000)) is Role.NOTHING
    assert Access(None, None).judge(caller(0)) is Role.ALL


def test_a_client_that_can_not_be_identified_may_do_nothing() -> None:
    with socket.socket() as not_connected:
        assert Access(FULL, READERS).role(not_connected) is Role.NOTHING
    assert Access(FULL, READERS).role(None) is Role.NOTHING


def test_the_kernel_identifies_the_client() -> None:
    import os

    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        found = peer(ours)
    assert (found.pid, found.uid) == (os.getpid(), os.getuid())
    assert found.groups == {os.getgid(), *os.getgroups()}


def test_a_refusal_names_the_role_that_is_needed() -> None:
    refuse(Role.READ, Role.READ)
    with pytest.raises(Denied, match="only read"):
        refuse(Role.READ, Role.ALL)
    with pytest.raises(Denied, match="may not use") as caught:
        refuse(Role.NOTHING, Role.READ)
    assert "lxcfleet-ro" in caught.value.hint


def test_readers_may_call_nothing_that_changes_something() -> None:
    harmless = {name for name, call in CALLS.items() if call.harmless}
    assert {"list", "info", "wait", "stale", "exposure", "doctor"} <= harmless
    assert not {"create", "act", "cancel", "fix"} & harmless
    assert all(call.harmless == (call.method == "GET") for name, call in CALLS.items() if name not in ("wait", "fleet_plan"))
