"""Lines as entries of the host's log: journald's native protocol, or syslog's RFC 5424. Pure.

systemd.io/JOURNAL_NATIVE_PROTOCOL: one datagram for each entry, ``NAME=value`` lines, and a value with line feeds by its
length. The names of fields are ours alone; what comes from inside a container is only ever the value of MESSAGE.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

LOST = "6d3a4bd20f1c4fd2a1fb9c0c9a2e51b7"
"""MESSAGE_ID of entries that say how many lines of a console were left out."""
_INFO, _WARNING = 6, 4
_DAEMON = 3
"""The facility of syslog(3) that system services use."""
_SD_ID = "lxcfleet@32473"
"""The id of our structured data. 32473 is the number for those who have none of their own; RFC 5612."""
_PARAMETERS = {
    "CONTAINER_NAME": "container", "CONTAINER_TAG": "tag", "LXCFLEET_GROUP": "group", "LXCFLEET_FLEET": "fleet",
    "LXCFLEET_RUN": "run", "LXCFLEET_EVENT": "event", "LXCFLEET_LOST": "lost", "MESSAGE_ID": "message",
    "CONTAINER_PARTIAL_MESSAGE": "partial",
}  # fmt: skip
"""The names of our fields as parameters of structured data."""
_LONGEST_APP_NAME = 48
"""RFC 5424, 6: APP-NAME."""


class LogForm(StrEnum):
    """How the host's log takes entries."""

    JOURNAL = "journal"
    SYSLOG = "syslog"

    @property
    def piece(self) -> int:
        """Bytes of a line that one entry takes: rsyslog takes 8 KiB by default, and Docker has 16 KiB."""
        return 7168 if self is LogForm.SYSLOG else 16384


Fields = Mapping[str, str]


class EntryHead:
    """The common part of all entries of one container, or of lxcfleet itself, made ready once."""

    def __init__(self, form: LogForm, fields: Fields, host: str) -> None:
        """``host``: the host's name, for syslog."""
        self._form, self._fields, self._host = form, dict(fields), host
        self._lead = b"" if form is LogForm.SYSLOG else b"".join(_field(key, value) for key, value in fields.items())
        self._plain = self._lead + b"PRIORITY=%d\nMESSAGE=" % _INFO

    def line(self, text: bytes, *, partial: bool) -> bytes:
        """The datagram for one line, which has been cleaned."""
        if self._form is LogForm.JOURNAL and not partial:
            return self._plain + text + b"\n"
        return self.entry(text, {"CONTAINER_PARTIAL_MESSAGE": "true"} if partial else {})

    def lost(self, count: int, why: str) -> bytes:
        """The datagram that tells of lines which were left out."""
        more = {"MESSAGE_ID": LOST, "LXCFLEET_LOST": str(count)}
        return self.entry(why.encode(), more, _WARNING)

    def entry(self, text: bytes, more: Fields, priority: int = _INFO) -> bytes:
        """The datagram for one entry with further fields."""
        if self._form is LogForm.JOURNAL:
            lead = self._lead + b"".join(_field(key, value) for key, value in more.items())
            return lead + b"PRIORITY=%d\n" % priority + _field("MESSAGE", text)
        return _syslog({**self._fields, **more}, self._host, text, priority)


def _field(name: str, value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def _syslog(fields: Fields, host: str, text: bytes, priority: int) -> bytes:
    parameters = "".join(
        f' {_PARAMETERS[key]}="{_QUOTED.sub(_escape, value)}"' for key, value in fields.items() if key in _PARAMETERS
    )
    name = _WORD.sub("_", fields["SYSLOG_IDENTIFIER"])[:_LONGEST_APP_NAME] or "-"
    time = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    pid = fields.get("OBJECT_PID", "-")
    head = f"<{_DAEMON * 8 + priority}>1 {time} {_WORD.sub('_', host) or '-'} {name} {pid} - [{_SD_ID}{parameters}] "
    return head.encode() + text


_WORD = re.compile(r"[^\x21-\x7e]")
_QUOTED = re.compile(r'[\\"\]\x00-\x1f\x7f]')


def _escape(found: re.Match[str]) -> str:
    """RFC 5424, 6.3.3, asks for a backslash before these three characters."""
    return "\\" + found[0] if found[0] in '\\"]' else " "
