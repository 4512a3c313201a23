"""Metrics for Prometheus: names, values, omissions, and the containers' own exporters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lxcfleet.api.records import ContainerRecord
from lxcfleet.containers.measuring.readings import ContainerReading, FleetReading, PatchReading
from lxcfleet.daemon.http.metrics import label_names, render, targets
from lxcfleet.errors import InvalidInput
from lxcfleet.host.kernel.tree import disk_usage, disk_usage_steps
from lxcfleet.host.net.interfaces import Traffic, counters
from lxcfleet.host.process.cgroup import Payload, io_v1, io_v2, stalled, throttled
from lxcfleet.runtime.tasks import TaskReading
from lxcfleet.spec.files.settings import describe, parse
from lxcfleet.spec.states import Health, State

RUNNING = ContainerReading(
    "web1", State.RUNNING, "app", labels={"role": "web"}, restarts=2, started=1000.0, cpu_seconds=1.5,
    memory_bytes=4096, processes=3, io_bytes=(10, 20), traffic=Traffic(30, 3, 1, 40, 4, 2),
    delta_bytes=512, health=Health.HEALTHY, stale=False, shadows=4,
    generation=3, held_until=2000.0,
)  # fmt: skip
STOPPED = ContainerReading("web2", State.STOPPED, "app")


def samples(*containers: ContainerReading) -> dict[tuple[str, str], float]:
    """The value for each name and container (or state), as a parser reads it."""
    patch = PatchReading({}, scanned=950.0, packages_changed=None)
    text = render(FleetReading(containers, daemon_started=900.0, operations_running=1, patch=patch)).decode()
    found: dict[tuple[str, str], float] = {}
    parse: Any = text_string_to_metric_families  # has no types before Debian 13's
    for family in parse(text):
        for sample in family.samples:
            labels = sample.labels
            if sample.name in ("lxcfleet_container_state", "lxcfleet_container_health") and not sample.value:
                continue
            key = labels.get("container", labels.get("state", ""))
            assert (sample.name, key) not in found
            found[sample.name, key] = sample.value
    return found


def test_background_tasks_say_how_often_they_failed_and_whether_they_run() -> None:
    tasks = (TaskReading("observe", 0, True), TaskReading("rollouts", 3, False, "ValueError: boom"))
    text = render(FleetReading((), 900.0, 0, tasks=tasks, event_failures={"network": 2})).decode().splitlines()
    assert 'lxcfleet_task_failures_total{task="observe"} 0.0' in text
    assert 'lxcfleet_task_failures_total{task="rollouts"} 3.0' in text
    assert 'lxcfleet_task_up{task="observe"} 1.0' in text
    assert 'lxcfleet_task_up{task="rollouts"} 0.0' in text
    assert 'lxcfleet_event_failures_total{subscriber="network"} 2.0' in text


def test_a_running_container_has_all_its_metrics() -> None:
    found = samples(RUNNING)
    assert found["lxcfleet_container_restarts_total", "web1"] == 2
    assert found["lxcfleet_container_start_time_seconds", "web1"] == 1000
    assert found["lxcfleet_container_cpu_seconds_total", "web1"] == 1.5
    assert found["lxcfleet_container_memory_bytes", "web1"] == 4096
    assert found["lxcfleet_container_processes", "web1"] == 3
    assert found["lxcfleet_container_io_read_bytes_total", "web1"] == 10
    assert found["lxcfleet_container_io_written_bytes_total", "web1"] == 20
    network = [f"{way}_{unit}" for way in ("received", "sent") for unit in ("bytes", "packets", "drops")]
    assert [found[f"lxcfleet_container_network_{each}_total", "web1"] for each in network] == [30, 3, 1, 40, 4, 2]
    assert found["lxcfleet_container_delta_bytes", "web1"] == 512
    assert found["lxcfleet_container_generation", "web1"] == 3
    assert found["lxcfleet_container_held_until_timestamp_seconds", "web1"] == 2000
    assert found["lxcfleet_container_stale", "web1"] == 0
    assert found["lxcfleet_container_shadows", "web1"] == 4
    assert found["lxcfleet_container_health", "web1"] == 1
    assert found["lxcfleet_operations_running", ""] == 1
    assert found["lxcfleet_stale_scan_timestamp_seconds", ""] == 950
    assert ("lxcfleet_host_packages_change_timestamp_seconds", "") not in found


def test_a_port_s_counters_are_those_of_its_other_end() -> None:
    table = (
        "Inter-|   Receive    |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets …\n"
        "lf0ac90002:  40  4 0 2 0 0 0 0   30  3 0 1 0 0 0 0\n eth0:1: 1 2 3\n br-a:x: 1 1 0 0 0 0 0 0 2 2 0 0 0 0 0 0\n"
    )
    assert counters(table) == {"lf0ac90002": Traffic(30, 3, 1, 40, 4, 2), "br-a:x": Traffic(2, 2, 0, 1, 1, 0)}
    assert counters("") == {}


def test_unknown_values_are_left_out() -> None:
    names = {name for name, container in samples(STOPPED) if container == "web2"}
    assert names == {
        "lxcfleet_container_info", "lxcfleet_container_state", "lxcfleet_container_restarts_total",
        "lxcfleet_container_memory_kills_total",
    }  # fmt: skip


def test_every_state_is_counted_even_if_no_container_is_in_it() -> None:
    found = samples(RUNNING, STOPPED)
    counts = {key: value for (name, key), value in found.items() if name == "lxcfleet_containers"}
    assert counts == {state: int(state in ("running", "stopped")) for state in State}


@given(st.dictionaries(st.text("aA0._/-", min_size=1, max_size=4), st.text("ab", max_size=2), max_size=6))
def test_no_label_is_lost_to_another(labels: dict[str, str]) -> None:
    found = label_names("label_", labels)
    assert sorted(found.values()) == sorted(labels.values())


@pytest.mark.parametrize("size", [0, 100])
def test_rendering_takes_any_label_value(size: int) -> None:
    odd = ContainerReading("a", State.RUNNING, labels={"x": 'quote" back\\slash' * size})
    assert ("lxcfleet_container_info", "a") in samples(odd)


# the containers' own exporters


def record(labels: Mapping[str, str], *addresses: str, ports: tuple[str, ...] = ()) -> ContainerRecord:
    fields = {"name": "web1", "state": "running", "init": "app", "labels": labels, "addresses": list(addresses)}
    return cast(ContainerRecord, {**fields, "ports": list(ports)})


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"prometheus": "9100"}, [("10.0.0.2:9100", None, None)]),
        ({"prometheus": "9100/a/b"}, [("10.0.0.2:9100", None, "/a/b")]),
        ({"prometheus/node": "9100"}, [("10.0.0.2:9100", "node", None)]),
        ({"prometheus/a": "1", "prometheus/b": "2/m"}, [("10.0.0.2:1", "a", None), ("10.0.0.2:2", "b", "/m")]),
        ({"prometheus": "yes"}, []),
        ({"prometheus": "0"}, []),
        ({"prometheus": "65536"}, []),
        ({"prometheus": ""}, []),
        ({"role": "9100"}, []),
    ],
)  # fmt: skip
def test_labels_name_exporters(labels: dict[str, str], expected: list[Any]) -> None:
    found = targets([record(labels, "10.0.0.2", "fd00::2")])
    assert [
        (each["targets"][0], each["labels"].get("exporter"), each["labels"].get("__metrics_path__")) for each in found
    ] == expected
    assert all(each["labels"]["container"] == "web1" for each in found)


def test_declared_ports_name_exporters() -> None:
    ports = ("http=80/tcp", "metrics=9100/tcp", "app-metrics=8080/tcp", "metrics-db=9187/tcp", "metrics-x=1/udp")
    found = targets([record({}, "10.0.0.2", ports=ports)])
    assert [(each["targets"][0], each["labels"].get("exporter")) for each in found] == [
        ("10.0.0.2:9100", None), ("10.0.0.2:8080", "app"), ("10.0.0.2:9187", "db"),
    ]  # fmt: skip


def test_without_an_address_there_is_no_target() -> None:
    assert targets([record({"prometheus": "9100"})]) == []


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert targets([record({"prometheus": "9100"}, "fd00::2")])[0]["targets"] == ["[fd00::2]:9100"]


# settings and sources


@pytest.mark.parametrize(
    ("listen", "address"),
    [("none", None), ("127.0.0.1:9753", ("127.0.0.1", 9753)), ("'[::1]:9753'", ("::1", 9753))],
)
def test_where_to_listen(listen: str, address: object) -> None:
    settings = parse(f"metrics: {{listen: {listen}}}".encode(), "t").metrics
    assert settings.address == address
    described = describe(parse(f"metrics: {{listen: {listen}}}".encode(), "t"))
    assert parse(described.encode(), "t").metrics == settings


@pytest.mark.parametrize("listen", ["localhost:80", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "'::1:80'", "9753", "''"])
def test_where_not_to_listen(listen: str) -> None:
    with pytest.raises(InvalidInput, match="listen"):
        parse(f"metrics: {{listen: {listen}}}".encode(), "t")


def test_io_of_both_kinds_of_cgroups() -> None:
    assert io_v1("8:0 Read 4096\n8:0 Write 1\n8:0 Total 4097\n8:16 Read 4\nTotal 4101\n") == (4100, 1)
    assert io_v2("8:0 rbytes=4096 wbytes=1 rios=2 wios=1 dbytes=0 dios=0\n8:16 rbytes=4\n254:0 \n") == (4100, 1)
    assert io_v1("") == io_v2("") == (0, 0)


def test_a_delta_is_added_up_in_steps(tmp_path: Path) -> None:
    for number in range(1200):
        (tmp_path / f"f{number}").write_bytes(b"x" * (number % 3))
    steps = list(disk_usage_steps(tmp_path))
    assert len(steps) == 3
    assert steps == sorted(steps)
    assert steps[-1] == disk_usage(tmp_path) > 0
    assert list(disk_usage_steps(tmp_path / "nothing")) == []
    assert disk_usage(tmp_path / "nothing") == 0


# docs/monitoring

FILES = Path(__file__).resolve().parents[2] / "docs"


def test_the_documents_name_only_metrics_that_exist() -> None:
    text = render(FleetReading([RUNNING], daemon_started=0.0, operations_running=0)).decode()
    known = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    for file in (*FILES.glob("monitoring/*"), FILES / "monitoring.md"):
        spoken = set(re.findall(r"\blxcfleet_[a-z_]*[a-z]\b", re.sub(r"__meta_\w+", "", file.read_text())))
        assert spoken <= known, file


def test_own_parts_have_a_metric() -> None:
    patch = PatchReading(parts={"lxcfleetd": False, "dnsmasq": True})
    text = render(FleetReading([], daemon_started=0.0, operations_running=0, patch=patch)).decode()
    assert 'lxcfleet_part_stale{part="dnsmasq"} 1.0' in text
    assert 'lxcfleet_part_stale{part="lxcfleetd"} 0.0' in text


def test_a_rollout_has_its_metrics() -> None:
    patch = PatchReading(rollout="halted", rollout_phases={"done": 2, "failed": 1})
    text = render(FleetReading([], daemon_started=0.0, operations_running=0, patch=patch)).decode()
    assert 'lxcfleet_rollout_status{status="halted"} 1.0' in text
    assert 'lxcfleet_rollout_status{status="running"} 0.0' in text
    assert 'lxcfleet_rollout_containers{phase="failed"} 1.0' in text
    assert "lxcfleet_patch_phase{" not in text
    waiting = PatchReading(phase="window")
    text = render(FleetReading([], daemon_started=0.0, operations_running=0, patch=waiting)).decode()
    assert 'lxcfleet_patch_phase{phase="window"} 1.0' in text
    assert 'lxcfleet_patch_phase{phase="idle"} 0.0' in text
    none = render(FleetReading([], daemon_started=0.0, operations_running=0)).decode()
    assert "lxcfleet_rollout_status{" not in none


def test_what_a_limit_costs_is_counted(tmp_path: Path) -> None:
    """Formats: Documentation/scheduler/sched-bwc.rst, admin-guide/cgroup-v2.rst, accounting/psi.rst of Linux."""
    assert throttled("nr_periods 9\nnr_throttled 3\nthrottled_time 1500000000\n") == 1.5
    assert throttled("usage_usec 9\nnr_throttled 3\nthrottled_usec 1500000\n") == 1.5
    assert throttled("usage_usec 9\n") is throttled("throttled_usec x\n") is None
    line = "avg10=0.00 avg60=0.00 avg300=0.00"
    assert stalled(f"some {line} total=2500000\nfull {line} total=1\n") == 2.5
    assert stalled(f"full {line} total=1\n") is stalled("some nothing") is None
    (tmp_path / "cpu.stat").write_text("usage_usec 9\nthrottled_usec 1500000\n")
    (tmp_path / "memory.pressure").write_text(f"some {line} total=2500000\nfull {line} total=1\n")
    unified, legacy = Payload({"": str(tmp_path)}), Payload({"cpu": str(tmp_path)})
    assert (unified.throttled_seconds, unified.pressure) == (1.5, {"memory": 2.5})
    assert (legacy.throttled_seconds, legacy.pressure) == (1.5, {})
    assert (Payload({}).throttled_seconds, Payload({}).pressure) == (None, {})
