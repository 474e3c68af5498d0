"""Traffic rules: what they may be, how two dialects say them, what of them needs no reload."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from fairlead_daemon.errors import Refused
from fairlead_discovery.decisions import labels, words
from fairlead_discovery.records import Abort, Delay, Rate, Route, RoutePort, Traffic
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_lb.decisions import route_files, routes
from fairlead_lb.decisions.dials import casing, dials
from fairlead_lb.decisions.problems import problems
from fairlead_lb.decisions.routes import Rules, Wanted
from fairlead_lb.decisions.spares import low
from fairlead_lb.decisions.traffic import HTTP_ONLY, checked_traffic
from fairlead_lb.decisions.values import Backend, Frame, Key, Shape, Structure

from .test_rendering import EVERY_RULE, EVERY_RULE_OF_TCP

PLAIN = Traffic()
JOE = "joe:$5$rounds=1000$fairlead$FvBYsSrHKZqtzoCZUg1/m1IJX2G9uXOrrG5sc9MERW9"
FRAME = Frame(folder="/srv/x", sockets="/srv/x")
durations = st.integers(10, 3_600_000).map(lambda ms: ms / 1000)
shares = st.integers(1, 10_000).map(lambda hundredths: hundredths / 100)
traffics = st.builds(
    Traffic,
    allow=st.sampled_from(((), EVERY_RULE.allow)),
    deny=st.sampled_from(((), EVERY_RULE.deny)),
    https_only=st.booleans(),
    hsts=st.booleans(),
    rate=st.none() | st.builds(Rate, count=st.integers(1, 9_999_999), per_s=st.sampled_from((1, 60))),
    client_rate=st.none() | st.builds(Rate, count=st.integers(1, 9_999_999), per_s=st.sampled_from((1, 60))),
    server_connections=st.integers(0, 100_000),
    server_queue=st.integers(0, 100_000),
    queue_timeout_s=durations,
    tunnel_timeout_s=st.integers(1, 604_800).map(float),
    retries=st.integers(0, 10),
    retry_on=st.lists(st.sampled_from(words.RETRY_ON), unique=True).map(tuple),
    retry_budget_percent=shares,
    eject_after=st.integers(0, 1_000),
    eject_share_percent=st.just(0.0) | shares,
    eject_least=st.integers(1, 100_000),
    eject_s=st.integers(1_000, 3_600_000).map(lambda ms: ms / 1000),
    abort=st.none() | st.builds(Abort, percent=shares, status=st.integers(400, 599)),
    delay=st.none() | st.builds(Delay, percent=shares, delay_s=st.integers(1, 60_000).map(lambda ms: ms / 1000)),
    strip_path=st.sampled_from(("", "/svc1")),
    location_prefix=st.sampled_from(("", "/svc1")),
    deadlines=st.booleans(),
    protocol=st.sampled_from(("", "h2")),
)


@given(traffics)
def test_labels_and_route_files_say_the_same(traffic: Traffic):
    """Every rule can be written in both, and both give the same route port; the balancer takes it as it is."""
    texts = {name: text for name, word in words.TRAFFIC.items() if (text := word.write(traffic))}
    given_labels = {f"FAIRLEAD_0_{name.upper()}": text for name, text in texts.items()}
    labelled, problems = labels.route_of("o:p", given_labels, (RoutePort(index=0, service_port=10100),))
    entry = route_files.Entry(service="o:p", port=10100, traffic=texts)
    written = route_files.routes_of([entry], "file")["o:p"]

    assert () == problems
    assert traffic == labelled.ports[0].traffic
    assert traffic == written.ports[0].traffic
    assert [entry.traffic] == [one.traffic for one in route_files.entries_of(written)]
    assert traffic == checked_traffic(traffic, "http")


def test_marathon_lbs_words_are_taken():
    """HAPROXY_{n}_AUTH, _BACKEND_NETWORK_ALLOWED_ACL, _REDIRECT_TO_HTTPS, _USE_HSTS, path rewriting, groups."""
    given_labels = {
        "HAPROXY_GROUP": "external,internal",
        "HAPROXY_0_VHOST": "a.example",
        "HAPROXY_0_AUTH": f"shop:{JOE}",
        "HAPROXY_0_BACKEND_NETWORK_ALLOWED_ACL": "10.1.40.0/24 127.0.0.1",
        "HAPROXY_0_REDIRECT_TO_HTTPS": "true",
        "HAPROXY_0_USE_HSTS": "true",
        "HAPROXY_0_HTTP_BACKEND_PROXYPASS_PATH": "/svc1",
        "HAPROXY_0_HTTP_BACKEND_REVPROXY_PATH": "/svc1",
        "HAPROXY_1_GROUP": "internal",
        "HAPROXY_1_PORT": "10101",
    }
    made, problems = labels.route_of("o:p", given_labels, (RoutePort(index=0), RoutePort(index=1)))

    assert () == problems
    assert [("external", "internal"), ("internal",)] == [port.groups for port in made.ports]
    assert PLAIN == made.ports[1].traffic
    assert made.ports[0].traffic == Traffic(
        realm="shop",
        users=(JOE,),
        allow=("10.1.40.0/24", "127.0.0.1/32"),
        https_only=True,
        hsts=True,
        strip_path="/svc1",
        location_prefix="/svc1",
    )


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("rate", "100", "no rate, as 100/s"),
        ("rate", "100/h", "no rate"),
        ("rate", "-1/s", "no rate"),
        ("allow", "10.0.0.0/40", "no network"),
        ("allow", "everyone", "no network"),
        ("allow", "10.0.0.0/8;x", "no network"),
        ("deny", "", "no network"),
        ("auth", "realm", "no realm:user:hash"),
        ("auth", "shop:joe:a b", "a user is name:hash"),
        ("auth", "shop:joe:x,joe:y", "there twice"),
        ("auth", "shop:joe:secret", "the password of joe is no hash of crypt(3), as `openssl passwd -6` makes one"),
        ("auth", f"shop:{JOE},ann:correct-horse", "the password of ann is no hash"),
        ("auth", f"shop:{JOE[:-1]}", "the password of joe is no hash"),
        ("auth", "shop:joe:$apr1$abcdefgh$abcdefghijklmnopqrstuv", "the password of joe is no hash"),
        ("abort", "5%:200", "no status of an error"),
        ("abort", "101%", "no percentage"),
        ("abort", "0.001%", "no percentage"),
        ("delay", "5%", "no duration"),
        ("retry_on", "all-retryable-errors", "none of conn-failure"),
        ("queue_timeout", "5", "no duration"),
        ("server_connections", "many", "no whole number"),
        ("server_connections", "٣", "no whole number"),
        ("strip_path", '/"', "no path"),
        ("protocol", "h3", "none of h2, grpc, http1"),
        ("https_only", "perhaps", "neither true nor false"),
    ],
)
def test_a_bad_rule_is_named_in_both_dialects(name: str, text: str, reason: str):
    """The label, or the place in the file."""
    _, problems = labels.route_of("o:p", {f"FAIRLEAD_{name.upper()}": text}, (RoutePort(index=0),))
    (problem,) = map(str, problems)
    assert problem.startswith(f"FAIRLEAD_{name.upper()}: ")
    assert reason in problem

    entry = route_files.Entry(service="o:p", port=10100, traffic={name: text})
    with pytest.raises(Refused, match=rf"route 1 \(o:p\): traffic: {name}: ") as refused:
        route_files.routes_of([entry], "file")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "made",
    [
        "$1$AIPVpT.t$uZ0iWSD90PDXITdC6ZLfX.",
        "$2b$05$aaaaaaaaaaaaaaaaaaaaaOEqz3KoKH6bru/RRpFuAJrwlceiJnvGu",
        "$5$z4.rpo/b.QyDK/M5$CGTN8USGlhSDlE4x8E/yGbo6fodQlUxpYbmtUOpbDy8",
        "$6$H0jJYiVJUmJwK7du$OzgguP60GZ.p6s.BhStBPhgBrOs.u68s3yV3KJebeLCRalQuguH67dqOsC3UMu7A2/z901B3o5Fg4iuDkbgCq.",
        "$y$j9T$abcdefgh$9WNEpu8Mx2S4KNGvbVWKM6clOSoY6.YEl7AYF4DGV04",
        "$gy$j9T$abcdefgh$CiTibHdBM/5r3qmg1i0DxivDn1U977EDVDgQAyycj9/",
        "$7$CU..../....abcdefgh$19TzpFZ5AwP26vdEMbfvWacoVUfd2MfVusFAVFilh.C",
        "$sha1$1000$abcdefgh$S1ArdJYzrh17g244/Kvgwg8.Q1c0",
        "abiQ6Ep3EYTHc",
    ],
)
def test_every_hash_that_crypt_makes_is_taken(made: str):
    """As made by Debian's openssl and libcrypt of the word `x`."""
    assert {"realm": "shop", "users": (f"joe:{made}",)} == words.TRAFFIC["auth"].read(f"shop:joe:{made}")


@pytest.mark.parametrize(
    "label", [("HAPROXY_0_AUTH", "shop:joe:secret"), ("FAIRLEAD_ALLOW", "10.0.0.0/40"), ("FAIRLEAD_0_DENY", "x")]
)
def test_a_bad_label_that_should_keep_somebody_out_lets_nobody_in(label: tuple[str, str]):
    """Left out it would let everybody in; other bad labels close nothing."""
    given_labels = dict((label, ("HAPROXY_0_VHOST", "a.example"), ("FAIRLEAD_0_RATE", "many")))
    made, problems = labels.route_of("o:p", given_labels, (RoutePort(index=0),))

    assert Traffic(deny=("0.0.0.0/0", "::/0")) == made.ports[0].traffic
    assert [label[0]] == [str(one).partition(":")[0] for one in problems if str(one).endswith("nobody is let in")]


def test_a_rule_of_a_route_file_may_be_a_number_or_a_truth():
    """As TOML has them; a word nobody knows is named with those there are."""
    text = '[[route]]\nservice = "o:p"\nport = 10100\n[route.traffic]\nretries = 1\nhsts = true\nrate = "5/s"\n'
    made = route_files.parse(text, "file")["o:p"].ports[0].traffic

    assert made == Traffic(retries=1, hsts=True, rate=Rate(count=5))
    with pytest.raises(Refused, match=r"file: route 1 \(o:p\): traffic: 'speed' is none of allow, deny"):
        route_files.parse(text + 'speed = "high"\n', "file")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Traffic(retries=11), "retries 11: not between 0 and 10"),
        (Traffic(eject_s=0), "eject_s 0: not between 1 and 3600"),
        (Traffic(allow=("x",)), "allow: 'x' is no network"),
        (Traffic(users=("joe:a\nb",), realm="r"), "auth: a user is name:hash"),
        (Traffic(delay=Delay(percent=1, delay_s=61)), "delay 61 s: not between 1 ms and 60 s"),
    ],
)
def test_a_record_that_others_wrote_is_read_as_sharply(bad: Traffic, reason: str):
    """Whoever writes to the registry need not have gone through labels."""
    with pytest.raises(Refused) as refused:
        checked_traffic(bad, "http")
    assert reason in str(refused.value)


def test_rules_of_http_are_refused_for_tcp():
    """Named, instead of left out in silence."""
    assert EVERY_RULE_OF_TCP == checked_traffic(EVERY_RULE_OF_TCP, "tcp")
    for name in HTTP_ONLY:
        text = words.TRAFFIC[name].write(EVERY_RULE)
        with pytest.raises(Refused, match=f"{name}: needs mode http, not tcp"):
            checked_traffic(Traffic(**words.TRAFFIC[name].read(text)), "tcp")


def test_how_much_is_a_dial_and_whether_at_all_is_a_casing():
    """Another rate or share of faults needs no reload; the first does."""
    shape = Shape(traffic=EVERY_RULE)
    louder = replace(EVERY_RULE, rate=Rate(count=99), abort=Abort(percent=50, status=502))

    assert casing(shape) == casing(replace(shape, traffic=louder))
    assert casing(shape) != casing(replace(shape, traffic=replace(louder, rate=None)))
    turned = dials([Backend(name="b", key=Key("o:p", 0), app="", shape=shape), _plain()])
    assert ({"b": "10"}, {"b": "600"}, {"b": "1250"}, {"b": "125"}) == (
        turned["rates"],
        turned["client_rates"],
        turned["aborts"],
        turned["delays"],
    )


def _plain() -> Backend:
    return Backend(name="p", key=Key("o:q", 0), app="", shape=Shape())


def test_a_slash_at_the_end_of_a_prefix_is_none():
    """As people write it; `/` alone is no prefix."""
    assert Traffic(strip_path="/svc1") == checked_traffic(Traffic(strip_path="/svc1/"), "http")
    assert {"location_prefix": ""} == words.TRAFFIC["location_prefix"].read("/")


def test_reasons_for_a_reload_tell_no_password():
    """Only which rules there are: logs and `/status` are read by many."""
    shape = Shape(traffic=EVERY_RULE)
    backend = Backend(name="b", key=Key("o:p", 0), app="", shape=shape)
    (told,) = [w for w in low(Structure(frame=FRAME), Wanted(backends={"b": backend}), 4) if "auth" in w]

    assert "$5$" not in told
    assert "with allow deny auth https_only" in told


def test_who_wants_https_where_there_is_none_is_told():
    """By a balancer that cannot lead plain requests anywhere; others have nothing to say."""
    ports = (RoutePort(index=0, traffic=Traffic(https_only=True)), RoutePort(index=1, traffic=Traffic(hsts=True)))
    asked = Route(service="o:p", ports=ports)
    snapshot = Snapshot(
        revision=1, trust=Trust.LIVE, routes={"o:p": asked, "o:q": Route(service="o:q", ports=ports[1:])}
    )
    told = routes.wanted(snapshot, Wanted(), Rules(https=False), lambda *_: None)

    assert {"o:p": ("https_only: this balancer has no https_port to lead plain requests to: they pass",)} == problems(
        told, {}
    )
    assert {} == problems(routes.wanted(snapshot, Wanted(), Rules(), lambda *_: None), {})
