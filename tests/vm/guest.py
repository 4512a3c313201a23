"""A throwaway Debian host: boots a cached image in qemu and runs commands in it as root.

    with Guest.boot("trixie") as guest:
        guest.push(Path("."), "/srv/lxcfleet")
        guest.run("make -C /srv/lxcfleet install")

    /usr/bin/python3 -m tests.vm.guest SUITE     # boot one to play with, until Ctrl-C

Nothing that a guest does outlives it: its disk is an overlay on the image. The CPU is emulated, in one
thread, as that works on every machine and multi-threaded emulation now and then hangs a boot. Where KVM
works, LXCFLEET_VM_ACCEL=kvm makes guests fast.

Use a guest from the thread that booted it: its qemu dies with that thread, so that a test run that is
killed leaves none behind.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from .image import PRODUCT_PACKAGES, SUITES, Image, ImageError, cache_dir, ensure_image, ssh_key

log = logging.getLogger(__name__)

PATIENCE = float(os.environ.get("LXCFLEET_TEST_PATIENCE", "1"))  # for a busy machine; as in tests/conftest.py
BOOT_LIMIT = 600.0 * PATIENCE  # seconds; 30 to 60 are usual, and a host that others use at the same time may be far slower
BOOT_ATTEMPTS = 3
SHUTDOWN_LIMIT = 600.0 * PATIENCE  # seconds; far above the 120 that systemd gives the fleet, and the 90 after that
KEPT_LOGS = 20
SSH_FAILED = 255  # rarely the command's own exit status

# Words on the serial console after which a host does nothing more.
DEAD_HOST = re.compile(rb"Kernel panic - not syncing.*|You are in emergency mode|^\(initramfs\)", re.MULTILINE)

NEVER_PUSHED = (".git", "__pycache__", ".mypy_cache", ".pytest_cache", ".hypothesis")


class GuestError(Exception):
    """A guest did not do what it was told; the message carries its output."""


class BootError(GuestError):
    """A guest did not come up, or died."""


class Guest:
    """A running guest; `boot` makes one."""

    def __init__(self, image: Image, *, memory_mib: int) -> None:
        self.suite = image.suite
        self.serial_log = _new_serial_log(image.suite)
        self.port = _free_port()
        self._image = image
        self._memory_mib = memory_mib
        # In /var/tmp: on a disk, unlike /tmp at times, and short, as a socket's path must be.
        self._folder = Path(tempfile.mkdtemp(prefix="lxcfleet-vm-", dir=os.environ.get("LXCFLEET_VM_FOLDERS", "/var/tmp")))
        self._disk = self._folder / "disk.qcow2"
        self._qemu: subprocess.Popen[bytes] | None = None
        self._log_start = 0  # where in the serial log the present boot begins

    @classmethod
    def boot(cls, suite: str, *, packages: Sequence[str] = PRODUCT_PACKAGES, memory_mib: int = 2048) -> Guest:
        """A guest that has booted and settled."""
        (guest,) = cls.boot_all((suite,), packages=packages, memory_mib=memory_mib)
        return guest

    @classmethod
    def boot_all(
        cls, suites: Sequence[str], *, packages: Sequence[str] = PRODUCT_PACKAGES, memory_mib: int = 2048
    ) -> list[Guest]:
        """Boot several guests at the same time; returns them once all have settled."""
        guests = [cls(ensure_image(suite, packages), memory_mib=memory_mib) for suite in suites]
        try:
            for guest in guests:
                guest._start(fresh_disk=True)
            for guest in guests:
                guest._settle(fresh_disk=True)
        except BaseException:
            for guest in guests:
                guest.close()
            raise
        return guests

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(
        self, command: str | Sequence[str], *, check: bool = True, timeout: float = 900, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command, or an argument list, as root.

        It ends when its output does, so processes that it leaves in the background must write elsewhere.
        With `check` a command that fails raises GuestError; one that takes longer than `timeout` always does.
        """
        line = command if isinstance(command, str) else shlex.join(command)
        done = self._ssh(line, input=input, timeout=timeout * PATIENCE)
        if check and done.returncode != 0:
            raise GuestError(f"{self.suite}: {line!r} exited {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def push(self, local_dir: Path, remote_dir: str, *, exclude: Sequence[str] = NEVER_PUSHED) -> None:
        """Copy a folder's contents over those of a folder in the guest, owned by root there."""
        patterns = [f"--exclude={pattern}" for pattern in exclude]
        pack = ["tar", "--create", "--owner=root:0", "--group=root:0", *patterns, "--directory", str(local_dir), "."]
        target = shlex.quote(remote_dir)
        unpack = f"mkdir -p {target} && tar --extract --directory {target}"
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
            done = self._ssh(unpack, stdin=packing.stdout, timeout=900 * PATIENCE)
        if packing.returncode != 0 or done.returncode != 0:
            raise GuestError(f"{self.suite}: copying {local_dir} to {remote_dir} failed:\n{done.stderr}")

    def reboot(self, *, hard: bool = False) -> None:
        """Reboot and wait until it has settled; `hard` as if by the reset button, nothing written out."""
        command = "systemctl reboot" + (" --force --force" if hard else "")
        with contextlib.suppress(GuestError):  # the host may be down before ssh reports the command's end
            self.run(command, check=False, timeout=120)
        self._await_power_off()
        self._boot_again()

    def follow_reboot(self) -> None:
        """Wait, for however long, until the guest reboots or powers off of its own accord, and boot it again."""
        assert self._qemu is not None
        self._qemu.wait()
        self._disconnect()
        self._boot_again()

    def close(self) -> None:
        """End the guest and forget its disk. The serial log stays."""
        self._power_off()
        shutil.rmtree(self._folder, ignore_errors=True)

    def ssh_command(self) -> list[str]:
        """The ssh command line that reaches the guest, over the open connection if there is one."""
        return [
            *("ssh", "-p", str(self.port), "-i", str(ssh_key()), "-S", str(self._folder / "ssh")),
            *("-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes"),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", f"ConnectTimeout={30 * PATIENCE:.0f}", "-o", "ServerAliveInterval=30", "-o", "ServerAliveCountMax=20"),
            "root@127.0.0.1",
        ]

    # -- power --------------------------------------------------------------------------------------

    def _boot_again(self) -> None:
        self._start(fresh_disk=False)
        self._settle(fresh_disk=False)

    def _start(self, *, fresh_disk: bool) -> None:
        if fresh_disk:
            self._create_disk()
        self._start_qemu()

    def _settle(self, *, fresh_disk: bool) -> None:
        """Wait for the boot. A boot that hangs or panics is tried again: the emulator may be to blame."""
        for attempts_left in reversed(range(BOOT_ATTEMPTS)):
            try:
                self._await_boot()
            except BootError as error:
                self._power_off()
                if not attempts_left:
                    raise
                log.warning("a boot failed and is tried again: %s", error)
                self.port = _free_port()
                self._start(fresh_disk=fresh_disk)
            else:
                return

    def _create_disk(self) -> None:
        backing = ["-F", "raw", "-b", str(self._image.disk)]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(self._disk)], check=True)

    def _start_qemu(self) -> None:
        self._log_start = self.serial_log.stat().st_size
        with (self._folder / "qemu.log").open("ab") as output:
            # A session of its own: Ctrl-C in a terminal reaches this program, which then ends the guest.
            self._qemu = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *self._qemu_command()],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def _qemu_command(self) -> list[str]:
        return [
            *("qemu-system-x86_64", "-accel", os.environ.get("LXCFLEET_VM_ACCEL", "tcg,thread=single")),
            # An old CPU: the fewer features there are to emulate, the faster the boot (by a fifth).
            *("-cpu", "Nehalem", "-smp", "2", "-m", str(self._memory_mib), "-machine", "q35"),
            # No reboot in place: the emulator is slow in memory that it has seen code in, so `reboot` starts it anew.
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd)),
            # Guarding an emulated CPU against Spectre only costs time. The kernel's test of its timer counts on a processor
            # that nobody else has, and panics where the host is busy: "IO-APIC + timer doesn't work".
            *("-append", "root=/dev/vda rw console=ttyS0 mitigations=off no_timer_check"),
            # Nothing of the guest has to outlive this host, so what it flushes, dpkg file by file, waits for no disk here.
            *("-drive", f"file={self._disk},if=virtio,format=qcow2,cache=unsafe,discard=unmap"),
            *("-netdev", f"user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:{self.port}-:22"),
            *("-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"),
            *("-chardev", f"file,id=serial,path={self.serial_log},append=on", "-serial", "chardev:serial"),
        ]

    def _await_power_off(self) -> None:
        assert self._qemu is not None
        deadline = time.monotonic() + SHUTDOWN_LIMIT
        while self._qemu.poll() is None:
            self._check_console()
            if time.monotonic() > deadline:
                raise self._boot_error(f"still not shut down after {SHUTDOWN_LIMIT:g} s")
            time.sleep(0.5)
        self._disconnect()

    def _power_off(self) -> None:
        self._disconnect()
        if self._qemu is None:
            return
        # At SIGTERM qemu writes out its cache of the disk, which a second try of the boot needs.
        self._qemu.terminate()
        try:
            self._qemu.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._qemu.kill()
            self._qemu.wait()
        self._qemu = None

    # -- connection ---------------------------------------------------------------------------------

    def _await_boot(self) -> None:
        """Wait until the guest answers and has finished its boot."""
        deadline = time.monotonic() + BOOT_LIMIT
        while not self._connect():
            self._check_alive()
            if time.monotonic() > deadline:
                raise self._boot_error(f"not reachable after {BOOT_LIMIT:g} s")
            time.sleep(1)
        # Jobs of the boot would otherwise run into the first commands. A degraded host is for tests to judge.
        remaining = max(30.0, deadline - time.monotonic())
        try:
            self.run("systemctl is-system-running --wait", check=False, timeout=remaining)
        except GuestError as error:
            raise self._boot_error(str(error)) from None

    def _ssh(
        self, line: str, *, timeout: float, input: str | None = None, stdin: IO[bytes] | None = None
    ) -> subprocess.CompletedProcess[str]:
        self._check_alive()
        argv = [*self.ssh_command(), line]
        source = stdin or (subprocess.DEVNULL if input is None else subprocess.PIPE)
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=source, stdout=pipe, stderr=pipe, text=True, errors="replace") as process:
            try:
                stdout, stderr = self._communicate(process, input, timeout)
            except subprocess.TimeoutExpired as error:
                # The output is not read to its end: the shared connection holds the pipes while the command runs.
                output = _decoded(error.stdout) + _decoded(error.stderr)
                raise GuestError(f"{self.suite}: no end of {line!r} after {timeout:g} s:\n{output}") from None
            finally:
                process.kill()
        if process.returncode == SSH_FAILED:
            self._check_alive()
        return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)

    def _communicate(self, process: subprocess.Popen[str], input: str | None, timeout: float) -> tuple[str, str]:
        """Wait in short steps, so that a panic of the host is reported at once, and not as a command that takes too long."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return process.communicate(input, timeout=max(0.1, min(5.0, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                if time.monotonic() >= deadline:
                    raise
                self._check_alive()
                input = None  # ssh has the input already

    def _connect(self) -> bool:
        """Open the connection that the commands share: signing in takes seconds on an emulated CPU."""
        argv = self.ssh_command()
        try:
            done = subprocess.run(
                [*argv[:-1], "-M", "-N", "-f", argv[-1]],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=180 * PATIENCE,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def _disconnect(self) -> None:
        argv = self.ssh_command()
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([*argv[:-1], "-O", "exit", argv[-1]], capture_output=True, timeout=20)
        (self._folder / "ssh").unlink(missing_ok=True)

    # -- errors -------------------------------------------------------------------------------------

    def _check_alive(self) -> None:
        if self._qemu is None:
            raise BootError(f"{self.suite}: the guest is closed")
        if self._qemu.poll() is not None:
            why = (self._folder / "qemu.log").read_text(errors="replace").strip()
            raise self._boot_error(f"off: qemu exited {self._qemu.returncode} {why}")
        self._check_console()

    def _check_console(self) -> None:
        with self.serial_log.open("rb") as console:
            console.seek(self._log_start)
            found = DEAD_HOST.search(console.read())
        if found:
            raise self._boot_error(found.group().decode(errors="replace").strip())

    def _boot_error(self, why: str) -> BootError:
        tail = "\n".join(self.serial_log.read_text(errors="replace").splitlines()[-15:])
        return BootError(f"{self.suite}: {why}\n{tail}\n(all of it: {self.serial_log})")


def _decoded(output: str | bytes | None) -> str:
    # A TimeoutExpired has bytes, even if text was asked for.
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _free_port() -> int:
    # Another process may take the port before qemu does. Then qemu exits, and the boot is tried again with another port.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _new_serial_log(suite: str) -> Path:
    folder = cache_dir() / "logs"
    folder.mkdir(exist_ok=True)
    for old in sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)[: 1 - KEPT_LOGS]:
        old.unlink(missing_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%S")
    handle, path = tempfile.mkstemp(prefix=f"{suite}-{stamp}-", suffix=".log", dir=folder)
    os.close(handle)
    return Path(path)


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.vm.guest", description="Boot a throwaway Debian host.")
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--memory", type=int, default=2048, metavar="MIB")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    with Guest.boot(arguments.suite, memory_mib=arguments.memory) as guest:
        print(shlex.join(guest.ssh_command()), flush=True)
        print(f"serial log: {guest.serial_log}\nCtrl-C or SIGTERM ends the guest.", flush=True)
        while True:
            guest.follow_reboot()


if __name__ == "__main__":
    try:
        main()
    except (ImageError, GuestError) as error:
        raise SystemExit(f"tests.vm.guest: {error}") from None
