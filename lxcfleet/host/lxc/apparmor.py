"""AppArmor on the host's side of a container."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from lxcfleet.host.kernel import syscalls, tree

_CURRENT = Path("/proc/self/attr/current")
_ENABLED = Path("/sys/module/apparmor/parameters/enabled")
PARSER_CONF = Path("/etc/apparmor/parser.conf")
_FEATURES = re.compile(r"^\s*policy-features\s*=\s*(\S+)\s*$", re.MULTILINE)
_NETWORK = "network_v8 {"


def leave_profile() -> None:
    """Leave the profile that this process was started under, if that is allowed; apparmor(7), aa_change_profile(2).

    Debian's profile of lxc-start allows few mounts, none of ours among them, but it allows this
    (/etc/apparmor.d/abstractions/lxc/start-container). Nothing happens if there is no AppArmor, or if the process is not
    confined. If leaving is forbidden, the mounts will report it.
    """
    try:
        if _CURRENT.read_bytes().rstrip(b"\0\n") != b"unconfined":
            _CURRENT.write_bytes(b"changeprofile unconfined")
    except OSError:
        return


def allow_socket_locks(directory: Path) -> None:
    """Have profiles that liblxc loads from this mount namespace allow locks on sockets.

    A profile that has any rule about the network forbids them on Debian's kernels, and no rule can allow them
    (bugs.launchpad.net/1780227, bugs.debian.org/1050256): services with DynamicUser= or PrivateNetwork= then fail, as systemd
    locks a socket for them. liblxc's profile allows all of the network, so nothing is lost if the parser is told that the
    kernel knows no such rules. It is told by a settings file in ``directory``, which is mounted over the host's own in this
    mount namespace alone. Nothing happens where AppArmor is off or the parser has no such file. A failure costs only the
    locks.
    """
    with contextlib.suppress(OSError):
        if _ENABLED.read_text(encoding="ascii").strip() != "Y":
            return
        settings = PARSER_CONF.read_text(encoding="utf-8")
        found = _FEATURES.search(settings)
        features = without_network(Path(found[1]).read_text(encoding="ascii")) if found is not None else None
        if found is None or features is None:
            return
        directory.mkdir(mode=0o755, exist_ok=True)
        ours = directory / "features"
        _have(ours, features)
        _have(directory / PARSER_CONF.name, settings[: found.start(1)] + str(ours) + settings[found.end(1) :])
        syscalls.mount(str(directory / PARSER_CONF.name), PARSER_CONF, "none", syscalls.MS_BIND, "")


def without_network(features: str) -> str | None:
    """The kernel's features, as the parser reads them, without rules about the network; None: they have none.

    Each is written as ``name {value}``, where the value may be further features.
    """
    start = features.find(_NETWORK)
    if start < 0:
        return None
    depth, end = 1, start + len(_NETWORK)
    while depth and end < len(features):
        depth += {"{": 1, "}": -1}.get(features[end], 0)
        end += 1
    return features[:start] + features[end:].removeprefix("\n")


def _have(file: Path, text: str) -> None:
    try:
        if file.read_text(encoding="utf-8") == text:
            return
    except FileNotFoundError:
        pass
    tree.write(file, text)
