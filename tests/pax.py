"""Writes archives as GNU tar does for `lxcfleet export`, and such as it never would."""

from __future__ import annotations

from collections.abc import Mapping

BLOCK = 512
END = bytes(2 * BLOCK)


def header(name: bytes, kind: bytes = b"0", size: int = 0, **more: bytes) -> bytes:
    """One header. ``more``: fields as they stand there."""
    fields = {
        "name": name[:100].ljust(100, b"\0"),
        "mode": b"0000644\0",
        "uid": b"0000000\0",
        "gid": b"0000000\0",
        "size": b"%011o\0" % size,
        "mtime": b"00000000000\0",
        "sum": b" " * 8,
        "kind": kind,
        "target": b"",
        "magic": b"ustar\x0000",
        "names": b"",
        "major": b"0000000\0",
        "minor": b"0000000\0",
        "prefix": b"",
    }
    fields.update(more)
    lengths = {"target": 100, "magic": 8, "names": 64, "prefix": 167}
    made = b"".join(value.ljust(lengths.get(key, len(value)), b"\0") for key, value in fields.items())
    assert len(made) == BLOCK, len(made)
    return made[:148] + b"%06o\0 " % sum(made) + made[156:] if fields["sum"] == b" " * 8 else made


def records(values: Mapping[bytes, bytes]) -> bytes:
    """The data of an extended header."""
    found = b""
    for key, value in values.items():
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + 1
        while len(b"%d" % length) + len(rest) != length:
            length = len(b"%d" % length) + len(rest)
        found += b"%d" % length + rest
    return found


def padded(data: bytes) -> bytes:
    """Data as it stands in an archive."""
    return data + bytes(-len(data) % BLOCK)


def member(
    name: bytes, kind: bytes = b"0", data: bytes = b"", attributes: Mapping[bytes, bytes] | None = None, **more: bytes
) -> bytes:
    """One member: an extended header if there are attributes or the name is long, its header, and its data."""
    said = dict(attributes or {})
    if len(name) > 100:
        said[b"path"] = name
    text = records(said)
    before = header(b"PaxHeaders/x", b"x", len(text)) + padded(text) if said else b""
    return before + header(name, kind, len(data), **more) + padded(data)


def sparse(name: bytes, size: int, pieces: list[tuple[int, bytes]], numbers: str | None = None, **more: bytes) -> bytes:
    """A file with holes, format 1.0. ``numbers``: the list of its parts as it stands there."""
    text = numbers
    if text is None:
        text = f"{len(pieces)}\n" + "".join(f"{offset}\n{len(data)}\n" for offset, data in pieces)
    said = {
        b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": name,
        b"GNU.sparse.realsize": b"%d" % size,
    }  # fmt: skip
    stored = padded(text.encode()) + b"".join(data for _, data in pieces)
    return member(b"GNUSparseFile.0/x", data=stored, attributes=said, **more)
