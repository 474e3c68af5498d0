"""A web service that says which instance answers, and how many requests it has answered. Standard library only."""

import itertools
import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INSTANCE = os.environ.get("MESOS_TASK_ID", f"{socket.gethostname()} {os.getpid()}")
COUNT = itertools.count(1)


class Handler(BaseHTTPRequestHandler):
    """Answers every GET; `/health` is not counted."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        text = "ok\n" if self.path == "/health" else f"hello number {next(COUNT)} from {INSTANCE}\n"
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        if self.path != "/health":
            super().log_request(code, size)  # type: ignore[arg-type]  # passed through as it came


class Server(ThreadingHTTPServer):
    """Takes bursts of connections."""

    request_queue_size = 128
    daemon_threads = True


if __name__ == "__main__":
    Server(("127.0.0.1", int(os.environ["PORT0"])), Handler).serve_forever()
