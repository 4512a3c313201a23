"""Errors that no room has words for: what the log has of them, and what whoever asked is told."""

from __future__ import annotations

import logging

from lxcfleet.errors import FleetError, HostError


def told(log: logging.Logger, what: str, error: Exception, message: str = "") -> FleetError:
    """Log an error, and give the one to answer with.

    ``what``: what was being done, for the log; ``message``: of the answer, if there is a better one than that the daemon
    could not do it.
    """
    if isinstance(error, OSError) and error.errno is not None:  # the kernel refused something: no defect of ours
        refused = HostError.refused(message or "the daemon can't do what that takes", error)
        log.error("%s: %s", what, refused.why, exc_info=log.isEnabledFor(logging.DEBUG))
        return refused
    log.exception("%s failed unexpectedly", what, exc_info=error)
    return FleetError(message or "the daemon failed unexpectedly", why=f"{type(error).__name__}: {error}")
