"""A Knot server of a test: one process on a private port, controlled through its socket."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.servers import Server, require


class Knot(Server):
    """Serves `zones` (name -> lines of its part of the configuration) on 127.0.0.1:port; `before` stands before them."""

    def __init__(self, folder: Path, port: int, zones: dict[str, Sequence[str]], *, before: str = "") -> None:
        self.port = port
        self.folder = folder
        self.config = folder / "knot.conf"
        said = "".join(f"  - domain: {name}\n" + "".join(f"    {line}\n" for line in z) for name, z in zones.items())
        self.config.write_text(
            f"server:\n    rundir: {folder}\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    tcp-workers: 1\n"
            f"    background-workers: 1\n"
            f"log:\n  - target: stderr\n    any: info\ndatabase:\n    storage: {folder}\n{before}"
            f"template:\n  - id: default\n    storage: {folder}\n    zonefile-sync: 0\nzone:\n{said}"
        )
        super().__init__([require("knotd"), "-c", str(self.config)], log=folder / "knot.log")

    def control(self, *words: str) -> str:
        """Waits until it is done. Raises AssertionError with what Knot says against it."""
        done = subprocess.run(
            [require("knotc"), "-s", str(self.folder / "knot.sock"), "-b", *words],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"knotc {' '.join(words)}: {done.stdout}{done.stderr}{self.tail()}"
        return done.stdout
