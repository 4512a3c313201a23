"""The packages of units, as dpkg knows them: their generators, and their settings. Pure, but for reading the host.

dpkg's ``status`` has the MD5 of each configuration file as it was packed; deb-control(5), "Conffiles". A file with that sum
is the one that everybody can download: it has no secret of the host's, even if only root can read it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from lxcfleet.base.services.units import is_public, is_template
from lxcfleet.base.tree import Tree, join

GENERATORS = "/usr/lib/systemd/system-generators"
STATUS = "/var/lib/dpkg/status"
_LISTS = "/var/lib/dpkg/info"
_MOST = 1 << 20
"""Bytes of a configuration file that is compared with its sum."""


@dataclass
class PackageFiles:
    """The other files of the packages of some units."""

    generators: dict[str, list[str]] = field(default_factory=dict)
    """The paths of generators, each with the templates of its package; systemd.generator(7). Not those of systemd itself:
    they are about the host's disks and its kernel's command line."""
    packed: dict[str, bytes] = field(default_factory=dict)
    """Private configuration files that are as the package brought them, with the content that was looked at."""
    changed: list[str] = field(default_factory=list)
    """Private configuration files that the host's administrator, or a script, has changed."""


def owned(tree: Tree, files: Iterable[str]) -> PackageFiles:
    """The other files of the packages that these belong to."""
    found, packages = PackageFiles(), set()
    names = {name for name in tree.names(GENERATORS) if not name.startswith("systemd-")}
    for package, content in _packages_of(tree, files):
        packages.add(package)
        if b"/system-generators/" in content and names:
            listed = [line.rpartition("/") for line in content.decode("utf-8", "surrogateescape").splitlines()]
            templates = [end for top, _, end in listed if top.endswith("/systemd/system") and is_template(end)]
            own = [end for top, _, end in listed if top.endswith("/system-generators") and end in names]
            found.generators |= {path: templates for each in own if tree.is_file(path := join(GENERATORS, each))}
    for path, digest in _conffiles(tree.read(STATUS) or b"", packages):
        if tree.is_file(path) and not is_public(tree, path):
            content = _content(tree, path)
            if hashlib.md5(content, usedforsecurity=False).hexdigest() == digest:
                found.packed[path] = content
            else:
                found.changed.append(path)
    return found


def _packages_of(tree: Tree, files: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The packages that have one of these files, each with all of its files, one a line.

    The lists may have /lib for /usr/lib: dpkg knows nothing of the link.
    """
    forms = {form for path in files for form in (path, path.removeprefix("/usr"))}
    wanted = [f"\n{form}\n".encode("utf-8", "surrogateescape") for form in forms]
    for name in tree.names(_LISTS) if wanted else ():
        if name.endswith(".list"):
            # ``tree.read`` would have each file watched, which is not needed: a change shows in the directory.
            try:
                with open(tree.outside(join(_LISTS, name)), "rb") as file:
                    content = file.read()
            except FileNotFoundError:
                continue  # dpkg has just removed the package
            if any(each in content for each in wanted):
                yield name.removesuffix(".list").partition(":")[0], content


def _conffiles(status: bytes, packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The configuration files of these packages, each with its MD5 sum."""
    for package in packages:
        start = f"\n\nPackage: {package}\n".encode()
        _, found, rest = (b"\n\n" + status).partition(start)
        _, conffiles, lines = rest.partition(b"\n\n")[0].partition(b"\nConffiles:\n") if found else (b"", b"", b"")
        for line in lines.decode("utf-8", "surrogateescape").split("\n") if conffiles else ():
            words = line.split()
            if not line.startswith(" "):
                break
            if len(words) == 2:  # others are obsolete, or belong to another package by now
                yield words[0], words[1]


def _content(tree: Tree, path: str) -> bytes:
    """The content of the file; nothing if it is too large, or can't be read."""
    status = tree.lstat(path)
    with contextlib.suppress(PermissionError):  # whoever looks may not be root
        return b"" if status is None or status.st_size > _MOST else tree.read(path) or b""
    return b""
