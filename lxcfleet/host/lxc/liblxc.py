"""liblxc, as far as lxcfleet uses it. Only the launcher's children may call this; see launcher.

Only python3-lxc's C half is imported: the children need nothing of its Python half.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import _lxc

from lxcfleet.errors import HostError, Unsupported
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.lxc import monitor


def container(name: str, lxc_path: str) -> Any:
    """liblxc's object for a container, which reads the container's configuration.

    liblxc refuses a container whose log it can't write. So if the disk has become read-only, this process, which is to
    end soon, gets a copy of the configuration in memory in place of the container's directory. Raises FleetError.
    """
    directory = Path(lxc_path, name)
    try:
        os.close(os.open(directory / "lxc.log", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EIO):
            _copy_in_memory(directory)
    try:
        return _lxc.Container(name, lxc_path)
    except Exception as error:  # liblxc does not say which
        raise HostError(
            f"{name}: liblxc can't use its configuration", why=f"{directory}/config: {error}",
            hint=f"it is written anew at each start: lxcfleet restart {name}",
        ) from error  # fmt: skip


def _copy_in_memory(directory: Path) -> None:
    try:
        _have_in_memory(directory, (directory / "config").read_bytes())
    except OSError as error:
        raise HostError.from_os_error(f"{directory.name}: its configuration can't be read", error) from error


def _have_in_memory(directory: Path, config: bytes) -> None:
    syscalls.unshare_mounts()
    syscalls.mount("lxcfleet", directory, "tmpfs", 0, "mode=0700,size=1m")
    (directory / "config").write_bytes(config)


def init_pid(name: str, lxc_path: str) -> int | None:
    """Process 1 of a container as the host numbers it; None if the monitor has ended. Raises the same as ``monitor.held``.

    The monitor knows that whatever has become of the configuration on disk: if liblxc can't use that, this process, which is
    to end soon, gets an empty one in its place. Nothing else is asked so, as a configuration also confines commands.
    """
    with monitor.held(name, lxc_path) as lives:
        try:
            found = container(name, lxc_path)
        except HostError:
            _have_in_memory(Path(lxc_path, name), b"")
            found = container(name, lxc_path)
        pid: int = found.init_pid
        return pid if pid > 0 and lives() else None


def freeze(name: str, lxc_path: str) -> bool:
    """Freeze all processes of a container; False if liblxc could not. Raises the same as ``monitor.held``."""
    with monitor.held(name, lxc_path):
        return bool(container(name, lxc_path).freeze())


def unfreeze(name: str, lxc_path: str) -> bool:
    """Let its processes run again. Raises the same as ``monitor.held``."""
    with monitor.held(name, lxc_path):
        return bool(container(name, lxc_path).unfreeze())


def console(name: str, lxc_path: str) -> int:
    """A descriptor that stands for the console of a container that runs: what is written to it is typed there.

    It is one end of a terminal of the monitor's, which copies between that and the console as long as this process lives.
    Raises HostError, and the same as ``monitor.held``.
    """
    with monitor.held(name, lxc_path):
        descriptor: int = container(name, lxc_path).console_getfd(0)
    if descriptor < 0:
        raise HostError(f"the console of {name} can't be reached", why="somebody else uses it, such as lxc-console")
    return descriptor


def try_keys(pairs: Iterable[tuple[str, str]], lxc_path: str) -> None:
    """Raise Unsupported with every key of a configuration that liblxc does not take with its value. A container of that name
    need not exist, and none is made."""
    scratch = _lxc.Container(_NOBODY, lxc_path)
    wrong = [f"{key} = {value}" for key, value in pairs if not scratch.set_config_item(key, value)]
    if wrong:
        raise Unsupported(
            "LXC does not take these keys with these values", why="\n".join(wrong),
            hint=f"this host has LXC {version()}: lxc.container.conf(5) has the keys that it knows",
        )  # fmt: skip


_NOBODY = "lxcfleet-nobody"


def version() -> str:
    """liblxc's version."""
    return str(_lxc.get_version())


def stop_reason(log: str, since: int) -> str:
    """The last complaint in a container's LXC log after byte ``since``, without liblxc's own prefixes."""
    errors = _errors(log, since)
    return errors[0].split(" - ", 2)[-1] if errors else ""


def gave_up(log: str, since: int) -> bool:
    """Whether a container's LXC log says after byte ``since`` that the start was given up.

    If a container's command ends at once, the log has errors, too, but not from the module that starts.
    """
    if log_size(log) == since:  # as mostly
        return False
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


def cut_log(log: str) -> None:
    """Empty the log of a container that runs if it is far beyond its size: liblxc writes a line for each request of a user
    who may ask nothing, and appends to the file wherever that ends. Raises OSError."""
    if log_size(log) > 2 * _LOG_BYTES:
        os.truncate(log, 0)


def log_size(log: str) -> int:
    """The present size of a container's LXC log."""
    try:
        return os.stat(log).st_size
    except OSError:
        return 0
