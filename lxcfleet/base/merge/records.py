"""Three-way merges of the files in which the host's packages and accounts and a container's own stand side by side. Pure.

Each entry is taken from the side that changed it since both were the same. If both sides changed it, and differently,
the container's entry stays and the conflict is reported: nothing is guessed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MergedFile:
    """The outcome for one file; ``conflicts`` in words, one for each entry that both sides changed."""

    content: bytes
    conflicts: tuple[str, ...] = ()


Entries = dict[str, bytes]
"""The parts of a file, in order, by the names of the parts."""

Files = Mapping[str, bytes]
"""Contents, by path."""

Settle = Callable[[bytes | None, bytes, bytes], bytes | None]
"""Decides about an entry that both sides changed, from the old, the host's and the own one; None: it is a conflict."""


def merge_entries(old: Mapping[str, bytes], host: Mapping[str, bytes], own: Mapping[str, bytes], settle: Settle) -> tuple[
    Entries, list[str]
]:  # fmt: skip
    """All entries of ``host`` and ``own``, those of ``own`` first, and the names of those in conflict."""
    result: Entries = {}
    conflicts = []
    for name in {**own, **host}:
        before, theirs, ours = old.get(name), host.get(name), own.get(name)
        if theirs in (before, ours):
            chosen = ours
        elif ours == before:
            chosen = theirs
        else:
            both = settle(before, theirs, ours) if theirs is not None and ours is not None else None
            if both is None:
                conflicts.append(name)
            chosen = ours if both is None else both
        if chosen is not None:
            result[name] = chosen
    return result, conflicts


def _never(_old: bytes | None, _host: bytes, _own: bytes) -> bytes | None:
    return None


# -- packages ------------------------------------------------------------------------------------------------


def packages(old: bytes, host: bytes, own: bytes) -> MergedFile:
    """dpkg's status file, package by package (deb822; dpkg-query(1))."""
    old_entries, host_entries, own_entries = stanzas(old), stanzas(host), stanzas(own)
    result, conflicts = merge_entries(old_entries, host_entries, own_entries, _never)
    words = [
        f"package {name}: {_version(own_entries.get(name))} here, {_version(host_entries.get(name))} on the host"
        for name in conflicts
    ]
    return MergedFile(b"".join(stanza + b"\n\n" for stanza in result.values()), tuple(words))


def versions(status: bytes) -> dict[str, str]:
    """The packages that are installed according to dpkg's status file, NAME:ARCHITECTURE to version."""
    return {
        name: _field(stanza, "Version")
        for name, stanza in stanzas(status).items()
        if _field(stanza, "Status").endswith(" installed")
    }


def taking_over(status: bytes) -> set[str]:
    """The packages NAME:ARCHITECTURE in dpkg's status that may have taken files from others; deb-control(5), Replaces."""
    return {name for name, stanza in stanzas(status).items() if _field(stanza, "Replaces")}


def with_records(own: bytes, given: Mapping[str, bytes]) -> bytes:
    """dpkg's status file ``own``, with the records ``given`` (NAME:ARCHITECTURE) in place of those that it has."""
    return b"".join((given.get(name) or stanza) + b"\n\n" for name, stanza in stanzas(own).items())


def records_of(status: bytes, names: Container[str]) -> Entries:
    """The records of the packages NAME:ARCHITECTURE in dpkg's status file."""
    return {name: stanza for name, stanza in stanzas(status).items() if name in names}


def stanzas(content: bytes) -> Entries:
    """The records of dpkg's status file, by NAME:ARCHITECTURE."""
    found: Entries = {}
    for stanza in content.split(b"\n\n"):
        stanza = stanza.strip(b"\n")
        if stanza:
            found[f"{_field(stanza, 'Package')}:{_field(stanza, 'Architecture')}"] = stanza
    return found


def _field(stanza: bytes, name: str) -> str:
    start = f"{name}: ".encode()
    for line in stanza.split(b"\n"):
        if line.startswith(start):
            return line[len(start) :].decode("utf-8", "replace").strip()
    return ""


def _version(stanza: bytes | None) -> str:
    return (_field(stanza, "Version") or "none") if stanza is not None else "none"


# -- accounts ------------------------------------------------------------------------------------------------


def users(old: bytes, host: bytes, own: bytes) -> MergedFile:
    """passwd(5). An account of the host is left out and reported if one of the container's own accounts has its uid.

    So is an account whose primary group is another one in the container; see ``merge``.
    """
    return _accounts("user", old, host, own, _never)


def groups(old: bytes, host: bytes, own: bytes) -> MergedFile:
    """group(5). Members that either side added or removed are added and removed."""
    return _accounts("group", old, host, own, _members)


def hashes(old: bytes, host: bytes, own: bytes) -> MergedFile:
    """shadow(5) and gshadow(5)."""
    result, conflicts = merge_entries(_lines(old), _lines(host), _lines(own), _never)
    return MergedFile(_text(result), tuple(f"password of {name}: changed here and on the host" for name in conflicts))


def _accounts(kind: str, old: bytes, host: bytes, own: bytes, settle: Settle) -> MergedFile:
    own_lines = _lines(own)
    result, conflicts = merge_entries(_lines(old), _lines(host), own_lines, settle)
    words = [f"{kind} {name}: changed here and on the host" for name in conflicts]
    ids = {_number(line): name for name, line in own_lines.items() if name in result}
    for name in [name for name, line in result.items() if _number(line) != _number(own_lines.get(name, b""))]:
        other = ids.get(_number(result[name]))
        if other is not None:
            words.append(f"{kind} {name}: {_keep_own(result, name, own_lines, f'the id that {other} has here')}")
    return MergedFile(_text(result), tuple(words))


def _keep_own(result: Entries, name: str, own: Entries, reason: str) -> str:
    """Keep an account of the host out of ``result``; returns that in words."""
    if name in own:
        result[name] = own[name]
        return f"changed on the host, to {reason}, and left as it is"
    del result[name]
    return f"new on the host with {reason}, and left out"


def _in_their_groups(merged: MergedFile, own: bytes, strangers: Callable[[Entries, Entries], dict[str, str]]) -> MergedFile:
    """passwd(5) without those users of the host whose primary group would be another one in the container."""
    result, own_lines = _lines(merged.content), _lines(own)
    words = [
        f"user {name}: {_keep_own(result, name, own_lines, reason)}"
        for name, reason in strangers(result, own_lines).items()
    ]
    return MergedFile(_text(result), (*merged.conflicts, *words)) if words else merged


def _strangers(host_groups: bytes, groups: bytes, users: Entries, known: Entries) -> dict[str, str]:
    """The users whose primary group has got another name than on the host since ``known``, and how that came about.

    Such a user would get the rights of one of the container's own groups.
    """
    theirs, ours = _names_of_ids(host_groups), _names_of_ids(groups)
    found = {}
    for name, line in users.items():
        gid = _number(line, _GROUP_OF_USER)
        there, here = theirs.get(gid, ()), ours.get(gid, ())
        if gid != _number(known.get(name, b""), _GROUP_OF_USER) and there != here and not set(there) & set(here):
            found[name] = f"the group id that {here[0]} has here" if here else f"the group {there[0]}, which is not here"
    return found


def _names_of_ids(groups: bytes) -> dict[bytes, tuple[str, ...]]:
    found: dict[bytes, list[str]] = {}
    for name, line in _lines(groups).items():
        found.setdefault(_number(line), []).append(name)
    return {number: tuple(names) for number, names in found.items()}


def _lines(content: bytes) -> Entries:
    return {
        line.partition(b":")[0].decode("utf-8", "surrogateescape"): line for line in content.split(b"\n") if line.strip()
    }


def _text(entries: Entries) -> bytes:
    return b"".join(line + b"\n" for line in entries.values())


_GROUP_OF_USER = 3
"""Which field of passwd(5) is the id of the primary group."""


def _number(line: bytes, field: int = 2) -> bytes:
    """The id; it is the third field of each."""
    parts = line.split(b":")
    return parts[field] if len(parts) > field else b""


def _members(old: bytes | None, host: bytes, own: bytes) -> bytes | None:
    """The container's line with the host's changes of members, if nothing else differs."""
    before = b"" if old is None else old
    head, _, mine = own.rpartition(b":")
    if host.rpartition(b":")[0] != head or (old is not None and before.rpartition(b":")[0] != head):
        return None
    known, theirs, ours = (_names(text) for text in (before.rpartition(b":")[2], host.rpartition(b":")[2], mine))
    kept = [name for name in ours if name in theirs or name not in known]
    return head + b":" + b",".join([*kept, *(name for name in theirs if name not in known and name not in kept)])


def _names(text: bytes) -> list[bytes]:
    return [name for name in text.split(b",") if name]


# -- all of them ---------------------------------------------------------------------------------------------

PASSWD = "/etc/passwd"
GROUP = "/etc/group"

STATUS = "/var/lib/dpkg/status"

MOST = {STATUS: 8 << 20, PASSWD: 1 << 20, GROUP: 1 << 20}
"""Bytes of the largest file of a container that is merged, by its path; others: 1 MiB. Debian's status has 1 MiB for
each 1,000 packages. A container's root writes these files, and the starts of others must not wait for them."""


MERGES: dict[str, Callable[[bytes, bytes, bytes], MergedFile]] = {
    STATUS: packages,
    PASSWD: users,
    GROUP: groups,
    "/etc/shadow": hashes,
    "/etc/gshadow": hashes,
}
"""The files that are merged, by their paths."""


def merge(old: Files, host: Files, own: Files) -> tuple[dict[str, bytes], list[str]]:
    """The files of a container's ``own`` that the host has changed, with their new content, and all conflicts.

    A file that is not in ``own`` is the host's.
    """
    merged = {
        path: each(old[path], host[path], own[path])
        for path, each in MERGES.items()
        if path in own and path in old and path in host and old[path] != host[path]
    }
    seen = {**host, **own, **{path: each.content for path, each in merged.items()}}
    strangers = functools.partial(_strangers, host.get(GROUP, b""), seen.get(GROUP, b""))
    told = []
    if PASSWD in merged:
        merged[PASSWD] = _in_their_groups(merged[PASSWD], own[PASSWD], strangers)
    elif PASSWD not in own:  # the container has no passwd of its own from which they could be left out
        found = strangers(_lines(host.get(PASSWD, b"")), _lines(old.get(PASSWD, b"")))
        told = [f"user {name}: new on the host with {reason}" for name, reason in found.items()]
    conflicts = [conflict for each in merged.values() for conflict in each.conflicts]
    return {path: each.content for path, each in merged.items()}, conflicts + told
