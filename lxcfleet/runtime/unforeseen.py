"""Errors that no room has words for: what the log has of them, and what whoever asked is told."""

from __future__ import annotations

import errno
import logging
import os

from lxcfleet.errors import FleetError, HostError


def told(log: logging.Logger, what: str, error: Exception, message: str = "") -> FleetError:
    """Log an error, and give the one to answer with.

    ``what``: what was being done, for the log; ``message``: of the answer, if there is a better one than that the daemon
    could not do it.
    """
    cause = refusal(error)
    if cause is not None:  # no defect of ours
        refused = HostError.refused(message or "the daemon can't do what that takes", cause)
        log.error("%s: %s", what, refused.why, exc_info=log.isEnabledFor(logging.DEBUG))
        return refused
    log.exception("%s failed unexpectedly", what, exc_info=error)
    return FleetError(message or "the daemon failed unexpectedly", why=f"{type(error).__name__}: {error}")


def refusal(error: BaseException) -> OSError | None:
    """The kernel's refusal, if that is all that an error says; None: it may be a defect of ours.

    Python has other errors where there is no memory, or no room for another thread.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    if isinstance(error, MemoryError):
        return OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return OSError(errno.EAGAIN, "No room for another thread")
    return None
