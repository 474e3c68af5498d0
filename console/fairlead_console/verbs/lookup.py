"""`fairlead lookup`: a question to fairlead's own DNS, and its answer in words."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from fairlead_console.decisions.names import dns_name, nearest, srv_name
from fairlead_console.output import show_json, show_table
from fairlead_console.use import Calls, Use, verb
from fairlead_daemon.errors import BadSettings, FairleadError, Refused, Unavailable

WAIT_S = 2.0
TRIES = 2
WORDS = {"NXDOMAIN": "there is no such name", "REFUSED": "not a name of fairlead's", "SERVFAIL": "the server failed"}


@dataclass(frozen=True, slots=True)
class Answer:
    """`rows` are (name, type, ttl_s, value)."""

    code: str
    rows: Sequence[tuple[str, str, int, str]]


@click.command(epilog="Example: fairlead lookup web-demo.marathon.mesos; or: fairlead lookup /demo/web SRV")
@click.argument("name")
@click.argument("kind", metavar="[TYPE]", default="")
@verb
def lookup(use: Use, name: str, kind: str) -> None:
    """Ask for NAME, a DNS name or an app id: its addresses, and its ports by SRV; or one TYPE."""
    wanted = dns_name(name)
    questions = _questions(wanted, kind.upper())
    answers = [ask(use.addresses.dns, *question) for question in questions]
    rows = [row for answer in answers for row in answer.rows]
    if use.as_json:
        show_json([{"name": n, "type": k, "ttl_s": ttl_s, "value": value} for n, k, ttl_s, value in rows])
    if not rows:
        raise Refused(f"{wanted}: {use.run(lambda calls: _why(calls, wanted, answers[0].code))}")
    if not use.as_json:
        show_table(("name", "type", "ttl", "value"), rows, empty="")


def _questions(name: str, kind: str) -> list[tuple[str, str]]:
    if kind:
        return [(srv_name(name) if kind == "SRV" else name, kind)]
    return [(name, "SRV")] if name.startswith("_") else [(name, "A"), (name, "AAAA"), (srv_name(name), "SRV")]


def ask(servers: Sequence[str], name: str, kind: str) -> Answer:
    """The first server that answers. Raises Unavailable when none does, BadSettings for an unknown type."""
    from dnslib import QTYPE, RCODE, DNSError, DNSRecord  # noqa: PLC0415  # only this verb needs it

    try:
        question = DNSRecord.question(name, kind)
    except (DNSError, UnicodeError, ValueError) as error:
        raise BadSettings(f"{name} {kind}: not a question DNS can be asked: {error}") from error
    for server in [*servers] * TRIES:
        host, _, port = server.rpartition(":")
        try:
            raw = question.send(host, int(port), timeout=WAIT_S)
            if raw[2] & 0x02:  # truncated: the whole answer comes over TCP
                raw = question.send(host, int(port), tcp=True, timeout=WAIT_S)
            reply = DNSRecord.parse(raw)
        except (OSError, DNSError):
            continue
        rows = [(str(r.rname).rstrip("."), QTYPE[r.rtype], r.ttl, str(r.rdata)) for r in reply.rr]
        return Answer(RCODE[reply.header.rcode], rows)
    raise Unavailable(f"no DNS server answers at {', '.join(servers)}")


async def _why(calls: Calls, name: str, code: str) -> str:
    """In words, with the names most alike."""
    if code == "NOERROR":
        return "the name exists, but has no record of that type"
    near = nearest(name, await _known(calls))
    return WORDS.get(code, code) + (f"; did you mean {' or '.join(near)}?" if near else "")


async def _known(calls: Calls) -> list[str]:
    """All names, when the HTTP API gives them."""
    for url in calls.addresses.dns_http:
        try:
            async with asyncio.timeout(WAIT_S):
                records: dict[str, Any] = (await calls.url("GET", f"{url}/v1/axfr"))["Records"]
            return sorted({name.rstrip(".") for kind in ("As", "SRVs") for name in records.get(kind) or ()})
        except (FairleadError, LookupError, TypeError, TimeoutError):
            continue
    return []
