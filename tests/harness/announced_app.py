"""A server that fairlead does not schedule: `GET /` answers its name after WORK_S, `GET /health` 200 or, with the file SICK, 500."""

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        sick = Path(os.environ.get("SICK", "/nonexistent")).exists()
        if self.path != "/health":
            time.sleep(float(os.environ.get("WORK_S", "0")))
        body = f"{sys.argv[1]}\n".encode()
        self.send_response(500 if sick and self.path == "/health" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
