"""Seconds from `fairlead up --demo` to the demo's answer through HAProxy, on a second start: `up.py [ROUNDS]`.

The first start makes the data directory and deploys the apps; it is shown apart. Every further one starts all daemons
afresh on that directory, with the apps in the registry and nothing running. Aim: under 8 s.
"""

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

AIM_S = 8.0
ROUNDS = 5
LONGEST_S = 120.0
HOST = "web.localhost"


def free_ports(count: int) -> list[int]:
    """Below the kernel's ephemeral range, consecutive ones not needed."""
    found: list[int] = []
    for port in range(22000 + os.getpid() % 3000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise SystemExit("up: no free ports")


def settings(folder: Path) -> Path:
    ports = free_ports(240)
    pairs = [p for p in ports if p + 1 in ports]
    names = ("master_port", "services_port", "dns_port", "lb_admin_port", "lb_http_port", "lb_https_port")
    values: dict[str, object] = dict(zip(names, ports[20:], strict=False))
    values |= {"agent_port": pairs[0], "dns_http_port": next(p for p in pairs if p > pairs[0] + 1)}
    values |= {"data_dir": str(folder / "data"), "service_ports": f"{ports[40]}-{ports[60]}", "token": "off"}
    values |= {"agent_ports": f"{ports[100]}-{ports[-1]}", "dns_address": f"127.54.{os.getpid() % 250 + 1}.53"}
    file = folder / "up.toml"
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    return file


def answers(url: str) -> bool:
    request = urllib.request.Request(url, headers={"Host": HOST})
    try:
        with urllib.request.urlopen(request, timeout=2) as response:
            return response.status == 200
    except (OSError, urllib.error.HTTPError):
        return False


def one_start(config: Path, log: Path) -> float:
    """Starts, measures, ends in order. SystemExit with the log when it does not come up, or leaves something behind."""
    url = f"http://127.0.0.1:{port_of(config, 'lb_http_port')}/"
    with log.open("ab") as stream:
        begin = time.monotonic()
        fairlead = Path(sys.executable).with_name("fairlead")
        up = subprocess.Popen([fairlead, "up", "--demo", "--config", config], stdout=stream, stderr=stream)
    try:
        while not answers(url):
            if up.poll() is not None or time.monotonic() - begin > LONGEST_S:
                raise SystemExit(f"up: the demo did not answer:\n{log.read_text()}")
            time.sleep(0.02)
        return time.monotonic() - begin
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(LONGEST_S)


def port_of(config: Path, name: str) -> str:
    return next(line.partition("=")[2].strip() for line in config.read_text().splitlines() if line.startswith(name))


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    folder = Path(tempfile.mkdtemp(prefix="fl-up-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        config = settings(folder)
        first_s = one_start(config, folder / "up.log")
        later_s = sorted(one_start(config, folder / "up.log") for _ in range(rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"first start until the demo answers: {first_s:.1f} s")
    print(
        f"second start: median {statistics.median(later_s):.1f} s, "
        f"{later_s[0]:.1f} to {later_s[-1]:.1f} s over {rounds} (aim: under {AIM_S:.0f} s)"
    )


if __name__ == "__main__":
    main()
