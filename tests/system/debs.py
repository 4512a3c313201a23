"""Small packages with which a test patches the host. They are really built and installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .harness import Fleet, until

ROOT = Path(__file__).resolve().parents[2]
HOOK = ROOT / "etc/apt/80lxcfleet"
_REFUSED, _LOCKED_SECONDS = 2, 120
_ENVIRONMENT = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "NEEDRESTART_SUSPEND": "1"}


class Package:
    """A package with a library and a script below /usr/lib/NAME, which clones of the host see."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.home = Path("/usr/lib") / name
        self.library = self.home / "libpatched.so.1"
        self.script = self.home / "job"
        self._directory = directory

    def build(
        self, version: str, *, scripts: Mapping[str, str] | None = None, files: Sequence[str] = (),
        texts: Mapping[str, str] | None = None,
    ) -> Path:  # fmt: skip
        """Make a .deb of that version.

        ``scripts``: maintainer scripts by name. ``files``: more scripts in the package's directory. ``texts``: files
        elsewhere, by path.
        """
        tree = self._directory / f"{self.name}-{version}"
        home = tree / self.home.relative_to("/")
        home.mkdir(parents=True)
        shutil.copy(_some_library(), home / self.library.name)
        with (home / self.library.name).open("ab") as library:
            library.write(f"\nversion {version}\n".encode())  # the loader does not look beyond the sections
        for name in ("job", *files):
            (home / name).write_text(f"#!/bin/sh\n# {version}\nwhile :; do sleep 1; done\n")
            (home / name).chmod(0o755)
        for path, text in (texts or {}).items():
            (tree / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (tree / path.lstrip("/")).write_text(text)
        control = tree / "DEBIAN"
        control.mkdir()
        (control / "control").write_text(
            f"Package: {self.name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n"
            "Description: what lxcfleet's tests patch the host with\n"
        )
        for name, text in (scripts or {}).items():
            (control / name).write_text(f"#!/bin/sh\n{text}\n")
            (control / name).chmod(0o755)
        deb = self.deb(version)
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, deb], check=True, capture_output=True)
        return deb

    def deb(self, version: str) -> Path:
        """The path of the .deb of a version that was built."""
        return self._directory / f"{self.name}_{version}_all.deb"

    def dpkg(self, *arguments: str | Path) -> int:
        """Run dpkg, once nobody else holds its lock. Return its exit status."""
        deadline = time.monotonic() + _LOCKED_SECONDS
        while True:
            done = subprocess.run(
                ["dpkg", *arguments],
                env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False,
            )  # fmt: skip
            if done.returncode != _REFUSED or b"lock" not in done.stderr or time.monotonic() > deadline:
                return done.returncode
            time.sleep(0.5)

    def apt(self, deb: Path, run: Path) -> subprocess.CompletedProcess[str]:
        """Install a .deb with apt-get and lxcfleet's hook, which tells the fleet whose sockets are in ``run``."""
        hook = self._directory / "apt.conf"
        hook.write_text(HOOK.read_text().replace("/run/lxcfleet", str(run)))
        options = ["-qq", "-y", "--allow-downgrades", "-o", "DPkg::Lock::Timeout=120"]
        return subprocess.run(
            ["apt-get", "-c", str(hook), *options, "install", str(deb)],
            env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def purge(self) -> None:
        """Remove the package from the host, whatever state it is in."""
        self.dpkg("--purge", "--force-all", self.name)
        assert not self.home.exists()


def _some_library() -> Path:
    return next(path for path in Path("/usr/lib").glob("*-linux-gnu/libz.so.1"))


_MAPS = "import ctypes, time; ctypes.CDLL({!r}); print('mapped', flush=True); time.sleep(1e6)"


def create_mapping(fleet: Fleet, package: Package, mapping: int, others: int) -> tuple[list[str], list[str]]:
    """Create containers that map the package's library, and others that do not. Return the names of both."""
    inside = [fleet.name(f"map{number}") for number in range(1, mapping + 1)]
    outside = [fleet.name(f"other{number}") for number in range(1, others + 1)]
    code = _MAPS.format(str(package.library))
    fleet.ok("create", fleet.name("map"), "-n", str(mapping), "--", "python3", "-c", code)
    if others:
        fleet.ok("create", fleet.name("other"), "-n", str(others), "--", "sleep", "infinity")
    wait_until_mapped(fleet, inside)
    return inside, outside


def wait_until_mapped(fleet: Fleet, names: Sequence[str]) -> None:
    """Wait until these containers have mapped the library."""

    def mapped() -> bool:
        return all("mapped" in fleet.paths.container(name).console_log.read_text() for name in names)

    until(mapped, 60, "the containers have mapped the library")
