"""A real Prometheus scrapes a real fleet with the files of docs/monitoring: configuration, rules and dashboard."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from .harness import ROOT, Fleet, free_port, until

pytestmark = pytest.mark.system

FILES = ROOT / "docs" / "monitoring"
UNPACKED = Path.home() / ".cache/lxcfleet/packages/prometheus/usr/bin"
"""Where the Makefile unpacks the package: installed it would start a service."""

EXPORTER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == '/numbers' else 404)
        self.send_header('Content-Type', 'text/plain')
        self.end_headers()
        self.wfile.write(b'answer 42\\n')
http.server.HTTPServer(('', 9100), Handler).serve_forever()
"""


def program(name: str) -> str:
    """The path of Prometheus' server or of its tool."""
    found = shutil.which(name, path=f"{UNPACKED}:/usr/bin")
    if found is None:
        pytest.skip(f"no {name}; `make test` unpacks Debian's package")
    return found


class Prometheus:
    """A Prometheus server of the test's own, with the configuration of docs/monitoring."""

    def __init__(self, directory: Path, metrics_port: int) -> None:
        for file in FILES.iterdir():
            shutil.copy(file, directory)
        config = directory / "prometheus.yml"
        text = config.read_text().replace("127.0.0.1:9753", f"127.0.0.1:{metrics_port}")
        config.write_text(re.sub(r"(scrape_interval|refresh_interval): \d+s", r"\1: 1s", text))
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        self._log = (directory / "log").open("wb")
        self.process = subprocess.Popen(
            [
                program("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip

    def get(self, path: str, **query: str) -> Any:
        """The answer of Prometheus' API; None while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{urlencode(query)}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # Prometheus is not ready
                return None
            raise AssertionError(f"{path} {query}: {error.read().decode()}") from error
        except OSError:
            return None

    def value(self, expression: str) -> str | None:
        """The one value of an expression."""
        found = self.get("query", query=expression)
        return found["result"][0]["value"][1] if found and found["result"] else None

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._log.close()


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def fleet(port: int) -> Iterator[Fleet]:
    """A connected fleet that Prometheus may read."""
    own = Fleet()
    network = f"network: {{bridge: {own.bridge}, domain: {own.tag}.test, drain: 0}}\n"
    own.settings(f"{network}metrics: {{listen: '127.0.0.1:{port}'}}\n")
    try:
        own.start_daemon()
        yield own
        own.clean()
    finally:
        own.run("destroy", "--all", "--force", "-q")
        own.remove()


@pytest.fixture
def prometheus(fleet: Fleet, port: int, tmp_path: Path) -> Iterator[Prometheus]:
    server = Prometheus(tmp_path, port)
    try:
        until(lambda: server.value('up{job="lxcfleet"}') == "1", 30, "Prometheus has scraped the daemon")
        yield server
    finally:
        server.close()


def test_prometheus_follows_the_fleet(fleet: Fleet, prometheus: Prometheus) -> None:
    name, other = fleet.name("exporter"), fleet.name("plain")
    fleet.ok("create", name, "-l", "prometheus=9100/numbers", "-l", "role=web", "--", "python3", "-c", EXPORTER)
    fleet.create(other)
    until(lambda: prometheus.value('lxcfleet_containers{state="running"}') == "2", 20, "both containers are counted")
    own = f'{{container="{name}"}}'
    until(lambda: prometheus.value(f"answer{own}") == "42", 20, "the exporter was found and scraped")
    assert prometheus.value(f'answer{{container="{name}", role="web"}}') == "42"
    until(lambda: prometheus.value(f"lxcfleet_container_delta_bytes{own}") is not None, 20, "the delta was added up")
    until(lambda: prometheus.value(f"lxcfleet_container_shadows{own}") == "0", 30, "the delta was searched for shadows")
    until(lambda: prometheus.value(f"lxcfleet_container_stale{own}") == "0", 20, "the container was searched for stale files")
    until(lambda: prometheus.value(f'lxcfleet_container_health{{container="{name}",health="healthy"}}') == "1", 20)
    for metric in ("memory_bytes", "processes", "cpu_seconds_total"):
        of_it = f"lxcfleet_container_{metric}{own}"
        until(lambda of_it=of_it: float(prometheus.value(of_it) or 0) > 0, 20, metric)  # type: ignore[misc]

    began = float(prometheus.value(f"lxcfleet_container_start_time_seconds{own}") or 0)
    fleet.ok("restart", name, "--timeout", "0")
    until(lambda: prometheus.value(f"lxcfleet_container_restarts_total{own}") == "1", 20, "the restart was counted")
    later = f"lxcfleet_container_start_time_seconds{own}"
    until(lambda: float(prometheus.value(later) or 0) > began, 20, "its start is a later one")

    fleet.ok("stop", name, "--timeout", "0")
    until(lambda: prometheus.value(f"up{own}") is None, 20, "the stopped container is no target any more")
    stopped = f'lxcfleet_container_state{{container="{name}", state="stopped"}}'
    until(lambda: prometheus.value(stopped) == "1", 20, "the container is counted as stopped")


def test_alert_rules_and_dashboard_work(fleet: Fleet, prometheus: Prometheus) -> None:
    fleet.create(fleet.name("a"))
    until(lambda: prometheus.value('lxcfleet_containers{state="running"}') == "1", 20, "the container is counted")

    def rules() -> list[Any]:
        return [rule for group in (prometheus.get("rules") or {"groups": []})["groups"] for rule in group["rules"]]

    assert not [rule for rule in until(rules, 20, "it tells the rules") if rule.get("lastError")]
    # A daemon that needs more than a second for a scrape is down, as far as Prometheus can see.
    until(lambda: {rule["state"] for rule in rules()} == {"inactive"}, 20, "there is nothing to be alarmed at")
    for expression in dashboard_expressions():
        prometheus.get("query", query=re.sub(r"\$(instance|container)", ".*", expression.replace("$__rate_interval", "1m")))


def dashboard_expressions() -> list[str]:
    """The expressions of the dashboard's panels."""
    panels = json.loads((FILES / "grafana.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_promtool_finds_nothing_wrong() -> None:
    tests = sorted(file.name for file in FILES.glob("*.rules*.test.yml"))
    assert tests
    for command in (("check", "config", "prometheus.yml"), ("test", "rules", *tests)):
        done = subprocess.run([program("promtool"), *command], cwd=FILES, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_metrics_port_that_is_taken_stops_neither_daemon_nor_containers(fleet: Fleet, port: int) -> None:
    fleet.stop_daemon()
    with socket.create_server(("127.0.0.1", port)):
        fleet.start_daemon()
        until(lambda: f"metrics can't be read at 127.0.0.1:{port}" in fleet.log(), what="the log tells it")
        fleet.create(fleet.name("a"), options=("--network", "none"))
    list(fleet.client().metrics())


def test_the_address_of_the_metrics_can_be_changed_and_removed(fleet: Fleet, port: int) -> None:
    def reads(port: int) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return b"lxcfleet_build_info" in answer.read()
        except OSError:
            return False

    def reload(text: str) -> None:
        fleet.settings(f"network: {{bridge: {fleet.bridge}, drain: 0}}\n{text}")
        pid = fleet.daemon_pid()
        assert pid is not None
        subprocess.run(["kill", "-HUP", str(pid)], check=True)

    until(lambda: reads(port), what="metrics are read at the address of the settings")
    other = free_port()
    reload(f"metrics: {{listen: '127.0.0.1:{other}'}}\n")
    until(lambda: reads(other) and not reads(port), what="the daemon listens on the new address instead of the old one")
    reload("")
    until(lambda: not reads(other), what="the daemon listens no longer")
    for path in ("/1.0/containers", "/1.0/events", "/"):
        reload(f"metrics: {{listen: '127.0.0.1:{other}'}}\n")
        until(lambda: reads(other), what="the daemon listens again")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{other}{path}", timeout=10)


