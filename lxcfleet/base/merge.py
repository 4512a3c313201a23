"""Three-way merges of the files in which the host's packages and accounts and a container's own stand side by side. Pure.

Each entry is taken from the side that changed it since both were the same. Where both did, and differently, the
container's stays and the conflict is told: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Merged:
    """The outcome for one file; ``conflicts`` in words, one for each entry that both sides changed."""

    content: bytes
    conflicts: tuple[str, ...] = ()


Entries = dict[str, bytes]
"""What a file consists of, by what names each part, in order."""

Settle = Callable[[bytes | None, bytes, bytes], bytes | None]
"""What becomes of an entry that both sides changed: of old, host's and own; None if that is a conflict."""


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


def packages(old: bytes, host: bytes, own: bytes) -> Merged:
    """dpkg's status file, package by package (deb822; dpkg-query(1))."""
    old_entries, host_entries, own_entries = _stanzas(old), _stanzas(host), _stanzas(own)
    result, conflicts = merge_entries(old_entries, host_entries, own_entries, _never)
    words = [
        f"package {name}: {_version(own_entries.get(name))} here, {_version(host_entries.get(name))} on the host"
        for name in conflicts
    ]
    return Merged(b"".join(stanza + b"\n\n" for stanza in result.values()), tuple(words))


def _stanzas(content: bytes) -> Entries:
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


def users(old: bytes, host: bytes, own: bytes) -> Merged:
    """passwd(5). An account of the host's whose uid one of the container's own has, is left out and told."""
    return _accounts("user", old, host, own, _never)


def groups(old: bytes, host: bytes, own: bytes) -> Merged:
    """group(5). Members that either side added or removed are added and removed."""
    return _accounts("group", old, host, own, _members)


def hashes(old: bytes, host: bytes, own: bytes) -> Merged:
    """shadow(5) and gshadow(5)."""
    result, conflicts = merge_entries(_lines(old), _lines(host), _lines(own), _never)
    return Merged(_text(result), tuple(f"password of {name}: changed here and on the host" for name in conflicts))


def _accounts(kind: str, old: bytes, host: bytes, own: bytes, settle: Settle) -> Merged:
    own_lines = _lines(own)
    result, conflicts = merge_entries(_lines(old), _lines(host), own_lines, settle)
    words = [f"{kind} {name}: changed here and on the host" for name in conflicts]
    ids = {_number(line): name for name, line in own_lines.items() if name in result}
    for name in [name for name in result if name not in own_lines]:
        other = ids.get(_number(result[name]))
        if other is not None:
            del result[name]
            words.append(f"{kind} {name}: new on the host with the id that {other} has here, and left out")
    return Merged(_text(result), tuple(words))


def _lines(content: bytes) -> Entries:
    return {
        line.partition(b":")[0].decode("utf-8", "surrogateescape"): line for line in content.split(b"\n") if line.strip()
    }


def _text(entries: Entries) -> bytes:
    return b"".join(line + b"\n" for line in entries.values())


def _number(line: bytes) -> bytes:
    """The id, the third field."""
    parts = line.split(b":")
    return parts[2] if len(parts) > 2 else b""


def _members(old: bytes | None, host: bytes, own: bytes) -> bytes | None:
    """The container's line with the host's changes of members, where nothing else differs."""
    before = b"" if old is None else old
    head, _, mine = own.rpartition(b":")
    if host.rpartition(b":")[0] != head or (old is not None and before.rpartition(b":")[0] != head):
        return None
    known, theirs, ours = (_names(text) for text in (before.rpartition(b":")[2], host.rpartition(b":")[2], mine))
    kept = [name for name in ours if name in theirs or name not in known]
    return head + b":" + b",".join([*kept, *(name for name in theirs if name not in known and name not in kept)])


def _names(text: bytes) -> list[bytes]:
    return [name for name in text.split(b",") if name]


MERGES: dict[str, Callable[[bytes, bytes, bytes], Merged]] = {
    "/var/lib/dpkg/status": packages,
    "/etc/passwd": users,
    "/etc/group": groups,
    "/etc/shadow": hashes,
    "/etc/gshadow": hashes,
}
"""The files that are merged, by their paths."""
