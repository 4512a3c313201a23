"""liblxc, as far as we use it. Only the launcher's children may call this: see launcher.

python3-lxc's C half is used alone: its Python half adds what the children have no use for.
"""

from __future__ import annotations

import os

import _lxc

from lxcfleet.host.lxc import monitor


def init_pid(name: str, lxc_path: str) -> int | None:
    """Process 1 of a container as the host numbers it; None if its monitor ends. Raises as ``monitor.held``."""
    with monitor.held(name, lxc_path) as lives:
        pid: int = _lxc.Container(name, lxc_path).init_pid
        return pid if pid > 0 and lives() else None


def freeze(name: str, lxc_path: str) -> bool:
    """Stop all its processes where they are; False if liblxc could not. Raises as ``monitor.held``."""
    with monitor.held(name, lxc_path):
        return bool(_lxc.Container(name, lxc_path).freeze())


def unfreeze(name: str, lxc_path: str) -> bool:
    """Let them go on. Raises as ``monitor.held``."""
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
    """Whether after byte ``since`` of a container's LXC log it says that the container was not started.

    Of a container whose command ended at once it complains, too, but not in the module that starts.
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
    """Begin a new log where a container that ends again and again has filled the present one; the one before is kept."""
    if log_size(log) > _LOG_BYTES:
        os.replace(log, f"{log}.1")


def log_size(log: str) -> int:
    """Where a container's LXC log ends now."""
    try:
        return os.stat(log).st_size
    except OSError:
        return 0
