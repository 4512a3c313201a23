"""What the launcher can be asked for: each operation is done by a child, and no other is."""

from __future__ import annotations

from lxcfleet.launcher import operations
from lxcfleet.launcher.children import run


def test_every_operation_is_bound_to_what_does_it() -> None:
    attach = {operations.ATTACH}  # whose child talks to the client
    assert run._OPERATIONS.keys() == {*operations.ALL} - attach


def test_no_two_operations_have_the_same_name() -> None:
    assert len({*operations.ALL}) == len(operations.ALL) > 20
