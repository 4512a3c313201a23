"""The uids and gids of each unprivileged container. Pure: texts in, numbers out.

A container's range has spec.container.spec.RANGE_SIZE ids and lies inside root's lines of both /etc/subuid and
/etc/subgid, because newuidmap and newgidmap, which LXC runs where they are installed, refuse everything else
(newuidmap(1)). Ranges of two containers never overlap: with a shared id, one container could touch the other's
files and processes.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lxcfleet.errors import InvalidInput, NoCapacity
from lxcfleet.spec.reading.terms import RANGE_SIZE

INSTALLER_FIRST = 0x70000000
"""Above systemd-nspawn's range (524288–1879048191) and useradd's SUB_UID_MAX (600100000); below 2^31.

https://systemd.io/UIDS-GIDS; some programs still keep uids in a signed 32-bit number.
"""

INSTALLER_COUNT = 0x10000000
"""Room for 4095 containers: 2^28 ids without the range in ``_RESERVED``."""

_USERADD_MAX = 600100000
"""login.defs(5): SUB_UID_MAX, where useradd stops to give out ranges by itself."""

_MAX_ID = (1 << 32) - 1
"""(uid_t) -1 means "no id" to the kernel; ids end before it."""

_ROOT = ("root", "0")
_HINT = "see subuid(5); `lxcfleet doctor --fix` adds a line for root that overlaps with nothing"


class Ids(NamedTuple):
    """The ids ``first`` to ``end`` - 1."""

    first: int
    end: int

    def overlaps(self, other: Ids) -> bool:
        """Whether any id is in both."""
        return self.first < other.end and other.first < self.end

    def __str__(self) -> str:
        return f"{self.first}–{self.end - 1}"


_RESERVED = (Ids(0x7FFE0000, 0x7FFF0000),)
"""systemd's range for foreign disk images (https://systemd.io/UIDS-GIDS), inside the installer's line."""


class SubidLine(NamedTuple):
    """One line of /etc/subuid or /etc/subgid: ``owner`` is a login name or a uid in digits."""

    owner: str
    ids: Ids

    @property
    def root(self) -> bool:
        """Whether the line is root's, by name or by number."""
        return self.owner in _ROOT


def parse_subids(text: str) -> tuple[SubidLine, ...]:
    """The usable lines of /etc/subuid or /etc/subgid; subuid(5).

    Lines that newuidmap can't use either (comments, missing or silly numbers) are left out.
    """
    lines = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) != 3 or not fields[0] or not all(f.isascii() and f.isdigit() for f in fields[1:]):
            continue
        first, count = int(fields[1]), int(fields[2])
        if count > 0 and first + count <= _MAX_ID:
            lines.append(SubidLine(fields[0], Ids(first, first + count)))
    return tuple(lines)


def parse_accounts(text: str) -> tuple[tuple[str, int], ...]:
    """Names and ids out of /etc/passwd or /etc/group; in both the id is the third field."""
    accounts = []
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] and fields[2].isascii() and fields[2].isdigit():
            accounts.append((fields[0], int(fields[2])))
    return tuple(accounts)


_IDMAP = re.compile(
    r"^\s*lxc\.(?:idmap|id_map)\s*=\s*[ug]\s+\d+\s+(\d+)\s+(\d+)\s*$", re.MULTILINE | re.ASCII
)


def parse_idmaps(config: str) -> tuple[Ids, ...]:
    """The host's ids that the ``lxc.idmap`` lines of an LXC configuration use; lxc.container.conf(5)."""
    pairs = ((int(first), int(count)) for first, count in _IDMAP.findall(config))
    return tuple(Ids(first, first + count) for first, count in pairs if count > 0)


def overlaps(subuid: str, subgid: str, passwd: str, group: str) -> tuple[str, ...]:
    """Where root's lines overlap with other users' lines or with accounts of the host, one sentence each.

    The pool leaves such ids out, so nothing is unsafe; but the operator should know.
    """
    problems = []
    for file, text, accounts_file, accounts in (
        ("/etc/subuid", subuid, "/etc/passwd", passwd),
        ("/etc/subgid", subgid, "/etc/group", group),
    ):
        lines = parse_subids(text)
        for mine in (line.ids for line in lines if line.root):
            problems += [
                f"{file}: root's ids {mine} overlap with {other.owner}'s {other.ids}"
                for other in lines
                if not other.root and mine.overlaps(other.ids)
            ]
            problems += [
                f"{file}: root's ids {mine} hold {name}'s own id {number} ({accounts_file})"
                for name, number in parse_accounts(accounts)
                if mine.first <= number < mine.end
            ]
    return tuple(problems)


class _Taken:
    """How many containers have each range. It finds those that a range overlaps with without a look at all of them."""

    def __init__(self, firsts: Iterable[int]) -> None:
        self._counts = Counter(firsts)
        self._stretches: dict[int, set[int]] = {}
        """The first ids of ranges by the stretch of RANGE_SIZE ids that they lie in."""
        for first in self._counts:
            self._stretches.setdefault(first // RANGE_SIZE, set()).add(first)

    def __iter__(self) -> Iterator[int]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __contains__(self, first: int) -> bool:
        return first in self._counts

    def add(self, first: int) -> None:
        self._counts[first] += 1
        self._stretches.setdefault(first // RANGE_SIZE, set()).add(first)

    def remove(self, first: int) -> None:
        self._counts[first] -= 1
        if not self._counts[first]:
            del self._counts[first]
            self._stretches[first // RANGE_SIZE].discard(first)

    def meeting(self, first: int) -> Iterator[Ids]:
        """The ranges that have an id of that from ``first`` on."""
        here = first // RANGE_SIZE
        for stretch in (here - 1, here, here + 1):
            for other in self._stretches.get(stretch, ()):
                if _range(other).overlaps(_range(first)):
                    yield _range(other)


class IdPool:
    """The ranges that are still free. Not safe for threads; one pool per daemon.

    ``own`` are the first ids of lxcfleet's containers, ``foreign`` the configurations of all other LXC
    containers on the host. The lowest free range goes first.
    """

    def __init__(
        self,
        subuid: str,
        subgid: str,
        passwd: str = "",
        group: str = "",
        *,
        own: Iterable[int] = (),
        foreign: Iterable[str] = (),
    ) -> None:
        self._allowed = _root_ids(subuid, subgid)
        self._barred = [*_foreign_ids(subuid, subgid, passwd, group), *_RESERVED]
        for config in foreign:
            self._barred += parse_idmaps(config)
        self._taken = _Taken(own)
        # Ranges are counted, as a copied spec may give one range to two containers: it is free when both are gone.
        taken = [_range(first) for first in self._taken]
        self._free = list(_cut(self._allowed, [*self._barred, *taken]))
        self._problems = overlaps(subuid, subgid, passwd, group)

    @property
    def free(self) -> int:
        """How many more ranges there are."""
        return len(self._free)

    def take(self) -> int:
        """The first id of a free range, which is taken now; raises NoCapacity."""
        if not self._free:
            raise self._exhausted()
        first = heapq.heappop(self._free)
        self._taken.add(first)
        return first

    def give_back(self, first_id: int) -> None:
        """Take the range back from a container that is gone.

        Raises InvalidInput if no container has it: to hand out the same range twice would be worse than to stop.
        A range that root's lines no longer hold is forgotten.
        """
        if first_id not in self._taken:
            raise InvalidInput(f"the uid range from {first_id} is not taken", why="it was given back before")
        self._taken.remove(first_id)
        ids = _range(first_id)
        blocked = any(ids.overlaps(other) for other in self._barred)
        shared = next(self._taken.meeting(first_id), None) is not None
        held = any(a.first <= ids.first and ids.end <= a.end for a in self._allowed)
        if held and not blocked and not shared:
            heapq.heappush(self._free, first_id)

    def claim(self, first_id: int) -> None:
        """Note that a container that came from elsewhere (an import, a restored backup) has this range.

        Raises InvalidInput if another container has any id of it, or if it is outside root's lines.
        """
        ids = _range(first_id)
        if not any(a.first <= ids.first and ids.end <= a.end for a in self._allowed):
            raise InvalidInput(f"the ids {ids} are not root's in /etc/subuid and /etc/subgid", hint=_HINT)
        others = (*self._barred, *self._taken.meeting(first_id))
        clash = next((other for other in others if ids.overlaps(other)), None)
        if clash is not None:
            raise InvalidInput(f"the ids {ids} overlap with {clash}, which are taken")
        self._taken.add(first_id)
        self._free = [free for free in self._free if not _range(free).overlaps(ids)]
        heapq.heapify(self._free)

    def _exhausted(self) -> NoCapacity:
        total = sum(ids.end - ids.first for ids in self._allowed)
        if not total:
            why = "root has no ids in both /etc/subuid and /etc/subgid"
        else:
            why = (
                f"root's lines in /etc/subuid and /etc/subgid share {total} ids; a container needs "
                f"{RANGE_SIZE} in a row, and lxcfleet's containers have {len(self._taken)} ranges"
            )
        return NoCapacity("no uid range is free", why="\n".join((why, *self._problems)), hint=_HINT)


def installer_line(
    subuid: str,
    subgid: str,
    passwd: str = "",
    group: str = "",
    *,
    foreign: Iterable[str] = (),
    enough: int = 256,
) -> str | None:
    """The line that gives root room, to be added to /etc/subuid, /etc/subgid or both, wherever it is missing.

    None if root has room for ``enough`` containers. If the usual stretch overlaps with other users' lines,
    accounts or other containers' ids, the largest free one above it is chosen, or else one below it.
    Raises NoCapacity if there is none.
    """
    barred = [*_foreign_ids(subuid, subgid, passwd, group), *_RESERVED]
    for config in foreign:
        barred += parse_idmaps(config)
    allowed = _root_ids(subuid, subgid)
    if sum(1 for _ in _cut(allowed, barred)) >= enough:
        return None
    end = INSTALLER_FIRST + INSTALLER_COUNT
    usual = Ids(INSTALLER_FIRST, end)
    if not any(usual.overlaps(other) for other in barred if other not in _RESERVED):
        return _line(usual)
    for stretch in (usual, Ids(_up(_USERADD_MAX), INSTALLER_FIRST)):
        choices = (Ids(_up(gap.first), _down(gap.end)) for gap in _gaps(stretch, barred))
        best = max(choices, key=lambda ids: ids.end - ids.first, default=Ids(0, 0))
        if best.end - best.first >= enough * RANGE_SIZE:
            return _line(Ids(max(best.first, best.end - INSTALLER_COUNT), best.end))
    raise NoCapacity(
        "no stretch of uids is free for containers",
        why=f"from {_USERADD_MAX} to {end} others leave no {enough * RANGE_SIZE} ids in a row",
        hint="add a line for root to /etc/subuid and /etc/subgid by hand; see subuid(5)",
    )


def _line(ids: Ids) -> str:
    return f"root:{ids.first}:{ids.end - ids.first}"


def _range(first_id: int) -> Ids:
    return Ids(first_id, first_id + RANGE_SIZE)


def _up(number: int) -> int:
    return -(-number // RANGE_SIZE) * RANGE_SIZE


def _down(number: int) -> int:
    return number // RANGE_SIZE * RANGE_SIZE


def _root_ids(subuid: str, subgid: str) -> tuple[Ids, ...]:
    """The ids that root may hand out as uids and as gids. Lines that touch count as one, as for newuidmap."""
    uids, gids = (_merge(line.ids for line in parse_subids(text) if line.root) for text in (subuid, subgid))
    both = (Ids(max(a.first, b.first), min(a.end, b.end)) for a in uids for b in gids if a.overlaps(b))
    return tuple(sorted(both))


def _foreign_ids(subuid: str, subgid: str, passwd: str, group: str) -> list[Ids]:
    """The ids that others have: their lines in either file, and the id of each account and group."""
    lines = [line.ids for text in (subuid, subgid) for line in parse_subids(text) if not line.root]
    own = [Ids(number, number + 1) for text in (passwd, group) for _, number in parse_accounts(text)]
    return lines + own


def _merge(stretches: Iterable[Ids]) -> list[Ids]:
    """The same ids, sorted, with overlapping and touching stretches made one."""
    merged: list[Ids] = []
    for ids in sorted(stretches):
        if merged and ids.first <= merged[-1].end:
            merged[-1] = Ids(merged[-1].first, max(merged[-1].end, ids.end))
        else:
            merged.append(ids)
    return merged


def _gaps(stretch: Ids, barred: Iterable[Ids]) -> Iterator[Ids]:
    """The parts of ``stretch`` that are not in ``barred``, lowest first."""
    first = stretch.first
    for ids in _merge(other for other in barred if other.overlaps(stretch)):
        if first < ids.first:
            yield Ids(first, ids.first)
        first = max(first, ids.end)
    if first < stretch.end:
        yield Ids(first, stretch.end)


def _cut(allowed: Iterable[Ids], barred: Iterable[Ids]) -> Iterator[int]:
    """First ids of all whole ranges in ``allowed`` that touch nothing in ``barred``, lowest first."""
    barred = list(barred)
    for stretch in allowed:
        for gap in _gaps(stretch, barred):
            yield from range(gap.first, gap.end - RANGE_SIZE + 1, RANGE_SIZE)
