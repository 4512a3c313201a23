"""Packages that take effect only with a reboot of the host: kernels, microcode, and others that ask for one."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from pathlib import Path

from lxcfleet.host.packages.lists import INFO
from lxcfleet.host.process import proc

REQUIRED = Path("/run/reboot-required")
"""Packages' scripts touch this file, and append the package's name to the file with .pkgs after its name."""
_KERNEL = re.compile(r"(?:linux-(?:image|modules|modules-extra)|kernel-image)-.+|(?:amd64|intel)-microcode")
_IMAGE = re.compile(r"linux-image-(?:unsigned-)?(\d.*)")


def is_kernel(name: str) -> bool:
    """Whether a package, without its architecture, is a kernel or microcode, of which old versions stay installed."""
    return _KERNEL.fullmatch(name) is not None


def due(required: Path = REQUIRED, info: Path = INFO) -> list[str]:
    """The packages for which a reboot is due, or ``unknown`` if none is named; empty: none is due."""
    named = _lines(required.with_name(f"{required.name}.pkgs")) if required.exists() else []
    kernels = [file.name.removesuffix(".list") for file in info.glob("*.list") if _KERNEL.fullmatch(file.stem)]
    since = [name for name in kernels if _installed_since_boot(name, info)]
    return sorted({*named, *since}) or (["unknown"] if required.exists() else [])


def pending(packages: Iterable[str], required: Path = REQUIRED, info: Path = INFO) -> dict[str, str]:
    """Those of ``packages`` that the host does not run yet, with the reason."""
    running, found = platform.release(), dict[str, str]()
    named = set(_lines(required.with_name(f"{required.name}.pkgs")))
    for package in packages:
        name = package.partition(":")[0]
        image = _IMAGE.fullmatch(name)
        if image is not None and image[1] != running:
            found[package] = f"the host runs the kernel {running}"
        elif _KERNEL.fullmatch(name) and _installed_since_boot(package, info):
            found[package] = "it was installed after the host booted"
        elif name in named:
            found[package] = "it asks for a reboot"
    return found


def _installed_since_boot(package: str, info: Path) -> bool:
    try:
        return (info / f"{package}.list").stat().st_mtime > proc.as_time(0)
    except OSError:
        return False


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return []
