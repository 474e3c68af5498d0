"""Response rate limiting, in virtual time."""

from collections import Counter

from fairlead_dns.decisions import rate, wire
from fairlead_dns.decisions.acl import Acl, parse_networks
from fairlead_dns.decisions.rate import Kind, Limiter, Rates, Verdict, kind_of
from harness.names import member, names, opt, query, raw_reply

FIVE = dict.fromkeys(Kind, 5)
ANSWER = b"\0\0\x84\0\0\1\0\1\0\0\0\0"
NXDOMAIN = b"\0\0\x84\3\0\1\0\0\0\1\0\0"
WEB, OTHER = b"\3web\0", b"\5other\0"


def limiter(**changes: object) -> Limiter:
    return Limiter(Rates(**{"per_second": FIVE, **changes}))


def verdicts(made: Limiter, count: int, client: str = "10.0.0.1", at_s: float = 0.0, reply: bytes = ANSWER) -> str:
    return "".join(made.judge(client, reply, WEB, at_s).name[1] for _ in range(count))  # eND, lIP, rOP


def test_a_second_s_worth_is_sent_then_every_second_one_slips() -> None:
    """Five a second: five are sent, then dropped and slipped in turn."""
    assert "EEEEE" + "RLRLRL" == verdicts(limiter(), 11)


def test_an_account_recovers_with_time() -> None:
    """It is at most `window_s` seconds in debt, and a full one gives no more than a second's worth."""
    made = limiter(window_s=2)
    verdicts(made, 100)
    assert {"R", "L"} == set(verdicts(made, 5, at_s=1.0))
    assert "EEEEER" == verdicts(made, 6, at_s=60.0)


def test_a_network_shares_its_account() -> None:
    """/24 and /56: neighbours drain it together, others are not touched."""
    made = limiter(slip=0)
    verdicts(made, 5)
    verdicts(made, 5, client="2001:db8:0:ff00::1")

    assert ("R", "E") == (verdicts(made, 1, client="10.0.0.255"), verdicts(made, 1, client="10.0.1.1"))
    assert ("R", "E") == (
        verdicts(made, 1, client="2001:db8:0:ffff::9"),
        verdicts(made, 1, client="2001:db8:1::1"),
    )


def test_names_and_kinds_have_their_own_accounts() -> None:
    """One name's flood does not silence another; errors share one account whatever the name."""
    made = limiter()
    verdicts(made, 5)

    assert "E" == made.judge("10.0.0.1", ANSWER, OTHER, 0.0).name[1]
    assert "E" == verdicts(made, 1, reply=NXDOMAIN)


def test_the_exempt_and_the_unlimited_are_sent() -> None:
    """Networks of the setting, and kinds whose rate is 0."""
    exempt = limiter(exempt=Acl(parse_networks(("10.0.0.0/8",))))

    assert "E" * 50 == verdicts(exempt, 50)
    assert "E" * 50 == verdicts(limiter(per_second={Kind.NXDOMAIN: 1}), 50)


def test_report_only_sends_and_counts() -> None:
    """What would have been withheld is in the counts."""
    made = limiter(report_only=True)

    assert "E" * 15 == verdicts(made, 15)
    assert {Verdict.SEND: 5, Verdict.SLIP: 5, Verdict.DROP: 5} == made.counts


def test_memory_is_bounded_under_a_spoofed_flood(monkeypatch) -> None:
    """Of too many accounts the oldest are forgotten."""
    monkeypatch.setattr(rate, "ACCOUNTS", 2000)
    made = limiter()
    for number in range(5000):
        verdicts(made, 1, client=f"10.{number >> 8}.{number & 255}.1")

    assert made.accounts <= 2000


def test_kinds_are_read_from_replies() -> None:
    """Of real replies: an answer, one cut, no data, no name, an error."""
    answers = names(*(member(n) for n in range(60))).answers
    asked = [
        query("web.marathon.mesos", opt=opt()),
        query("web.marathon.mesos"),
        query("web.marathon.mesos", "TXT"),
        query("nope.mesos"),
        query("example.com"),
    ]
    kinds = Counter(kind_of(raw_reply(answers, packet) or b"") for packet in asked)

    assert {Kind.ANSWER: 2, Kind.NODATA: 1, Kind.NXDOMAIN: 1, Kind.ERROR: 1} == kinds


def test_a_slipped_reply_keeps_question_and_opt() -> None:
    """TC, no records, OPT as in every reply to a client that speaks EDNS."""
    answers = names(member()).answers
    for extra in (opt(), b""):
        packet = query("web.marathon.mesos", opt=extra)
        cut = wire.truncated(raw_reply(answers, packet) or b"")

        assert packet[12 : 12 + 24] == cut[12 : 12 + 24]
        assert (2, 0, bool(extra)) == (cut[2] & 2, cut[7], bool(cut[11]))
