"""The needs of some services besides their units, each with the reason. A table: a further need is a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lxcfleet.base.services.units import ADMIN, VENDOR
from lxcfleet.host.kernel.entries import Entry, File, Owner

_READABLE = Owner(0o644)

KEYS = "lxcfleet-ssh-host-keys.service"
_KEYS = b"""\
[Unit]
Description=Host keys of this container's own for OpenSSH
Documentation=man:ssh-keygen(1)
Before=ssh.service ssh.socket

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A
"""
_WITH_KEYS = f"""\
[Unit]
Wants={KEYS}
After={KEYS}
""".encode()

_CRONTAB = b"""\
# The usual jobs of this container, in place of the host's; crontab(5).
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin

17 *	* * *	root	cd / && run-parts --report /etc/cron.hourly
25 6	* * *	root	test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }
47 6	* * 7	root	test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.weekly; }
52 6	1 * *	root	test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.monthly; }
"""
_ANACRONTAB = b"""\
# The usual jobs of this container, in place of the host's; anacrontab(5).
SHELL=/bin/sh
HOME=/root

1	5	cron.daily	run-parts --report /etc/cron.daily
7	10	cron.weekly	run-parts --report /etc/cron.weekly
@monthly	15	cron.monthly	run-parts --report /etc/cron.monthly
"""

_DATABASE = b"""\
[Service]
ExecStartPre=/bin/sh -c 'test -e /var/lib/mysql/mysql/global_priv.frm || exec mariadb-install-db --user=mysql >/dev/null'
"""
_CLIENT = b"""\
# Root of this container is root of its database, in place of the host's file.
[client]
host     = localhost
user     = root
[mysql_upgrade]
host     = localhost
user     = root
"""


class ServiceNeed(NamedTuple):
    """The entries that a service needs besides its unit."""

    why: str
    entries: Mapping[str, Entry]


def _file(content: bytes, why: str) -> File:
    return File(content, _READABLE, why)


def _ssh() -> ServiceNeed:
    why = "the host's keys are hidden, and each container has to have its own"
    drop_ins = (f"{VENDOR}/{unit}.d/lxcfleet-host-keys.conf" for unit in ("ssh.service", "ssh.socket"))
    return ServiceNeed(why, {f"{VENDOR}/{KEYS}": _file(_KEYS, why), **{path: _file(_WITH_KEYS, why) for path in drop_ins}})


def _crontab(path: str, content: bytes) -> ServiceNeed:
    why = f"the host's {path} is hidden: its jobs are the host's"
    return ServiceNeed(why, {path: _file(content, why)})


def _mariadb() -> ServiceNeed:
    why = "the directory of its data is empty, and the host's settings of its clients hidden: the package makes both, once"
    drop_in = f"{ADMIN}/mariadb.service.d/lxcfleet-first-start.conf"
    return ServiceNeed(why, {drop_in: _file(_DATABASE, why), "/etc/mysql/debian.cnf": File(_CLIENT, Owner(0o600), why)})


NEEDS: Mapping[str, ServiceNeed] = {
    "ssh.service": _ssh(),
    "ssh.socket": _ssh(),
    "cron.service": _crontab("/etc/crontab", _CRONTAB),
    "anacron.service": _crontab("/etc/anacrontab", _ANACRONTAB),
    "mariadb.service": _mariadb(),
}
"""By the name of the unit."""
