"""Questions about CVEs: where which one is closed, and whether one is closed everywhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lxcfleet.api.findings import CveDataRecord, CveProofRecord, CveRecord, CvesRecord, PlaceRecord, ProofRecord, UnreadRecord
from lxcfleet.api.queries import VerifyRequest
from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.host.packages import database, losses
from lxcfleet.launcher.items.cves import CveData, CveSets, FoundCve
from lxcfleet.patch.cve import judge
from lxcfleet.patch.cve.changelog import PART, MentionKind
from lxcfleet.patch.cve.findings import FixState
from lxcfleet.patch.cve.judge import CveVerdict
from lxcfleet.patch.cve.sets import Sets
from lxcfleet.patch.stale.finder import Finder
from lxcfleet.patch.stale.served import ComparedFiles
from lxcfleet.patch.verify.evidence import Proof
from lxcfleet.patch.verify.prover import KnownState, Prover
from lxcfleet.paths import Paths
from lxcfleet.runtime.operations import now
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import CveState

_DAY = 86400.0
_SURE = (FixState.FIXED, FixState.DOUBT)
"""The states of a fix in a set of packages where it takes a look at processes to tell the rest."""


class Cves:
    """The known CVEs, and the containers that have them."""

    def __init__(self, paths: Paths, registry: Registry, finder: Finder, prover: Prover, sets: Sets) -> None:
        self._paths, self._registry, self._finder, self._prover, self._sets = paths, registry, finder, prover, sets

    async def find(self, selection: Selection) -> CvesRecord:
        """All CVEs that changelogs or data name for the chosen containers (all, if none is chosen). Raises FleetError."""
        containers = await self._registry.chosen(selection)
        answer = await self._sets.of(containers)
        sight = await self._see(containers, answer)
        owners = {**await self._lost(), **sight.packages} if sight else {}
        # In a thread, as there may be a hundred thousand pairs of a container and a CVE.
        cves = await asyncio.to_thread(lambda: list(_Judged(answer, sight, owners).records()))
        names = [container.name for container in containers]
        return {
            "time": now(),
            "containers": names,
            "sets": len(answer["sets"]),
            "cves": cves,
            "unread": _unread(containers, answer),
            "data": _data(answer["data"]),
        }

    async def counts(self) -> dict[str, int]:
        """How many CVEs have each state in some container; none that is not known. Raises FleetError."""
        record = await self.find(Selection())
        return {
            state: len({each["cve"] for each in record["cves"] if any(place["state"] == state for place in each["places"])})
            for state in CveState
        }

    async def verify(self, ask: VerifyRequest) -> ProofRecord:
        """Judge whether the chosen containers have the fixes of ``ask.cves``, and run none of the code from before."""
        containers = await self._registry.chosen(ask.selection)
        answer = await self._sets.of(containers, ask.cves)
        installed = await asyncio.to_thread(database.installed)
        found = {name for each in answer["found"] for name in each["names"]}
        names = sorted(found.intersection(installed) | set(ask.packages))
        lost = await self._lost()

        def prove(container: Container, sight: KnownState) -> Proof:
            return _proof(container, sight, answer, ask.cves, {**lost, **sight.packages})

        proof = await self._prover.verify(ask.selection, names, deep=ask.deep, prove=prove)
        proof["cves"] = [_proven_record(cve, answer) for cve in ask.cves]
        if not names:  # none of lxcfleet's own parts can have to do with it
            proof["parts"] = []
            proof["proven"] = all(record["proven"] for record in proof["containers"])
        return proof

    async def _see(self, containers: Sequence[Container], answer: CveSets) -> KnownState | None:
        """The evidence of the processes; None: they have nothing to do with it, as no fix is there."""
        sure = {number for number, each in enumerate(answer["found"]) if each["disk"] in _SURE}
        sets = {number for number, each in enumerate(answer["sets"]) if not sure.isdisjoint(each["found"])}
        chosen = [each for each in containers if answer["containers"].get(each.name) in sets]
        if not chosen:
            return None
        installed = await asyncio.to_thread(database.installed)
        pending = {name for number in sure for name in answer["found"][number]["names"]}
        wanted = ComparedFiles(self._finder.data)
        return await self._prover.see(chosen, installed, wanted, sorted(pending.intersection(installed)))

    async def _lost(self) -> dict[str, str]:
        """The packages that had files which they have no more, by path."""
        known = await asyncio.to_thread(losses.read, self._paths.lost_files)
        return {loss.path: loss.package for loss in known}


@dataclass(frozen=True)
class _Key:
    """The facts from which the verdict on a container follows."""

    source: str
    disk: str
    own: bool
    began: bool
    words: str
    fixed: str
    names: tuple[str, ...]
    without: tuple[str, ...]

    @classmethod
    def of(cls, each: FoundCve) -> _Key:
        return cls(
            each["source"], each["disk"], each["own"], each["began"], each["words"], each["fixed"],
            tuple(each["names"]), tuple(each["without"]),
        )  # fmt: skip


class _Judged:
    """All CVEs with the states that they have in containers."""

    def __init__(self, answer: CveSets, sight: KnownState | None, owners: Mapping[str, str]) -> None:
        self._answer, self._sight, self._owners = answer, sight, owners
        self._members: list[list[str]] = [[] for _ in answer["sets"]]
        for name, number in answer["containers"].items():
            self._members[number].append(name)
        self._known: dict[tuple[int, int], dict[CveVerdict, list[str]]] = {}
        self._parts: dict[int, tuple[list[str], list[str]]] = {}
        """Of each set; see ``_parted``."""
        numbers: dict[_Key, int] = {}
        self._keys = [numbers.setdefault(_Key.of(each), len(numbers)) for each in answer["found"]]
        """The facts from which the verdict on each CVE follows, as a number: equal ones have the same."""

    def records(self) -> Iterator[CveRecord]:
        """One for each CVE and source, the worst first."""
        where: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for number, each in enumerate(self._answer["sets"]):
            for index in each["found"] if self._members[number] else ():
                found = self._answer["found"][index]
                where.setdefault((found["cve"], found["source"]), []).append((index, number))
        records = [self._record(found) for found in where.values()]
        yield from sorted(records, key=lambda each: (_rank(each["places"][0]["state"]), each["source"], each["cve"]))

    def _record(self, where: Sequence[tuple[int, int]]) -> CveRecord:
        """Of a CVE in one source. ``where``: its indices among all that was found, each with a set that has it."""
        places: dict[CveVerdict, list[str]] = {}
        for index, number in where:
            for verdict, names in self._places(index, number).items():
                places.setdefault(verdict, []).extend(names)
        found = [self._answer["found"][index] for index in dict.fromkeys(index for index, _ in where)]
        first = found[0]
        told = next((each for each in found if each["line"]), first)
        return {
            "cve": first["cve"],
            "source": first["source"],
            "packages": sorted({package for each in found for package in each["packages"]}),
            "fixed": told["fixed"] or None,
            "line": told["line"] or None,
            "partly": told["words"] in (MentionKind.PARTLY, MentionKind.NOT) or PART.search(told["line"]) is not None,
            "urgency": first["urgency"] or None,
            "remote": first["remote"],
            "description": first["description"] or None,
            "places": [
                PlaceRecord(state=verdict.state, why=list(verdict.why), containers=names)
                for verdict, names in sorted(places.items(), key=lambda item: (_rank(item[0].state), item[1]))
            ],
        }

    def _places(self, index: int, number: int) -> Mapping[CveVerdict, Sequence[str]]:
        key, found = (number, self._keys[index]), self._answer["found"][index]
        if key not in self._known:
            self._known[key] = places = dict[CveVerdict, list[str]]()
            own = self._answer["sets"][number]["own"]
            alike, others = self._parted(number)
            if alike:
                places[self._verdict(found, alike[0], own=own)] = [*alike]
            for name in others:
                places.setdefault(self._verdict(found, name, own=own), []).append(name)
            if alike and others:
                turns = {name: turn for turn, name in enumerate(self._members[number])}
                for names in places.values():
                    names.sort(key=turns.__getitem__)
        return self._known[key]

    def _parted(self, number: int) -> tuple[list[str], list[str]]:
        """The containers of a set in which nothing was found, which are all alike, and the others."""
        if number not in self._parts:
            evidence = self._sight.evidence if self._sight else {}
            seen = [(name, evidence.get(name)) for name in self._members[number]]
            alike = [name for name, each in seen if each is not None and judge.is_plain(each)]
            chosen = {*alike}
            self._parts[number] = alike, [name for name, _ in seen if name not in chosen]
        return self._parts[number]

    def _verdict(self, found: FoundCve, name: str, *, own: bool) -> CveVerdict:
        seen = self._sight.evidence.get(name) if self._sight else None
        if seen is None and found["disk"] in _SURE:
            return CveVerdict(CveState.UNKNOWN, ("it was not looked at",))
        if seen is None or self._sight is None:
            return judge.without_fix(found)
        return judge.verdict(found, seen, self._sight.host, self._owners, own=own)


_RANKS: dict[str, int] = {state: rank for rank, state in enumerate(CveState)}


def _rank(state: str) -> int:
    return _RANKS[state]


def _unread(containers: Sequence[Container], answer: CveSets) -> list[UnreadRecord]:
    """The gaps in the knowledge: of packages, and of containers."""
    found: dict[tuple[str, str], UnreadRecord] = {}

    def add(source: str, packages: Sequence[str], why: str, name: str) -> None:
        record = found.setdefault((source, why), {"source": source, "packages": list(packages), "why": why, "containers": []})
        record["containers"].append(name)

    for container in containers:
        name = container.name
        if name in answer["problems"]:
            add("", (), answer["problems"][name], name)
            continue
        each = answer["sets"][answer["containers"][name]]
        if why := judge.unknown_of(each, running=container.running is not None):
            add("", (), why, name)
        for source in each["unread"]:
            add(source["source"], source["packages"], source["why"], name)
    return sorted(found.values(), key=lambda record: (record["source"], record["why"]))


def _data(data: CveData | None) -> CveDataRecord | None:
    if data is None:
        return None
    written = datetime.fromtimestamp(data["modified"], UTC) if data["modified"] else None
    return {
        "file": data["file"],
        "written": written.isoformat(timespec="seconds").replace("+00:00", "Z") if written else None,
        "days": round(max(0.0, time.time() - data["modified"]) / _DAY, 1) if written else None,
        "problem": data["problem"] or None,
    }


def _proof(container: Container, sight: KnownState, answer: CveSets, cves: Sequence[str], owners: Mapping[str, str]) -> Proof:
    """The judgement on one container for some CVEs."""
    name, seen = container.name, sight.evidence[container.name]
    if name in answer["problems"]:
        return Proof((), (), (f"its packages are not known: {answer['problems'][name]}",))
    each = answer["sets"][answer["containers"][name]]
    mine = [answer["found"][index] for index in each["found"]]
    reasons = []
    names = set[str]()
    for cve in cves:
        found = [one for one in mine if one["cve"] == cve]
        if each["own"] and each["unread"]:
            lacking = ", ".join(source["source"] for source in each["unread"])
            reasons.append(f"{cve}: the changelogs of packages of its own can't be read: {lacking}")
        if not found and cve not in answer["named"]:
            reasons.append(f"which packages have {cve} is not known: no changelog of an installed package names it")
        for one in found:
            names.update(one["names"])
            verdict = judge.verdict(one, seen, sight.host, owners, own=each["own"])
            if verdict.state is not CveState.PROVEN:
                reasons.append(f"{cve}, {one['source']}: {verdict.state.words}: {'; '.join(verdict.why)}")
    old = tuple(file for file in seen.scan.files if (file.package or owners.get(file.path)) in names)
    return Proof(old, tuple(shadow for shadow in seen.shadows if shadow.package in names), tuple(reasons))


def _proven_record(cve: str, answer: CveSets) -> CveProofRecord:
    found = [each for each in answer["found"] if each["cve"] == cve]
    return {
        "cve": cve,
        "packages": sorted({package for each in found for package in each["packages"]}),
        "named": cve in answer["named"],
        "line": next((each["line"] for each in found if each["line"]), None),
    }
