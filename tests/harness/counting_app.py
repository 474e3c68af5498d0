"""The service under load: a real HTTP/1.1 server that notes every request number it serves in a shared file.

Standard library only; run by the system's python3 inside a task. `COUNT_FILE` is appended to, one write a request, so
the lines of several instances do not mix. It dies at once on SIGTERM, in the middle of whatever it does: nothing but
"leave before dying" protects its clients. `WORK_S` is how long a request takes.
"""

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TASK = os.environ.get("MESOS_TASK_ID", "?")
COUNT = os.open(os.environ["COUNT_FILE"], os.O_WRONLY | os.O_APPEND) if "COUNT_FILE" in os.environ else -1
WORK_S = float(os.environ.get("WORK_S", "0.01"))
APP = os.environ.get("MARATHON_APP_ID", "?")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body: str) -> None:
        data = body.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-App", APP)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.path.startswith("/n/"):
            return self.answer(f"{APP} {TASK}")
        number = self.path.removeprefix("/n/")
        if COUNT >= 0:
            os.write(COUNT, f"{self.command} {number} {TASK} {time.time():.3f}\n".encode())
        time.sleep(WORK_S)
        return self.answer(f"{number} {TASK}")

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


if __name__ == "__main__":
    Server(("0.0.0.0", int(sys.argv[1] if len(sys.argv) > 1 else os.environ["PORT0"])), Handler).serve_forever()
