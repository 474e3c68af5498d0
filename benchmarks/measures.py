"""Figures of the monitor: `measures.py` both, `measures.py carbon [POINTS]`, `measures.py alert [CHANGES]`.

carbon: points a second from samples to a real carbon-cache, that is formatting, the spool on disk (flushed), the socket,
and carbon's own reading, counted when carbon's cache has the last point. Aim: at least 100 K/s (carbon alone takes 334 K/s).

alert: from the moment a page shows a bad value to the webhook's call, `for = 0`, in a real `fairlead monitor`
with a local registry. The page is looked at every second, as apps, agents and balancers are by default. Aim: p99 under 3 s.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fairlead_monitoring.adapters.spool import Spool
from fairlead_monitoring.decisions.graphite import lines, path
from fairlead_monitoring.decisions.samples import Sample, Series, series
from fairlead_monitoring.graphite import Destination, Exporter

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from harness.carbon import Carbon
from harness.ports import free_port
from harness.waiting import eventually

POINTS, SERIES = 1_000_000, 2_000
CHANGES, ROUNDS = 60, 3
AIM_POINTS_PER_S, AIM_S = 100_000, 3.0


# --- carbon ----------------------------------------------------------------------------------------------------------


async def feed(carbon: Carbon, folder: Path, points: int) -> float:
    """Seconds from the first sample to the last point in carbon's cache."""
    spool = Spool(folder / "spool", most_bytes=1024**3)
    exporter = Exporter(spool, Destination(host="127.0.0.1", port=carbon.port, settle_s=60, points_per_s=0))
    every = [series("bench_value", source=str(n)) for n in range(SERIES)]
    sending = asyncio.get_running_loop().create_task(exporter.run())
    await asyncio.sleep(0.3)
    stamp, begin_s = int(time.time()) - 3600, time.perf_counter()
    for number in range(points // SERIES):
        now_s = stamp + number
        samples = [Sample(one, float(number), now_s) for one in every]
        await exporter.append(lines(samples, prefix="bench", now_s=now_s))
        await asyncio.sleep(0)
    await until_cached(carbon, every[-1], stamp + points // SERIES - 1)
    took_s = time.perf_counter() - begin_s
    sending.cancel()
    return took_s


async def until_cached(carbon: Carbon, one: Series, stamp: int) -> None:
    async def there() -> bool:
        return stamp in await asyncio.to_thread(carbon.cached, path("bench", one))

    await eventually("the last point is in carbon's cache", there, within_s=120)


def measure_carbon(points: int) -> None:
    rates = []
    for _ in range(ROUNDS):
        folder = Path(tempfile.mkdtemp(prefix="fl-measures-", dir="/tmp"))
        carbon = Carbon(folder / "carbon", updates_per_s="1").start()  # its disk is not what is measured
        try:
            rates.append(points / asyncio.run(feed(carbon, folder, points)))
        finally:
            carbon.kill()
            shutil.rmtree(folder, ignore_errors=True)
    print(
        f"points into carbon: median {statistics.median(rates) / 1000:.0f} K/s, {min(rates) / 1000:.0f} to "
        f"{max(rates) / 1000:.0f} K/s over {ROUNDS} rounds of {points} (aim: at least {AIM_POINTS_PER_S // 1000} K/s)"
    )


# --- alert -----------------------------------------------------------------------------------------------------------


class World:
    """A page with one value, and the receiver of the calls about it, on one port."""

    def __init__(self) -> None:
        self.value = 0.0
        self.called: list[tuple[str, float]] = []
        self.port = free_port()
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer(f"heat {world.value}\n".encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                world.called.append((body["state"], time.monotonic()))
                self.answer(b"")

            def answer(self, data: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait_call(self, number: int) -> float:
        end_s = time.monotonic() + 60
        while len(self.called) < number:
            if time.monotonic() > end_s:
                raise SystemExit("measures: the webhook was not called")
            time.sleep(0.002)
        return self.called[number - 1][1]


def start(name: str, folder: Path, **settings: object) -> "subprocess.Popen[bytes]":
    words = [f"--set={key}={json.dumps(value)}" for key, value in settings.items() if key != "scrape"]
    words += [f'--set=scrape={{world = "{settings["scrape"]}"}}'] if "scrape" in settings else []
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [Path(sys.executable).with_name("fairlead"), name, *words], stdout=log, stderr=log, cwd=folder
        )


def measure_alert(changes: int) -> None:
    folder, world = Path(tempfile.mkdtemp(prefix="fl-measures-", dir="/tmp")), World()
    (folder / "rules.toml").write_text('[[rule]]\nname = "hot"\nwhen = "heat > 1"\n')
    shared = {"registry": f"local:{folder}/r.sock", "data_dir": str(folder / "data"), "token": "off"}
    processes = [start("registry", folder, **shared)]
    page = f"http://127.0.0.1:{world.port}"
    rules = {"rules": [str(folder / "rules.toml")], "default_rules": False, "webhooks": [page]}
    monitor = {"port": free_port(), **rules, **shared}
    pace = {"interval_s": 1.0}  # that of the sources alerts wait for; a further page is read at the slower one
    try:
        processes.append(start("monitor", folder, **monitor, **pace, scrape=f"{page}/metrics"))
        world.value = 5.0
        world.wait_call(1)  # it is up
        waits_s = []
        for number in range(2, changes + 2):
            time.sleep(1.0 + random.random())
            world.value, begin_s = (0.0 if world.value else 5.0), time.monotonic()
            waits_s.append(world.wait_call(number) - begin_s)
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        world.server.shutdown()
        if "KEEP" not in os.environ:
            shutil.rmtree(folder, ignore_errors=True)
    waits_s.sort()
    p99_s = waits_s[min(len(waits_s) - 1, round(len(waits_s) * 0.99))]
    print(
        f"condition to webhook: p50 {statistics.median(waits_s):.2f} s, p99 {p99_s:.2f} s, "
        f"{waits_s[0]:.2f} to {waits_s[-1]:.2f} s over {changes} changes (aim: p99 under {AIM_S:.0f} s)"
    )


def main() -> None:
    what, number = [*sys.argv[1:], "", ""][:2]
    if what in {"", "carbon"}:
        measure_carbon(int(number or POINTS))
    if what in {"", "alert"}:
        measure_alert(int(number or CHANGES))


if __name__ == "__main__":
    main()
