"""What each task gave on each host, as one JSON document: ansible-core has no callback that says so."""

from __future__ import annotations

import json
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: results
type: stdout
short_description: results of tests
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Collects, and prints at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "results"

    def __init__(self) -> None:
        super().__init__()
        self._tasks: list[dict[str, Any]] = []
        self._of: dict[str, dict[str, Any]] = {}

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """A new task."""
        self._of[task._uuid] = {}
        self._tasks.append({"name": task.get_name(), "hosts": self._of[task._uuid]})

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """A handler is a task."""
        self.v2_playbook_on_task_start(task, False)

    def _note(self, result: Any, **more: Any) -> None:
        self._of[result._task._uuid][result._host.get_name()] = {**result._result, **more}

    def v2_runner_on_ok(self, result: Any) -> None:
        """It went well."""
        self._note(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """It was not for this host."""
        self._note(result, skipped=True)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """It failed."""
        self._note(result, failed=True)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """The host is not there."""
        self._note(result, unreachable=True)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The end."""
        counts = {host: stats.summarize(host) for host in stats.processed}
        print(json.dumps({"tasks": self._tasks, "stats": counts}, default=str))
