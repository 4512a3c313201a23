"""The rules for what a clone must not see: the built-in ones. ``spec.files.mask_rules`` reads the operator's.

A rule covers a path and everything below it, up to the next rule further down. Whatever no rule hides goes through one
more check, the sweep: a clone does not see what other users of the host can't read.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable

from lxcfleet.base.tree import Tree, join, parent
from lxcfleet.host.kernel.mounts import CANDIDATES
from lxcfleet.paths import Paths
from lxcfleet.spec.files.mask_rules import MaskRule, RuleKind

FORMAT = 4
"""To be raised when the same rules come to mean another mask."""

_TOP = "bin sbin lib lib32 lib64 libx32 usr etc opt"
"""Directories of the Filesystem Hierarchy Standard that hold programs and their settings. Everything else in / belongs to
the host alone, or is in _EMPTY."""

_TMPFILES = "home journal-nocow provision systemd-nologin systemd-pstore x11"

_EMPTY = (
    "/home /root /srv /mnt /media /boot /tmp /run /dev /proc /sys /lost+found",
    "/var/tmp /var/log /var/cache /var/spool /var/backups /var/mail /var/local /var/opt /var/lib",
    # Networks, keys and jobs of the host.
    "/etc/network /etc/netplan /etc/NetworkManager/system-connections /etc/iptables /etc/wireguard /etc/ppp",
    "/etc/cron.d /etc/cron.hourly /etc/cron.daily /etc/cron.weekly /etc/cron.monthly /etc/cron.yearly",
    # Every directory that systemd and its predecessor start things from; units.py puts the allow-listed units back.
    "/etc/systemd /usr/local/lib/systemd /usr/local/share/systemd /usr/share/systemd/user",
    "/usr/lib/systemd/system /usr/lib/systemd/user /usr/lib/systemd/system-generators",
    "/usr/lib/systemd/user-generators /usr/lib/systemd/system-environment-generators",
    "/usr/lib/systemd/user-environment-generators",
    "/usr/lib/systemd/system-shutdown /usr/lib/systemd/system-sleep",
    "/etc/init.d /etc/rc0.d /etc/rc1.d /etc/rc2.d /etc/rc3.d /etc/rc4.d /etc/rc5.d /etc/rc6.d /etc/rcS.d",
    "/etc/tmpfiles.d /usr/local/lib/tmpfiles.d",
    "/usr/share/dbus-1/system-services /usr/local/share/dbus-1/system-services",
    # The host's clusters of databases: half of their files are private, and a container makes clusters of its own.
    "/etc/postgresql",
    "/etc/subuid /etc/subgid /etc/subuid- /etc/subgid-",
)
_HIDE = (
    "/etc/hostname /etc/mailname /etc/crontab /etc/anacrontab /etc/crypttab /etc/rc.local /etc/nftables.conf",
    "/var/lib/lxc /var/lib/lxcfleet /etc/lxcfleet",
    "/etc/exports /etc/lxc /etc/docker /etc/containers /etc/libvirt /etc/kubernetes",
    "/etc/ssh/ssh_host_*",
    # Hooks that, after each run of apt in the clone, would act on the host or tell a daemon of the host.
    "/etc/apt/apt.conf.d/20auto-upgrades /etc/apt/apt.conf.d/50unattended-upgrades",
    "/etc/apt/apt.conf.d/*periodic /etc/apt/apt.conf.d/*needrestart* /etc/apt/apt.conf.d/*lxcfleet*",
    "/etc/apt/apt.conf.d/*packagekit* /etc/apt/apt.conf.d/*appstream* /etc/apt/apt.conf.d/*listchanges*",
    "/etc/apt/apt.conf.d/*etckeeper* /etc/apt/apt.conf.d/*snapper* /etc/apt/apt.conf.d/*timeshift*",
    "/etc/dpkg/dpkg.cfg.d/*needrestart* /etc/dpkg/dpkg.cfg.d/*lxcfleet*",
    # Directories that nothing in a clone uses, but that each delta would get at boot. And /run/nologin, which only a unit
    # removes that clones do not start.
    *(f"/usr/lib/tmpfiles.d/{name}.conf" for name in _TMPFILES.split()),
    # This file forbids packages to start services when they are installed.
    "/usr/sbin/policy-rc.d",
)
_SHOW_STATE = (
    # The package manager's records: through them the host's packages are the clone's.
    "dpkg ucf pam shells.state",
    # Public indexes, without which the first `apt install` costs each delta some 50 MiB.
    "apt/lists",
    # Files that packages generate from their own files, for programs to read. They are nobody's state.
    "aspell dictionaries-common emacsen-common gems ghc ghostscript hunspell ispell mecab python sgml-base",
    "texmf vim xml-core",
)


def built_in(paths: Paths) -> tuple[MaskRule, ...]:
    """The rules that always hold. Paths may end in a pattern (``*`` and ``?`` in the last component)."""
    own = [str(p) for p in (paths.lxc, paths.run, paths.etc)]
    return (
        MaskRule("/", RuleKind.EMPTY, "not a directory of the FHS"),
        *(MaskRule(f"/{name}", RuleKind.SHOW, "programs and settings") for name in _TOP.split()),
        MaskRule("/var", RuleKind.EMPTY, "not a directory of the FHS"),
        *(MaskRule(f"/var/{name}", RuleKind.SHOW, "usually a link") for name in ("lock", "run")),
        *(MaskRule(path, RuleKind.EMPTY, "the host's own") for path in " ".join(_EMPTY).split()),
        *(MaskRule(path, RuleKind.HIDE, "the host's own") for path in " ".join(_HIDE).split()),
        *(MaskRule(f"/var/lib/{name}", RuleKind.SHOW, "needed state") for name in " ".join(_SHOW_STATE).split()),
        *(MaskRule(path, RuleKind.HIDE, "lxcfleet's and LXC's own") for path in own),
        *(MaskRule(join(point, paths.sheets_elsewhere), RuleKind.HIDE, "frozen bases") for point in ("/", *CANDIDATES)),
    )


def fingerprint(paths: Paths) -> str:
    """A text that changes whenever the built-in rules do."""
    text = f"{FORMAT} {built_in(paths)!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def expand(rules: Iterable[MaskRule], tree: Tree) -> list[MaskRule]:
    """The rules with patterns replaced by what matches them in the base."""
    result = []
    for rule in rules:
        directory, name = parent(rule.path), rule.path.rpartition("/")[2]
        if rule.operator or not any(c in name for c in "*?"):
            result.append(rule)
            continue
        for found in fnmatch.filter(tree.names(tree.real(directory, last=True)), name):
            result.append(MaskRule(join(directory, found), rule.kind, rule.why))
    return result
