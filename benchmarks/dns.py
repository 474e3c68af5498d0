"""Figures of `fairlead dns`, one command each; rivals are measured in the same run.

    python benchmarks/dns.py cpu       own-zone A, 10,000 services x 3, EDNS and no EDNS: CPU µs per query of one process,
                                       its UDP loop in Python and compiled, beside Knot and NSD with the same names
    python benchmarks/dns.py srv       SRV with the addresses, 20 endpoints a service, EDNS 1232, beside Knot
    python benchmarks/dns.py workers   queries for a second of CPU, two workers beside one process, 1,000 services
    python benchmarks/dns.py memory    memory of servers with one, two and four workers, 100,000 endpoints
    python benchmarks/dns.py publish   endpoint published -> DNS answers it, 100 and 10,000 services, both registries,
                                       while 50 endpoints/s change and 20,000 queries/s come
    python benchmarks/dns.py cold      100,000 endpoints on ZooKeeper: start -> ready, resident memory
    python benchmarks/dns.py change    CPU of one change among 5,000 and among 100,000 endpoints
    python benchmarks/dns.py forward   CPU µs per query for forwarded names that are cached, beside own names

`--small` takes tiny sizes and times, to see that all works. How each is measured: dns_servers.py.
"""

import argparse
import itertools
import signal
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import dns_changes
from dns_servers import (
    Round,
    dns_server,
    endpoints,
    fill,
    knot_server,
    load,
    local_registry,
    nsd_server,
    proportional_mb,
    questions,
    tree,
    warm,
    workplace,
    zone_file,
)

from harness import compiled
from harness.names import ask_udp, opt, query
from harness.ports import free_port
from harness.upstreams import black_hole, unbound

SERVICES = 100
"""For forwarded names, beside which ours stand."""
MANY = 15_000
LOST_PER_S = 500
RATE = 20_000
CHANGES_PER_S = 50
LOOPS = ("python", "compiled")
AIMS = {"python": 1.0, "compiled": 1.0}


@dataclass(frozen=True, slots=True)
class Rounds:
    number: int
    seconds: float


# --- CPU beside the rivals --------------------------------------------------------------------------------------------


def cpu(services: int, each: int, rounds: int, seconds: float) -> None:
    """As fast as it goes, 100 questions under way: no server waits for the load."""
    members = endpoints(services, each)
    with ExitStack() as stack:
        folder = stack.enter_context(workplace())
        url = stack.enter_context(local_registry(folder))
        fill(url, members)
        compiled.build(folder)
        places = {}
        for loop in LOOPS:
            ours = stack.enter_context(dns_server(folder, url, services=services, id=loop, udp_loop=loop))
            places[loop] = (ours.pid, ours.port)
        zone = zone_file(members)
        places["knot"] = stack.enter_context(knot_server(folder, zone))
        places["nsd"] = stack.enter_context(nsd_server(folder, zone))
        file = questions(folder, services)
        for edns in (True, False):
            results = compared(places, file, each, Rounds(rounds, seconds), edns=edns)
            report(f"A, {services:,} services x {each} endpoints, {'EDNS' if edns else 'no EDNS'}", results, AIMS)


def srv(services: int, each: int, rounds: int, seconds: float) -> None:
    """The load asks with 4096; no server sends a datagram of more than 1232 bytes. What an answer holds is printed."""
    members = endpoints(services, each)
    with ExitStack() as stack:
        folder = stack.enter_context(workplace())
        url = stack.enter_context(local_registry(folder))
        fill(url, members)
        compiled.build(folder)
        places = {}
        for loop in LOOPS:
            ours = stack.enter_context(dns_server(folder, url, services=services, id=loop, udp_loop=loop))
            places[loop] = (ours.pid, ours.port)
        places["knot"] = stack.enter_context(knot_server(folder, zone_file(members)))
        results = compared(places, questions(folder, services, srv=True), each, Rounds(rounds, seconds), edns=True)
        report(f"SRV with addresses, {services:,} services x {each}, EDNS 1232", results, dict.fromkeys(LOOPS, 1.25))
        for what, (_, port) in places.items():
            raw = ask_udp(port, query("_web0._tcp.marathon.mesos", "SRV", opt=opt(1232)))
            counts = [int.from_bytes(raw[at : at + 2], "big") for at in (6, 8, 10)]
            print(
                f"  {what:9} answers {counts[0]} SRV, {counts[1]} authority, {counts[2] - 1} addresses, {len(raw)} bytes"
            )


def compared(
    places: Mapping[str, tuple[int, int]], file: Path, each: int, rounds: Rounds, *, edns: bool
) -> dict[str, list[Round]]:
    """Rounds alternate between the servers; each has given every answer before. `each`: records an answer."""
    for _, port in places.values():
        warm(port, file, each, edns=edns)
    results: dict[str, list[Round]] = {name: [] for name in places}
    for _ in range(rounds.number):
        for name, (pid, port) in places.items():
            results[name].append(load([pid], port, file, rounds.seconds, edns=edns))
    return results


def report(what: str, results: Mapping[str, list[Round]], aims: Mapping[str, float]) -> None:
    print(f"\n{what}: {len(results['knot'])} rounds")
    medians = {name: statistics.median(r.cpu_us for r in rounds) for name, rounds in results.items()}
    for name, rounds in results.items():
        costs = sorted(r.cpu_us for r in rounds)
        beside = f"  {medians[name] / medians['knot']:5.2f} x Knot (aim: at most {aims[name]})" if name in aims else ""
        print(
            f"  {name:9} {medians[name]:6.2f} µs CPU/query  (least {costs[0]:.2f}, most {costs[-1]:.2f})"
            f"  {statistics.median(r.per_second for r in rounds):9,.0f} queries/s  lost {sum(r.lost for r in rounds)}"
            f"{beside}",
            flush=True,
        )


def workers(services: int, rounds: int, seconds: float) -> None:
    """A server of two workers beside one process, all on one CPU, each with 100 questions under way: what workers share
    costs nothing.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(workplace())
        url = stack.enter_context(local_registry(folder))
        fill(url, endpoints(services, 3))
        one = stack.enter_context(dns_server(folder, url, services=services, id="alone"))
        two = stack.enter_context(dns_server(folder, url, services=services, id="two", workers=2))
        file = questions(folder, services)
        warm(one.port, file, 3)
        warm(two.port, file, 3)
        results: dict[str, list[float]] = {"one process": [], "two workers": []}
        for _ in range(rounds):
            results["one process"].append(load([one.pid], one.port, file, seconds).cpu_us)
            results["two workers"].append(load([two.pid], two.port, file, seconds, under_way=200).cpu_us)
        print(f"\nqueries for a second of CPU, {rounds} rounds")
        medians = {name: 1e6 / statistics.median(costs) for name, costs in results.items()}
        for name, per_s in medians.items():
            print(f"  {name:14} {per_s:9,.0f}")
        print(f"  ratio          {medians['two workers'] / medians['one process']:9.2f}  (aim: at least 0.9)")


def memory(each: int) -> None:
    """100,000 endpoints: proportional set size of one process, and of servers with workers, at rest."""
    with ExitStack() as stack:
        folder = stack.enter_context(workplace())
        url = stack.enter_context(local_registry(folder))
        fill(url, endpoints(1_000, each))
        print(f"\n{1_000 * each:,} endpoints: memory (PSS) of all processes of a server")
        for count in (1, 2, 4):
            with dns_server(folder, url, services=1_000, id=f"m{count}", workers=count) as server:
                sizes = [proportional_mb(pid) for pid in tree(server.pid)]
                shared = server.metric("fairlead_dns_shared_bytes") / 1e6 if count > 1 else 0.0
                print(
                    f"  workers = {count}  {sum(sizes):7,.0f} MB: {', '.join(f'{size:,.0f}' for size in sizes)}"
                    f"; names shared {shared:,.0f}",
                    flush=True,
                )


# --- forwarded and cached ---------------------------------------------------------------------------------------------


@contextmanager
def unbound_server(folder: Path) -> Iterator[int]:
    """Its port. As many addresses a name as our services have endpoints; long TTLs, so that we ask it once."""
    port = free_port()
    data = [
        f'  local-data: "w{n}.far. 3600 IN A 10.{n // 250}.{n % 250}.{a}"\n' for n in range(MANY) for a in range(1, 6)
    ]
    server = unbound(folder, port, "", server='  local-zone: "far." static\n' + "".join(data)).start()
    server.wait_ready("unbound", lambda: ask_udp(port, query("w0.far"), wait_s=0.3)[7] == 5)
    try:
        yield port
    finally:
        server.stop()


def flooding(port: int, zone: str, stop: threading.Event) -> None:
    """LOST_PER_S questions a second, all different; replies are dropped."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        for number in itertools.count():
            sock.send(query(f"n{number}.{zone}"))
            with suppress(BlockingIOError):
                while sock.recv(4096):
                    pass
            if stop.wait(1 / LOST_PER_S):
                return


def one_answer_us(port: int, name: str) -> float:
    time.sleep(0.005)
    start_s = time.perf_counter()
    ask_udp(port, query(name), wait_s=20)
    return (time.perf_counter() - start_s) * 1e6


def beside_a_black_hole(port: int, rounds: int, seconds: int) -> None:
    """An own name asked 200 times a second, alone, beside questions answered at once, beside questions that are lost."""
    took: dict[str, list[float]] = {"": [], "test": [], "hole": []}
    for _ in range(rounds):
        for zone, some in took.items():
            stop = threading.Event()
            flood = threading.Thread(target=flooding, args=(port, zone, stop), daemon=True)
            if zone:
                flood.start()
                time.sleep(3)
            try:
                some += [one_answer_us(port, f"web{n % SERVICES}.marathon.mesos") for n in range(seconds * 200)]
            finally:
                stop.set()
            if zone:
                flood.join()
    print(f"\none own name at a time, beside {LOST_PER_S} other questions/s, {rounds} rounds, µs until it is answered")
    labels = {"": "none", "test": "answered at once (.test)", "hole": "sent on into a black hole"}
    for zone, some in took.items():
        p50, p99 = (statistics.quantiles(some, n=100)[n - 1] for n in (50, 99))
        print(f"  {labels[zone]:26} p50 {p50:6.0f}  p99 {p99:6.0f}")


def forward(rounds: int, seconds: int) -> None:
    """Own names, few forwarded ones (prepared packets), many (parsed and looked up each time), in alternating rounds."""
    with ExitStack() as stack:
        folder = stack.enter_context(workplace())
        url = stack.enter_context(local_registry(folder))
        fill(url, endpoints(SERVICES, 5))
        upstream = stack.enter_context(unbound_server(folder))
        hole = stack.enter_context(black_hole())
        zones = {"hole": [f"127.0.0.1:{hole}"]}
        ours = stack.enter_context(
            dns_server(folder, url, services=SERVICES, resolvers=[f"127.0.0.1:{upstream}"], zone_resolvers=zones)
        )
        files = {}
        for what, names_of in (
            ("own", [f"web{n}.marathon.mesos" for n in range(SERVICES)]),
            ("forwarded", [f"w{n}.far" for n in range(SERVICES)]),
            ("many", [f"w{n}.far" for n in range(MANY)]),
        ):
            files[what] = folder / what
            files[what].write_text("".join(f"{name} A\n" for name in names_of))
        for _ in range(5):  # each run begins with the first name
            if ours.metric("fairlead_dns_forward_cached ") < MANY:
                load([ours.pid], ours.port, files["many"], 10, rate=2_000)
        results: dict[str, list[Round]] = {what: [] for what in files}
        for _ in range(rounds):
            for what, file in files.items():
                results[what].append(load([ours.pid], ours.port, file, seconds, rate=RATE))
        own = statistics.median(r.cpu_us for r in results["own"])
        print(f"\nforwarded and cached: A with 5 addresses, EDNS, {RATE} queries/s, {rounds} rounds")
        for what, label in (
            ("own", f"{SERVICES} own names"),
            ("forwarded", f"{SERVICES} forwarded"),
            ("many", f"{MANY} forwarded"),
        ):
            cost = statistics.median(r.cpu_us for r in results[what])
            lost = sum(r.lost for r in results[what])
            print(f"  {label:16} {cost:6.2f} µs CPU/query  {cost / own:5.2f} x own  (aim: at most 2)  lost {lost}")
        beside_a_black_hole(ours.port, rounds, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    figures = ("cpu", "srv", "workers", "memory", "publish", "cold", "change", "forward")
    parser.add_argument("figure", nargs="?", choices=(*figures, "all"), default="all")
    parser.add_argument("--rounds", type=int, default=4, help="rounds per server")
    parser.add_argument("--seconds", type=int, default=2, help="length of a round; `publish`: five times that")
    parser.add_argument("--registry", choices=("local", "zookeeper"), help="of `publish`; both unless told")
    parser.add_argument("--services", type=int, choices=(100, 10_000), help="of `publish`; both unless told")
    parser.add_argument("--rate", type=int, default=RATE, help="queries/s of `publish`")
    parser.add_argument("--small", action="store_true", help="tiny sizes and times")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    for figure in figures if given.figure == "all" else (given.figure,):
        measure(figure, given)


def measure(figure: str, given: argparse.Namespace) -> None:
    part = 50 if given.small else 1
    rounds, seconds = (1, 1) if given.small else (given.rounds, given.seconds)
    if figure == "cpu":
        cpu(10_000 // part, 3, rounds, seconds)
    elif figure == "srv":
        srv(500 // part, 20, rounds, seconds)
    elif figure == "workers":
        workers(1_000 // part, rounds, seconds)
    elif figure == "memory":
        memory(100 // part)
    elif figure == "publish":
        sizes = [(s, e) for s, e in ((100, 20), (10_000, 3)) if given.services in {None, s}]
        registries = [given.registry] if given.registry else ["local", "zookeeper"]
        pace = dns_changes.Pace(5 * seconds, given.rate // part, CHANGES_PER_S)
        dns_changes.published([(min(s, 10_000 // part), e) for s, e in sizes], registries, pace)
    elif figure == "cold":
        dns_changes.cold(2_000 // part, 50)
    elif figure == "change":
        print("\none change")
        dns_changes.change([(100, 50), (2_000 // min(part, 10), 50)], changes=100 if given.small else 300)
    else:
        forward(rounds, 1 if given.small else 2 * seconds)


if __name__ == "__main__":
    main()
