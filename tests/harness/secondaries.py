"""Real secondaries of a test: BIND, NSD and Knot, each with a TSIG key, on private ports of the loopback interface."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from harness.knot import Knot
from harness.servers import Server, require

ALGORITHM, KEY, SECRET = "hmac-sha256", "xfr.key", "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTI="
KEYS = f'key "{KEY}" {{ algorithm {ALGORITHM}; secret "{SECRET}"; }};\n'


def bind(folder: Path, port: int, primary: int, zones: Iterable[str]) -> Server:
    """named, as a secondary of 127.0.0.1:primary."""
    said = "".join(
        f'zone "{zone}" {{ type secondary; file "{zone}.bind"; masterfile-format text; request-ixfr yes;'
        f' primaries {{ 127.0.0.1 port {primary} key "{KEY}"; }}; allow-notify {{ key "{KEY}"; }}; allow-transfer {{ key "{KEY}"; }}; }};\n'
        for zone in zones
    )
    config = folder / "named.conf"
    config.write_text(
        f'{KEYS}options {{ directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};'
        f' pid-file none; session-keyfile "{folder}/session.key"; lock-file none; recursion no; notify no;'
        " dnssec-validation no; serial-query-rate 500; max-refresh-time 60; min-retry-time 1; max-retry-time 2; };\n"
        f"controls {{ }};\nlogging {{ channel out {{ stderr; severity info; }}; category default {{ out; }}; }};\n{said}"
    )
    return Server([require("named"), "-f", "-n", "1", "-c", str(config)], log=folder / "named.log").start()


def nsd(folder: Path, port: int, primary: int, zones: Iterable[str]) -> Server:
    """The same with NSD."""
    said = "".join(
        f'zone:\n  name: "{zone}"\n  zonefile: "{zone}.nsd"\n  allow-notify: 127.0.0.1 {KEY}\n'
        f"  request-xfr: 127.0.0.1@{primary} {KEY}\n  provide-xfr: 127.0.0.1 {KEY}\n"
        "  max-retry-time: 2\n  min-retry-time: 1\n"
        for zone in zones
    )
    config = folder / "nsd.conf"
    config.write_text(
        f'server:\n  ip-address: 127.0.0.1@{port}\n  server-count: 1\n  username: ""\n  chroot: ""\n'
        f'  zonesdir: "{folder}"\n  database: ""\n  zonelistfile: "{folder}/nsd.list"\n  xfrdfile: "{folder}/xfrd.state"\n'
        f'  xfrdir: "{folder}"\n  pidfile: ""\n  verbosity: 2\n  xfrd-reload-timeout: 0\n'
        f"remote-control:\n  control-enable: no\n"
        f'key:\n  name: "{KEY}"\n  algorithm: {ALGORITHM}\n  secret: "{SECRET}"\n{said}'
    )
    return Server([require("nsd"), "-d", "-c", str(config)], log=folder / "nsd.log").start()


def knot(folder: Path, port: int, primary: int, zones: Iterable[str]) -> Server:
    """The same with Knot."""
    before = (
        f"key:\n  - id: {KEY}\n    algorithm: {ALGORITHM}\n    secret: {SECRET}\n"
        f"remote:\n  - id: primary\n    address: 127.0.0.1@{primary}\n    key: {KEY}\n"
        f"acl:\n  - id: told\n    address: 127.0.0.1\n    key: {KEY}\n    action: [notify, transfer]\n"
    )
    lines = ["master: primary", "acl: told", "zonefile-load: none", "journal-content: all", "retry-min-interval: 1"]
    lines += ["retry-max-interval: 2"]
    return Knot(folder, port, dict.fromkeys(zones, lines), before=before).start()


def contents(port: int, zone: str) -> tuple[int, frozenset[str]]:
    """Serial and records of a zone as a server on 127.0.0.1 gives it whole, signed; the SOA is told by its serial."""
    command = [require("dig"), "@127.0.0.1", "-p", str(port), zone, "AXFR", "-y", f"{ALGORITHM}:{KEY}:{SECRET}"]
    command += ["+noall", "+answer", "+onesoa", "+time=10", "+tries=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines() if line and not line.startswith(";")]
    soa = [line for line in lines if " SOA " in line]
    if not soa:
        raise AssertionError(f"no {zone} from {port}: {done.stdout[-300:]}{done.stderr[-300:]}")
    return int(soa[0].split()[6]), frozenset(line for line in lines if " SOA " not in line and " TSIG " not in line)
