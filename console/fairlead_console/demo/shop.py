"""A shop that finds the web service by its name, through plain getaddrinfo, and shows its answer on a page."""

import html
import os
import socket
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = os.environ["WEB_NAME"]
PORT = int(os.environ["WEB_PORT"])
PAGE = """<!doctype html><title>fairlead demo shop</title>
<h1>The shop</h1>
<p>getaddrinfo(<code>{name}</code>) found <code>{address}</code></p>
<p>the balancer's service port <code>{port}</code> there answers:</p>
<pre>{answer}</pre>
"""


def find() -> str:
    """The address behind the name, as any program would ask for it; or why there is none."""
    try:
        return str(socket.getaddrinfo(NAME, PORT, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        return f"nothing ({error}); only an agent that runs as root lets its tasks resolve"


def ask(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}:{PORT}/", timeout=5) as response:
            return 200, response.read().decode()
    except (OSError, ValueError) as error:
        return 502, f"no answer: {error}"


class Handler(BaseHTTPRequestHandler):
    """One page, and `/health`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(200, "ok\n")
            return
        address = find()
        status, answer = ask(address)
        values = {"name": NAME, "address": address, "port": str(PORT), "answer": answer}
        self._answer(status, PAGE.format(**{k: html.escape(v) for k, v in values.items()}))

    def _answer(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
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
