"""Files that say the same in every clone, in place of the host's."""

from __future__ import annotations

import stat
from collections.abc import Iterable

from lxcfleet.base.tree import Tree
from lxcfleet.host.kernel.entries import Entry, File, Owner, Symlink

_HOSTS = b"""\
127.0.0.1\tlocalhost
::1\t\tlocalhost ip6-localhost ip6-loopback
ff02::1\t\tip6-allnodes
ff02::2\t\tip6-allrouters
"""
_RESOLV = b"# No name server. This file stands in for the host's.\n"
_FSTAB = b"# All that a container needs is mounted before its init runs.\n"
_SUDOERS = b"""\
Defaults\tenv_reset
Defaults\tmail_badpass
Defaults\tsecure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root\tALL=(ALL:ALL) ALL
%sudo\tALL=(ALL:ALL) ALL
@includedir /etc/sudoers.d
"""
_DPKG = b"""\
# The host's private settings are hidden. dpkg would take that for your will, and never bring a package's own again.
force-confmiss
"""
_READABLE = Owner(0o644)

_ACCOUNTS = {"/etc/shadow": 9, "/etc/shadow-": 9, "/etc/gshadow": 4, "/etc/gshadow-": 4}
"""Files with password hashes, and how many fields their lines have; shadow(5), gshadow(5)."""


def files(tree: Tree, resolv: bytes | None = None) -> dict[str, Entry]:
    """The neutral files of a mask over ``tree``; ``resolv``: the resolv.conf of a fleet that has a name server."""
    why = "neutral"
    result: dict[str, Entry] = {
        # Empty, not missing: a missing one makes systemd think of a first boot and enable all it finds;
        # machine-id(5).
        "/etc/machine-id": File(b"", Owner(0o444), why),
        "/var/lib/dbus/machine-id": Symlink("/etc/machine-id", why),
        "/etc/fstab": File(_FSTAB, _READABLE, why),
        "/etc/hosts": File(_HOSTS, _READABLE, why),
        "/etc/resolv.conf": File(resolv or _RESOLV, _READABLE, why),
    }
    if tree.is_link("/var/spool/mail"):
        # Mail programs of before the FHS look here; the directory that it leads to is in every clone.
        result["/var/spool/mail"] = Symlink(tree.link("/var/spool/mail"), "usually a link")
    if tree.exists("/etc/sudoers"):
        # The host's file is private, so the sweep would hide it, and sudo refuses to work without it.
        result["/etc/sudoers"] = File(_SUDOERS, Owner(0o440), why)
    if tree.is_directory("/etc/dpkg/dpkg.cfg.d"):
        result["/etc/dpkg/dpkg.cfg.d/lxcfleet"] = File(_DPKG, _READABLE, why)
    for path, fields in _ACCOUNTS.items():
        content = tree.read(path)
        if content is not None:
            locked = lock_accounts(content, fields)
            result[path] = File(locked, owner(tree, path), "same accounts, all locked")
    return result


def lock_accounts(content: bytes, fields: int) -> bytes:
    """The lines of a shadow or gshadow file with ``*`` for each password: no password has that hash.

    Only the names are kept and, as the last field of gshadow's lines, the members. Lines without a name or
    fields (damage, NIS's ``+``) are left out.
    """
    locked = []
    for line in content.split(b"\n"):
        parts = line.split(b":")
        name = parts[0]
        if len(parts) < 2 or not name or name[:1] in b"+-#":
            continue
        members = parts[3] if fields == 4 and len(parts) > 3 else b""
        locked.append(b":".join([name, b"*", *[b""] * (fields - 3), members]))
    return b"".join(line + b"\n" for line in locked)


def public_part(path: str, file: int) -> bytes:
    """The part of the private file ``path``, open as ``file``, that a mask needs: the names of accounts; of other files
    nothing."""
    fields = _ACCOUNTS.get(path)
    if fields is None:
        return b""
    with open(file, "rb", closefd=False) as content:
        return lock_accounts(content.read(), fields)


def replacements(tree: Tree, replace: Iterable[tuple[str, str, str]]) -> dict[str, Entry]:
    """The operator's own files (path, content, the file that says so), with owner and mode of the host's file."""
    return {path: File(content.encode(), owner(tree, path), why) for path, content, why in replace}


def owner(tree: Tree, path: str) -> Owner:
    """Owner and mode of the regular file ``path`` in the base; if there is none, root's and readable for all."""
    status = tree.lstat(path)
    if status is None or not stat.S_ISREG(status.st_mode):
        return _READABLE
    return Owner(stat.S_IMODE(status.st_mode) & 0o777, status.st_uid, status.st_gid)
