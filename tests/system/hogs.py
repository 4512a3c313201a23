"""Hogs: root in a container takes a resource until none is left or a limit is met. See test_confinement and test_disk.

A test sends the source of one function into a container, so each function imports all that it uses.
"""

from __future__ import annotations


def hog_inotify() -> None:
    """Take all inotify instances, under many uids."""
    import ctypes
    import os
    import resource
    import time

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    libc = ctypes.CDLL(None, use_errno=True)
    count = 0
    for uid in (1, 2, 3, 0):
        os.seteuid(0)
        os.seteuid(uid)
        while libc.inotify_init() >= 0:
            count += 1
    print(count, os.strerror(ctypes.get_errno()), flush=True)
    time.sleep(60)


def hog_processes() -> None:
    """Fork until the kernel refuses: a fork bomb."""
    import os
    import time

    count = 0
    try:
        while count < 100_000:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            count += 1
    except OSError as error:
        print(count, error.strerror, flush=True)
    time.sleep(60)


def hog_keys() -> None:
    """Add keys to the kernel, under many uids."""
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    count = 0
    for number in range(1000):
        os.seteuid(0)
        os.seteuid(number)
        count += libc.syscall(248, b"user", str(number).encode(), b"x" * 100, 100, -5) >= 0
    print(count)


def hog_ptys() -> None:
    """Take all pseudo terminals, on devpts mounts of the container's own."""
    import ctypes
    import os
    import resource
    import time

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    libc = ctypes.CDLL(None, use_errno=True)
    count = 0
    for number in range(10):
        os.makedirs(f"/tmp/pts{number}", exist_ok=True)
        libc.mount(b"x", f"/tmp/pts{number}".encode(), b"devpts", 0, b"newinstance,ptmxmode=0666")
        try:
            while True:
                os.open(f"/tmp/pts{number}/ptmx", os.O_RDWR)
                count += 1
        except OSError as error:
            print(count, error.strerror, flush=True)
    time.sleep(60)


def hog_namespaces() -> None:
    """Make namespaces of every kind, and hold them by descriptors."""
    import ctypes
    import os
    import resource
    import time

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    libc = ctypes.CDLL(None, use_errno=True)
    held = []
    for flag, kind in ((0x08000000, "ipc"), (0x04000000, "uts"), (0x00020000, "mnt"), (0x02000000, "cgroup")):
        for _ in range(500):
            if libc.unshare(flag) != 0:
                break
            held.append(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY))
    print(len(held), flush=True)
    time.sleep(60)


def hog_mounts() -> None:
    """Mount until the kernel refuses."""
    import ctypes
    import os
    import time

    libc = ctypes.CDLL(None, use_errno=True)
    libc.unshare(0x00020000)  # CLONE_NEWNS
    libc.mount(None, b"/", None, 0x4000 | 0x40000, None)  # MS_REC | MS_PRIVATE
    os.makedirs("/tmp/m", exist_ok=True)
    libc.mount(b"x", b"/tmp/m", b"tmpfs", 0, None)
    os.makedirs("/tmp/m/m", exist_ok=True)
    count = 0
    # A tree bound into itself doubles with each turn.
    for _ in range(40):
        if libc.mount(b"/tmp/m", b"/tmp/m/m", None, 0x1000 | 0x4000, None) != 0:
            break
        count += 1
    print(count, os.strerror(ctypes.get_errno()), flush=True)
    time.sleep(60)


def hog_cgroups() -> None:
    """Make cgroups. Each of them takes memory of the kernel."""
    import os

    count = 0
    top = "/sys/fs/cgroup" if os.path.exists("/sys/fs/cgroup/cgroup.procs") else "/sys/fs/cgroup/unified"
    try:
        while count < 20_000:
            os.mkdir(f"{top}/hog{count}")
            count += 1
    except OSError as error:
        print(count, error.strerror)
    for number in range(count):
        os.rmdir(f"{top}/hog{number}")


def fill_disk() -> None:
    """Take all the disk space that the container can get, in every way that takes some. Print how much is left."""
    import contextlib
    import mmap
    import os

    chunk = os.urandom(1 << 20)
    with contextlib.suppress(OSError), open("/root/written", "ab", buffering=0) as file:
        while file.write(chunk) == len(chunk):
            pass
    size = 1 << 24
    with contextlib.suppress(OSError), open("/root/reserved", "ab") as file:
        while size >= 4096:
            try:
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
            except OSError:
                size //= 2
    pid = os.fork()  # a child, as SIGBUS ends it when there is no room for a page
    if pid == 0:
        with contextlib.suppress(OSError), open("/root/mapped", "ab+") as file:
            file.truncate(1 << 26)
            with mmap.mmap(file.fileno(), 1 << 26) as memory:
                for at in range(0, 1 << 26, 4096):
                    memory[at] = 1
        os._exit(0)
    os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        for number in range(100000):
            with open(f"/root/small{number}", "wb", buffering=0) as file:
                file.write(b"x")
    os.sync()
    left = os.statvfs("/")
    print(left.f_bavail * left.f_frsize)


def fill_inodes() -> None:
    """Make as many files as possible. Print how many."""
    import contextlib
    import os

    number = 0
    os.mkdir("/root/empty")
    with contextlib.suppress(OSError):
        for number in range(1000000):
            os.mknod(f"/root/empty/{number}")
    print(number)


def escape_limit() -> None:
    """Have a container's files counted for another project; ioctl_xfs_fsgetxattr(2), ioctl_iflags(2), quotactl(2)."""
    import ctypes
    import fcntl
    import os
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    os.makedirs("/root/new", exist_ok=True)
    with open("/root/new/file", "w"), open("/etc/hosts", "a"):
        pass
    for path in ("/", "/root", "/root/new", "/root/new/file", "/etc", "/etc/hosts", "/usr"):
        handle = os.open(path, os.O_RDONLY)
        try:
            flags, *middle, project, rest = struct.unpack("5I8x", fcntl.ioctl(handle, 0x801C581F, bytes(28)))
        except OSError as error:
            print(f"unseen {path}: {error}")
            flags, middle, project, rest = 0, [0, 0], 0, 0
        for wanted_flags, wanted in ((flags, 0), (flags, project + 65536), (flags & ~0x200, project), (0, 0), (0x200, 1)):
            if (wanted_flags, wanted) != (flags, project):
                try:
                    fcntl.ioctl(handle, 0x401C5820, struct.pack("5I8x", wanted_flags, *middle, wanted, rest))
                    now = struct.unpack("5I8x", fcntl.ioctl(handle, 0x801C581F, bytes(28)))
                    if (now[0] & 0x200, now[3]) != (flags & 0x200, project):
                        print(f"CHANGED {path}: {now}")
                except OSError as error:
                    print(f"refused {path}: {error}")
        try:
            (old,) = struct.unpack("l", fcntl.ioctl(handle, 0x80086601, bytes(8)))
            fcntl.ioctl(handle, 0x40086602, struct.pack("l", old ^ 0x20000000))
            (now,) = struct.unpack("l", fcntl.ioctl(handle, 0x80086601, bytes(8)))
            if (now ^ old) & 0x20000000:
                print(f"CHANGED flags of {path}")
        except OSError as error:
            print(f"refused {path}: {error}")
        record = ctypes.create_string_buffer(struct.pack("=8QI4x", 0, 0, 0, 0, 0, 0, 0, 0, 5))
        for command in (0x800008, 0x800003):  # Q_SETQUOTA, Q_QUOTAOFF
            if libc.syscall(443, handle, ctypes.c_uint(command << 8 | 2), ctypes.c_uint(project), record) == 0:
                print(f"SET by {command:x}")
        os.close(handle)
