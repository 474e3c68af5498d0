"""A service that finds another by name, as any program does: plain getaddrinfo, then a request. Standard library only.

`GET /` answers `<addresses> <what the other said>`; `OTHER_NAME` and `OTHER_PORT` say who.
"""

import os
import socket
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name, port = os.environ["OTHER_NAME"], os.environ["OTHER_PORT"]
        try:
            addresses = sorted({str(i[4][0]) for i in socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)})
            with urllib.request.urlopen(f"http://{name}:{port}/", timeout=5) as other:
                text, status = f"{','.join(addresses)} {other.read().decode()}", 200
        except OSError as error:
            text, status = f"{error!r} with {Path('/etc/resolv.conf').read_text()!r}", 502
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT0"])), Handler).serve_forever()
