#!/usr/bin/python3
"""Create and destroy containers thousands of times, restart a group in waves again and again, and see that nothing grows.

    /usr/bin/python3 bench/endurance.py [--created 10000] [--rollouts 2000] [--at-once 20] [--json FILE]

Needs root and patience: on a quiet machine half a minute for each thousand containers, and a second for each rollout. After
a tenth of the work (caches are full then) and at the end this counts the memory and descriptors of the daemon and its
servants, and what the host has of mounts, cgroups, loop devices, interfaces, files and rules of the packet filter. What there
is more of at the end is told; memory may grow by 5 %. Exit status: 0, or 1 if something grew.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet, leftovers, observe

DIRECTORY = Path("/var/lib/lxcfleet-bench-endurance")
RUN = Path("/run/lxcfleet-bench-endurance")
GROUP = f"{fleet.PREFIX}g"
_MEMBERS = 3
_MAY_GROW = 1.05
"""Memory may grow by so much: the allocator's share. All else may not grow at all."""
_SLEEP = ("--", "sleep", "infinity")

Counts = dict[str, int]


def count(own: fleet.Fleet) -> Counts:
    """What there is of everything."""
    counts: Counts = {}
    for pid in sorted(own.daemons()):
        name = _name(pid)
        counts[f"{name}: memory, KiB"] = counts.get(f"{name}: memory, KiB", 0) + _anonymous(pid)
        counts[f"{name}: descriptors"] = counts.get(f"{name}: descriptors", 0) + len(os.listdir(f"/proc/{pid}/fd"))
    roots = _roots(own)
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    return counts | {
        "mounts": len(leftovers.mounts(roots)),
        "cgroups": len(observe.cgroup_directories(fleet.PREFIX)),
        "loop devices": len(leftovers.loop_devices(roots)),
        "interfaces": len(os.listdir("/sys/class/net")),
        "lines of rules": sum(1 for line in of_table(rules, fleet.BRIDGE)),
        "files of the fleet": len(files(own)),
        "files of liblxc": sum(len(files) for _, _, files in os.walk(f"/run/lxc/lock{own.paths.lxc}")),
        "processes": len(observe.members(GROUP)) + len(observe.members(f"{fleet.PREFIX}c")),
    }


def _roots(own: fleet.Fleet) -> tuple[Path, Path]:
    return own.paths.lxc.parent, own.paths.run


def files(own: fleet.Fleet) -> set[str]:
    """All files and directories of the fleet."""
    found = (os.path.join(top, name) for root in _roots(own) for top, below, here in os.walk(root) for name in below + here)
    return set(found)


def _name(pid: int) -> str:
    line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    marks = {"booter.py": "booter", "launcher.attacher": "attacher", "launcher.main": "launcher", "logs.servant": "forwarder"}
    return next((name for mark, name in marks.items() if mark in line), "daemon")


def _anonymous(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("RssAnon:")[2].split()[0])


def of_table(rules: str, bridge: str) -> list[str]:
    """The lines of the tables that name the bridge, without what the filter itself notes there for a while, as of questions
    to the name server."""
    tables = [table.splitlines() for table in rules.split("\ntable ") if bridge in table.splitlines()[0]]
    return [line for table in tables for line in table if " expires " not in line]


def create_and_destroy(own: fleet.Fleet, number: int, at_once: int) -> None:
    """Create and destroy so many containers, some at once."""
    for done in range(0, number, at_once):
        own.cli("create", f"{fleet.PREFIX}c", "-n", str(min(at_once, number - done)), "-q", *_SLEEP)
        own.cli("destroy", f"{fleet.PREFIX}c*", "--force", "-q", "--drain", "0")


def roll(own: fleet.Fleet, number: int) -> None:
    """Restart the group in waves so many times."""
    for _ in range(number):
        own.cli("restart", f"{GROUP}*", "--rolling", "-q")


def work(own: fleet.Fleet, options: argparse.Namespace) -> tuple[Counts, Counts, list[str]]:
    """Do all of it; returns the counts after a tenth, and at the end, and the files that are new at the end."""
    own.cli("create", GROUP, "-n", str(_MEMBERS), "-q", "-l", "tier=front", "--drain", "0", "-p", "8977:8080", *_SLEEP)
    clock, tenth = time.perf_counter(), (options.created // 10, options.rollouts // 10)
    counted, seen = [], []
    for created, rollouts in (tenth, (options.created - tenth[0], options.rollouts - tenth[1])):
        create_and_destroy(own, created, options.at_once)
        roll(own, rollouts)
        time.sleep(3)  # what the kernel and the daemon do after the last answer
        seen.append(files(own))
        counted.append(count(own))
        print(f"after {time.perf_counter() - clock:.0f} s: {counted[-1]}", file=sys.stderr, flush=True)
    return counted[0], counted[1], sorted(seen[1] - seen[0])


def grown(before: Counts, after: Counts) -> list[str]:
    """What there is more of at the end."""
    return [
        f"{what}: {before.get(what, 0)}, then {value}"
        for what, value in after.items()
        if value > before.get(what, 0) * (_MAY_GROW if "memory" in what else 1)
    ]


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="create, destroy and restart thousands of times; see what grows")
    parser.add_argument("--created", type=int, default=10_000, help="containers to create and destroy (default: 10000)")
    parser.add_argument("--rollouts", type=int, default=2_000, help="how many rolling restarts (default: 2000)")
    parser.add_argument("--at-once", type=int, default=20, help="how many containers at once (default: 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the counts there")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: this takes root", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it tidies up
    own = fleet.Fleet(DIRECTORY, RUN, options.at_once, "bridge")
    with fleet.Host(options.at_once):
        leftovers.sweep()
        try:
            own.prepare()
            with own.paths.config_file.open("a", encoding="ascii") as settings:
                settings.write("rollout: {min_healthy_time: 0}\nalive_time: 0.1\n")
            own.end()  # the next command starts the daemon anew, with these settings
            before, after, new = work(own, options)
        finally:
            try:
                own.cli("destroy", "--all", "--force")
            finally:
                own.end()
                leftovers.sweep()
                own.clear()
    if options.json:
        options.json.write_text(json.dumps({"before": before, "after": after}, indent=1) + "\n", encoding="utf-8")
    for what in (more := grown(before, after)):
        print(f"grew: {what}")
    if new:
        print(f"new files: {', '.join(new)}")
    print("nothing else grew" if more else "nothing grew")
    return 1 if more else 0


if __name__ == "__main__":
    sys.exit(main())
