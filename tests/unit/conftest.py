"""For all unit tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes is the machine's business, which may do other things beside.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
