"""The daemon's two sockets: the API's, and the attach socket, where clients hand over their file descriptors."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from lxcfleet.daemon import systemd
from lxcfleet.daemon.http.access import Access
from lxcfleet.host.process import peer
from lxcfleet.paths import Paths

log = logging.getLogger(__name__)


def listeners(paths: Paths, access: Access) -> tuple[socket.socket, socket.socket]:
    """The API's socket and the attach socket: the sockets that systemd passed, or new ones."""
    passed = {each.type: each for each in systemd.sockets()}
    api = passed.get(socket.SOCK_STREAM) or _listen(paths.socket, socket.SOCK_STREAM)
    attach = passed.get(socket.SOCK_SEQPACKET) or _listen(paths.attach_socket, socket.SOCK_SEQPACKET)
    for path, more in ((paths.socket, access.readers), (paths.attach_socket, None)):
        try:
            peer.admit(path, access.full, more)
        except OSError as error:
            log.error("%s: not for the groups that may use it: %s", path, error)
    return api, attach


def _listen(path: Path, kind: socket.SocketKind) -> socket.socket:
    """A listening socket that root and the group lxcfleet may use."""
    listener = socket.socket(socket.AF_UNIX, kind)
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(128)
    return listener
