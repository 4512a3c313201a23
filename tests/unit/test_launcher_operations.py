"""The launcher's operations: a child does each of them, and there are no others."""

from __future__ import annotations

from typing import Any

from lxcfleet.launcher import operations
from lxcfleet.launcher.children import commands, run
from lxcfleet.launcher.operations import LauncherOperation


def test_every_operation_is_bound_to_its_function() -> None:
    others: set[LauncherOperation[Any, Any]] = {operations.FOREGROUND}  # the child of this talks to the client
    others |= {operations.EXPORT, operations.IMPORT}  # and these get a descriptor
    assert run._OPERATIONS.keys() == {*operations.ALL} - others - {*operations.OF_ATTACHER}


def test_the_attachers_operations_are_bound_to_their_functions() -> None:
    assert commands._WORK.keys() == commands._OPERATIONS.keys() == {*operations.OF_ATTACHER}


def test_no_two_operations_have_the_same_name() -> None:
    assert len({*operations.ALL}) == len(operations.ALL) > 20
