"""Makes a Python process's time of day jump: what the file named by JUMPING_CLOCK says is added to it, in seconds."""

import os
import time
from pathlib import Path

_true, _true_ns = time.time, time.time_ns


def _off_s() -> int:
    try:
        return int(Path(os.environ["JUMPING_CLOCK"]).read_text())
    except (OSError, KeyError, ValueError):
        return 0


time.time = lambda: _true() + _off_s()
time.time_ns = lambda: _true_ns() + _off_s() * 1_000_000_000
