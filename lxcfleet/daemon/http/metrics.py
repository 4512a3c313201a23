"""The fleet for Prometheus: its numbers as text, and the containers' own exporters as targets.

https://prometheus.io/docs/instrumenting/exposition_formats, https://prometheus.io/docs/prometheus/latest/http_sd
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lxcfleet import __version__
from lxcfleet.api.records import ContainerRecord, TargetRecord
from lxcfleet.containers.measuring.readings import ContainerReading, FleetReading, PatchReading
from lxcfleet.host.process.cgroup import PRESSED
from lxcfleet.patch import notice
from lxcfleet.patch.rollout.state import Status
from lxcfleet.runtime.pulse import STALL_SECONDS
from lxcfleet.spec.container.ports import parse_port
from lxcfleet.spec.states import Health, State

EXPORTER_LABEL = "prometheus"
"""The label ``prometheus=9100`` says that a container has an exporter on port 9100, at /metrics; ``prometheus=9100/path``
says another path. A container with several exporters has a label ``prometheus/NAME=PORT`` for each."""
EXPORTER_SERVICE = re.compile(r"metrics|(?P<before>.+)-metrics|metrics-(?P<after>.+)")
"""A declared port whose service has such a name is an exporter."""


def render(reading: FleetReading) -> bytes:
    """The reading in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(reading))
    return generate_latest(registry)


class _Once(Collector):
    """One reading as a collector, the interface that prometheus_client asks for metrics."""

    def __init__(self, reading: FleetReading) -> None:
        self._reading = reading

    def describe(self) -> Iterable[Metric]:
        """Describe nothing: otherwise prometheus_client would collect twice."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All families of metrics."""
        yield from _fleet(self._reading)
        yield from _tasks(self._reading)
        yield from _states(self._reading.containers)
        yield from _numbers(self._reading.containers)
        yield from _traffic(self._reading.containers)
        yield from _held_back(self._reading.containers)


def _fleet(reading: FleetReading) -> Iterator[Metric]:
    build = GaugeMetricFamily("lxcfleet_build_info", "The version of lxcfleetd.", labels=["version"])
    build.add_metric([__version__], 1)
    yield build
    yield GaugeMetricFamily(
        "lxcfleet_daemon_start_time_seconds", "When lxcfleetd began, since the epoch.", reading.daemon_started
    )
    yield GaugeMetricFamily(
        "lxcfleet_operations_running", "Operations that are not done.", reading.operations_running
    )
    counts = GaugeMetricFamily("lxcfleet_containers", "Containers by state.", labels=["state"])
    for state in State:
        counts.add_metric([state], sum(1 for c in reading.containers if c.state is state))
    yield counts
    patch = reading.patch
    for name, text, value in (
        ("stale_scan", "When it was looked last what is stale, since the epoch.", patch.scanned),
        ("host_packages_change", "When the host's packages changed last, since the epoch.", patch.packages_changed),
    ):
        family = GaugeMetricFamily(f"lxcfleet_{name}_timestamp_seconds", text)
        if value is not None:
            family.add_metric([], value)
        yield family
    phase = GaugeMetricFamily(
        "lxcfleet_patch_phase", "1 for how far the last change of the host's packages is.", labels=["phase"]
    )
    if patch.phase:
        for word in notice.NoticePhase:
            phase.add_metric([word], int(word == patch.phase))
    yield phase
    yield GaugeMetricFamily(
        "lxcfleet_host_reboot_required", "1 while a reboot of the host is due, for a kernel say.", int(patch.reboot)
    )
    parts = GaugeMetricFamily(
        "lxcfleet_part_stale", "Whether a part of lxcfleet's own ran old code at the last look.", labels=["part"]
    )
    for name, stale in patch.parts.items():
        parts.add_metric([name], int(stale))
    yield parts
    cves = GaugeMetricFamily(
        "lxcfleet_cve", "CVEs that have this state in some container, at the last look.", labels=["state"]
    )
    for where, count in patch.cves.items():
        cves.add_metric([where], count)
    yield cves
    names = GaugeMetricFamily(
        "lxcfleet_name_lookups_work", "Whether containers get answers from the fleet's name server, at the last look."
    )
    if reading.names_work is not None:
        names.add_metric([], int(reading.names_work))
    yield names
    yield from _rollout(patch)


def _tasks(reading: FleetReading) -> Iterator[Metric]:
    failures = CounterMetricFamily(
        "lxcfleet_task_failures", "How often a background task of lxcfleetd failed unexpectedly.", labels=["task"]
    )
    up = GaugeMetricFamily(
        "lxcfleet_task_up", "0 while a background task of lxcfleetd waits for its restart after a failure, else 1.",
        labels=["task"],
    )  # fmt: skip
    for task in reading.tasks:
        failures.add_metric([task.name], task.failures)
        up.add_metric([task.name], int(task.up))
    events = CounterMetricFamily(
        "lxcfleet_event_failures", "Events that a part of lxcfleetd could not deal with.", labels=["subscriber"]
    )
    for name, count in reading.event_failures.items():
        events.add_metric([name], count)
    yield from (failures, up, events)
    longest = GaugeMetricFamily(
        "lxcfleet_loop_longest_turn_seconds", "For how long lxcfleetd answered nobody at most, in the last minute or two.",
        labels=["clock"],
    )  # fmt: skip
    stalls = CounterMetricFamily(
        "lxcfleet_loop_stalls", f"How often lxcfleetd answered nobody for more than {STALL_SECONDS} s.", labels=["clock"]
    )
    for clock, pulse in reading.pulse.items():
        longest.add_metric([clock], pulse.longest)
        stalls.add_metric([clock], pulse.stalls)
    yield longest
    yield stalls


def _rollout(patch: PatchReading) -> Iterator[Metric]:
    status = GaugeMetricFamily(
        "lxcfleet_rollout_status", "1 for how the rollout is that is under way, or was last.", labels=["status"]
    )
    phases = GaugeMetricFamily("lxcfleet_rollout_containers", "Its containers by phase.", labels=["phase"])
    if patch.rollout is not None:
        for each in Status:
            status.add_metric([each], int(each == patch.rollout))
        for phase, count in patch.rollout_phases.items():
            phases.add_metric([phase], count)
    yield status
    yield phases


def _states(containers: Sequence[ContainerReading]) -> Iterator[Metric]:
    info = GaugeMetricFamily("lxcfleet_container_info", "The kind of a container, and its labels.")
    state = GaugeMetricFamily(
        "lxcfleet_container_state", "1 for the state that a container is in.", labels=["container", "state"]
    )
    health = GaugeMetricFamily(
        "lxcfleet_container_health", "1 for the health of a container that runs.", labels=["container", "health"]
    )
    for container in containers:
        own = {
            "container": container.name,
            "init": container.init,
            "privileged": str(container.privileged).lower(),
            "profile": container.profile,
        }
        info.add_sample(info.name, {**own, **label_names("label_", container.labels)}, 1)
        for each in State:
            state.add_metric([container.name, each], int(container.state is each))
        if container.health is not None:
            for word in Health:
                health.add_metric([container.name, word], int(container.health is word))
    yield info
    yield state
    yield health


_TRAFFIC = {
    "received_bytes": "Bytes that it received",
    "received_packets": "Packets that it received",
    "received_drops": "Packets to it that were dropped",
    "sent_bytes": "Bytes that it sent",
    "sent_packets": "Packets that it sent",
    "sent_drops": "Packets from it that were dropped",
}
"""By attribute of host.net.interfaces.Traffic."""


def _numbers(containers: Sequence[ContainerReading]) -> Iterator[Metric]:
    yield _gauge(
        "lxcfleet_container_stale", "Whether it ran old code at the last look.", ((c, c.stale) for c in containers)
    )
    yield _gauge(
        "lxcfleet_container_shadows", "Files of its delta that hide a package's file of the host, at the last look.",
        ((c, c.shadows) for c in containers),
    )  # fmt: skip
    yield _counter(
        "lxcfleet_container_restarts", "How often it began to run again since lxcfleetd did.",
        ((c, c.restarts) for c in containers),
    )  # fmt: skip
    yield _gauge(
        "lxcfleet_container_exit_status", "How its last run ended: 128 and the signal's number if a signal ended it.",
        ((c, c.exit_status) for c in containers),
    )  # fmt: skip
    yield _gauge(
        "lxcfleet_container_exit_time_seconds", "When its last run ended, since the epoch.",
        ((c, c.ended) for c in containers),
    )  # fmt: skip
    yield _gauge(
        "lxcfleet_container_exit_out_of_memory", "Whether its last run ended as memory ran out.",
        ((c, c.out_of_memory) for c in containers),
    )  # fmt: skip
    yield _counter(
        "lxcfleet_container_memory_kills", "Processes of it that the kernel killed for memory since lxcfleetd began.",
        ((c, c.memory_kills) for c in containers),
    )  # fmt: skip
    yield _gauge(
        "lxcfleet_container_start_time_seconds", "When its process 1 began, since the epoch.",
        ((c, c.started) for c in containers),
    )  # fmt: skip
    yield _counter(
        "lxcfleet_container_cpu_seconds", "Processor time since its start.", ((c, c.cpu_seconds) for c in containers)
    )
    yield _gauge(
        "lxcfleet_container_memory_bytes", "Memory that is charged to it, page cache included.",
        ((c, c.memory_bytes) for c in containers),
    )  # fmt: skip
    yield _gauge(
        "lxcfleet_container_processes", "Its processes and threads.", ((c, c.processes) for c in containers)
    )
    for number, (name, what) in enumerate((("read", "Read from"), ("written", "Written to"))):
        yield _counter(
            f"lxcfleet_container_io_{name}_bytes", f"{what} block devices since its start.",
            ((c, c.io_bytes[number] if c.io_bytes else None) for c in containers),
        )  # fmt: skip
    yield _gauge(
        "lxcfleet_container_generation", "The generation that it stands on; 0: the host's root.",
        ((c, c.generation) for c in containers),
    )  # fmt: skip
    yield _gauge(
        "lxcfleet_container_held_until_timestamp_seconds", "When the last day ends on which it is held on its generation.",
        ((c, c.held_until) for c in containers),
    )  # fmt: skip
    yield _gauge(
        "lxcfleet_container_delta_bytes", "The space that its delta takes on disk, as of the last look.",
        ((c, c.delta_bytes) for c in containers),
    )  # fmt: skip


def _traffic(containers: Sequence[ContainerReading]) -> Iterator[Metric]:
    for what, text in _TRAFFIC.items():
        yield _counter(
            f"lxcfleet_container_network_{what}", f"{text} by its port of the bridge since its start.",
            ((c, getattr(c.traffic, what) if c.traffic else None) for c in containers),
        )  # fmt: skip


def _held_back(containers: Sequence[ContainerReading]) -> Iterator[Metric]:
    yield _counter(
        "lxcfleet_container_throttled_seconds", "How long its limit kept it from processors since its start.",
        ((c, c.throttled_seconds) for c in containers),
    )  # fmt: skip
    for what in PRESSED:
        yield _counter(
            f"lxcfleet_container_pressure_{what}_seconds",
            f"How long some of its processes waited for {what} since its start (PSI, cgroup v2 alone).",
            ((c, c.pressure.get(what)) for c in containers),
        )  # fmt: skip


Values = Iterable[tuple[ContainerReading, float | None]]


def _gauge(name: str, text: str, values: Values) -> Metric:
    return _fill(GaugeMetricFamily(name, text, labels=["container"]), values)


def _counter(name: str, text: str, values: Values) -> Metric:
    return _fill(CounterMetricFamily(name, text, labels=["container"]), values)


def _fill(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
    """Add a sample for each known value. An unknown value gets no sample: 0 would be a lie."""
    for container, value in values:
        if value is not None:
            family.add_metric([container.name], value)
    return family


_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")


def label_names(prefix: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Containers' labels under names that Prometheus allows. If two become the same name, the later one gets a number."""
    found: dict[str, str] = {}
    for key in sorted(labels):
        wanted = name = prefix + _NO_LABEL.sub("_", key)
        number = 1
        while name in found:
            number += 1
            name = f"{wanted}_{number}"
        found[name] = labels[key]
    return found


# -- the containers' own exporters ------------------------------------------------------------------------------


def targets(containers: Iterable[ContainerRecord]) -> list[TargetRecord]:
    """The exporters of running containers, each with its address and labels.

    Labels for relabelling begin with ``__meta_lxcfleet_``; Prometheus drops them after relabelling.
    """
    return [
        {"targets": [f"{_host(container['addresses'][0])}:{port}"], "labels": _target_labels(container, job, path)}
        for container in containers
        if container["addresses"]
        for job, port, path in _exporters(container["labels"], container["ports"])
    ]


def _exporters(labels: Mapping[str, str], ports: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """Name (empty for the only exporter), port and path of each. A label that makes no sense is not meant for Prometheus."""
    for declared in map(parse_port, ports):
        service = EXPORTER_SERVICE.fullmatch(declared.service)
        if service and declared.protocol == "tcp":
            yield service["before"] or service["after"] or "", declared.number, ""
    for key, value in labels.items():
        first, _, name = key.partition("/")
        port, slash, path = value.partition("/")
        if first == EXPORTER_LABEL and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
            yield name, int(port), slash + path


def _host(address: str) -> str:
    return f"[{address}]" if ip_address(address).version == 6 else address


def _target_labels(container: ContainerRecord, exporter: str, path: str) -> dict[str, str]:
    labels = {"container": container["name"]}
    if exporter:
        labels["exporter"] = exporter
    if path:
        labels["__metrics_path__"] = path
    meta = {"name": container["name"], "state": container["state"], "init": container["init"]}
    labels.update({f"__meta_lxcfleet_{key}": value for key, value in meta.items()})
    return {**labels, **label_names("__meta_lxcfleet_label_", container["labels"])}
