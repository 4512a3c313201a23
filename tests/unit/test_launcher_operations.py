"""The launcher's operations: a child does each of them, and there are no others."""

from __future__ import annotations

from typing import Any

from lxcfleet.launcher import operations
from lxcfleet.launcher.children import run
from lxcfleet.launcher.operations import Operation


def test_every_operation_is_bound_to_its_function() -> None:
    attach: set[Operation[Any, Any]] = {operations.ATTACH, operations.FOREGROUND}  # the children of these talk to the client
    attach |= {operations.EXPORT, operations.IMPORT}  # and these get a descriptor
    attach |= {operations.CHECK}  # the attacher's children do this, as ATTACH
    assert run._OPERATIONS.keys() == {*operations.ALL} - attach


def test_no_two_operations_have_the_same_name() -> None:
    assert len({*operations.ALL}) == len(operations.ALL) > 20
