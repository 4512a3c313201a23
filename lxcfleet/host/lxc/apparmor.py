"""AppArmor on the host's side of a container."""

from __future__ import annotations

from pathlib import Path

_CURRENT = Path("/proc/self/attr/current")


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
