"""Make this host ready for a fleet, for installers: no daemon needs to run.

    python3 -m lxcfleet.daemon.prepare 100

Gives root a range of ids for containers, and raises the kernel's limits as far as N more containers need it.
Both persist. `lxcfleet doctor --fix` does the same at any later time. If the host lacks anything else, the command
says so on stderr and exits with status 4.
"""

from __future__ import annotations

import sys

from lxcfleet.capacity import ids, needs
from lxcfleet.containers import store
from lxcfleet.errors import FleetError
from lxcfleet.host.facts import features, idfiles, limits
from lxcfleet.paths import Paths
from lxcfleet.spec.reading.terms import Init

FOUND = 4
"""Exit status of a check that found something."""


def main() -> None:
    """The command. Its argument is the number of containers to make room for."""
    paths = Paths.from_environment()
    try:
        for line in prepare(paths, int(sys.argv[1])):
            print(line)
    except FleetError as error:
        print(f"lxcfleet: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    problems = lacking(features.read(paths))
    for line in problems:
        print(f"lxcfleet: {line}", file=sys.stderr)
    sys.exit(FOUND if problems else 0)


def lacking(found: features.Features) -> list[str]:
    """The reasons why this host can't run containers, each with a hint."""
    return [
        f"{probe.message}{f' ({probe.hint})' if probe.hint else ''}" for probe in found.probes if probe.level == "fail"
    ]


def prepare(paths: Paths, count: int) -> list[str]:
    """Prepare the host, and give a line for each change. Raises FleetError."""
    paths.lxc.mkdir(mode=0o755, parents=True, exist_ok=True)
    changed = []
    line = ids.installer_line(*limits.id_files(), foreign=store.foreign_configs(paths, set()))
    if line is not None:
        _, first, size = line.split(":")
        idfiles.add_root_range(int(first), int(first) + int(size) - 1)
        changed.append(f"/etc/subuid and /etc/subgid: {line} (ids for unprivileged containers)")
    found = needs.assess(count, Init.SYSTEM, limits.read(paths), features.read(paths), count)
    values = needs.fixes(found)
    if values:
        limits.apply(values, paths.sysctl_file)
        changed += [f"{paths.sysctl_file}: {name} = {value}" for name, value in sorted(values.items())]
    return changed


if __name__ == "__main__":
    main()
