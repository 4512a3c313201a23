"""Archives that are compressed by gzip, bzip2 or xz, with their check sums compared: tarfile compares none of gzip's."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Mapping
from typing import IO, cast

from lxcfleet.errors import InvalidInput

_FORMS: Mapping[bytes, Callable[[IO[bytes]], object]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open, b"]\0\0\x80": lzma.open,
}  # fmt: skip
"""How each form of compressed files begins, and what reads it."""
_LONGEST = max(map(len, _FORMS))
_PIECE = 1 << 20


def opened(source: IO[bytes]) -> IO[bytes]:
    """The content of a file that is compressed, or else the file itself."""
    begin = source.read(_LONGEST)
    source.seek(0)
    for mark, reader in _FORMS.items():
        if begin.startswith(mark):
            return cast(IO[bytes], reader(source))
    return source


def read_out(plain: IO[bytes], most: int) -> None:
    """Read to the end, as the check sum comes last. ``most``: bytes that may follow. Raises InvalidInput, and what the
    modules that decompress raise."""
    left = most
    while piece := plain.read(_PIECE):
        left -= len(piece)
        if left < 0:
            raise InvalidInput("this archive can't be read", why=f"more than {most >> 30} GiB follow its end")
