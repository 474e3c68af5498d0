"""Monitors started by a test itself, and a page whose one value the test sets."""

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from harness.house import FAIRLEAD
from harness.ports import free_port
from harness.servers import Server

RULES = '[[rule]]\nname = "hot"\nwhen = "heat > 1"\nno_data = "3s"\nsummary = "it is hot: {value}"\n'


class HeatPage:
    """A page in Prometheus' text with one series, `heat`; None hangs up on whoever asks."""

    def __init__(self) -> None:
        self.heat: float | None = 0.0
        self.port = free_port()
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if page.heat is None:
                    return
                body = f"heat {page.heat}\n".encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/metrics"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Monitor:
    """One `fairlead monitor` process with the rule `hot` alone."""

    def __init__(self, folder: Path, name: str, registry: str, **settings: object) -> None:
        self.port = free_port()
        home = folder / name
        home.mkdir(parents=True)
        (home / "rules.toml").write_text(RULES)
        values = {
            "registry": registry,
            "data_dir": str(home),
            "port": self.port,
            "token": "off",
            "default_rules": False,
            "rules": [str(home / "rules.toml")],
            "interval_s": 0.2,
            "quick_interval_s": 0.5,
            **settings,
        }
        config = home / "monitor.toml"
        tables = {key: value for key, value in values.items() if isinstance(value, dict)}
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if key not in tables]
        for key, table in tables.items():
            lines += [f"[{key}]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
        config.write_text("\n".join(lines) + "\n")
        self.rules = home / "rules.toml"
        self.server = Server([str(FAIRLEAD), "monitor", "--config", str(config)], log=home / "monitor.log")

    def start(self) -> "Monitor":
        self.server.start()
        self.server.wait_ready("the monitor", lambda: self.get("/health"), within_s=20)
        return self

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return json.loads(answer.read())

    def acting(self) -> bool:
        return bool(self.get("/status")["acting"])

    def answered(self) -> int:
        """Webhook calls that were taken. The alert is `unwritten` from that moment on, until the registry has it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        name = 'fairlead_monitor_webhook_calls_total{outcome="ok"} '
        return int(float(next((line.removeprefix(name) for line in lines if line.startswith(name)), 0)))
