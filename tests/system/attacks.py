"""Attacks that root in a container tries: see test_confinement.

A test sends the source of one function into a container, so each function imports all that it uses. It prints what it got.
"""

from __future__ import annotations


def make_device(major: int, minor: int) -> None:
    """Make a device node of the host's disk, on the root and on a file system of the container's own. Read and mount it."""
    import ctypes
    import os
    import stat

    libc = ctypes.CDLL(None, use_errno=True)
    os.makedirs("/tmp/own", exist_ok=True)
    libc.mount(b"own", b"/tmp/own", b"tmpfs", 0, None)
    for place in ("/dev/disk", "/disk", "/tmp/own/disk"):
        try:
            os.mknod(place, stat.S_IFBLK | 0o600, os.makedev(major, minor))
            with open(place, "rb") as disk:
                print(f"READ {place}: {len(disk.read(512))} bytes")
        except OSError as error:
            print(f"{place}: {error.strerror}")
        for kind in (b"ext4", b"btrfs", b"xfs"):
            if libc.mount(place.encode(), b"/mnt", kind, 0, None) == 0:
                print(f"MOUNTED {place}")


def system_calls() -> None:
    """Calls that reach the host's kernel or the whole of its file system; the numbers are x86_64's and aarch64's."""
    import ctypes
    import platform

    x86 = {
        "kexec_load": 246, "init_module": 175, "finit_module": 313, "delete_module": 176, "open_by_handle_at": 304,
        "add_key": 248, "keyctl": 250, "bpf": 321, "io_uring_setup": 425, "perf_event_open": 298, "userfaultfd": 323,
        "syslog": 103, "swapon": 167, "acct": 163, "settimeofday": 164, "clock_settime": 227, "quotactl": 179,
        "ioperm": 173, "iopl": 172, "kexec_file_load": 320,
    }  # fmt: skip
    arm = {
        "kexec_load": 104, "init_module": 105, "finit_module": 273, "delete_module": 106, "open_by_handle_at": 265,
        "add_key": 217, "keyctl": 219, "bpf": 280, "io_uring_setup": 425, "perf_event_open": 241, "userfaultfd": 282,
        "syslog": 116, "swapon": 224, "acct": 89, "settimeofday": 170, "clock_settime": 112, "quotactl": 60,
        "kexec_file_load": 294,
    }  # fmt: skip
    libc = ctypes.CDLL(None, use_errno=True)
    for name, number in (x86 if platform.machine() == "x86_64" else arm).items():
        # With these arguments, a call that is let in succeeds or fails with another error than EPERM, or ENOSYS for keys.
        result = libc.syscall(number, 0, 0, 0, 0, 0)
        print(f"{name}: {'DONE' if result >= 0 else ctypes.get_errno()}")


def file_handles() -> None:
    """The "shocker": open an inode of the host's file system by its number, whatever mask and delta hide."""
    import ctypes
    import os
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    here = os.open("/", os.O_RDONLY)
    for inode in (2, 1, 128):
        handle = struct.pack("<IiQ", 8, 1, inode)
        result = libc.open_by_handle_at(here, handle, os.O_RDONLY)
        print("OPENED" if result >= 0 else os.strerror(ctypes.get_errno()))


def find(mark: str) -> None:
    """Look for a file of that name everywhere that can be reached, also through mounts of the container's own."""
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    tops = ["/", "/proc/1/root/", "/proc/self/root/"]
    os.makedirs("/tmp/over", exist_ok=True)
    for number, lower in enumerate(("/", "/var", "/var/lib", "/run")):
        os.makedirs(f"/tmp/over/{number}", exist_ok=True)
        target = f"/tmp/over/{number}".encode()
        if libc.mount(b"x", target, b"overlay", 0, f"lowerdir={lower}:/usr".encode()) == 0:
            tops.append(target.decode())
        if libc.mount(lower.encode(), target, None, 0x1000, None) == 0:  # MS_BIND
            tops.append(target.decode())
    for process in os.listdir("/proc"):
        if process.isdigit():
            tops.append(f"/proc/{process}/cwd/")
            tops += [f"/proc/{process}/root/var/lib/", f"/proc/{process}/fd/"]
    skip = {"proc", "sys"}
    for top in tops:
        for directory, names, files in os.walk(top):
            names[:] = [name for name in names if not (directory == top and name in skip)]
            for name in (*names, *files):
                if name == mark:
                    print(f"FOUND {directory}/{name}")


def uncover(paths: list[str]) -> None:
    """Read files that the mask hides: remove, replace and rename them, and undo whiteouts and opaque marks."""
    import contextlib
    import ctypes
    import os
    import shutil
    import stat

    libc = ctypes.CDLL(None, use_errno=True)

    def look(when: str) -> None:
        for path in paths:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                print(f"READ {path} {when}: {file.read()[:40]!r}")

    look("first")
    for path in paths:
        above = os.path.dirname(path)
        for what in (path, above):
            for attribute in ("trusted.overlay.opaque", "user.overlay.opaque", "trusted.overlay.whiteout"):
                with contextlib.suppress(OSError):
                    os.removexattr(what, attribute)
                with contextlib.suppress(OSError):
                    os.setxattr(what, attribute, b"n")
        with contextlib.suppress(OSError):
            os.unlink(path)
        look("after unlink")
        with contextlib.suppress(OSError):
            os.mknod(path, stat.S_IFCHR, 0)
            os.unlink(path)
        look("after a whiteout of its own")
        with contextlib.suppress(OSError):
            os.link(above + "/.", path)
        with contextlib.suppress(OSError):
            os.rename(path, path + ".moved")
            os.rename(path + ".moved", path)
        look("after rename")
        with contextlib.suppress(OSError):
            os.rename(above, above + ".moved")
            look("after its directory moved")
            os.rename(above + ".moved", above)
        with contextlib.suppress(OSError):
            shutil.rmtree(above)
        look("after its directory was removed")
        with contextlib.suppress(OSError):
            os.mkdir(above)
        look("after its directory was made")
        os.sync()
        libc.mount(None, b"/", None, 0x20, None)  # MS_REMOUNT
        look("after a remount")


def attributes() -> None:
    """Set attributes that steer the overlay on files of the container's own, so that they lead somewhere else."""
    import os

    os.makedirs("/own", exist_ok=True)
    for name, value in (
        ("trusted.overlay.redirect", b"/root"), ("trusted.overlay.opaque", b"y"), ("trusted.overlay.metacopy", b""),
        ("trusted.overlay.origin", b"\0" * 29), ("trusted.any", b"1"), ("security.capability", b"\0" * 20),
    ):  # fmt: skip
        try:
            os.setxattr("/own", name, value)
            print(f"SET {name}")
        except OSError as error:
            print(f"{name}: {error.strerror}")


def change_base(path: str) -> None:
    """Change a file of the host in every possible way."""
    import contextlib
    import ctypes
    import fcntl
    import mmap
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    # Keep a descriptor from before anything is copied up: it is the host's own inode.
    before = os.open(path, os.O_RDONLY)
    with contextlib.suppress(OSError):
        fcntl.ioctl(before, 0x40086602, (0x10).to_bytes(8, "little"))  # FS_IOC_SETFLAGS, immutable
    for reopened in (f"/proc/self/fd/{before}", f"/dev/fd/{before}"):
        with contextlib.suppress(OSError):
            descriptor = os.open(reopened, os.O_WRONLY | os.O_TRUNC)
            os.write(descriptor, b"reopened")
    with contextlib.suppress(OSError):
        os.ftruncate(before, 0)
    with contextlib.suppress(OSError):
        os.fchmod(before, 0o777)
    with contextlib.suppress(OSError):
        os.fchown(before, 0, 0)
    with contextlib.suppress(OSError):
        os.utime(before, (0, 0))
    with contextlib.suppress(OSError):
        os.setxattr(before, "user.x", b"1")
    with contextlib.suppress(OSError, ValueError):
        memory = mmap.mmap(before, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        memory[0:4] = b"mmap"
    with contextlib.suppress(OSError):
        libc.fallocate(before, 3, 0, 4096)
    libc.mount(None, b"/", None, 0x20, None)  # MS_REMOUNT, read-write
    libc.mount(None, b"/", None, 0x20 | 0x1000, None)  # and as a bind mount
    os.makedirs("/tmp/up", exist_ok=True)
    directory = os.path.dirname(path)
    for upper in (directory, "/"):
        libc.mount(b"x", b"/tmp/up", b"overlay", 0, f"lowerdir=/etc,upperdir={upper},workdir=/tmp".encode())
    with contextlib.suppress(OSError):
        os.link(path, "/linked")
        with open("/linked", "r+b") as file:
            file.write(b"linked")
    with contextlib.suppress(OSError):
        os.symlink(path, "/symlinked")
        with open("/symlinked", "r+b") as file:
            file.write(b"symlinked")
    with contextlib.suppress(OSError):
        os.rename(path, path + ".renamed")
        os.rename(path + ".renamed", path)
    with contextlib.suppress(OSError):
        with open(path, "r+b") as file:
            file.write(b"opened")
        os.unlink(path)
        with open(path, "wb") as file:
            file.write(b"made anew")
    print("tried")


def kernel_settings() -> None:
    """Make /proc and /sys writable. Then write the settings and read the files of the host's kernel."""
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    for target in (b"/proc", b"/sys", b"/proc/sys", b"/proc/sysrq-trigger"):
        libc.mount(None, target, None, 0x20, None)
        libc.mount(None, target, None, 0x20 | 0x1000, None)
    for target in (b"/proc/sys", b"/proc/sysrq-trigger"):
        libc.umount2(target, 2)
    os.makedirs("/tmp/fresh", exist_ok=True)
    for kind in (b"proc", b"sysfs", b"debugfs", b"tracefs", b"securityfs", b"devtmpfs", b"configfs", b"pstore", b"efivarfs"):
        libc.mount(b"x", b"/tmp/fresh", kind, 0, None)
    for top in ("", "/tmp/fresh"):
        for name, value in (
            ("/proc/sys/kernel/core_pattern", "|/tmp/x"), ("/proc/sys/kernel/modprobe", "/tmp/x"),
            ("/proc/sys/fs/file-max", "1"), ("/proc/sys/vm/drop_caches", "1"), ("/proc/sysrq-trigger", "h"),
            ("/proc/sys/fs/binfmt_misc/register", ":x:M::x::/bin/sh:"), ("/sys/kernel/uevent_helper", "/tmp/x"),
            ("/proc/sys/user/max_user_namespaces", "5"), ("/proc/1/oom_score_adj", "-1000"),
            ("/sys/fs/cgroup/devices/release_agent", "/tmp/x"), ("/sys/power/state", "mem"),
        ):  # fmt: skip
            try:
                with open(top + name, "r+", encoding="ascii") as file:  # this mode makes no new file
                    file.write(value)
                print(f"WROTE {top + name}")
            except OSError as error:
                print(f"{name}: {error.strerror}")
    for name in ("/proc/kcore", "/proc/kmsg", "/dev/kmsg", "/dev/mem", "/dev/port", "/dev/fuse", "/proc/vmallocinfo",
                 "/proc/timer_list", "/sys/kernel/debug/x", "/sys/firmware/efi/efivars", "/proc/kpagecount"):  # fmt: skip
        try:
            with open(name, "rb") as file:
                print(f"READ {name}: {len(file.read(64))} bytes")
        except OSError as error:
            print(f"{name}: {error.strerror}")


def escape_cgroup() -> None:
    """Leave the container's cgroup, raise its limits, or see the cgroups of others."""
    import ctypes
    import glob
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    os.makedirs("/tmp/cg", exist_ok=True)
    roots = ["/sys/fs/cgroup"]
    for kind, options in ((b"cgroup2", None), (b"cgroup", b"pids"), (b"cgroup", b"memory"), (b"cgroup", b"devices")):
        target = f"/tmp/cg/{len(roots)}"
        os.makedirs(target, exist_ok=True)
        if libc.mount(b"x", target.encode(), kind, 0, options) == 0:
            roots.append(target)
    for root in roots:
        for pattern in ("pids.max", "memory.max", "memory.limit_in_bytes", "cpu.max", "devices.allow", "release_agent",
                        "cgroup.max.descendants", "pids/pids.max", "memory/memory.limit_in_bytes", "devices/devices.allow",
                        "../cgroup.procs"):  # fmt: skip
            for file in glob.glob(f"{root}/{pattern}"):
                for value in ("max", "a", "-1", str(os.getpid())):
                    try:
                        with open(file, "w", encoding="ascii") as opened:
                            opened.write(value)
                        print(f"WROTE {value} to {file}")
                    except OSError:
                        continue
        print(*(f"SAW {path}" for path in glob.glob(f"{root}/**/lxc.payload*", recursive=True)), sep="\n", end="")


def reach(name: str, port: int) -> None:
    """Connect to sockets of the host and of others: abstract sockets, sockets in /run, and sockets on the loopback."""
    import os
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect("\0" + name)
            print("CONNECTED to the abstract socket")
        except OSError as error:
            print(error.strerror)
    with socket.socket() as sock:
        try:
            sock.connect(("127.0.0.1", port))
            print("CONNECTED to the host's loopback")
        except OSError as error:
            print(error.strerror)
    try:
        socket.socket(40, socket.SOCK_STREAM)
        print("MADE a socket to the machine's own host")
    except OSError as error:
        print(error.strerror)
    for directory, _, files in os.walk("/run"):
        for file in files:
            if file.endswith(("docker.sock", "lxcfleet.sock", "attach.sock", "containerd.sock")):
                print(f"SAW {directory}/{file}")


def processes_of_others(host_pid: int) -> None:
    """See, trace, signal or enter processes outside the container."""
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    for process in os.listdir("/proc"):
        if process.isdigit():
            with open(f"/proc/{process}/cmdline", "rb") as file:
                if b"bin/lxcfleetd" in file.read() and process != str(os.getpid()):
                    print("SAW the daemon")
            for namespace in ("mnt", "pid", "user", "net"):
                try:
                    same = os.readlink(f"/proc/{process}/ns/{namespace}") == os.readlink(f"/proc/self/ns/{namespace}")
                    if not same and namespace == "user":
                        print(f"SAW a process of another user namespace: {process}")
                except OSError:
                    continue
    try:
        os.kill(host_pid, 0)
        print("REACHED a process of the host's")
    except OSError as error:
        print(error.strerror)
    if os.path.exists(f"/proc/{host_pid}/root/"):
        print("SAW a process of the host's")
    print("TRACED" if libc.ptrace(16, host_pid, 0, 0) == 0 else "not traced")
