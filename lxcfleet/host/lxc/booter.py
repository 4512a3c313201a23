"""The booter: the process whose children start containers, and so become their monitors.

liblxc turns the process that starts a container into its monitor, which stays as long as the container. Each page
that the booter or its child writes after the fork is memory that every container keeps. With all of the launcher's
modules a monitor would have 1.5 MiB of its own; with this small script it has 0.7 MiB. So the booter is a
script of its own that imports next to nothing (run with python -I -S), and does nothing but boot.

One request is one datagram: the container's name and, unless its configuration has them, the words of its command, with
a NUL between each. Two descriptors come along: a reply socket, and the mount namespace that holds its root. The answer is
the pid of its process 1, or ``null``.
"""

import _signal
import _socket
import gc
import posix
import sys

sys.path.append("/usr/lib/python3/dist-packages")  # -S leaves this out: the place of python3-lxc in Debian

import _lxc

_CLONE_NEWNS = 0x00020000
_SECONDS = 120
"""The longest time, in seconds, that a boot may take: liblxc can wait for ever on a monitor that hangs."""
_OURS = (_signal.SIGCHLD, _signal.SIGINT, _signal.SIGPIPE, _signal.SIGXFSZ)
"""Signals that Python or this process does something with. With those that the daemon was started to ignore, as `nohup` and a
shell's `&` have it, they get their default action back in containers: a shell can't trap a signal that is ignored as it
starts, and few programs set handlers for all of them."""
_REQUEST = 65536
_ANCILLARY = 64

if sys.version_info >= (3, 12):
    setns = posix.setns
else:
    import ctypes  # imported late: it has ten mappings, which each fork would copy

    setns = ctypes.CDLL(None).setns


def main() -> None:
    """Serve requests from descriptor ``argv[1]`` until the daemon closes it; containers are below ``argv[2]``.

    ``argv[3]``: the limits of open files that containers get, if this process and so the monitors have higher ones; see
    strangers.
    """
    requests = _socket.socket(fileno=int(sys.argv[1]))
    lxc_path, open_files = sys.argv[2:4]
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # the kernel reaps
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    posix.umask(0o022)  # what containers inherit is what any program has, whatever the daemon has
    posix.setpriority(posix.PRIO_PROCESS, 0, 0)
    gc.collect()
    gc.disable()
    gc.freeze()
    while True:
        message, ancillary, _, _ = requests.recvmsg(_REQUEST, _ANCILLARY, _socket.MSG_CMSG_CLOEXEC)
        if not message:
            return
        reply, namespace = memoryview(ancillary[0][2]).cast("i")
        try:
            child = posix.fork()
        except OSError as error:  # the host has no room for another process; the daemon gets no answer and tries again
            sys.stderr.write(f"lxcfleet.booter: fork: {error.strerror}\n")
            child = -1
        if child == 0:
            for number in _signal.valid_signals():
                if number in _OURS or _signal.getsignal(number) == _signal.SIG_IGN:
                    _signal.signal(number, _signal.SIG_DFL)
            _signal.alarm(_SECONDS)
            name, *command = message.decode().split("\0")
            boot(name, command, lxc_path, open_files, namespace, reply)
        posix.close(reply)
        posix.close(namespace)


def boot(name: str, command: list[str], lxc_path: str, open_files: str, namespace: int, reply: int) -> None:
    """Start the container, answer, and exit."""
    try:
        answer = b"null"
        if not setns(namespace, _CLONE_NEWNS):
            posix.close(namespace)
            container = _lxc.Container(name, lxc_path)
            # The hook that mounts the layers is only for plain lxc-start.
            container.clear_config_item("lxc.hook.pre-start")
            container.clear_config_item("lxc.monitor.unshare")
            if open_files:
                container.set_config_item("lxc.prlimit.nofile", open_files)
            words = {"cmd": tuple(command)} if command else {}
            if container.start(useinit=False, daemonize=True, close_fds=True, **words):
                answer = b"%d" % container.init_pid
        posix.write(reply, answer)
    finally:
        posix._exit(0)


if __name__ == "__main__":
    main()
