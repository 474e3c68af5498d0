"""The compiled UDP loop and its Python twin: the same replies, the same counts, whatever comes."""

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead_daemon.errors import BadSettings
from fairlead_dns.adapters import udp_compiled
from fairlead_dns.adapters.sockets import bind, local_addresses
from fairlead_dns.adapters.udp import UdpServer
from fairlead_dns.adapters.udp_compiled import CompiledUdpServer, find
from fairlead_dns.adapters.waiting import Waiters
from fairlead_dns.decisions.rate import Kind, Limiter, Rates
from fairlead_dns.metrics import Counts
from fairlead_dns.names import Names
from harness import compiled
from harness.names import member, names, opt, option, query

pytestmark = pytest.mark.needs("cc")
WEB = "web.marathon.mesos"


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Built with many warnings, each an error."""
    return compiled.load(compiled.build(tmp_path_factory.mktemp("fast")))


class Pair:
    """A server of one kind and a client; packets are exchanged without an event loop's turn."""

    def __init__(self, made: Names, loop: Any = None, host: str = "127.0.0.1") -> None:
        text = f"[{host}]:0" if ":" in host else f"{host}:0"
        (bound,) = bind("listen", text)
        bound.stream.close()
        self.counts, waiters = Counts(), Waiters(most=1, patience_s=1)
        if loop is None:
            self.server = UdpServer(bound.udp, made.front, self.counts, waiters)
        else:
            self.server = CompiledUdpServer(bound.udp, made.front, self.counts, waiters, loop)
        self.client = socket.socket(bound.udp.family, socket.SOCK_DGRAM)
        self.client.bind((host, 0))
        self.client.connect((host, bound.place.port))
        self.client.setblocking(False)

    def exchange(self, packets: list[bytes]) -> list[bytes]:
        for packet in packets:
            self.client.send(packet)
        found = []
        for _ in range(len(packets) // 100 + 2):
            self.server.drain()
            with suppress(BlockingIOError):
                while True:
                    found.append(self.client.recv(65535))
        return found

    def close(self) -> None:
        self.server.close()
        self.client.close()


def fixed() -> Names:
    """Two instances in an order that does not change from one process of the test to the next."""
    made = names(member(0), member(1))
    made.answers.chance = lambda: 0.5
    return made


packets = st.lists(
    st.one_of(
        st.builds(
            lambda name, kind, number, extra: query(name, kind, number=number, opt=extra),
            st.sampled_from([WEB, "WEB.marathon.mesos", "nope.mesos", "mesos", "x.org", "_web._tcp.marathon.mesos"]),
            st.sampled_from(["A", "AAAA", "SRV", "SOA", "ANY"]),
            st.integers(0, 65535),
            st.sampled_from([b"", opt(), opt(600), opt(options=option(10, b"abcdefgh"))]),
        ),
        st.binary(max_size=30),
        st.just(b""),
        st.just(bytes(5000)),
    ),
    max_size=80,
)


@settings(max_examples=40)
@given(packets)
async def test_both_give_the_same(loop: Any, sent: list[bytes]) -> None:
    """Twice over, so that the second time finds what the first has prepared; replies without records in their order."""
    plain, fast = Pair(fixed()), Pair(fixed(), loop)
    try:
        for _ in range(2):
            assert sorted(map(_content, plain.exchange(sent))) == sorted(map(_content, fast.exchange(sent)))
        plain.counts.cache_hits = fast.counts.cache_hits = 0  # within a batch nothing new is prepared yet
        assert asdict(plain.counts) == asdict(fast.counts)
    finally:
        plain.close()
        fast.close()


def _content(reply: bytes) -> tuple[bytes, bytes]:
    """The reply with the rotation of its records taken out."""
    return reply[:12], bytes(sorted(reply[12:]))


async def test_a_burst_is_answered_from_the_tables(loop: Any) -> None:
    """A thousand packets, each with its own id; all but the first batches prebuilt."""
    pair = Pair(names(member()), loop)
    for start in range(0, 1000, 100):
        replies = pair.exchange([query(WEB, number=n) for n in range(start, start + 100)])
        assert set(range(start, start + 100)) == {int.from_bytes(reply[:2], "big") for reply in replies}

    assert 1000 == sum(map(sum, pair.counts.replies.values()))
    assert 900 <= pair.counts.cache_hits < 1000
    pair.close()


async def test_clients_are_told_apart_by_address(loop: Any) -> None:
    """Each address has its own table, whatever hashes to the same place; many more than are kept."""
    made = names(member())
    (bound,) = bind("listen", "127.0.0.1:0")
    bound.stream.close()
    server = CompiledUdpServer(bound.udp, made.front, Counts(), Waiters(most=1, patience_s=1), loop)
    for number in range(3000):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((f"127.{number % 7}.{number >> 8}.{number & 255 or 1}", 0))
            client.settimeout(20)
            client.sendto(query(WEB, number=number), ("127.0.0.1", bound.place.port))
            server.drain()
            assert number == int.from_bytes(client.recv(512)[:2], "big")
    seen = {f"127.{n % 7}.{n >> 8}.{n & 255 or 1}" for n in range(3000)}

    assert seen == set(made.front.views.tables)
    server.close()


async def test_ipv6_clients_are_answered(loop: Any) -> None:
    """Prepared or not."""
    if not local_addresses(six=True):
        pytest.skip("this machine has no IPv6")
    pair = Pair(names(member()), loop, "::1")
    for _ in range(3):
        assert 1 == len(pair.exchange([query(WEB)]))

    assert (2, ["::1"]) == (pair.counts.cache_hits, list(pair.server._front.views.tables))
    pair.close()


async def test_a_rate_limit_takes_the_python_loop(loop: Any) -> None:
    """Which asks the front for every packet."""
    made = names(member())
    made.front.limiter = Limiter(Rates(per_second=dict.fromkeys(Kind, 3), slip=0))
    made.front.clock = lambda: 1000.0
    pair = Pair(made, loop)

    assert 3 == len(pair.exchange([query(WEB)] * 20))
    pair.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="a packet from port 0 needs root")
async def test_lost_replies_are_counted(loop: Any) -> None:
    """A client whose port is 0 cannot be answered; the others are."""
    pair = Pair(names(member()), loop)
    pair.exchange([query(WEB)])
    pair.client.close()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        port, body = pair.server._sock.getsockname()[1], query(WEB)
        header = (0).to_bytes(2, "big") + port.to_bytes(2, "big") + (8 + len(body)).to_bytes(2, "big") + b"\0\0"
        raw.sendto(header + body, ("127.0.0.1", 0))
        pair.server.drain()

    assert 1 == pair.counts.socket_errors
    pair.server.close()


@pytest.mark.parametrize("wrong", [lambda: "text", lambda: 1 // 0])
async def test_a_bug_in_what_was_prepared_is_an_exception(loop: Any, wrong: Callable[[], Any]) -> None:
    """Not a crash: the event loop logs it."""
    pair = Pair(names(member()), loop)
    pair.client.send(query(WEB))
    (address, _) = pair.client.getsockname()
    tables = {address: {query(WEB)[2:]: wrong}}

    with pytest.raises((TypeError, ZeroDivisionError)):
        loop.drain(pair.server._sock.fileno(), tables, 10)
    pair.close()


@pytest.mark.parametrize("arguments", [(), ("x", {}, 1), (0, [], 1), (0, {}), (0, {}, "x")])
def test_wrong_arguments_are_told(loop: Any, arguments: tuple[Any, ...]) -> None:
    """As by any function."""
    with pytest.raises(TypeError):
        loop.drain(*arguments)


async def test_nothing_leaks(loop: Any) -> None:
    """Ten thousand packets later the same objects have the same references."""
    pair = Pair(names(member()), loop)
    pair.exchange([query(WEB)])
    body = bytes(40)
    (address, _) = pair.client.getsockname()
    table = {query(WEB)[2:]: lambda: body}
    tables = {address: table}

    def held() -> tuple[int, ...]:
        return sys.getrefcount(body), sys.getrefcount(table), sys.getrefcount(tables), sys.getallocatedblocks() // 1000

    for round_ in range(101):
        if round_ == 1:
            before = held()
        for _ in range(50):
            pair.client.send(query(WEB))
            pair.client.send(b"unknown" * 3)
        loop.drain(pair.server._sock.fileno(), tables, 128)
        with suppress(BlockingIOError):
            while True:
                pair.client.recv(512)

    assert before[:3] == held()[:3]
    assert abs(before[3] - held()[3]) <= 5
    pair.close()


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_compiled, "MODULE", "fairlead_dns_fast_that_is_not_installed")


@pytest.mark.usefixtures("hidden")
def test_without_it_python_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless somebody insists."""
    monkeypatch.setitem(sys.modules, udp_compiled.MODULE, None)

    assert (None, None) == (find("auto"), find("python"))
    with pytest.raises(BadSettings, match=r"^udp_loop: fairlead-dns-fast is not installed"):
        find("compiled")


def test_one_of_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is installed apart, and may be older or newer."""
    monkeypatch.setitem(sys.modules, udp_compiled.MODULE, ModuleType(udp_compiled.MODULE))

    assert find("auto") is None
    with pytest.raises(BadSettings, match=r"^udp_loop: the fairlead-dns-fast that is installed is of another version"):
        find("compiled")


def test_installed_it_is_found(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, and not when Python's loop is wanted."""
    monkeypatch.setitem(sys.modules, udp_compiled.MODULE, loop)

    assert (loop, loop, None) == (find("auto"), find("compiled"), find("python"))
