"""One `fairlead dns`, all its transports, asked by other people's clients: dig, kdig, drill, curl and dnspython."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from harness.certificates import self_signed
from harness.names import DnsDaemon, query
from harness.ports import free_port
from harness.servers import Server
from harness.upstreams import unbound
from harness.waiting import wait_until

pytestmark = [pytest.mark.needs("dig", "kdig", "drill", "curl", "openssl")]

BIG = 120
"""Addresses of one name: too many for a datagram."""
RECORDS = [f"big A 10.1.0.{n}" for n in range(BIG)] + ["web A 10.0.0.1", "web AAAA 2001:db8::1", "text TXT hello"]
RECORDS += ["_http._tcp.deep.below.here SRV 0 1 80 web.mesos.", "alias CNAME web.mesos."]
SECRET = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Served:
    """The daemon and the ports of its transports."""

    daemon: DnsDaemon
    folder: Path
    plain: int
    tls: int
    https: int
    proxied: int
    proxied_https: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("dns")
    cert, key = self_signed(folder)
    (folder / "secrets").write_text(SECRET)
    ports = [free_port() for _ in range(5)]
    plain, tls, https, proxied, proxied_https = ports
    daemon = DnsDaemon(
        folder,
        registry="memory:transports",
        port=plain,
        http_port=free_port(),
        listen=[f"127.0.0.1:{plain}", f"127.0.0.1:{proxied}"],
        listen_tls=[f"127.0.0.1:{tls}"],
        listen_https=[f"127.0.0.1:{https}", f"127.0.0.1:{proxied_https}"],
        proxied=[f"127.0.0.1:{proxied}", f"127.0.0.1:{proxied_https}"],
        certificate=str(cert),
        certificate_key=str(key),
        cookie_secrets=str(folder / "secrets"),
        nsid="dns-1",
        records=RECORDS,
        allow_query=["127.0.0.0/8", "192.0.2.0/24"],
        transfers=["127.0.0.0/8"],
        waiting=100,
    )
    daemon.start()
    try:
        daemon.wait_serving()
        yield Served(daemon, folder, *ports)
    finally:
        daemon.stop()


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def dig(served: Served, transport: str, *words: str) -> str:
    how = {
        "udp": ("-p", str(served.plain), "+ignore"),
        "tcp": ("-p", str(served.plain), "+tcp"),
        "dot": ("-p", str(served.tls), "+tls"),
        "doh": ("-p", str(served.https), "+https"),
        "doh-get": ("-p", str(served.https), "+https-get"),
    }[transport]
    return run("dig", "@127.0.0.1", *how, *words)


def kdig(served: Served, transport: str, *words: str) -> str:
    trusted = ("+tls-ca=" + str(served.folder / "cert.pem"), "+tls-hostname=dns.test")
    how = {
        "udp": ("-p", str(served.plain), "+ignore"),
        "tcp": ("-p", str(served.plain), "+tcp"),
        "dot": ("-p", str(served.tls), "+tls", *trusted),
        "doh": ("-p", str(served.https), "+https", *trusted),
    }[transport]
    return run("kdig", "@127.0.0.1", *how, *words)


TRANSPORTS = ["udp", "tcp", "dot", "doh"]


@pytest.mark.parametrize("transport", [*TRANSPORTS, "doh-get"])
def test_dig_gets_the_answer(served: Served, transport: str) -> None:
    """Authority, the address, a cookie, whatever it comes by."""
    text = dig(served, transport, "web.mesos", "A")

    assert "status: NOERROR" in text
    assert "flags: qr aa" in text
    assert "10.0.0.1" in text
    assert "(good)" in text  # the cookie


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_kdig_gets_the_answer(served: Served, transport: str) -> None:
    """With the certificate checked, over TLS."""
    text = kdig(served, transport, "web.mesos", "AAAA", "+nsid")

    assert "status: NOERROR" in text
    assert "2001:db8::1" in text
    assert '"dns-1"' in text
    assert ("TLS1.3" in text) == (transport in {"dot", "doh"})
    assert ("HTTP/2-POST" in text) == (transport == "doh")


@pytest.mark.parametrize("how", ["-u", "-t"])
def test_drill_gets_the_answer(served: Served, how: str) -> None:
    """ldns' client, over UDP and TCP."""
    text = run("drill", how, "-p", str(served.plain), "web.mesos", "@127.0.0.1")

    assert "rcode: NOERROR" in text
    assert "10.0.0.1" in text


def dnspython(served: Served, transport: str) -> Callable[[dns.message.Message], dns.message.Message]:
    trusted = ssl.create_default_context(cafile=str(served.folder / "cert.pem"))
    return {
        "udp": lambda asked: dns.query.udp(asked, "127.0.0.1", port=served.plain, timeout=10),
        "tcp": lambda asked: dns.query.tcp(asked, "127.0.0.1", port=served.plain, timeout=10),
        "dot": lambda asked: dns.query.tls(
            asked, "127.0.0.1", port=served.tls, timeout=10, ssl_context=trusted, server_hostname="dns.test"
        ),
    }[transport]


@pytest.mark.parametrize("transport", ["udp", "tcp", "dot"])
def test_dnspython_gets_what_fits(served: Served, transport: str) -> None:
    """Many addresses: cut over UDP with TC, whole over TCP and TLS."""
    reply = dnspython(served, transport)(dns.message.make_query("big.mesos", "A", use_edns=0, payload=1232))
    count = len(reply.answer[0]) if reply.answer else 0

    assert (transport == "udp") == bool(reply.flags & dns.flags.TC)
    assert (count < BIG) if transport == "udp" else (count == BIG)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nope.mesos", "A"), "status: NXDOMAIN"),
        (("web.mesos", "TYPE1000"), "status: NOERROR"),
        (("web.mesos", "TXT", "+edns=1", "+noednsnegotiation"), "status: BADVERS"),
        (("web.mesos", "A", "+ednsopt=100"), "status: NOERROR"),
        (("web.mesos", "A", "+dnssec", "+subnet=192.0.2.0/24", "+expire"), "flags: do;"),
        (("web.mesos", "A", "+cdflag", "+adflag", "+zflag"), "flags: qr aa rd;"),
        (("web.mesos", "A", "+opcode=15", "+noedns"), "status: NOTIMP"),
        (("web.mesos", "SOA", "+opcode=5"), "status: REFUSED"),
        (("web.mesos", "ANY"), "ANSWER: 1,"),
        (("example.com", "A"), "EDE: 20 (Not Authoritative)"),
        (("version.bind", "TXT", "CH"), "status: REFUSED"),
        (("mesos", "SOA"), "root.ns1.mesos"),
        (("WeB.mEsOs", "A"), "WeB.mEsOs."),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_every_transport_answers_the_same(
    served: Served, transport: str, words: tuple[str, ...], expected: str
) -> None:
    """RFC 8906's cases and the refusals, by dig."""
    assert expected in dig(served, transport, *words)


@pytest.mark.parametrize(("transport", "whole"), [("tcp", True), ("dot", True), ("doh", False)])
def test_a_zone_goes_over_streams(served: Served, transport: str, whole: bool) -> None:
    """TCP and TLS (RFC 9103); one HTTP answer cannot hold it, and is refused."""
    text = kdig(served, transport, "mesos", "AXFR")

    assert (BIG if whole else 0) == text.count("\nbig.mesos.")
    assert whole != ("REFUSED" in text)


# --- over HTTPS -------------------------------------------------------------------------------------------------------

ASKED = "AAABAAABAAAAAAAAA3dlYgVtZXNvcwAAAQAB"


def curl(served: Served, *words: str, path: str = "/dns-query", port: int = 0) -> str:
    url = f"https://127.0.0.1:{port or served.https}{path}"
    return run("curl", "-s", "--cacert", str(served.folder / "cert.pem"), "-o", "-", "-i", *words, url)


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_asks_by_url(served: Served, version: str) -> None:
    """GET: the media type, and the TTL for caches."""
    text = curl(served, version, path=f"/dns-query?dns={ASKED}").lower()

    assert " 200" in text.partition("\n")[0]
    assert "content-type: application/dns-message" in text
    assert "cache-control: max-age=60" in text


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
@pytest.mark.parametrize(
    ("status", "path", "words"),
    [
        ("404", "/", ()),
        ("400", "/dns-query", ()),
        ("400", "/dns-query?dns=%", ()),
        ("400", "/dns-query?dns=AAAA", ()),
        ("405", f"/dns-query?dns={ASKED}", ("-X", "DELETE")),
        ("415", "/dns-query", ("-d", "x")),
        ("413", "/dns-query", ("-H", "content-type: application/dns-message", "-d", "x" * 5000)),
    ],
)
def test_http_errors_are_http_s(served: Served, version: str, status: str, path: str, words: tuple[str, ...]) -> None:
    """What is no query over HTTP is told by the status; the server stays."""
    assert status in curl(served, version, *words, path=path).partition("\n")[0]


def test_many_questions_share_a_connection(served: Served) -> None:
    """HTTP/2: a hundred large answers, fifty at once."""
    url = f"https://127.0.0.1:{served.https}/dns-query?dns=AAABAAABAAAAAAAAA2JpZwVtZXNvcwAAAQAB"
    many = ("--parallel", "--http2", "--parallel-max", "50", *("-o", "/dev/null", url) * 100)
    text = run(
        "curl", "-s", "--cacert", str(served.folder / "cert.pem"), "-w", "%{http_code} %{size_download}\n", *many
    )

    assert ["200 1947"] * 100 == text.split("\n")[:100]


# --- a resolver in between ---------------------------------------------------------------------------------------------

STRICT = (
    "  harden-below-nxdomain: yes\n  use-caps-for-id: yes\n  qname-minimisation: yes\n  qname-minimisation-strict: yes\n"
    "  harden-glue: yes\n  harden-referral-path: yes\n  harden-large-queries: yes\n  deny-any: yes\n"
)


@pytest.fixture(scope="module", params=["plain", "tls"])
def resolver(request: pytest.FixtureRequest, served: Served) -> Iterator[int]:
    """An unbound in its strictest settings that asks us, in the clear and over TLS. Gives its port."""
    port, tls = free_port(), request.param == "tls"
    how = f"{served.tls}#dns.test\n  stub-tls-upstream: yes" if tls else str(served.plain)
    zones = f'stub-zone:\n  name: "mesos"\n  stub-addr: 127.0.0.1@{how}\n'
    trusted = served.folder / "trusted.pem"
    shutil.copy(served.folder / "cert.pem", trusted)
    server = unbound(served.folder, port, zones, server=f'{STRICT}  tls-cert-bundle: "{trusted}"\n').start()
    try:
        server.wait_ready(
            "unbound", lambda: "status: NOERROR" in run("dig", "@127.0.0.1", "-p", str(port), "mesos", "SOA")
        )
        yield port
    finally:
        server.stop()


@pytest.mark.needs("unbound")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("web.mesos", "A"), "10.0.0.1"),
        (("WEB.mesos", "AAAA"), "2001:db8::1"),
        (("nope.mesos", "A"), "status: NXDOMAIN"),
        (("below.nope.mesos", "A"), "status: NXDOMAIN"),
        (("here.mesos", "A"), "status: NOERROR"),
        (("_tcp.deep.below.here.mesos", "TXT"), "status: NOERROR"),
        (("_http._tcp.deep.below.here.mesos", "SRV"), "0 1 80 web.mesos."),
        (("alias.mesos", "A"), "10.0.0.1"),
        (("big.mesos", "A", "+tcp"), f"ANSWER: {BIG},"),
        (("web.mesos", "TYPE1000"), "status: NOERROR"),
        (("ns1.mesos", "A"), "127.0.0.1"),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(value),
)
def test_the_strictest_resolver_believes_us(resolver: int, words: tuple[str, ...], expected: str) -> None:
    """Names with names below them exist, letters come back as sent, what is cut comes whole over TCP."""
    assert expected in run("dig", "@127.0.0.1", "-p", str(resolver), *words)


# --- PROXY ------------------------------------------------------------------------------------------------------------


@pytest.mark.needs("haproxy")
@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_haproxy_passes_the_client_on(served: Served, tmp_path: Path, version: str) -> None:
    """Both versions: from an address that may ask an answer, from another one a refusal with the reason."""
    port = free_port()
    (tmp_path / "haproxy.cfg").write_text(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n"
        f"listen dns\n  bind 127.0.0.1:{port}\n  server s 127.0.0.1:{served.proxied} {version}\n"
    )
    proxy = Server(["haproxy", "-f", str(tmp_path / "haproxy.cfg")], log=tmp_path / "log").start()
    try:
        ask = ("dig", "@127.0.0.1", "-p", str(port), "+tcp", "web.mesos")
        wait_until("haproxy passes on", lambda: "10.0.0.1" in run(*ask))
    finally:
        proxy.stop()


def header(client: str) -> bytes:
    """PROXY v2 for a client."""
    addresses = socket.inet_aton(client) + socket.inet_aton("192.0.2.250") + b"\x10\x00\x00\x35"
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c" + addresses


@pytest.mark.parametrize(("client", "code"), [("192.0.2.7", 0), ("198.51.100.7", 5)])
def test_access_is_for_the_client_behind_the_proxy(served: Served, client: str, code: int) -> None:
    """Over TCP and over UDP, where dnsdist puts a header before each packet."""
    packet = query("web.mesos")
    with socket.create_connection(("127.0.0.1", served.proxied), timeout=10) as stream:
        stream.sendall(header(client) + len(packet).to_bytes(2, "big") + packet)
        reply = stream.recv(4096)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(10)
        datagrams.sendto(header(client) + packet, ("127.0.0.1", served.proxied))
        datagram = datagrams.recv(4096)

    assert (code, code) == (reply[5] & 15, datagram[3] & 15)


def test_what_was_refused_is_counted(served: Served) -> None:
    """By reason, on the page that Prometheus reads; queries by their transport."""
    metric = served.daemon.metric
    before = metric('fairlead_dns_refused_total{why="access"}')
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(10)
        datagrams.sendto(header("198.51.100.7") + query("web.mesos"), ("127.0.0.1", served.proxied))
        datagrams.recv(4096)
    asked = metric('fairlead_dns_queries_total{rcode="NOERROR",transport="dot"}')
    dig(served, "dot", "web.mesos")

    assert before < metric('fairlead_dns_refused_total{why="access"}')
    assert asked < metric('fairlead_dns_queries_total{rcode="NOERROR",transport="dot"}')


@pytest.mark.parametrize("start", [b"\0\x1b" + query("web.mesos"), b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 x\r\n"])
def test_without_a_header_nobody_comes_in(served: Served, start: bytes) -> None:
    """At a proxied address it must come first."""
    with socket.create_connection(("127.0.0.1", served.proxied), timeout=10) as stream:
        stream.sendall(start)
        with suppress(ConnectionResetError):
            assert b"" == stream.recv(4096)


def test_https_behind_a_proxy(served: Served) -> None:
    """The header comes before TLS."""
    text = curl(served, "--haproxy-protocol", path=f"/dns-query?dns={ASKED}", port=served.proxied_https)

    assert "200" in text.partition("\n")[0]


# --- what changes while it runs ---------------------------------------------------------------------------------------


def test_a_new_certificate_is_taken_and_a_broken_one_is_not(served: Served) -> None:
    """Without a restart, and without a moment in which TLS does not work."""

    def serial() -> str:
        return ssl.get_server_certificate(("127.0.0.1", served.tls), timeout=10)

    before = serial()
    self_signed(served.folder)
    wait_until("the new one is served", lambda: serial() != before, within_s=30)
    now, good = serial(), (served.folder / "cert.pem").read_bytes()
    (served.folder / "cert.pem").write_text("-----BEGIN CERTIFICATE-----\nbroken\n")
    wait_until("it is refused", lambda: "changed files not taken" in served.daemon.tail(), within_s=30)

    assert now == serial()
    (served.folder / "cert.pem").write_bytes(good)


def test_cookie_secrets_roll_over(served: Served) -> None:
    """A cookie of the old secret is good while it stands in the second line."""

    def cookie(given: bytes) -> bytes:
        option = dns.edns.GenericOption(10, given)
        asked = dns.message.make_query("web.mesos", "A", use_edns=0, options=[option])
        reply = dns.query.udp(asked, "127.0.0.1", port=served.plain, timeout=10)
        (found,) = [o for o in reply.options if o.otype == 10]
        return found.to_wire() or b""

    first = cookie(b"abcdefgh")
    assert first == cookie(first)
    (served.folder / "secrets").write_text(f"{'ab' * 16}\n{SECRET}\n")
    wait_until("a new cookie comes", lambda: cookie(first) != first, within_s=30)

    renewed = cookie(first)
    assert renewed == cookie(renewed)


def test_slow_strangers_do_not_keep_others_out(served: Served) -> None:
    """Three hundred connections that never shake hands, at the TLS and at the proxied address."""
    with ExitStack() as idle:
        for port in (served.tls, served.proxied) * 150:
            idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))

        assert "10.0.0.1" in dig(served, "dot", "web.mesos")
        assert "10.0.0.1" in dig(served, "tcp", "web.mesos")
