"""A real HTTP receiver of webhooks: counts calls, fails or hangs when told to."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from harness.ports import free_port


class Hook:
    """`calls` are (Idempotency-Key, body) in order. `answer` is called with each and gives the status, 0 for none."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answer: Callable[[dict[str, Any]], int] = lambda _body: 200
        self.port = free_port()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def start(self) -> "Hook":
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.calls.append((self.headers["Idempotency-Key"], body))
                status = hook.answer(body)
                if not status:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def told(self) -> list[tuple[str, str]]:
        """Rule and state of each change, a call that was repeated under its key counted once."""
        seen: dict[str, tuple[str, str]] = {}
        for key, body in self.calls:
            seen.setdefault(key, (body["rule"], body["state"]))
        return list(seen.values())

    def states(self) -> list[str]:
        return [state for _, state in self.told()]
