"""The mask: the layer between base and delta that hides what a clone must not see.

It is an image, made from rules and from a look at the whole base, and shared by all clones. A record beside
it tells what it was made from, so that the common question, whether it still fits, costs a few hundred lstat
calls.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxcfleet.base.generations.roots import LIVE, Root, root_of, tree_of
from lxcfleet.base.mask import compiler, rules, state
from lxcfleet.base.mask.compiler import BaseFindings, Stamps
from lxcfleet.base.mask.sweep import BaseChanges
from lxcfleet.base.tree import parents, stamp
from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.kernel import image, locks, mounts
from lxcfleet.host.kernel.entries import Directory, Entry, File, Owner, Symlink, Whiteout
from lxcfleet.paths import Paths
from lxcfleet.spec.files import mask_rules
from lxcfleet.spec.reading import ondisk

_WATCHED_FILES = ("/etc/passwd", "/etc/group", "/var/lib/dpkg/status")
_WATCHED_BELOW = ("/etc/", "/var/", "/opt/", "/usr/local/")
_DEPTH = 2
_MAX_WATCHED = 1500
"""The watched directories: of the swept ones, all that lie below _WATCHED_BELOW or at most _DEPTH below /, up to so many.
Looking at them takes 2 ms of lstat. Changes that packages make further down show in dpkg's status."""

_GONE = (FileNotFoundError, NotADirectoryError)
_TRIES = 3
"""The host goes on while it is looked at: a package may be removed, or a service disabled. If a file is gone that was to be
copied a moment before, the mask is planned anew, so many times in all."""


def is_current(paths: Paths, root: Root | None = None) -> bool:
    """Whether the present rules and the present base would give this image; takes 3 ms. ``root``: another base than that of
    ``paths``.

    Notices what came, went or was replaced in the watched directories, and packages that changed. Does not
    notice a file whose mode alone changed, nor what happens deep in directories that are no package's:
    ``ensure`` with ``force`` does, and ``freshness`` knows when that is needed.
    """
    root = root or root_of(paths, paths.generation)
    record = _read(paths.mask_record)
    if record is None or record["rules"] != rules.fingerprint(paths) or record["root"] != _word_of(root):
        return False
    # A rename moves the change time of the image, so its inode and content are compared instead.
    present = stamp(str(paths.mask_image))
    if present is None or present[:2] != record["image"][:2] or record["operator"] != _operator_stamps(paths):
        return False
    if record["parts"] != _parts(root):
        return False
    tree = tree_of(root)
    watched = {**record["watched"], **record.get("swept", {})}
    return all(stamp(tree.outside(path)) == known for path, known in watched.items())


@dataclass(frozen=True)
class Since:
    """All that changed in the host's root since the look at it that a record is of."""

    record: list[int] | None
    """The record's stamp: if there is another one by now, somebody has looked after other changes."""
    changes: BaseChanges


def ensure(paths: Paths, *, root: Root | None = None, force: bool = False, since: Since | None = None) -> bool:
    """Make the image current; returns whether it was built. Takes 1 s per 200,000 files, or none if it fits.

    ``force`` looks through the whole base in any case, or at what changed ``since`` the last look, if that is known. The
    image is only written if something else is to be in it.
    One process at a time builds; a crash at any instant leaves the old image or the new one. Raises InvalidInput
    for the operator's rules, NoCapacity for a full
    disk, Unsupported for missing tools, HostError for all else; the old image stays then.
    """
    root = root or root_of(paths, paths.generation)
    try:
        paths.run.mkdir(mode=0o755, parents=True, exist_ok=True)
        with locks.held(paths.lock_of("build")):
            if not force and is_current(paths, root):
                return False
            for _ in range(_TRIES - 1):
                with contextlib.suppress(*_GONE):
                    return _build_beside(paths, root, since)
                since = None  # what went is none of the changes that were known
            return _build_beside(paths, root, since)
    except OSError as error:
        raise HostError.from_os_error("the mask can't be built", error) from error


def plan(paths: Paths, root: Root = LIVE) -> dict[str, Entry]:
    """The mask as it would be built now, path to entry; ``compiler.describe`` puts it in words."""
    entries, _ = compiler.plan(paths, mask_rules.load(paths.mask_rules), tree_of(root), _mounts(root), _parts(root))
    return entries


def hidden(paths: Paths, path: str, root: Root = LIVE) -> bool:
    """Whether ``path`` is missing in clones that have the present image and an empty delta; links are followed.

    A path that the base lacks counts as hidden. Raises HostError if there is no image yet.
    """
    record = _record(paths)
    return compiler.is_hidden(_load_entries(record["entries"]), tree_of(root), path)


def replaced(paths: Paths) -> frozenset[str]:
    """The files that the present image has in place of the host's; none if there is no image yet."""
    record = _read(paths.mask_record)
    words = {} if record is None else record["entries"]
    return frozenset(path for path, word in words.items() if word.startswith(("file", "link")))


def view(paths: Paths) -> View:
    """The files that clones see under the present image; raises HostError if there is no image yet."""
    return View(_record(paths)["entries"])


def _record(paths: Paths) -> dict[str, Any]:
    record = _read(paths.mask_record)
    if record is None:
        raise HostError("there is no mask yet", why=f"{paths.mask_record} can't be read")
    return record


class View:
    """The part of the base that a mask leaves visible, according to the mask's record."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words

    def matters(self, path: str, inside: bool, directory: bool = False) -> bool:
        """Whether clones can see the file at ``path``, or with ``inside`` the entries of that directory. ``directory``: what
        changed, or came into it, is a directory.

        A path that is itself hidden matters too: perhaps the sweep hid it, and it has become public since. So does
        a directory that clones have or would have empty: theirs follows its owner and mode.
        """
        if directory and (state.concerns(path, inside) or (not inside and path in self._words)):
            return True
        above = parents(path)
        hiding = ("opaque", "whiteout", "file", "link")
        return not any(self._words.get(each, "").startswith(hiding) for each in (*above, *((path,) if inside else ())))


def _build_beside(paths: Paths, root: Root, since: Since | None) -> bool:
    work = paths.run / "mask.new"
    _remove(work)
    work.mkdir(mode=0o700)
    try:
        return _build(paths, root, work, since)
    finally:
        _remove(work)


def _build(paths: Paths, root: Root, work: Path, since: Since | None) -> bool:
    # Stamps are taken before the files they stand for are read, so a change in between is seen as a change later.
    began = time.time()
    operator = _operator_stamps(paths)
    parts = _parts(root)
    tree = tree_of(root)
    for path in _WATCHED_FILES:
        tree.consult(path)
    known = None if since is None else _known(paths, root, since)
    entries, look = compiler.plan(paths, mask_rules.load(paths.mask_rules), tree, _mounts(root), parts, known)
    new, record = work / "image", work / "record"
    digest = _digest(entries)
    present = _present(paths, digest)
    if present is None:
        image.write(entries, tree.outside, work, new)
    content = {
        "rules": rules.fingerprint(paths),
        "root": _word_of(root),
        "image": present or stamp(str(new)),
        "digest": digest,
        "looked": began,
        "operator": operator,
        "parts": parts,
        "watched": tree.consulted,
        "swept": _watched(look.swept),
        "private": look.private,
        "settled": look.settled,
        "entries": _dump_entries(entries),
    }
    # The record names the image by its inode. Between the two renames it fits neither image, and so the mask counts as
    # not current.
    record.write_text(json.dumps(content), encoding="ascii")
    record.chmod(0o600)  # the record has names of files that not everybody may see
    if present is None:
        new.chmod(0o600)
        os.replace(new, paths.mask_image)
    os.replace(record, paths.mask_record)
    return present is None


def _known(paths: Paths, root: Root, since: Since) -> tuple[BaseFindings, BaseChanges] | None:
    """The look that the present record is of, if all is known that changed since."""
    record = _read(paths.mask_record)
    if record is None or record["root"] != _word_of(root) or stamp(str(paths.mask_record)) != since.record:
        return None
    swept, private, settled = record.get("swept"), record.get("private"), record.get("settled")
    if not (isinstance(swept, dict) and isinstance(private, list) and isinstance(settled, str)):
        return None  # of a former version of lxcfleet
    return BaseFindings(swept, private, settled), since.changes


def _digest(entries: Mapping[str, Entry]) -> str:
    """A digest that changes with the content of the image."""
    digest = hashlib.sha256()
    for path, entry in entries.items():
        digest.update(f"{path!r} {entry!r}\n".encode())
    return digest.hexdigest()


def _present(paths: Paths, digest: str) -> list[int] | None:
    """The stamp of the present image, if it has exactly this content."""
    record, found = _read(paths.mask_record), stamp(str(paths.mask_image))
    if record is None or found is None or record.get("digest") != digest or found[:2] != record["image"][:2]:
        return None
    return found


def looked(paths: Paths) -> float:
    """The time of the last look at the whole base (time.time()); 0 if there was none."""
    record = _read(paths.mask_record)
    return float(record.get("looked", 0)) if record is not None else 0.0


def _watched(swept: Stamps) -> Stamps:
    chosen = [path for path in swept if path.startswith(_WATCHED_BELOW) or path.count("/") <= _DEPTH]
    return {path: swept[path] for path in sorted(chosen, key=lambda path: path.count("/"))[:_MAX_WATCHED]}


def _operator_stamps(paths: Paths) -> Stamps:
    """Stamps of the operator's files; if they can't even be listed, ``mask_rules.load`` will say so."""
    files = [paths.mask_rules, paths.resolv_conf]
    with contextlib.suppress(FleetError):
        files += mask_rules.operator_files(paths.mask_rules)
    return {str(file): stamp(str(file)) for file in files}


def _word_of(root: Root) -> str:
    return str(root) if isinstance(root, Path) else ":".join(root.roots)


def _mounts(root: Root) -> frozenset[str]:
    return mounts.points() if root == LIVE else frozenset()


def _parts(root: Root) -> dict[str, str]:
    return mounts.parts() if root == LIVE else {}


def _dump_entries(entries: dict[str, Entry]) -> dict[str, str]:
    """The part of the entries that ``hidden`` needs."""
    return {path: _word(entry) for path, entry in entries.items()}


def _word(entry: Entry) -> str:
    match entry:
        case Whiteout():
            return "whiteout"
        case Directory(opaque=opaque):
            return "opaque" if opaque else "directory"
        case Symlink(target):
            return f"link {target}"
        case _:
            return "file"


def _load_entries(words: dict[str, str]) -> dict[str, Entry]:
    return {path: _entry(word) for path, word in words.items()}


def _entry(word: str) -> Entry:
    kind, _, target = word.partition(" ")
    match kind:
        case "whiteout":
            return Whiteout()
        case "link":
            return Symlink(target)
        case "file":
            return File(b"", Owner(0))
        case _:
            return Directory(Owner(0), opaque=kind == "opaque")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = ondisk.record(path)
    except (OSError, ValueError):
        return None
    keys = {"rules": str, "root": str, "image": list, "operator": dict, "parts": dict, "watched": dict, "entries": dict}
    if isinstance(record, dict) and all(isinstance(record.get(key), kind) for key, kind in keys.items()):
        return record
    return None


def _remove(directory: Path) -> None:
    """Remove what an earlier attempt left; rmtree does not follow links."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)
