"""Capacity: refuse with the numbers, or say which setting makes room; never promise what does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.api.records import FindingRecord
from lxcfleet.capacity import needs
from lxcfleet.capacity.needs import Finding
from lxcfleet.errors import NoCapacity, Unsupported
from lxcfleet.host.facts.features import Features, Probe
from lxcfleet.host.facts.limits import HostLimits, Table, render
from lxcfleet.spec.reading.terms import Init

GIB = 1 << 30
GOOD = Features(
    probes=(Probe("overlay", "ok", "overlays work"), Probe("lxc", "ok", "LXC 5.0.2")),
)
INOTIFY = Table("fs.inotify.max_user_instances", 128, 8)
TABLES = {
    "inotify-instances": INOTIFY,
    "inotify-watches": Table("fs.inotify.max_user_watches", 200_000, 50),
    "processes": Table("kernel.pid_max", 32768, 200),
    "threads": Table("kernel.threads-max", 60_000, 200),
    "open-files": Table("fs.file-max", 1 << 40, 1000),
    "ptys": Table("kernel.pty.max", 4096, 2, reserved=1024),
    "root-keys": Table("kernel.keys.root_maxkeys", 1_000_000, 3),
    "keys": Table("kernel.keys.maxkeys", 200, 9),
    "key-bytes": Table("kernel.keys.maxbytes", 20_000, 161),
    "neighbours": Table("net.ipv4.neigh.default.gc_thresh3", 1024, 4),
}
ROOMY = HostLimits(
    memory_total=64 * GIB,
    memory_available=60 * GIB,
    disk_free=100 * GIB,
    inodes_free=10_000_000,
    disk_path="/var/lib/lxc",
    tables=TABLES,
)


def limits(**tables: Table) -> HostLimits:
    return replace(ROOMY, tables={**TABLES, **{name.replace("_", "-"): t for name, t in tables.items()}})


def find(findings: tuple[Finding, ...], check: str) -> Finding:
    (found,) = (f for f in findings if f.check == check)
    return found


def failures(findings: tuple[Finding, ...]) -> list[str]:
    return [f.check for f in findings if f.level == "fail"]


def test_app_containers_fit_where_privileged_system_containers_exhaust_inotify() -> None:
    assert failures(needs.assess(100, Init.APP, ROOMY, GOOD, None)) == []
    assert failures(needs.assess(100, Init.SYSTEM, ROOMY, GOOD, None)) == ["inotify-instances"]


def test_each_unprivileged_container_has_the_limits_of_a_user_to_itself() -> None:
    assert failures(needs.assess(400, Init.SYSTEM, ROOMY, GOOD, 4000)) == []
    low = needs.assess(1, Init.SYSTEM, limits(inotify_instances=replace(INOTIFY, limit=4)), GOOD, 4000)
    assert failures(low) == ["inotify-instances"]
    assert find(low, "inotify-instances").message == "inotify instances: 6 needed by each, 4 allowed"


def test_a_failure_has_the_numbers_and_the_value_that_makes_room() -> None:
    found = find(needs.assess(100, Init.SYSTEM, ROOMY, GOOD, None), "inotify-instances")
    assert (found.need, found.have, found.fixable) == (600, 128 - 8 - 4, True)
    assert found.message == "inotify instances: 600 needed, 116 left (fs.inotify.max_user_instances is 128)"
    assert found.hint == "raise fs.inotify.max_user_instances from 128 to 2048"
    assert found.fixes == (("fs.inotify.max_user_instances", 2048),)


def test_failures_come_first() -> None:
    levels = [f.level for f in needs.assess(100, Init.SYSTEM, ROOMY, GOOD, None)]
    assert levels[0] == "fail"
    assert set(levels[1:]) == {"ok"}


def test_findings_are_what_the_api_promises() -> None:
    for found in needs.assess(100, Init.SYSTEM, ROOMY, GOOD, 3):
        assert found.to_json().keys() == FindingRecord.__annotations__.keys()


def test_an_estimate_is_called_one() -> None:
    found = needs.assess(1, Init.SYSTEM, limits(inotify_instances=replace(INOTIFY, exact=False)), GOOD, None)
    assert "about 116 left" in find(found, "inotify-instances").message


def test_a_limit_that_nobody_reaches_is_told_without_its_number() -> None:
    found = find(needs.assess(1, Init.SYSTEM, replace(ROOMY, inodes_free=(1 << 63) - 1), GOOD, None), "inodes")
    assert (found.level, found.message.endswith(" needed, practically no limit")) == ("ok", True), found


def test_memory_keeps_a_rest_for_the_host() -> None:
    tight = replace(ROOMY, memory_total=GIB, memory_available=GIB // 4)
    found = find(needs.assess(100, Init.SYSTEM, tight, GOOD, 4000), "memory")
    assert found.level == "fail"
    assert found.have == GIB // 4 - GIB // 20
    assert found.message == "memory: 1.4 GiB needed, 205 MiB left"
    assert not found.fixable


def test_disk_and_inodes_are_those_under_the_deltas() -> None:
    full = replace(ROOMY, disk_free=65 << 20, inodes_free=1100)
    found = needs.assess(10, Init.SYSTEM, full, GOOD, 4000)
    assert failures(found) == ["disk", "inodes"]
    assert find(found, "disk").message == "disk space: 10.0 MiB needed, 1.0 MiB left"
    assert "/var/lib/lxc" in find(found, "disk").hint


def test_file_systems_without_inode_limit_are_not_asked_for_inodes() -> None:
    found = needs.assess(20, Init.SYSTEM, replace(ROOMY, inodes_free=None), GOOD, 4000)
    assert "inodes" not in [f.check for f in found]


def test_uid_ranges_are_counted_unless_privileged() -> None:
    found = find(needs.assess(5, Init.APP, ROOMY, GOOD, 4), "uid-ranges")
    assert (found.level, found.need, found.have, found.fixable) == ("fail", 5, 4, True)
    privileged = [f.check for f in needs.assess(5, Init.APP, ROOMY, GOOD, None)]
    assert "uid-ranges" not in privileged
    assert "root-keys" in privileged
    assert "keys" not in privileged


def test_a_containers_own_key_quota_does_not_depend_on_how_many_there_are() -> None:
    assert find(needs.assess(1000, Init.APP, ROOMY, GOOD, 4000), "keys").level == "ok"
    low = needs.assess(1, Init.SYSTEM, limits(keys=Table("kernel.keys.maxkeys", 20, 0)), GOOD, 4000)
    assert failures(low) == ["keys"]
    assert needs.fixes(low) == {"kernel.keys.maxkeys": 256}
    busy = needs.assess(1, Init.SYSTEM, limits(keys=Table("kernel.keys.maxkeys", 200, 190)), GOOD, 4000)
    assert find(busy, "keys").level == "warning"


def test_a_short_neighbour_table_is_a_warning_with_all_three_thresholds() -> None:
    found = needs.assess(900, Init.APP, ROOMY, GOOD, 4000)
    assert find(found, "neighbours").level == "warning"
    stem = "net.ipv4.neigh.default.gc_thresh"
    assert needs.fixes(found) == {f"{stem}1": 512, f"{stem}2": 2048, f"{stem}3": 4096}
    needs.refuse(found, 900, Init.APP)


def test_a_nearly_full_table_of_connections_is_a_warning() -> None:
    table = Table("net.netfilter.nf_conntrack_max", 65_536, 65_000)
    found = needs.assess(100, Init.APP, limits(connections=table), GOOD, 4000)
    assert find(found, "connections").level == "warning"
    assert needs.fixes(found)["net.netfilter.nf_conntrack_max"] > 65_536
    needs.refuse(found, 100, Init.APP)
    quiet = needs.assess(100, Init.APP, limits(connections=replace(table, used=90)), GOOD, 4000)
    assert find(quiet, "connections").level == "ok"


def test_limits_that_the_kernel_sizes_itself_are_not_raised() -> None:
    found = find(needs.assess(4000, Init.SYSTEM, ROOMY, GOOD, 4000), "threads")
    assert (found.level, found.fixable) == ("fail", False)


def test_nothing_is_raised_above_its_ceiling() -> None:
    used_up = limits(inotify_instances=Table("fs.inotify.max_user_instances", 1 << 20, (1 << 20) - 1))
    found = find(needs.assess(100, Init.SYSTEM, used_up, GOOD, None), "inotify-instances")
    assert (found.level, found.fixable) == ("fail", False)


def test_terminals_kept_for_the_host_are_not_promised() -> None:
    found = find(needs.assess(1, Init.APP, ROOMY, GOOD, 1), "ptys")
    assert found.have == 4096 - 4096 // 32 - 1024 - 2


def test_tables_that_this_kernel_lacks_are_left_out() -> None:
    found = needs.assess(10, Init.SYSTEM, replace(ROOMY, tables={}), GOOD, 4000)
    assert {f.check for f in found} == {"overlay", "lxc", "memory", "disk", "inodes", "uid-ranges"}


def test_missing_features_matter_only_where_they_are_needed() -> None:
    probes = (
        Probe("idmapped-root", "fail", "no shifted owners: EINVAL", "use ext4"),
        Probe("tini", "fail", "no tini", "apt-get install tini"),
        Probe("systemd", "fail", "no systemd"),
        Probe("apparmor", "warning", "AppArmor is off"),
    )
    poor = replace(GOOD, probes=probes)
    assert failures(needs.assess(1, Init.APP, ROOMY, poor, 9)) == ["idmapped-root", "tini"]
    assert failures(needs.assess(1, Init.SYSTEM, ROOMY, poor, 9)) == ["idmapped-root", "systemd"]
    assert failures(needs.assess(1, Init.APP, ROOMY, poor, None)) == ["tini"]
    assert needs.fits(Init.APP, ROOMY, poor, 9) == 0


def test_refusing_names_what_is_missing_before_what_is_short() -> None:
    poor = replace(GOOD, probes=(Probe("overlay", "fail", "no overlay: ENODEV", "modprobe overlay"),))
    with pytest.raises(Unsupported) as caught:
        needs.refuse(needs.assess(100, Init.SYSTEM, ROOMY, poor, 9), 100, Init.SYSTEM)
    assert caught.value.message == "this host can't run system containers"
    assert (caught.value.why, caught.value.hint) == ("no overlay: ENODEV", "modprobe overlay")


def test_refusing_gives_numbers_and_the_next_step() -> None:
    with pytest.raises(NoCapacity) as caught:
        needs.refuse(needs.assess(100, Init.SYSTEM, ROOMY, GOOD, None), 100, Init.SYSTEM)
    assert str(caught.value).splitlines() == [
        "no room for 100 more system containers",
        "inotify instances: 600 needed, 116 left (fs.inotify.max_user_instances is 128)",
        "`lxcfleet doctor --fix -n 100` makes room",
    ]


@pytest.mark.parametrize(
    ("count", "memory", "hint"),
    [
        (50, 1 * GIB, "there is room for 36; `lxcfleet doctor -n 50` tells more"),
        (
            100,
            1 * GIB,
            "`lxcfleet doctor --fix -n 100` raises what can be raised; even so there is room for 36",
        ),
    ],
)
def test_refusing_says_how_many_fit(count: int, memory: int, hint: str) -> None:
    tight = replace(ROOMY, memory_available=memory)
    if count == 50:
        tight = replace(tight, tables={})
    with pytest.raises(NoCapacity) as caught:
        needs.refuse(needs.assess(count, Init.SYSTEM, tight, GOOD, None), count, Init.SYSTEM)
    assert caught.value.hint == hint


def test_the_next_step_for_app_containers_says_so() -> None:
    with pytest.raises(NoCapacity) as caught:
        needs.refuse(needs.assess(2000, Init.APP, ROOMY, GOOD, 4000), 2000, Init.APP)
    assert caught.value.hint == "`lxcfleet doctor --fix -n 2000 --init app` makes room"


def test_nothing_is_refused_that_fits() -> None:
    needs.refuse(needs.assess(10, Init.SYSTEM, ROOMY, GOOD, 10), 10, Init.SYSTEM)


def test_fits_is_what_the_scarcest_thing_allows() -> None:
    assert needs.fits(Init.SYSTEM, ROOMY, GOOD, None) == 116 // 6
    assert needs.fits(Init.APP, ROOMY, GOOD, 7) == 7
    assert needs.fits(Init.APP, ROOMY, GOOD, 0) == 0


tables = st.builds(
    Table,
    st.just("fs.inotify.max_user_instances"),
    st.integers(0, 1 << 19),
    st.integers(0, 1 << 19),
    st.integers(0, 2000),
)


@given(tables, st.sampled_from([*Init]), st.integers(1, 300), st.integers(0, 8 * GIB))
def test_fits_and_refuse_agree(table: Table, init: Init, ids: int, memory: int) -> None:
    host = replace(limits(inotify_instances=table, ptys=table), memory_available=memory)
    room = needs.fits(init, host, GOOD, ids)
    if room:
        assert failures(needs.assess(room, init, host, GOOD, ids)) == []
    assert failures(needs.assess(room + 1, init, host, GOOD, ids)) != []


@given(table=tables, count=st.integers(1, 4096), init=st.sampled_from([*Init]))
def test_a_fix_makes_the_very_room_that_it_promises(table: Table, count: int, init: Init) -> None:
    found = needs.assess(count, init, limits(inotify_instances=table, ptys=table), GOOD, 5000)
    for check in ("inotify-instances", "ptys"):
        for finding in (f for f in found if f.check == check and f.fixable):
            ((_, value),) = finding.fixes
            assert value > table.limit
            cured = limits(**{check.replace("-", "_"): replace(table, limit=value)})
            assert find(needs.assess(count, init, cured, GOOD, 5000), check).level == "ok"


def test_the_sysctl_file_keeps_the_values_that_were_raised_before() -> None:
    present = "# old\nfs.file-max = 5\nkernel.pid_max = 4194304\n;kernel.pty.max = 9\nodd line\nname = text\n"
    text = render({"kernel.pid_max": 65536, "fs.file-max": 100}, present)
    assert text.splitlines()[1:] == ["fs.file-max = 100", "kernel.pid_max = 4194304"]
    assert text.startswith("# Written by")
    assert render({}, text) == text


@pytest.mark.parametrize(("count", "words"), [(1, "1 more app container"), (2, "2 more app containers")])
def test_one_container_is_not_called_many(count: int, words: str) -> None:
    with pytest.raises(NoCapacity) as caught:
        needs.refuse(needs.assess(count, Init.APP, ROOMY, GOOD, 0), count, Init.APP)
    assert caught.value.message == f"no room for {words}"
