"""The tests end and pass in whatever environment they were started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(directory: Path, text: str, *options: str, **more: object) -> tuple[int, str]:
    """Run pytest over one file with this project's limits; gives its exit status and its output."""
    (directory / "tests/unit").mkdir(parents=True)
    (directory / "tests/unit/test_it.py").write_text(text)
    for name in ("conftest.py", "leftovers.py"):
        (directory / "tests" / name).symlink_to(ROOT / "tests" / name)
    (directory / "setup.cfg").symlink_to(ROOT / "setup.cfg")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "tests/unit"]
    done = subprocess.run(
        words, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=250, check=False, **more  # type: ignore[call-overload]
    )  # fmt: skip
    return done.returncode, done.stdout.decode()


def test_tests_pass_with_ignored_signals_and_no_stdin() -> None:
    """As under nohup, in the background of a shell, or under cron."""

    def surroundings() -> None:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGWINCH})
        os.close(0)

    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contract/test_cli_exec.py"]
    done = subprocess.run(
        [*words, "-k", "signals or restored or yes"], cwd=ROOT, capture_output=True, preexec_fn=surroundings, timeout=250
    )
    assert done.returncode == 0, done.stdout.decode()


IMPORTS = """
import subprocess, sys
def test_a(tmp_path):
    (tmp_path / "once.py").touch()
    subprocess.run([sys.executable, "-c", "import once"], cwd=tmp_path, check=True)
    assert (tmp_path / "__pycache__").is_dir()
"""


def test_programs_of_tests_are_compiled_once(tmp_path: Path) -> None:
    """Also where images have Python write nothing, as is usual."""
    status, said = run(tmp_path, IMPORTS, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert status == 0, said


WAITING = {
    "in a wait for a process": "import subprocess\ndef test_a(): subprocess.run(['sleep', '6000'])\n",
    "in select": "import select\ndef test_a(): select.select([], [], [], 60)\n",
    "in a lock": "import threading\ndef test_a():\n    lock = threading.Lock()\n    with lock: lock.acquire()\n",
}


@pytest.mark.parametrize("text", WAITING.values(), ids=WAITING)
def test_a_test_that_hangs_fails_and_the_others_go_on(tmp_path: Path, text: str) -> None:
    mark = "import pytest\npytestmark = pytest.mark.limit(0.5)\n"
    status, said = run(tmp_path, mark + text + "@pytest.mark.limit(60)\ndef test_b(): pass\n")
    assert status == 1, said
    assert "Timeout" in said
    assert "1 failed, 1 passed" in said


def test_a_test_that_can_not_be_broken_off_ends_the_run(tmp_path: Path) -> None:
    """Python handles no signal while C code holds the interpreter's lock."""
    text = (
        "import pytest, ctypes, signal, conftest\nconftest.GRACE = 0.5\n"
        "@pytest.mark.limit(0.5)\ndef test_endless():\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n"
        "    ctypes.PyDLL(None).sleep(60)\n"
    )
    status, said = run(tmp_path, text)
    assert status == 1, said
    assert "Timeout (0:00:01)!" in said
    assert "test_endless" in said
