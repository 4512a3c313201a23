"""A small root file system, which a few programs of the host's run in: freezing it leaves the host's own files alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

PROGRAMS = ("sh", "sleep", "cat", "tini-static", "env")
_RECORDS = "var/lib/dpkg"


def make(root: Path, **versions: str) -> None:
    """Make it in an empty directory, with these packages installed, by name, in these versions."""
    for name in sorted(os.listdir("/")):
        place = Path("/", name)
        if place.is_symlink():
            (root / name).symlink_to(os.readlink(place))
        elif place.is_dir():
            (root / name).mkdir(exist_ok=True)
    for directory in ("usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "etc", f"{_RECORDS}/info", "var/tmp", "var/log"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        _copy_program(root, name)
    for name in ("passwd", "group"):
        (root / "etc" / name).write_text("root:x:0:0:root:/root:/bin/sh\n" if name == "passwd" else "root:x:0:\n")
    install(root, **versions)


def install(root: Path, **versions: str) -> None:
    """Have these packages installed in these versions, and no others, each with its file /usr/lib/NAME."""
    for name, version in versions.items():
        replace(root / "usr/lib" / name, f"{name} {version}\n")
        replace(root / _RECORDS / "info" / f"{name}.list", f"/.\n/usr\n/usr/lib\n/usr/lib/{name}\n")
    entries = (
        f"Package: {name}\nStatus: install ok installed\nMaintainer: nobody\nArchitecture: all\nVersion: {version}\n"
        f"Description: of the tests\n\n"
        for name, version in versions.items()
    )
    replace(root / _RECORDS / "status", "".join(entries))


def replace(file: Path, text: str) -> None:
    """Replace a file as dpkg does: by another one that is renamed to its place."""
    new = file.with_name(f"{file.name}.dpkg-new")
    new.write_text(text)
    new.rename(file)


def _copy_program(root: Path, name: str) -> None:
    found = shutil.which(name)
    assert found is not None, f"{name} is not on this host"
    program = os.path.realpath(found)
    shutil.copy2(program, root / "usr/bin" / name)
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for library in re.findall(r"(?:=> )?(/\S+) \(0x", said):
        target = root / os.path.realpath(os.path.dirname(library)).lstrip("/") / os.path.basename(library)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy2(library, target)
