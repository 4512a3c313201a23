"""The errors that can happen, in the user's words.

Every error says what happened, why, and what to do next, and carries a stable ``code`` for scripts.
The API sends the same three texts; the CLI prints them and exits with ``exit_status``.
"""

from __future__ import annotations

from typing import ClassVar, TypedDict


class ErrorBody(TypedDict):
    """An error as it travels in JSON."""

    code: str
    message: str
    why: str
    hint: str


class FleetError(Exception):
    """Base of all errors that a user may see.

    ``message`` is what happened (one line), ``why`` the cause, ``hint`` the next step; the last two may be empty.
    """

    code: ClassVar[str] = "failed"
    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        return "\n".join(part for part in (self.message, self.why, self.hint) if part)

    def body(self) -> ErrorBody:
        """The error as the API sends it."""
        return {"code": self.code, "message": self.message, "why": self.why, "hint": self.hint}


class InvalidInput(FleetError):
    """A name, option, file or request that does not make sense as it stands."""

    code = "invalid-input"
    exit_status = 2
    http_status = 400


class NoProgram(InvalidInput):
    """The command of a new container is no program there. Its code is InvalidInput's."""

    missing = True
    """Whether there is no such file, rather than one that can't be executed."""


class NotFound(FleetError):
    """No container or operation of that name."""

    code = "not-found"
    http_status = 404


class AlreadyExists(FleetError):
    """The name is taken."""

    code = "already-exists"
    http_status = 409


class Busy(FleetError):
    """Another operation holds the container."""

    code = "busy"
    http_status = 409


class Conflict(FleetError):
    """The request does not fit what there is by now, or what belongs to others."""

    code = "conflict"
    http_status = 409


class WrongState(FleetError):
    """The container is not in a state in which this can be done."""

    code = "wrong-state"
    http_status = 409


class Unconfirmed(FleetError):
    """It would cost more than is done without being asked."""

    code = "unconfirmed"
    http_status = 409


class Blocked(FleetError):
    """The container lacks something that it needs before it starts."""

    code = "blocked"
    http_status = 409


class Broken(FleetError):
    """A container whose files on disk can't be used as they are."""

    code = "broken"
    http_status = 409


class NoCapacity(FleetError):
    """The host has less than what was asked for needs."""

    code = "no-capacity"
    http_status = 507


class Unsupported(FleetError):
    """The kernel, a file system or a program lacks what this needs."""

    code = "unsupported"
    http_status = 501


class Denied(FleetError):
    """The caller may not do this."""

    code = "denied"
    http_status = 403


class Cancelled(FleetError):
    """The user took the operation back before this part of it began, or had come to its end."""

    code = "cancelled"
    http_status = 409


class Unreachable(FleetError):
    """The daemon does not answer."""

    code = "unreachable"


class Outdated(FleetError):
    """The daemon's answer lacks what the client reads, as the two are of different versions."""

    code = "outdated"


class HostError(FleetError):
    """A system call, liblxc or a program failed; ``why`` has the path and the errno."""

    code = "host-error"

    @classmethod
    def from_os_error(cls, message: str, error: OSError, *, path: object = None, hint: str = "") -> HostError:
        """Wrap ``error``. ``path``: of the file that it is about, where the error names none, as that of a write does."""
        where = f"{error.filename or path}: " if error.filename or path else ""
        said = str(error) or type(error).__name__ if error.errno is None else f"{error.strerror} (errno {error.errno})"
        return cls(message, why=f"{where}{said}", hint=hint)

    @classmethod
    def refused(cls, message: str, error: OSError) -> HostError:
        """Wrap ``error``, for which no room has words of its own: the host lacks something, or a disk gives errors."""
        hint = "see what the host lacks (`free -h`, `df -h`, `dmesg | tail`), then try again"
        return cls.from_os_error(message, error, hint=hint)


class NotStarted(HostError):
    """liblxc did not start a container, and the container's logs have more, for as long as it has them. Its code is
    HostError's."""


BY_CODE: dict[str, type[FleetError]] = {
    kind.code: kind
    for kind in (
        FleetError, InvalidInput, NotFound, AlreadyExists, Busy, Conflict, WrongState, Unconfirmed, Blocked, Broken,
        NoCapacity, Unsupported, Denied, Cancelled, Unreachable, Outdated, HostError,
    )
}  # fmt: skip


def from_body(body: ErrorBody) -> FleetError:
    """The error that ``body`` describes, of the class that its code names."""
    kind = BY_CODE.get(body["code"], FleetError)
    return kind(body["message"], why=body["why"], hint=body["hint"])
