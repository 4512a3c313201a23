"""The socket on which the host's log takes entries, as datagrams: journald's, or syslog's."""

from __future__ import annotations

import socket
import time

RETRY_SECONDS = 1.0
"""Seconds between two tries to reach a log that is not there."""


class LogSocket:
    """Sends without ever waiting: what can't be sent now is the caller's to keep."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._again = 0.0
        self.trouble = ""
        """Why nothing can be sent; empty: it can, or could as soon as there is room."""

    def send(self, entry: bytes) -> bool:
        """Send one entry; returns whether it was sent."""
        if self._socket is None and not self._connect():
            return False
        assert self._socket is not None
        try:
            self._socket.send(entry)
        except BlockingIOError:
            return False
        except OSError as error:  # the log was started anew, with another socket
            self._give_up(error)
            return False
        return True

    @property
    def waiting(self) -> int | None:
        """The descriptor to poll for room; None: the log is not there, and is to be tried again after a while."""
        return None if self._socket is None else self._socket.fileno()

    def close(self) -> None:
        """Nothing is sent any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> bool:
        if time.monotonic() < self._again:
            return False
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        connection.setblocking(False)
        try:
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            self._give_up(error)
            return False
        self._socket, self.trouble = connection, ""
        return True

    def _give_up(self, error: OSError) -> None:
        self.close()
        self.trouble = f"{self._path}: {error.strerror or error}"
        self._again = time.monotonic() + RETRY_SECONDS
