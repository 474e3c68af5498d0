"""A real Prometheus of Debian's package on a private port."""

import json
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from harness.ports import free_port
from harness.servers import Server, require


class Prometheus:
    """`scrape_configs` is YAML, as it stands in a Prometheus configuration."""

    def __init__(self, folder: Path, scrape_configs: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        config = folder / "prometheus.yml"
        config.write_text(f"global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n{scrape_configs}")
        self.server = Server(
            [
                require("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            log=folder / "prometheus.log",
        )

    def start(self) -> "Prometheus":
        self.server.start()
        self.server.wait_ready("Prometheus", lambda: self._get("/-/ready"), within_s=30)
        return self

    def stop(self) -> None:
        self.server.stop()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Of an instant vector: `{"metric": {…}, "value": […]}`."""
        raw = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        found: list[dict[str, Any]] = json.loads(raw)["data"]["result"]
        return found

    def targets(self, job: str) -> list[dict[str, Any]]:
        found = json.loads(self._get("/api/v1/targets"))["data"]["activeTargets"]
        return [target for target in found if target["labels"]["job"] == job]

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return bytes(answer.read())
