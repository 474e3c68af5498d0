"""One question, asked by other people's DNS clients: dig, kdig, drill and dnspython; what each of them saw, as one value."""

import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from harness.servers import require

PATIENCE_S = 15
OPTIONS = {3: "NSID", 8: "CLIENT-SUBNET", 9: "EXPIRE", 10: "COOKIE", 11: "TCP-KEEPALIVE", 12: "PAD", 15: "EDE"}
SECTIONS = ("ANSWER", "AUTHORITY", "ADDITIONAL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked. Header bits are false unless set, RD too; `edns` None sends no OPT; `options` by code."""

    name: str
    kind: str = "A"
    klass: str = "IN"
    tcp: bool = False
    rd: bool = False
    aa: bool = False
    ad: bool = False
    cd: bool = False
    ra: bool = False
    tc: bool = False
    z: bool = False
    opcode: int = 0
    edns: int | None = None
    size: int = 1232
    do: bool = False
    edns_flags: int = 0
    options: tuple[tuple[int, bytes], ...] = ()

    @property
    def needs(self) -> frozenset[str]:
        """Fields in which it is no plain question."""
        return frozenset(f.name for f in fields(self) if f.name != "name" and getattr(self, f.name) != f.default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rr:
    """One record as the client prints it."""

    owner: str
    ttl_s: int
    kind: str
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A reply. `flags` of the header in lower case; `edns` is the version of its OPT, None without; `text`: all of it."""

    rcode: str
    flags: frozenset[str]
    counts: tuple[int, int, int, int]
    answer: tuple[Rr, ...]
    authority: tuple[Rr, ...]
    additional: tuple[Rr, ...]
    edns: int | None
    size: int
    do: bool
    odd_flags: bool
    """Whether a reserved bit is set, in the header or in the OPT."""
    options: tuple[str, ...]
    text: str

    @property
    def data(self) -> list[str]:
        return sorted(rr.data for rr in self.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsClient:
    """`speaks`: fields of a question it can set."""

    name: str
    speaks: frozenset[str]
    ask: Callable[[int, Question], Seen]


def words(question: Question, **spoken: str) -> list[str]:
    """Of the fields that are set, as this client says them."""
    return [text for name, text in spoken.items() if getattr(question, name)]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE_S * 2, check=False)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def dig_words(asked: Question) -> list[str]:
    said = [asked.name, asked.kind, "-c", asked.klass, f"+time={PATIENCE_S}", "+tries=1", "+ignore", "+noednsneg"]
    said += ["+nocookie", "+tcp" if asked.tcp else "+notcp", "+adflag" if asked.ad else "+noadflag"]
    said += ["+rdflag" if asked.rd else "+nordflag", "+nobadcookie"]
    said += words(asked, aa="+aaflag", cd="+cdflag", ra="+raflag", tc="+tcflag", z="+zflag", do="+dnssec")
    said += [f"+opcode={asked.opcode}"] if asked.opcode else []
    said += ["+noedns"] if asked.edns is None else [f"+edns={asked.edns}", f"+bufsize={asked.size}"]
    said += [f"+ednsflags={asked.edns_flags}"] if asked.edns_flags else []
    return said + [f"+ednsopt={code}:{data.hex()}" for code, data in asked.options]


def dig(port: int, asked: Question) -> Seen:
    return read(run(require("dig"), "@127.0.0.1", "-p", str(port), *dig_words(asked)))


def kdig(port: int, asked: Question) -> Seen:
    said = [asked.name, asked.kind, "-c", asked.klass, f"+timeout={PATIENCE_S}", "+retry=0", "+ignore"]
    said += ["+tcp" if asked.tcp else "+notcp", "+rdflag" if asked.rd else "+nordflag"]
    said += words(asked, aa="+aaflag", ad="+adflag", cd="+cdflag", ra="+raflag", tc="+tcflag", z="+zflag", do="+dnssec")
    said += ["+noedns"] if asked.edns is None else [f"+edns={asked.edns}", f"+bufsize={asked.size}"]
    said += [f"+ednsopt={code}:{data.hex()}" for code, data in asked.options]
    return read(run(require("kdig"), "@127.0.0.1", "-p", str(port), *said))


def drill(port: int, asked: Question) -> Seen:
    bits = ["RD" if asked.rd else "rd", *words(asked, aa="AA", ad="AD", cd="CD", ra="RA", tc="TC")]
    said = [word for bit in bits for word in ("-o", bit)]
    said += ["-D"] if asked.do else []
    said += [] if asked.edns is None else ["-b", str(asked.size)]
    said += ["-t" if asked.tcp else "-u", "-p", str(port), asked.name, asked.kind, asked.klass, "@127.0.0.1"]
    return read(run(require("drill"), *said))


def message(asked: Question) -> dns.message.Message:
    """dnspython's, as it is sent."""
    bits = {"rd": 0x100, "aa": 0x400, "ad": 0x20, "cd": 0x10, "ra": 0x80, "tc": 0x200, "z": 0x40}
    made = dns.message.make_query(asked.name, asked.kind, asked.klass)
    made.flags = dns.flags.Flag(sum(bit for name, bit in bits.items() if getattr(asked, name)) | asked.opcode << 11)
    if asked.edns is not None:
        options = [dns.edns.GenericOption(code, data) for code, data in asked.options]
        flags = asked.edns_flags | (dns.flags.DO if asked.do else 0)
        made.use_edns(asked.edns, flags, asked.size, options=options)
    return made


def python(port: int, asked: Question) -> Seen:
    how = dns.query.tcp if asked.tcp else dns.query.udp
    return seen(how(message(asked), "127.0.0.1", port=port, timeout=PATIENCE_S))


def seen(reply: dns.message.Message) -> Seen:
    """dnspython's message."""
    sections = [
        tuple(
            Rr(owner=str(s.name), ttl_s=s.ttl, kind=dns.rdatatype.to_text(s.rdtype), data=d.to_text())
            for s in section
            for d in s
        )
        for section in reply.sections[1:]
    ]
    found = reply.edns >= 0
    return Seen(
        rcode=dns.rcode.to_text(reply.rcode()),
        flags=frozenset(dns.flags.to_text(reply.flags & 0x87B0).lower().split()),
        counts=(len(reply.question), len(sections[0]), len(sections[1]), len(sections[2]) + found),
        answer=sections[0],
        authority=sections[1],
        additional=sections[2],
        edns=reply.edns if found else None,
        size=reply.payload if found else 512,
        do=bool(reply.ednsflags & dns.flags.DO),
        odd_flags=bool(reply.flags & 0x40 or (found and reply.ednsflags & 0x7FFF)),
        options=tuple(OPTIONS.get(o.otype, str(int(o.otype))) for o in reply.options),
        text=reply.to_text(),
    )


def read(text: str) -> Seen:
    """What dig, kdig or drill has printed. Raises AssertionError where it got no reply, or complains of it."""
    header = re.search(r"(?:status|rcode): (\w+)", text)
    assert header is not None, text
    assert not re.search(r"malformed|extra bytes|mismatch|WARNING: .*(?:EDNS|reply)|Got bad", text, re.IGNORECASE), text
    flags = re.search(r"^;; flags: ([a-z ]*?) ?;(.*)", text, re.IGNORECASE | re.MULTILINE)
    assert flags is not None, text
    numbers = [int(n) for n in re.findall(r"(?:QUERY|ANSWER|AUTHORITY|ADDITIONAL): (\d+)", flags[2])]
    edns = re.search(
        r"^;+ *(?:EDNS: )?version:? (\d+)[;,] flags: *([a-z ]*?) *; *(.*)", text, re.IGNORECASE | re.MULTILINE
    )
    size = re.search(r"udp(?: size)?: (\d+)", edns[3], re.IGNORECASE) if edns else None
    return Seen(
        rcode=header[1],
        flags=frozenset(flags[1].lower().split()),
        counts=(numbers[0], numbers[1], numbers[2], numbers[3]),
        answer=tuple(records(text, "ANSWER")),
        authority=tuple(records(text, "AUTHORITY")),
        additional=tuple(records(text, "ADDITIONAL")),
        edns=int(edns[1]) if edns else None,
        size=int(size[1]) if size else 512,
        do=bool(edns) and "do" in edns[2].split() if edns else False,
        odd_flags="MBZ" in text or "z" in flags[1].lower().split(),
        options=tuple(options(text)),
        text=text,
    )


def records(text: str, section: str) -> Iterable[Rr]:
    """Of one section, wherever the client prints it."""
    _, _, below = text.partition(f";; {section} SECTION:\n")
    for line in below.splitlines():
        if not line.strip() or line.startswith(";"):
            break
        owner, ttl_s, _, kind, data = line.split(None, 4)
        yield Rr(owner=owner, ttl_s=int(ttl_s), kind=kind, data=data)


def options(text: str) -> Iterable[str]:
    """Of the OPT, by name, or by number where the client knows none."""
    for line in text.splitlines():
        if known := re.match(r";+ (NSID|CLIENT-SUBNET|COOKIE|EXPIRE|EDE|PAD(?:DING)?|TCP[ -]KEEPALIVE)\b", line):
            yield known[1].replace("PADDING", "PAD").replace(" ", "-")
        elif number := re.match(r";+ (?:OPT=(\d+)|Option \((\d+)\))", line):
            yield number[1] or number[2]


HEADER = {"kind", "klass", "tcp", "rd", "aa", "ad", "cd", "ra", "tc"}
EDNS = {"edns", "size", "do", "options"}
CLIENTS = (
    DnsClient(name="dig", speaks=frozenset({*HEADER, *EDNS, "z", "opcode", "edns_flags"}), ask=dig),
    DnsClient(name="kdig", speaks=frozenset({*HEADER, *EDNS, "z"}), ask=kdig),
    DnsClient(name="drill", speaks=frozenset({*HEADER, "edns", "size", "do"}), ask=drill),
    DnsClient(name="dnspython", speaks=frozenset({*HEADER, *EDNS, "z", "opcode", "edns_flags"}), ask=python),
)


def able(asked: Question) -> list[DnsClient]:
    """The clients that can ask it so."""
    return [c for c in CLIENTS if asked.needs <= c.speaks and (c.name != "drill" or asked.edns in (None, 0))]
