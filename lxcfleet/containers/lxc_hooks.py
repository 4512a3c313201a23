"""The shell lines that liblxc runs when a container ends. Pure.

liblxc puts ``exec`` before such a line, and gives it to a shell (conf.c, run_buffer).
"""

from __future__ import annotations

import shlex
from pathlib import Path


def reboot_hook(pending: Path) -> str:
    """A line that notes a reboot in ``pending`` and turns it into a stop: liblxc stops if the post-stop hook fails.

    LXC_TARGET is ``reboot`` or ``stop``; lxc.container.conf(5), "CONTAINER HOOKS ENVIRONMENT VARIABLES". The ``exec`` is why
    there is a second shell.
    """
    script = f'[ "$LXC_TARGET" != reboot ] || {{ echo start >{shlex.quote(str(pending))}; exit 1; }}'
    return f"/bin/sh -c {shlex.quote(script)}"


def stop_hook(stopping: Path, pending: Path | None = None) -> str:
    """A line that copies the command line of each lxc-stop of root's to the end of ``stopping``; with ``pending`` only while
    that says that a start is not noted as done: a daemon that was killed during it would have the next one make it good.

    liblxc runs this hook before it tells anybody that the container has stopped (start.c, lxc_end), so who waits for that is
    still there, also if no daemon is. An lxc-stop that waits has a connection to the monitor, the parent of this shell (see
    host.lxc.stopping). So the host's processes, which may be thousands, are only looked at if the monitor has another socket
    beside the one at which it listens. The shell's own means do it, as each stop waits for it. ``exec`` with nothing but a
    redirection starts no program, and what follows is done by the same shell. The errors are those of processes that end
    meanwhile.
    """
    count = 'for f in /proc/$PPID/fd/*; do [ -S "$f" ] && n=x$n; [ "$n" = xx ] && break; done'
    look = 'read -r c <"$p/comm" && [ "$c" = lxc-stop ] && [ -O "$p" ]'
    keep = f'{{ /bin/cat "$p/cmdline"; echo; }} >>{shlex.quote(str(stopping))}'
    begun = "" if pending is None else f'read -r w <{shlex.quote(str(pending))} && [ "$w" = start ] || exit 0; '
    return f'2>/dev/null; {begun}n=; {count}; [ "$n" = x ] || for p in /proc/[0-9]*; do {look} && {keep}; done; exit 0'
