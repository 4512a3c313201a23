"""A real OpenSSH server on the loopback, by which a fleet's command line is reached as that of another host is.

Keys, ports and configuration are its own. It sees a user ``sshd`` for its privilege separation, in a mount namespace of its
own, and so nothing of the host's /etc changes. Debian's package is unpacked, not installed: see the Makefile.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import leftovers
import pytest

from .harness import CLIENT, LEAST, Fleet, free_port

_UNPACKED = Path.home() / ".cache/lxcfleet/packages"
_RUN = Path("/run/sshd")
"""An empty directory of the host. Without it sshd ends each connection as it begins, also for the servers of other runs."""
_OURS = 0o711
"""Its mode where a test made it: Debian's own has another one."""


@dataclass
class Server:
    """The server, and how a client reaches it."""

    config: Path
    """ssh's configuration; the host is named ``other`` there."""
    process: subprocess.Popen[bytes]

    def end(self) -> None:
        """End it, and the connections that it has: as if the line were cut."""
        self.process.kill()
        self.process.wait()


def _program() -> tuple[str, str]:
    """sshd, and the directories with its libraries."""
    usual = shutil.which("sshd", path="/usr/sbin")
    if usual is not None:
        return usual, ""
    found = _UNPACKED / "openssh-server/usr/sbin/sshd"
    libraries = {str(file.parent) for file in _UNPACKED.glob("libwrap0/**/libwrap.so.0")}
    if not found.exists() or shutil.which("ssh") is None:
        pytest.skip("no OpenSSH: make test-packages")
    return str(found), ":".join(sorted(libraries))


def _accounts(directory: Path) -> str:
    """Commands that give a mount namespace the user sshd, and a root that may log in by a key."""
    passwd = Path("/etc/passwd").read_text()
    if "\nsshd:" not in passwd:
        passwd += "sshd:x:64997:65534::/run/sshd:/usr/sbin/nologin\n"
    (directory / "passwd").write_text(passwd)
    (directory / "shadow").write_text("root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n")
    return "".join(f"mount --bind {shlex.quote(str(directory / name))} /etc/{name} && " for name in ("passwd", "shadow"))


@contextmanager
def _empty_directory(port: int) -> Iterator[None]:
    """What keeps ``_RUN`` there until the last server of the tests has ended."""
    mark = _RUN / f"lxcfleet-{port}"
    leftovers.note("directory", str(mark))
    while not mark.exists():
        with contextlib.suppress(FileExistsError):
            _RUN.mkdir(mode=_OURS)
        with contextlib.suppress(FileNotFoundError):  # another run has just removed it
            mark.mkdir()
    try:
        yield
    finally:
        mark.rmdir()
        if stat.S_IMODE(_RUN.stat().st_mode) == _OURS:
            with contextlib.suppress(OSError):  # others have their marks there
                _RUN.rmdir()


@contextmanager
def serving(fleet: Fleet, directory: Path) -> Iterator[Server]:
    """A server behind which ``lxcfleet`` is that of ``fleet``."""
    program, libraries = _program()
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
    programs = directory / "bin"
    programs.mkdir()
    (programs / "lxcfleet").symlink_to(CLIENT)
    variables = {**fleet.paths.environment(), "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"}
    port = free_port()
    lines = [
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {directory / 'host'}", "UsePAM no", "StrictModes no",
        f"AuthorizedKeysFile {directory / 'client.pub'}", "PermitRootLogin prohibit-password", "PidFile none",
        "PasswordAuthentication no", "KbdInteractiveAuthentication no",
        "SetEnv " + " ".join(f'"{key}={value}"' for key, value in variables.items()),
    ]  # fmt: skip
    (directory / "sshd_config").write_text("\n".join(lines) + "\n")
    key = (directory / "host.pub").read_text().split()
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
    config = directory / "ssh_config"
    config.write_text(
        f"Host other\n HostName 127.0.0.1\n Port {port}\n User root\n IdentityFile {directory / 'client'}\n"
        f" IdentitiesOnly yes\n UserKnownHostsFile {directory / 'known_hosts'}\n GlobalKnownHostsFile /dev/null\n"
    )
    command = f"mount --make-rprivate / && {_accounts(directory)} exec {program} -D -e -f {directory / 'sshd_config'}"
    environment = {"PATH": variables["PATH"], **({"LD_LIBRARY_PATH": libraries} if libraries else {})}
    with _empty_directory(port):
        with (directory / "sshd.log").open("wb") as log:
            process = subprocess.Popen(["unshare", "--mount", "sh", "-c", command], env=environment, stdout=log, stderr=log)
        server = Server(config, process)
        try:
            deadline = time.monotonic() + LEAST
            while True:
                assert process.poll() is None, (directory / "sshd.log").read_text()
                if f"listening on 127.0.0.1 port {port}" in (directory / "sshd.log").read_text():
                    break
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield server
        finally:
            server.end()
            print((directory / "sshd.log").read_text(errors="replace"))  # shown if the test has failed
