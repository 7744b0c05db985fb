"""A small storm of kill -9 over light processes; ``tests/bench/kills.py`` is the large one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[1] / "bench" / "kills.py"


def test_thirty_kills_leave_no_state_unreadable_and_no_meeting_half() -> None:
    """In a process of its own: it forks, which a test run with threads must not."""
    command = [sys.executable, str(BENCH), "--kills", "30", "--peers", "4", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert figures["meetings"] > 0
    assert figures["violations"] == figures["unreadable"] == figures["refused"] == 0
