"""Secrets on the host: fetched from their sources, kept in memory only, and put together as a directory for each container.

All of this runs in children of the launcher and in LXC's hook, never in the daemon: no value gets into its memory.

``Paths.secrets`` is a tmpfs in the host's mount namespace that only root can enter. ``.values`` has the value of each
secret, as it was fetched last. Beside it is a directory for each container, which the container has as /run/secrets:

    ..data -> ..3f1c    a link, which one rename turns to another set
    ..3f1c/db-pw        the values, with owners as the container numbers them
    db-pw -> ..data/db-pw

So a program sees all of the former values or all of the new ones, wherever the change is broken off. Owners are set when
files are written, as a tmpfs can't be mounted with shifted owners before Linux 6.3.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxcfleet.errors import FleetError, HostError, NotFound, WrongState
from lxcfleet.host.kernel import home, locks, syscalls, tree
from lxcfleet.host.process import confidential
from lxcfleet.paths import Paths
from lxcfleet.spec.container.secrets import LARGEST, SecretSource, SecretUse, SourceKind, key_of, parse_use, sources_from_json
from lxcfleet.spec.reading import ondisk

SIZE = "size=256M,nr_inodes=256k,mode=0700"
"""How much memory all values may take."""
_VALUES = ".values"
_DATA, _NEXT, _SET = "..data", "..next", ".."
_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SYSTEMD_CREDS = "/usr/bin/systemd-creds"


@dataclass(frozen=True)
class Item:
    """One secret for one container."""

    key: str
    """The secret's key; see spec.container.secrets.key_of."""
    use: SecretUse

    def to_json(self) -> list[Any]:
        """As plain JSON."""
        return [self.key, self.use.to_json()]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> Item:
        """The item for which ``to_json`` gave ``data``."""
        return cls(data[0], parse_use(data[1]))


# -- where values are ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(paths: Paths, *, mount: bool = True) -> Iterator[bool]:
    """Be where the file system of secrets is mounted; nobody else changes it meanwhile. With ``mount`` it is mounted if it is
    not there; else the value tells whether it is. Raises HostError.
    """
    with locks.held(paths.lock_of("secrets")), contextlib.ExitStack() as stack:
        # The hook's own mount namespace is a copy of the host's, so it may have the mount, too.
        if home.is_known() or not os.path.ismount(paths.secrets):
            try:
                stack.enter_context(home.entered())
            except OSError as error:
                why = "its mount namespace can't be entered"
                raise HostError.from_os_error(f"the secrets' file system is not mounted: {why}", error) from error
        if mount:
            _mount(paths)
        yield os.path.ismount(paths.secrets)


def _mount(paths: Paths) -> None:
    if os.path.ismount(paths.secrets):
        return
    paths.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        syscalls.mount("lxcfleet", paths.secrets, "tmpfs", _FLAGS, f"{SIZE},noswap")
    except OSError as error:
        if error.errno != errno.EINVAL:  # before Linux 6.4
            raise
        syscalls.mount("lxcfleet", paths.secrets, "tmpfs", _FLAGS, SIZE)


def tidy(paths: Paths, gone: Callable[[str], bool], *, last: bool) -> None:
    """Remove the directories of containers that are ``gone``; with ``last``, if none is left, the values and the mount, too.

    Raises FleetError, OSError.
    """
    with opened(paths, mount=False) as there:
        if not there:
            return
        for name in filter(gone, _containers(paths)):
            tree.remove(paths.secrets / name)
        if last and not _containers(paths):
            syscalls.unmount(paths.secrets)
            paths.secrets.rmdir()


def _containers(paths: Paths) -> list[str]:
    return [name for name in os.listdir(paths.secrets) if name != _VALUES]


def credentials(paths: Paths) -> tuple[Path, Path]:
    """Where systemd has credentials, encrypted and plain; systemd.exec(5). Another fleet than the usual one has its own."""
    above = paths.etc.parent if paths.etc == Paths().etc else paths.etc
    return above / "credstore.encrypted", above / "credstore"


# -- fetching ------------------------------------------------------------------------------------------------------


def fetch(paths: Paths, key: str, source: SecretSource, *, anew: bool) -> tuple[str, bool]:
    """Have the value of a secret there; ``anew``: even if it is. Gives its digest, and whether it is another one than before.

    Raises FleetError; then the former value stays.
    """
    confidential.seal()
    before = None
    with opened(paths, mount=False) as there:
        kept = _kept(paths, key) if there else None
        if kept is not None:
            before = kept[1]
            if not anew and kept[0] == _marks(source):
                return digest(paths, key, before), False
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(home.entered())  # a command sees what every program of the host sees
        value = obtain(paths, source)
    with opened(paths):
        _keep(paths, key, source, value)
    return digest(paths, key, value), value != before


def obtain(paths: Paths, source: SecretSource) -> bytes:
    """The value that a source has now. Raises FleetError without any of it."""
    if source.kind is SourceKind.COMMAND:
        return confidential.output(source.command, seconds=source.timeout, most=LARGEST)
    if source.kind is SourceKind.FILE:
        return _read_file(Path(source.what), source.timeout)
    encrypted, plain = (directory / source.what for directory in credentials(paths))
    if os.path.lexists(encrypted):
        _read_file(encrypted, source.timeout)
        command = [_SYSTEMD_CREDS, "decrypt", f"--name={source.what}", str(encrypted), "-"]
        return confidential.output(command, seconds=source.timeout, most=LARGEST)
    if os.path.lexists(plain):
        return _read_file(plain, source.timeout)
    raise NotFound(
        f"there is no credential {source.what}", why=f"there is neither {encrypted} nor {plain}",
        hint=f"systemd-creds encrypt --name={source.what} - {encrypted}",
    )  # fmt: skip


def _read_file(path: Path, seconds: float) -> bytes:
    """A regular file's content. Its file system may hang, and what the kernel makes of a file may have no end."""
    return confidential.in_time(lambda: _content(path), f"{path} can't be read", seconds=seconds)


def _content(path: Path) -> bytes:
    """A regular file's content. It is opened only once it is known to be one; no link is followed."""
    root = os.open("/", _DIRECTORY)
    try:
        handle = syscalls.look_across(root, str(path).lstrip("/"))
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        why = "a link is in its path" if error.errno == errno.ELOOP else error.strerror or ""
        raise WrongState(f"{path} can't be read", why=why, hint=f"name the file itself: {os.path.realpath(path)}") from error
    finally:
        os.close(root)
    try:
        _check_file(path, os.fstat(handle))
        with open(f"/proc/self/fd/{handle}", "rb", buffering=0) as file:
            text = _read_all(file.fileno())
    except OSError as error:
        raise HostError.from_os_error(f"{path} can't be read", error) from error
    finally:
        os.close(handle)
    if len(text) > LARGEST:
        raise _too_large(path)
    return text


def _read_all(descriptor: int) -> bytes:
    text = b""
    while len(text) <= LARGEST and (piece := os.read(descriptor, LARGEST)):
        text += piece
    return text


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe"}
        raise WrongState(
            f"{path} can't be a secret", why=f"it is {kinds.get(stat.S_IFMT(status.st_mode), 'a device or socket')}",
            hint="name a regular file",
        )  # fmt: skip
    if status.st_mode & stat.S_IROTH:
        raise WrongState(
            f"{path} can't be a secret", why="all users of the host can read it, and so can every container that has the"
            " host's files", hint=f"chmod o-rwx {path}",
        )  # fmt: skip
    if status.st_size > LARGEST:
        raise _too_large(path)


def _too_large(path: Path) -> WrongState:
    return WrongState(f"{path} can't be a secret", why=f"it has more than {LARGEST} bytes")


def digest(paths: Paths, key: str, value: bytes) -> str:
    """Tells whether two values are the same, and nothing of them: who does not know the key can't try values.

    Raises OSError.
    """
    return hmac.new(_digest_key(paths), key.encode() + b"\0" + value, hashlib.sha256).hexdigest()


def _digest_key(paths: Paths) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return ondisk.content(paths.hmac_key)
    paths.state.mkdir(parents=True, exist_ok=True)
    new = paths.hmac_key.with_name(f".{secrets.token_hex(8)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(secrets.token_bytes(32))
        file.flush()
        os.fsync(descriptor)
    with contextlib.suppress(FileExistsError):
        os.link(new, paths.hmac_key)  # of two at once, the first one's
    os.unlink(new)
    return ondisk.content(paths.hmac_key)


# -- the values, as they were fetched last ----------------------------------------------------------------------------


def _file_of(paths: Paths, key: str) -> Path:
    fleet, _, name = key.rpartition("/")
    return paths.secrets / _VALUES / f"{fleet}:{name}"


def _marks(source: SecretSource) -> str:
    """The marks that tell a source from others. How often it is asked is none of them."""
    said = source.to_json()
    return json.dumps({key: said[key] for key in said if key not in ("refresh", "timeout")}, sort_keys=True)


def _keep(paths: Paths, key: str, source: SecretSource, value: bytes) -> None:
    file = _file_of(paths, key)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    beside = file.with_name(f".{file.name}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as stream:
            stream.write(_marks(source).encode() + b"\n" + value)
        os.rename(beside, file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise HostError.from_os_error("the value can't be kept", error, path=paths.secrets) from error


def _kept(paths: Paths, key: str) -> tuple[str, bytes] | None:
    """The source's marks and the value, as they were kept last."""
    try:
        marks, _, value = _file_of(paths, key).read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    return marks.decode(), value


# -- a container's directory ------------------------------------------------------------------------------------------


def deliver(paths: Paths, name: str, first_id: int | None, items: Sequence[Item]) -> dict[str, str]:
    """Give a container the present values, all in one step. Gives the digests by file. Must be within ``opened``.

    Raises NotFound if a value is not there, and OSError; then it has the former ones, all of them.
    """
    values: dict[str, tuple[SecretUse, bytes]] = {}
    digests = {}
    for item in items:
        kept = _kept(paths, item.key)
        if kept is None:
            raise NotFound(f"the value of the secret {item.key} is not there", hint="try again: it is fetched at the start")
        values[item.use.target] = item.use, kept[1]
        digests[item.use.target] = digest(paths, item.key, kept[1])
    owner, top = first_id or 0, (paths.secrets / name)
    top.mkdir(mode=0o755, exist_ok=True)
    os.chown(top, owner, owner)
    if not _has(top, owner, values):
        _switch(top, owner, values)
    _clean(top, values)
    return digests


def _has(top: Path, owner: int, values: Mapping[str, tuple[SecretUse, bytes]]) -> bool:
    """Whether the present set is that already."""
    try:
        if set(os.listdir(top / _DATA)) != set(values):
            return False
        for target, (use, value) in values.items():
            file = top / _DATA / target
            status = os.lstat(file)
            wanted = (owner + use.uid, owner + use.gid, use.mode)
            if (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) != wanted or file.read_bytes() != value:
                return False
    except OSError:
        return False
    return True


def _switch(top: Path, owner: int, values: Mapping[str, tuple[SecretUse, bytes]]) -> None:
    fresh = top / f"{_SET}{secrets.token_hex(8)}"
    try:
        fresh.mkdir(mode=0o700)
        for target, (use, value) in values.items():
            descriptor = os.open(fresh / target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(value)
                file.flush()
                os.fchown(descriptor, owner + use.uid, owner + use.gid)
                os.fchmod(descriptor, use.mode)
        os.chown(fresh, owner, owner)
        fresh.chmod(0o755)
        _link(top / _NEXT, fresh.name, owner)
        os.rename(top / _NEXT, top / _DATA)
    except OSError:
        tree.remove(fresh)
        raise
    for target in values:
        if not os.path.lexists(top / target):
            _link(top / target, f"{_DATA}/{target}", owner)


def _link(path: Path, to: str, owner: int) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(to)
    os.chown(path, owner, owner, follow_symlinks=False)


def _clean(top: Path, values: Mapping[str, object]) -> None:
    """Have a name for each of the present values, and remove former sets and names."""
    present = os.readlink(top / _DATA)
    owner = os.lstat(top).st_uid
    for entry in os.listdir(top):
        if entry not in (_DATA, present) and entry not in values:
            tree.remove(top / entry)
    for target in values:
        if not os.path.lexists(top / target):
            _link(top / target, f"{_DATA}/{target}", owner)


def show(paths: Paths, name: str) -> int:
    """A descriptor of a new mount, read-only, of the container's directory. Must be within ``opened``. Raises OSError."""
    handle = os.open((paths.secrets / name), _DIRECTORY)
    try:
        return syscalls.clone_apart(handle, _FLAGS | syscalls.MS_RDONLY, None, str(paths.secrets / name))
    finally:
        os.close(handle)


def note_known(paths: Paths, name: str, digests: Mapping[str, str]) -> None:
    """Note which values a container's program knows: those at its start, or those that it was told of. Raises OSError."""
    tree.write(paths.container(name).secrets, json.dumps(digests, sort_keys=True) + "\n")


def known(paths: Paths, name: str) -> dict[str, str]:
    """Digests of the values that a container's program knows, by file; empty if that was not noted."""
    try:
        data = ondisk.record(paths.container(name).secrets, ondisk.SMALL)
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in data.items()} if isinstance(data, dict) else {}


# -- who declares what, from disk: for LXC's hook --------------------------------------------------------------------


def declared(paths: Paths, fleet: str | None, settings: Mapping[str, SecretSource]) -> dict[str, tuple[str, SecretSource]]:
    """For a container of ``fleet``, each secret's key and source by its name: the fleet's own hide those of the host."""
    own: dict[str, SecretSource] = {}
    if fleet is not None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            record = ondisk.record(paths.fleets / f"{fleet}.json")
            own = sources_from_json(record.get("secrets"))
    return both(fleet, own, settings)


def both(
    fleet: str | None, own: Mapping[str, SecretSource], settings: Mapping[str, SecretSource]
) -> dict[str, tuple[str, SecretSource]]:
    """The same, from what a fleet's file and the settings say."""
    return {
        **{name: (key_of(None, name), source) for name, source in settings.items()},
        **{name: (key_of(fleet, name), source) for name, source in own.items()},
    }


def undeclared(container: str, use: SecretUse, fleet: str | None) -> NotFound:
    """The error for a secret without a source."""
    where = f"the fleet {fleet}'s file nor the settings declare it" if fleet else "the settings of the host don't declare it"
    return NotFound(
        f"{container}: there is no secret {use.secret}", why=f"neither {where}" if fleet else where,
        hint="name its source in /etc/lxcfleet/lxcfleet.yaml: secrets: {NAME: {file: /PATH}}; then systemctl reload lxcfleet",
    )  # fmt: skip


def missing(key: str, error: FleetError) -> WrongState:
    """The error for a container that can't start without this secret."""
    why = ": ".join(part for part in (error.message, error.why) if part)
    return WrongState(f"secret {key}: it can't be fetched", why=why, hint=error.hint)
