"""The launcher's operations: a child does each of them, and there are no others."""

from __future__ import annotations

from lxcfleet.launcher import operations
from lxcfleet.launcher.children import run


def test_every_operation_is_bound_to_its_function() -> None:
    attach = {operations.ATTACH, operations.FOREGROUND}  # the children of these talk to the client
    assert run._OPERATIONS.keys() == {*operations.ALL} - attach


def test_no_two_operations_have_the_same_name() -> None:
    assert len({*operations.ALL}) == len(operations.ALL) > 20
