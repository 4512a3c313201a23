"""Small files, read with as few steps as there can be: each start and each end of a container reads dozens.

``open`` makes a buffer and a decoder for each file, which takes several times as long as the kernel does.
"""

from __future__ import annotations

import os

_MOST = 1 << 16


def content(path: str | os.PathLike[str]) -> bytes:
    """The content of a plain file, or of one of the kernel's that tells a single record, such as /proc/PID/stat. Raises
    OSError. A named pipe in its place is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.read(descriptor, _MOST)
        if len(found) == _MOST:  # of a small one, nothing is left
            while more := os.read(descriptor, _MOST):
                found += more
        return found
    finally:
        os.close(descriptor)


def listed(name: str, directory: int) -> bytes:
    """The content of a file of the kernel's in an open directory that tells any number of records. Raises OSError."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        text = os.read(descriptor, _MOST)
        if len(text) < _ONE_RECORD:
            return text
        while more := os.read(descriptor, _MOST):
            text += more
        return text
    finally:
        os.close(descriptor)


_ONE_RECORD = 1024
"""The kernel gives at least a page of records at once, if there are so many (fs/seq_file.c), but for the part that the next
record would not fit into: less than this is all."""
