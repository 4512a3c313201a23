"""The known health of containers, in the file that the next daemon goes on from."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lxcfleet.health.judge import HealthCourse
from lxcfleet.host.kernel import tree
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.states import Health

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HealthRecord:
    """The known health of one run of a container."""

    identity: str
    """Of that run, as Running.identity has it: of any other run the record says nothing."""
    course: HealthCourse
    since: float
    """When its health changed last, in seconds since the machine booted."""
    asked: float
    """When it was last asked, on the same clock."""


def save(file: Path, records: Mapping[str, HealthRecord]) -> None:
    """Write down what is known, by container. A failure is logged: the next daemon then begins anew."""
    data = {
        name: [each.identity, each.course.health, each.course.failures, each.course.reason, each.since, each.asked]
        for name, each in records.items()
    }
    try:
        tree.write(file, json.dumps(data))
    except OSError as error:
        log.warning("the containers' health can't be written down: %s", error)


def load(file: Path) -> dict[str, HealthRecord]:
    """The records that an earlier daemon wrote down; none, if they can't be read."""
    try:
        data = ondisk.record(file)
        return {
            name: HealthRecord(identity, HealthCourse(Health(word), 1, failures, reason), since, *(asked or [since]))
            for name, (identity, word, failures, reason, since, *asked) in data.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s can't be read: %s. What an earlier daemon knew of the containers' health is lost", file, error)
        return {}
