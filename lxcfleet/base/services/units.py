"""The host's units of systemd: where they are, what they are called, and what their files say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from lxcfleet.base.tree import Tree, join, parent, parents

VENDOR = "/usr/lib/systemd/system"
ADMIN = "/etc/systemd/system"
SEARCH = (ADMIN, "/usr/local/lib/systemd/system", VENDOR)
"""Where the host's units are, in systemd's order of preference; systemd.unit(5)."""

KINDS = ("service", "socket", "timer", "path")
"""The kinds of units that can be asked for."""

NOWHERE = "/dev/null"
"""A unit that is a link to this is masked."""

_SPECIFIER = re.compile(r"%(.)")
_MOST_LINKS = 10
"""A unit's name may lead to another one, and that again to another, at most so many times."""


class UnitLine(NamedTuple):
    """One line of a unit's file."""

    section: str
    key: str
    value: str
    file: str
    """The path of the file that has the line."""


def parse(content: bytes, file: str = "") -> Iterator[UnitLine]:
    """The lines of a unit's file; systemd.syntax(7). Lines that make no sense are passed over, as systemd does."""
    section, whole = "", ""
    for line in content.decode("utf-8", "surrogateescape").splitlines():
        text = line.strip()
        if text.startswith(("#", ";")):
            continue  # a comment may stand between the lines of one value, too
        if text.endswith("\\"):
            whole += text[:-1] + " "
            continue
        text, whole = whole + text, ""
        if text.startswith("[") and text.endswith("]"):
            section = text[1:-1]
        elif "=" in text:
            key, _, value = text.partition("=")
            yield UnitLine(section, key.strip(), value.strip(), file)


def stem_of(name: str) -> str:
    """The name of a unit without its kind."""
    return name.rpartition(".")[0]


def kind_of(name: str) -> str:
    """The kind of a unit: the last part of its name."""
    return name.rpartition(".")[2]


def template_of(name: str) -> str:
    """The template of an instance, such as ``getty@.service`` for ``getty@tty1.service``; empty: the unit is no instance."""
    prefix, at, instance = stem_of(name).partition("@")
    return f"{prefix}@.{kind_of(name)}" if at and instance else ""


def is_template(name: str) -> bool:
    """Whether the unit is a template: it runs only as an instance with a name."""
    return stem_of(name).partition("@")[1:] == ("@", "")


def instance_of(template: str, instance: str) -> str:
    """The name of an instance."""
    return f"{stem_of(template)}{instance}.{kind_of(template)}"


def expand(text: str, name: str) -> str:
    """``text`` with those specifiers filled in that depend on the unit's name alone; systemd.unit(5), "SPECIFIERS"."""
    stem = stem_of(name)
    prefix, _, instance = stem.partition("@")
    known = {
        "n": name, "N": stem, "p": prefix, "P": unescape(prefix), "i": instance, "I": unescape(instance),
        "j": prefix.rpartition("-")[2], "%": "%",
    }  # fmt: skip
    return _SPECIFIER.sub(lambda found: known.get(found[1], found[0]), text)


def unescape(text: str) -> str:
    """The text that systemd-escape(1) would have made this of."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text.replace("-", "/"))


@dataclass(frozen=True)
class Unit:
    """A unit that the host has."""

    name: str
    """Its own name, not an alias."""
    path: str
    """The path at which systemd finds its file; for an instance the template's."""
    source: str
    """The file itself: another path if ``path`` is a link."""
    aliases: tuple[str, ...]
    """The paths of links to it in the directories of units, which give it other names."""
    drop_ins: tuple[str, ...]
    """The paths of the files that change its settings."""
    private: tuple[str, ...]
    """The paths of those which not every user of the host can read: no container gets them."""
    settings: tuple[UnitLine, ...]
    """All lines of its files, in the order in which systemd reads them."""

    @property
    def kind(self) -> str:
        """Its kind."""
        return kind_of(self.name)

    def values(self, section: str, key: str) -> list[str]:
        """The values of a setting, one for each line. An empty line takes back those before it."""
        return [each.value for each in self.lines(section, key)]

    def lines(self, section: str, *keys: str) -> list[UnitLine]:
        """The same, with the file that has each."""
        found: list[UnitLine] = []
        for each in self.settings:
            if each.section == section and each.key in keys:
                if each.value:
                    found.append(each._replace(value=expand(each.value, self.name)))
                else:
                    found = [other for other in found if other.key != each.key]
        return found

    def names(self, section: str, *keys: str) -> list[str]:
        """The words of settings that have a list of units."""
        return [word for each in self.lines(section, *keys) for word in each.value.split()]


class Units:
    """The units of one host."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._known: dict[str, Unit | None] = {}

    @cached_property
    def listed(self) -> dict[str, list[str]]:
        """All names in the directories of units, each with the directories that have it, in systemd's order."""
        found: dict[str, list[str]] = {}
        for directory in SEARCH:
            for name in self.tree.names(directory):
                found.setdefault(name, []).append(directory)
        return found

    @cached_property
    def links(self) -> dict[str, list[str]]:
        """The paths of all links there, by the name of what they lead to."""
        found: dict[str, list[str]] = {}
        for name, directories in self.listed.items():
            for path in (join(directory, name) for directory in directories):
                if self.tree.is_link(path):
                    target = self.tree.link(path)
                    if target != NOWHERE:
                        found.setdefault(target.rpartition("/")[2], []).append(path)
        return found

    @cached_property
    def wanted(self) -> dict[str, list[tuple[str, str]]]:
        """The links by which the host has units started, by the name of the unit: the path, and which unit starts it."""
        found: dict[str, list[tuple[str, str]]] = {}
        for by, directories in self.listed.items():
            for directory in directories if by.endswith((".wants", ".requires", ".upholds")) else ():
                for name in self.tree.names(join(directory, by)):
                    path = join(join(directory, by), name)
                    if self.tree.is_link(path):
                        found.setdefault(name, []).append((path, stem_of(by)))
        return found

    def find(self, name: str) -> Unit | None:
        """The unit of that name, even if the host disabled or masked it; None: the host has none.

        A unit which its own package masks is none either.
        """
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def is_masked(self, name: str) -> bool:
        """Whether there is nothing of that name but a mark that it is masked."""
        return any(self._place(each) == NOWHERE for each in (name, template_of(name)) if each)

    def _find(self, name: str) -> Unit | None:
        for _ in range(_MOST_LINKS):
            template = template_of(name)
            own = self._place(name)
            path = own if own not in ("", NOWHERE) else self._place(template) if template else ""
            if path in ("", NOWHERE):
                return None
            source = self.tree.real(path, last=True)
            other = source.rpartition("/")[2]
            if parent(source) not in SEARCH or other in (name, template):
                return self._read(name, source if parent(source) in SEARCH else path, source)
            # An alias of a template has instances of the same name.
            instance = stem_of(name).partition("@")[2]
            name = instance_of(other, instance) if is_template(other) and instance else other
        return None

    def _place(self, name: str) -> str:
        """The path of the first file of that name that is not masked; /dev/null if all are masked, empty if there is none."""
        found = ""
        for directory in self.listed.get(name, ()):
            path = join(directory, name)
            source = self.tree.real(path, last=True)
            self.tree.consult(source)
            status = self.tree.lstat(source)
            if source == NOWHERE or (self.tree.is_file(source) and status is not None and not status.st_size):
                found = NOWHERE
            elif self.tree.is_file(source):
                return path
        return found

    def _read(self, name: str, path: str, source: str) -> Unit:
        names = {name, template_of(name)} - {""}
        aliases = [link for each in sorted(names) for link in self.links.get(each, ()) if link != path]
        called = names | {link.rpartition("/")[2] for link in aliases}
        drop_ins = list(self._drop_ins(called))
        private = [each for each in (path, *drop_ins) if not is_public(self.tree, each)]
        shown = [each for each in (source, *drop_ins) if each not in private]
        settings = [line for file in shown for line in parse(self.tree.read(self.tree.real(file, last=True)) or b"", file)]
        drop_ins = [each for each in drop_ins if each not in private]
        return Unit(name, path, source, tuple(sorted(aliases)), tuple(drop_ins), tuple(private), tuple(settings))

    def _drop_ins(self, names: Iterable[str]) -> Iterator[str]:
        """The files that change the settings of a unit with these names, in the order of their own names."""
        wanted = {f"{each}.d" for name in names for each in (name, *_prefixes(name))}
        found: dict[str, str] = {}
        for directory in SEARCH:
            for each in sorted(wanted.intersection(self.listed)):
                inside = join(directory, each)
                for file in self.tree.names(inside) if directory in self.listed[each] else ():
                    if file.endswith(".conf") and self.tree.is_file(self.tree.real(join(inside, file), last=True)):
                        found.setdefault(file, join(inside, file))
        yield from (found[file] for file in sorted(found))


def is_public(tree: Tree, path: str) -> bool:
    """Whether every user of the host can read the file."""
    source = tree.real(path, last=True)
    for above in parents(source):
        status = tree.lstat(above)
        if status is None or not status.st_mode & 0o001:
            return False
    status = tree.lstat(source)
    return status is not None and bool(status.st_mode & 0o004)


def _prefixes(name: str) -> Iterator[str]:
    """The names with which directories of drop-ins for all units of one family begin: ``a-.service`` for ``a-b.service``."""
    words = stem_of(name).partition("@")[0].split("-")
    for count in range(1, len(words)):
        yield f"{'-'.join(words[:count])}-.{kind_of(name)}"
