#!/usr/bin/python3
"""Measure what each container costs, by how many there are, on the bridge and without a network; write docs/performance.md.

    /usr/bin/python3 bench/curves.py [--counts 10,100,300,1000] [--json FILE] [--page]
    /usr/bin/python3 bench/curves.py --draw

Needs root, a quiet machine and up to eight minutes. Small counts have more rounds than large ones; the networks take turns.
In each round all containers are created and started, restarted, run a program by `exec`, are stopped, started and destroyed.
A container is ready when its command has written a file. One more container stays on the bridge all the time, so that the
bridge does. The benchmark has a fleet of its own, and does not touch the containers of the machine's own lxcfleet.

--page: also write the samples, the picture and the tables of docs/performance.md. --draw: only the latter two, from the
samples that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import curve_page, fleet, leftovers, observe
from bench.curve_page import Record, Sample
from lxcfleet import __version__

DIRECTORY = Path("/var/lib/lxcfleet-bench")
RUN = Path("/run/lxcfleet-bench")
DOCS = Path(__file__).resolve().parent.parent / "docs"
SAMPLES = DOCS / "performance/curves.json"
PICTURE = DOCS / "performance/curves.svg"
PAGE = DOCS / "performance.md"
_CONTAINERS_OF_ROUNDS = 300
"""So many containers for each count, together: at least one round, and at most five."""
_TRIES = 6
_ALL = f"{fleet.PREFIX}[1-9]*"
_SCRIPT = "echo ready >/ready; exec sleep infinity"


def one_round(own: fleet.Fleet, network: str, count: int) -> Sample:
    """Measure everything with ``count`` containers, once."""
    files = {name: own.paths.container(name).delta / "ready" for name in own.names[:count]}

    def verb(*arguments: str, ready: bool) -> float:
        began, clock = time.time(), time.perf_counter()
        own.cli(*arguments)
        if ready:
            observe.wait_written(files, began)
        taken = time.perf_counter() - clock
        time.sleep(0.5)  # what the host has to do after the last answer belongs to nobody's time
        return taken

    create = verb("create", fleet.PREFIX, "-n", str(count), "--network", network, "--", "sh", "-c", _SCRIPT, ready=True)
    before = _processor_time()
    restart = verb("restart", _ALL, ready=True)
    after = _processor_time()
    executed = verb("exec", _ALL, "--", "true", ready=False)
    stop = verb("stop", _ALL, ready=False)
    start = verb("start", _ALL, ready=True)
    destroy = verb("destroy", _ALL, "--force", ready=False)
    softirq = (after[0] - before[0]) / max(after[1] - before[1], 1)
    return Sample(network=network, count=count, create=create, restart=restart, stop=stop, start=start, exec=executed,
                  destroy=destroy, softirq=softirq)  # fmt: skip


def _processor_time() -> tuple[int, int]:
    """What soft interrupts took of all processors, and all of their time, in ticks; proc(5), stat."""
    fields = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return fields[6], sum(fields)


def measure(counts: list[int]) -> Record:
    """All rounds."""
    record = Record(host=_host(), samples=[], warnings=[])
    own = fleet.Fleet(DIRECTORY / "curves", RUN, max(counts), "bridge")
    with fleet.Host(max(counts)):
        leftovers.sweep()
        try:
            own.prepare()
            own.cli("create", f"{fleet.PREFIX}0", "--", "sleep", "infinity")
            for count in counts:
                for number in range(max(1, min(5, _CONTAINERS_OF_ROUNDS // count))):
                    for network in curve_page.NETWORKS if number % 2 else reversed(curve_page.NETWORKS):
                        stamp = own.mask_stamp()
                        record["samples"].append(one_round(own, network, count))
                        _tell(record["samples"][-1])
                        if own.mask_stamp() != stamp:
                            record["warnings"].append(f"the host's files changed within a round of {count}, {network}")
        finally:
            _tidy(own)
    return record


def _tidy(own: fleet.Fleet) -> None:
    """Leave nothing of the benchmark on the machine, however the rounds ended."""
    try:
        for left in reversed(range(_TRIES)):
            try:
                own.cli("destroy", "--all", "--force")
                break
            except fleet.Failed:  # a command that was broken off may go on
                if not left:
                    raise
                time.sleep(10)
    finally:
        own.end()
        leftovers.sweep()
        own.clear()


def _tell(sample: Sample) -> None:
    shown = (f"{curve.key} {curve_page.shown(curve.of(sample), curve.unit)}" for curve in curve_page.CURVES)
    print(f"{sample['count']}, {sample['network']}: {', '.join(shown)}", file=sys.stderr, flush=True)


def _host() -> dict[str, object]:
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    lxc = subprocess.run(["lxc-start", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "date": time.strftime("%Y-%m-%d"), "kernel": platform.release(), "processors": os.cpu_count(),
        "model": model[1] if model else platform.machine(), "memory_mib": observe.meminfo("MemTotal") >> 20,
        "lxc": lxc, "version": __version__, "load_before": round(os.getloadavg()[0], 2),
    }  # fmt: skip


def draw() -> None:
    """Write the picture, and the tables of the page, from the samples beside them."""
    record: Record = json.loads(SAMPLES.read_text(encoding="utf-8"))
    PICTURE.write_text(curve_page.picture(record), encoding="utf-8")
    PAGE.write_text(curve_page.replaced(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="measure what each container costs, by how many there are")
    parser.add_argument("--counts", default="10,100,300,1000", help="how many containers (default: 10,100,300,1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the samples there")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md with its samples and picture")
    parser.add_argument("--draw", action="store_true", help="measure nothing; draw the samples of docs/performance.md anew")
    options = parser.parse_args()
    if options.draw:
        draw()
        return 0
    if os.geteuid() != 0:
        print("bench: this takes root", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it tidies up
    record = measure(sorted({int(word) for word in options.counts.split(",")}))
    text = json.dumps(record, indent=1) + "\n"
    for file in ([options.json] if options.json else []) + ([SAMPLES] if options.page else []):
        file.write_text(text, encoding="utf-8")
    if options.page:
        draw()
    for target in curve_page.targets(curve_page.Medians(record["samples"])):
        measured = curve_page.shown(target.value, target.unit)
        print(f"{target.what}: {measured}, target {target.limit:g} {target.unit}, {'met' if target.met else 'MISSED'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
