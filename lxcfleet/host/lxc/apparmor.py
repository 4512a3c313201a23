"""AppArmor, as far as it concerns the host's side of a container."""

from __future__ import annotations

from pathlib import Path

_CURRENT = Path("/proc/self/attr/current")


def leave_profile() -> None:
    """Leave the profile that this process was started under, where it may; apparmor(7), aa_change_profile(2).

    Debian's profile of lxc-start allows few mounts, none of ours among them, but does allow this
    (/etc/apparmor.d/abstractions/lxc/start-container). Where there is no AppArmor, or the process is not
    confined, nothing happens; where it is not allowed, the mounts will say so.
    """
    try:
        if _CURRENT.read_bytes().rstrip(b"\0\n") != b"unconfined":
            _CURRENT.write_bytes(b"changeprofile unconfined")
    except OSError:
        return
