"""A real carbon-cache of Debian's package on private ports, killable and restartable with its data."""

import json
import pickle
import socket
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.ports import free_port
from harness.servers import Server, require

PYTHON = "/usr/bin/python3"  # Debian's: carbon lives in its dist-packages, not in a virtual environment


class Carbon:
    """`address` is its plain-text receiver. What it was told stands on disk, or in its cache until it is written."""

    def __init__(self, folder: Path, *, updates_per_s: str = "inf", retention: str = "1s:2h") -> None:
        program = require("carbon-cache")
        self.folder = folder
        self.port, self.query_port = free_port(), free_port()
        for name in ("storage/whisper", "log", "run"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        config = folder / "carbon.conf"
        config.write_text(
            f"""[cache]
USER =
STORAGE_DIR = {folder}/storage/
LOCAL_DATA_DIR = {folder}/storage/whisper/
CONF_DIR = {folder}/
LOG_DIR = {folder}/log/
PID_DIR = {folder}/run/
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {self.port}
PICKLE_RECEIVER_INTERFACE = 127.0.0.1
PICKLE_RECEIVER_PORT = {free_port()}
CACHE_QUERY_INTERFACE = 127.0.0.1
CACHE_QUERY_PORT = {self.query_port}
MAX_CREATES_PER_MINUTE = inf
MAX_UPDATES_PER_SECOND = {updates_per_s}
MAX_CACHE_SIZE = inf
ENABLE_TAGS = False
ENABLE_UDP_LISTENER = False
LOG_UPDATES = False
LOG_CREATES = False
LOG_LISTENER_CONNECTIONS = False
"""
        )
        (folder / "storage-schemas.conf").write_text(f"[all]\npattern = .*\nretentions = {retention}\n")
        (folder / "storage-aggregation.conf").write_text(
            "[all]\npattern = .*\nxFilesFactor = 0\naggregationMethod = last\n"
        )
        self.server = Server(
            [PYTHON, program, f"--config={config}", "--nodaemon", "start"],
            log=folder / "carbon.log",
            env={"GRAPHITE_CONF_DIR": str(folder), "GRAPHITE_STORAGE_DIR": f"{folder}/storage"},
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> "Carbon":
        for left in (self.folder / "run").iterdir():
            left.unlink()  # of a killed one: it would not start beside it
        self.server.start()
        self.server.wait_ready("carbon", self._answers, within_s=30)
        return self

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True

    def kill(self) -> None:
        self.server.kill()

    def stop(self) -> None:
        self.server.stop()

    def cached(self, path: str) -> dict[int, float]:
        """What it has in memory only."""
        request = pickle.dumps({"type": "cache-query", "metric": path}, protocol=2)
        with socket.create_connection(("127.0.0.1", self.query_port), timeout=5) as link:
            link.sendall(struct.pack("!L", len(request)) + request)
            size = struct.unpack("!L", _exactly(link, 4))[0]
            answer: dict[str, Any] = pickle.loads(_exactly(link, size))
        return {int(at): value for at, value in answer["datapoints"]}

    def stored(self, paths: Iterable[str]) -> dict[str, dict[int, float]]:
        """What is on its disk, by path: every slot that holds a value."""
        files = {path: str(self.folder / "storage/whisper" / f"{path.replace('.', '/')}.wsp") for path in paths}
        code = (
            "import json,sys,whisper,os\n"
            "out={}\n"
            "for path,file in json.load(sys.stdin).items():\n"
            "    if not os.path.exists(file): out[path]={}; continue\n"
            "    (begin,end,step),values=whisper.fetch(file,0)\n"
            "    out[path]={begin+i*step:v for i,v in enumerate(values) if v is not None}\n"
            "print(json.dumps(out))"
        )
        done = subprocess.run([PYTHON, "-c", code], input=json.dumps(files), capture_output=True, text=True, check=True)
        return {path: {int(at): v for at, v in found.items()} for path, found in json.loads(done.stdout).items()}

    def known(self, paths: Iterable[str]) -> dict[str, dict[int, float]]:
        """On disk or in memory."""
        every = list(paths)
        cached = {path: self.cached(path) for path in every}
        return {path: {**cached[path], **found} for path, found in self.stored(every).items()}

    def names(self) -> list[str]:
        root = self.folder / "storage/whisper"
        return sorted(str(f.relative_to(root))[:-4].replace("/", ".") for f in root.rglob("*.wsp"))


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = link.recv(size - len(data))
        if not part:
            raise OSError("carbon closed its query port")
        data += part
    return data
