"""The fleet's events as messages of the journal: an id for each kind, and the text that `journalctl -x` adds. Values
only; `make docs` writes systemd's catalogue from them."""

from __future__ import annotations

import functools
import uuid
from typing import NamedTuple

from lxcfleet.logs.entries import LOST

_NAMESPACE = uuid.UUID("0b5f0b1c-7f0a-4f67-9f3c-5d3f0c6a1a77")


class Message(NamedTuple):
    """One kind of event."""

    subject: str
    """With names of fields between @s, as systemd's catalogue has them."""
    text: str
    warning: bool = False
    """Whether somebody should look at it."""


_OF = "@CONTAINER_NAME@"
MESSAGES = {
    "created": Message(f"Container {_OF} was created", "It has a directory below /var/lib/lxc now."),
    "started": Message(f"Container {_OF} was started", "A message says why, if nobody asked for it."),
    "stopped": Message(f"Container {_OF} was stopped", "Or it ended by itself: then the message says how."),
    "restarted": Message(f"Container {_OF} was restarted", "Its layers were mounted anew, so it runs what the host has now."),
    "frozen": Message(f"Container {_OF} was frozen", "Its processes get no processor time until it is unfrozen."),
    "unfrozen": Message(f"Container {_OF} was unfrozen", "Its processes go on."),
    "destroyed": Message(f"Container {_OF} was destroyed", "Its delta is gone. Volumes stay."),
    "exported": Message(f"Container {_OF} was exported", "All of it is in an archive; see backup.md."),
    "imported": Message(f"Container {_OF} was imported", "It was made of an archive; see backup.md."),
    "changed": Message(f"Container {_OF} was changed", "The message has the keys of its spec."),
    "resumed": Message(f"lxcfleetd went on with {_OF}", "An action had been broken off, as by a crash."),
    "backoff": Message(
        f"Container {_OF} failed, or did not start", "It is started after a pause; see `lxcfleet logs NAME`.", True
    ),
    "failed": Message(
        f"Container {_OF} does not start", "See `lxcfleet logs NAME`; with --lxc it has liblxc's reason.", True
    ),
    "killed": Message(f"Container {_OF} was killed", "It did not end in the time that it was given.", True),
    "oom": Message(
        f"The kernel killed processes of {_OF} for memory", "More is given by `lxcfleet set NAME memory=SIZE`.", True
    ),
    "waits": Message(f"Container {_OF} reboots again and again", "Its next start is later.", True),
    "conflict": Message(
        f"Records of {_OF} and of the host can't be merged", "lxcfleet info NAME shows the conflicts; see packages.md.", True
    ),
    "healthy": Message(f"Container {_OF} is healthy", "Its check succeeds."),
    "unhealthy": Message(f"Container {_OF} is unhealthy", "Its check fails; the message says how.", True),
    "address": Message(f"Container {_OF} has another address", "A DHCP server or a router gave it."),
    "no-address": Message(f"Container {_OF} has no address", "No DHCP server answers, or it took the address away.", True),
    "unread": Message(f"Container {_OF} could not be looked at", "Whether it runs old code is not known.", True),
    "volume": Message("A volume was created, changed or removed", "The message names it."),
    "cleaned": Message("The remains of a crash were removed", "The message has the directory."),
    "patched": Message("The host was patched", "The message names the containers that run old code."),
    "patch-waits": Message(
        "lxcfleetd waits with a patch of the host", "Packages are half-way, or no maintenance window is open."
    ),
    "rollout": Message("A rollout began, moved on, halted or ended", "lxcfleet rollout status shows all of it."),
    "reboot": Message("The host is rebooted", "lxcfleetd stops the fleet in order before that."),
    "reboot-failed": Message("The host did not go down", "Its containers are started again.", True),
    "renewed": Message("A part of lxcfleet was renewed", "It ran old code after a patch of the host."),
    "repaired": Message("The fleet's network was repaired", "The message tells what was missing or switched off.", True),
    "cut-off": Message("The host's bridge is gone", "Containers on it have no network.", True),
    "names-fail": Message("Containers can't look up names", "The message has the likely cause.", True),
    "names-work": Message("Containers can look up names again", "The fleet's name server answers."),
    "no-names": Message("The fleet's name server can't run", "It is tried again every five seconds.", True),
    "port-shared": Message("Two fleets publish a port of the host", "One of them gets nothing: change it in one.", True),
}
"""By the word that `lxcfleet events` shows."""
_OTHERS = {
    LOST: Message(
        f"Lines of {_OF} were left out",
        "It printed more than logs.rate and logs.burst in /etc/lxcfleet/lxcfleet.yaml allow, or its console's file was\n"
        "overwritten before it was read. @LXCFLEET_LOST@ lines were counted.", True,
    ),
}  # fmt: skip
"""By id."""


@functools.cache
def message_id(what: str) -> str:
    """The MESSAGE_ID of a kind of event, for ever the same; also of one that the table does not have."""
    return uuid.uuid5(_NAMESPACE, what).hex


def is_warning(what: str) -> bool:
    """Whether somebody should look at events of this kind."""
    return what in MESSAGES and MESSAGES[what].warning


def catalogue() -> str:
    """The file for /usr/lib/systemd/catalog; systemd.io/CATALOG."""
    entries = {**{message_id(what): each for what, each in MESSAGES.items()}, **_OTHERS}
    parts = ["# Messages of lxcfleet. Written by `make docs` from lxcfleet/logs/messages.py.\n"]
    for number, message in entries.items():
        head = f"-- {number}\nSubject: {message.subject}\nDefined-By: lxcfleet\nDocumentation: man:lxcfleet(1)\n"
        parts.append(f"{head}\n{message.text}\n")
    return "\n".join(parts)
