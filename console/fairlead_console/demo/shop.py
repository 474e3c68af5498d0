"""A shop that finds the web service by its name, through plain getaddrinfo, and shows its answer on a page."""

import html
import os
import socket
import struct
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME = os.environ["WEB_NAME"]
DNS = os.environ["FAIRLEAD_DNS"]
PORT = int(os.environ["WEB_PORT"])
PAGE = """<!doctype html><title>fairlead demo shop</title>
<h1>The shop</h1>
<p>{how} found <code>{address}</code> for <code>{name}</code></p>
<p>the balancer's service port <code>{port}</code> there answers:</p>
<pre>{answer}</pre>
"""


def find() -> tuple[str, str]:
    """How, and what: as any program would ask, through getaddrinfo. Where tasks have no resolv.conf of their own (the
    agent is not root), fairlead's DNS server itself.
    """
    try:
        return "getaddrinfo", str(socket.getaddrinfo(NAME, PORT, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        return f"getaddrinfo said &ldquo;{html.escape(str(error))}&rdquo;, as without root; {DNS}", ask_dns()


def ask_dns() -> str:
    """One A query and its answer, by hand; "nothing" when there is none."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in NAME.split("."))
    host, _, port = DNS.rpartition(":")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.settimeout(2)
            link.connect((host, int(port)))
            link.send(struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1))
            reply = link.recv(512)
    except OSError:
        return "nothing"
    _, answers, authorities, others = struct.unpack(">4H", reply[4:12])
    return socket.inet_ntoa(reply[-4:]) if answers and not authorities + others else "nothing"  # ends with an address


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
        how, address = find()
        status, answer = ask(address)
        values = {"name": NAME, "address": address, "port": str(PORT), "answer": answer}
        self._answer(status, PAGE.format(how=how, **{k: html.escape(v) for k, v in values.items()}))

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
