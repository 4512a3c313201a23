"""liblxc, as far as lxcfleet uses it. Only the launcher's children may call this; see launcher.

Only python3-lxc's C half is imported: the children need nothing of its Python half.
"""

from __future__ import annotations

import os

import _lxc

from lxcfleet.host.lxc import monitor


def init_pid(name: str, lxc_path: str) -> int | None:
    """Process 1 of a container as the host numbers it; None if the monitor has ended. Raises the same as ``monitor.held``."""
    with monitor.held(name, lxc_path) as lives:
        pid: int = _lxc.Container(name, lxc_path).init_pid
        return pid if pid > 0 and lives() else None


def freeze(name: str, lxc_path: str) -> bool:
    """Freeze all processes of a container; False if liblxc could not. Raises the same as ``monitor.held``."""
    with monitor.held(name, lxc_path):
        return bool(_lxc.Container(name, lxc_path).freeze())


def unfreeze(name: str, lxc_path: str) -> bool:
    """Let its processes run again. Raises the same as ``monitor.held``."""
    with monitor.held(name, lxc_path):
        return bool(_lxc.Container(name, lxc_path).unfreeze())


def version() -> str:
    """liblxc's version."""
    return str(_lxc.version)


def stop_reason(log: str, since: int) -> str:
    """The last complaint in a container's LXC log after byte ``since``, without liblxc's own prefixes."""
    errors = _errors(log, since)
    return errors[0].split(" - ", 2)[-1] if errors else ""


def gave_up(log: str, since: int) -> bool:
    """Whether a container's LXC log says after byte ``since`` that the start was given up.

    If a container's command ends at once, the log has errors, too, but not from the module that starts.
    """
    return any(line.split(" - ")[0].endswith(" start") for line in _errors(log, since))


def _errors(log: str, since: int) -> list[str]:
    """Lines of errors: ``lxc NAME TIME ERROR    MODULE - FILE:FUNCTION:LINE - MESSAGE``."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            file.seek(since)
            lines = file.read(1 << 16).splitlines()
    except OSError:
        return []
    return [line for line in lines if " ERROR " in line]


_LOG_BYTES = 1 << 20


def rotate_log(log: str) -> None:
    """Begin a new log if the present one is full, as by a container that ends again and again; the former log is kept."""
    if log_size(log) > _LOG_BYTES:
        os.replace(log, f"{log}.1")


def log_size(log: str) -> int:
    """The present size of a container's LXC log."""
    try:
        return os.stat(log).st_size
    except OSError:
        return 0
