"""What we use of the module behind ``signal``."""

from typing import Any

SIGCHLD: int
SIGINT: int
SIGPIPE: int
SIGXFSZ: int
SIG_IGN: Any
SIG_DFL: Any

def signal(number: int, handler: Any) -> Any: ...
def alarm(seconds: int) -> int: ...
def getsignal(number: int) -> object: ...
def valid_signals() -> set[int]: ...
