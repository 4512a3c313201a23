"""The API, defined once: every call and where it is. Server and client both read this; wire has what travels.

HTTP/1.1 over a Unix socket, JSON in and out, under ``/1.0``. Errors are ``{"error": ErrorBody}`` with the
status of their class. Calls that change containers answer 202 with an operation, which lives in the daemon:
it goes on when the client goes away, and can be followed, waited for and cancelled.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSION = "1.0"
MAX_BODY = 1 << 20
"""Bytes that a request may have."""
MAX_ATTACH = 200_000
"""The same of a request on the attach socket: it is one datagram, and the kernel takes little more by default."""


@dataclass(frozen=True)
class Call:
    """One call. ``path`` may hold ``{name}`` or ``{id}``."""

    method: str
    path: str
    summary: str
    reads: bool = False
    """Whether it changes nothing though it is no GET."""

    @property
    def harmless(self) -> bool:
        """Whether those may call it who may only read."""
        return self.reads or self.method == "GET"


CALLS: dict[str, Call] = {
    "server": Call("GET", "/1.0", "version, counts and paths of the daemon"),
    "list": Call("GET", "/1.0/containers", "containers, chosen by a selection in the query"),
    "create": Call("POST", "/1.0/containers", "create containers; takes a CreateRequest"),
    "info": Call("GET", "/1.0/containers/{name}", "one container in full"),
    "logs": Call("GET", "/1.0/containers/{name}/logs", "its console or LXC log as text; ?kind=&lines=&follow="),
    "act": Call("POST", "/1.0/actions", "start, stop, …, destroy; takes an ActionRequest"),
    "operations": Call("GET", "/1.0/operations", "operations that run or ended lately"),
    "operation": Call("GET", "/1.0/operations/{id}", "one operation"),
    "follow": Call("GET", "/1.0/operations/{id}/follow", "its results as JSON lines, until it ends"),
    "cancel": Call("DELETE", "/1.0/operations/{id}", "do not begin what has not begun"),
    "wait": Call("POST", "/1.0/wait", "answer once all chosen containers are as asked; takes a WaitRequest", reads=True),
    "doctor": Call("GET", "/1.0/doctor", "compare what N more containers need with the host; ?count=&init="),
    "fix": Call("POST", "/1.0/doctor/fix", "raise what can be raised safely, persistently; takes {count, init}"),
    "metrics": Call("GET", "/metrics", "what Prometheus reads, as text"),
    "targets": Call("GET", "/1.0/targets", "the containers' own exporters, for Prometheus' http_sd"),
    "verify": Call("GET", "/1.0/verify", "whether a patch is in the containers chosen by the query; ?package="),
    "shadows": Call("GET", "/1.0/audit/shadow", "what hides the host's files in deltas; chosen by a query"),
    "fix_shadows": Call("POST", "/1.0/audit/shadow/fix", "remove shadows by name; takes {selection, paths, dry_run}"),
    "exposure": Call("GET", "/1.0/audit/exposure", "what of the host containers can read; chosen by a query"),
    "notice": Call("GET", "/1.0/patch", "how far the last change of the host's packages is"),
    "notify": Call("POST", "/1.0/patch/notify", "the host's packages changed; answers how far that is"),
    "stale": Call("GET", "/1.0/stale", "which containers run old code, chosen by a selection in the query"),
    "rollout": Call("GET", "/1.0/rollout", "the rollout that is under way, or was last; null if there was none"),
    "roll": Call("POST", "/1.0/rollout", "begin one, or have it take up a patch; takes a RolloutRequest"),
    "rollout_follow": Call("GET", "/1.0/rollout/follow", "it at each change, as JSON lines, until it ends or halts"),
    "rollout_pause": Call("POST", "/1.0/rollout/pause", "begin no further wave"),
    "rollout_resume": Call("POST", "/1.0/rollout/resume", "go on; takes {accept}: leave what failed as it is"),
    "rollout_abort": Call("POST", "/1.0/rollout/abort", "end it as it is"),
    "events": Call("GET", "/1.0/events", "what happened, as JSON lines; ?follow="),
}
