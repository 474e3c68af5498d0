"""Clocks that jump: processes whose time of day can be moved while they run. Only that clock: none runs backwards that
the kernel would not let run backwards.

Java gets libfaketime. It breaks Python's sleeping, so Python processes get a `time.time` of their own.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from harness.servers import missing

LIBRARY = "libfaketimeMT.so.1"
FOLDERS = ("/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime")
JUMPING = Path(__file__).with_name("jumping")


class Clock:
    """All processes that share one jump together."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._java = file.with_suffix(".java")
        self.jump(0)

    def jump(self, off_s: int) -> None:
        """So far from the true time, from now on."""
        for file, text in ((self._file, f"{off_s}"), (self._java, f"{off_s:+d}s\n")):
            fresh = file.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(file)

    def for_python(self) -> Mapping[str, str]:
        path = os.environ.get("PYTHONPATH", "")
        return {"PYTHONPATH": f"{JUMPING}:{path}", "JUMPING_CLOCK": str(self._file)}

    def for_java(self) -> Mapping[str, str]:
        """Missing libfaketime: the test is skipped on a laptop, failed under CI."""
        found = next((path for folder in FOLDERS if (path := Path(folder) / LIBRARY).exists()), None)
        if found is None:
            missing("faketime is not installed")
        return {
            "LD_PRELOAD": str(found),
            "FAKETIME_TIMESTAMP_FILE": str(self._java),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
