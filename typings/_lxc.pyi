"""What we use of python3-lxc's C module (5.0)."""

from collections.abc import Callable
from typing import Any

LXC_ATTACH_CLEAR_ENV: int
version: str

class Container:
    init_pid: int
    running: bool
    def __init__(self, name: str, config_path: str = ...) -> None: ...
    def start(
        self, useinit: bool = ..., daemonize: bool = ..., close_fds: bool = ..., cmd: tuple[str, ...] = ...
    ) -> bool: ...
    def console_getfd(self, ttynum: int) -> int: ...
    def freeze(self) -> bool: ...
    def unfreeze(self) -> bool: ...
    def clear_config_item(self, key: str) -> bool: ...
    def set_config_item(self, key: str, value: str) -> bool: ...
    def attach(
        self,
        run: Callable[[Any], int],
        payload: Any,
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        env_policy: int,
        initial_cwd: str,
    ) -> int: ...
