"""Nothing illegal is ever published, whatever frameworks, tasks, agents, ports and discovery names are called; and what was
cut or is shared is told, and has a name of its own.
"""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from fairlead_discovery.records import Agent, Discovery, Framework, Ips, Member, Port, TaskRef
from fairlead_discovery.snapshots import Snapshot, Trust
from fairlead_dns.decisions import speaking, wire
from fairlead_dns.decisions.claims import too_long
from fairlead_dns.decisions.layers import TXT
from fairlead_dns.decisions.naming import Dialect, Record, Rules, agent_label, of_framework, of_task, shortened, wired
from fairlead_dns.decisions.why import why
from fairlead_dns.names import Names
from harness.names import ask, authority, data, member, node_name

HOST = re.compile(rb"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
SPOKEN = re.compile(rb"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")
SERVICE = re.compile(rb"_?[a-z0-9]([a-z0-9-]*[a-z0-9])?")
TARGETS = {wire.SRV: 6, wire.PTR: 0}
DIALECTS = tuple(Dialect(kind=kind) for kind in (*speaking.OF_TASK, "l4lb"))

odd = st.text(alphabet="aB0-._ é/\0\n*%ß\u2028", max_size=12)
long = st.sampled_from(["a", "-", "a-", "b.", "é", "_", "0", ".-", "a" * 61 + "--b-", "x.y"]).flatmap(
    lambda part: st.integers(1, 90).map(lambda n: part * n)
)
texts = st.one_of(
    odd, long, st.text(max_size=20), st.sampled_from(["web", "leader", "master1", "x.slave", "tcp", "_web._tcp", ""])
)
rules = st.builds(
    Rules,
    rfc952=st.booleans(),
    domain=st.sampled_from(["mesos", "a.b.example", ".".join(["d" * 60] * 3)]),
    dialects=st.sampled_from([(), DIALECTS]),
)
ports = st.lists(
    st.builds(
        Port,
        index=st.just(0),
        number=st.integers(0, 70000),
        host_port=st.just(31000),
        name=texts,
        protocols=st.sampled_from([(), ("tcp",), ("ü p",)]),
    ),
    max_size=2,
).map(tuple)
tasks = st.builds(
    lambda name, discovery, framework, agent, ports: member(
        task=TaskRef(id="t.1", name=name, framework=framework, framework_id="f", agent=agent),
        discovery=Discovery(name=discovery, labels={"FAIRLEAD_DNS_TAGS": name, "FAIRLEAD_DNS_NAMESPACE": discovery}),
        ports=ports,
        ips=Ips(host=("10.0.0.1",), netinfo=("10.9.0.1", "fd00::1")),
    ),
    texts,
    st.one_of(st.just(""), texts),
    texts,
    texts,
    ports,
)


def names_of(record: Record) -> list[bytes]:
    at = TARGETS.get(record.kind)
    return [record.owner] if at is None else [record.owner, record.rdata[at:]]


def check(record: Record, allowed: re.Pattern[bytes]) -> None:
    """Owner and target have legal labels and lengths."""
    for name in names_of(record):
        labels = wire.labels(name)

        assert len(name) <= 255, name
        assert all(len(label) <= 63 and allowed.fullmatch(label) for label in labels), name


@given(tasks, rules, st.sampled_from(["", "1a2b3c4d"]))
def test_no_task_is_called_what_nobody_could_write(task: Member, rules: Rules, rival: str) -> None:
    """In every dialect: labels of at most 63 letters, digits, `-` inside, `_`; names of at most 255 bytes."""
    for record in speaking.of_task(task, rules, rival):
        check(record, SPOKEN)


@given(tasks, rules)
@example(member(name="a" * 61 + "--b-"), Rules())
@example(member(task=TaskRef(id="t", name="web", framework="f", framework_id="f", agent="x-10.0.0.1_é-")), Rules())
def test_addresses_have_host_names(task: Member, rules: Rules) -> None:
    """Without a raw discovery name, what A, AAAA and PTR speak of is a host's name by RFC 1123; SRV owners add `_`."""
    plain = member(task=task.task, discovery=Discovery(), ports=task.ports, ips=task.ips)
    for record in of_task(plain, rules):
        check(record, SERVICE)
        if record.kind in (wire.A, wire.AAAA):
            check(record, HOST)


@given(texts, texts, rules)
def test_frameworks_and_agents_have_host_names(name: str, agent_id: str, rules: Rules) -> None:
    """Also by their rivals' names."""
    framework, box = (
        Framework(id="1", name=name, port=80),
        Agent(id=agent_id, host="10.0.0.1", port=1, boot_id="", hostname=name),
    )
    for rival in (False, True):
        records = of_framework(framework, ("10.0.0.7",), rules, rival=rival)
        for record in (*records, *speaking.of_agent(box, rules, rival=rival)):
            check(record, HOST if record.kind == wire.A else SERVICE)
    assert any(record.kind == wire.A for record in speaking.of_agent(box, rules))


@given(tasks, rules)
def test_what_is_cut_is_told(task: Member, rules: Rules) -> None:
    """Whenever a name of Mesos-DNS had to be made shorter than 255 bytes, or a raw name is left out, somebody hears of it."""
    cut = any(label.startswith(b"cut-") for record in of_task(task, rules) for label in wire.labels(record.owner))

    assert bool(too_long(task, rules)) or not cut


@given(texts, texts, st.sampled_from(["t.1", "t.2"]))
def test_two_tasks_never_have_one_instance_name(name: str, framework: str, other: str) -> None:
    """Their hashes tell them apart, whatever had to be cut."""
    made = [
        member(task=TaskRef(id=task, name=name, framework=framework, framework_id="f", agent="a-S1"), ports=())
        for task in ("t.0", other)
    ]
    owners = [{r.owner for r in of_task(each, Rules(pointers=False)) if r.kind == wire.A} for each in made]
    shared = {r.owner for each in owners for r in ()} | (owners[0] & owners[1])

    assert not owners[0] or (owners[0] - shared and owners[1] - shared)


def test_a_name_over_the_limit_is_cut_from_the_right() -> None:
    """As many labels as fit, a digest of the rest, the domain: legal, and another one for another rest."""
    parts = [("_http", "_web", "_tcp", *("f" * 60,) * 4, last, "mesos") for last in ("a", "b")]
    made = [wire.text(wired(each) or b"") for each in parts]

    assert [name.startswith(f"_http._web._tcp.{'f' * 60}.{'f' * 60}.{'f' * 60}.cut-") for name in made] == [True, True]
    assert 2 == len(set(made))
    assert [".".join(shortened(each)) for each in parts] == made


def seen(*members: Member, rules: Rules | None = None) -> Names:
    made = Names(rules or Rules(), authority())
    found = {f"s{n}": {node_name(m): m} for n, m in enumerate(members)}
    made.take_snapshot(Snapshot(revision=1, trust=Trust.LIVE, members=found))
    return made


def test_a_long_name_is_answered_and_explained() -> None:
    """A framework of 240 bytes: the task is found under the name that is told, and its SRV leads to addresses."""
    framework = ".".join(["f" * 59] * 4)
    made = seen(member(task=TaskRef(id="t", name="web", framework=framework, framework_id="f", agent="a-S1")))
    services = [n for n in made.zone.names if n.startswith(b"\4_web\4_tcp") and wire.SRV in made.zone.sets(n)]
    targets = {wire.srv_target(rdata) for n in services for rdata in made.zone.sets(n)[wire.SRV]}

    assert (2, ["10.0.0.1"]) == (len(services), [ip for t in targets for ip in data(ask(made.answers, wire.text(t)))])
    for service in services:
        assert {"s0": (f"web.{framework}",)} == why(made.sources, service).too_long
    assert {"s0": (f"web.{framework}",)} == made.sources.claims.shortened()


def test_raw_names_that_nobody_could_write_are_left_out_and_told() -> None:
    """The mangled name stands; Aurora's underscores do too."""
    made = seen(member(discovery=Discovery(name="my web")), member(1, discovery=Discovery(name="http_x.test")))
    owners = {wire.text(name) for name in made.zone.names if wire.A in made.zone.sets(name)}

    assert {"myweb.marathon.mesos", "http_x.test.marathon.mesos", "http-x-test.marathon.mesos"} <= owners
    assert [] == [name for name in owners if " " in name or "\\" in name]
    assert {"s0": ("my web",)} == made.sources.claims.shortened()


def test_a_name_with_nothing_legal_in_it_has_a_digest_and_is_told() -> None:
    """`*`, `...`: two services, two names with SRV and addresses; by rule RFC 952 too."""
    for rules in (Rules(), Rules(rfc952=True)):
        made = seen(member(name="*"), member(1, name="..."), rules=rules)
        found = sorted(n for n in map(wire.text, made.zone.names) if re.fullmatch(r"unnamed-\w{8}\.marathon\.mesos", n))

        assert ["10.0.0.1", "10.0.0.2"] == sorted(ip for name in found for ip in data(ask(made.answers, name)))
        assert [1, 1] == [
            len(data(ask(made.answers, f"_{n.partition('.')[0]}._tcp.marathon.mesos", "SRV"))) for n in found
        ]
        assert {"s0": ("*",), "s1": ("...",)} == made.sources.claims.shortened()
        assert ({}, {}) == (made.sources.claims.collisions(), dict(seen(member(name="web.x_y")).sources.claims.cut))


def test_what_is_lost_at_a_names_ends_is_told() -> None:
    """`_x` and `x` have one name, which means both; each has its own too."""
    made = seen(member(name="_x"), member(1, name="x"), member(2, name="y_"))

    assert {"s0": ("_x",), "s2": ("y_",)} == made.sources.claims.shortened()
    assert {"x.marathon": ("s0", "s1")} == made.sources.claims.collisions()


def framework(key: str, name: str, ip: str) -> dict[str, Framework]:
    return {key: Framework(id=key, name=name, ip=ip, port=80)}


def test_frameworks_of_one_label_have_one_each_beside_it() -> None:
    """`etl_1` and `etl-1`: the shared name means both, as in Mesos-DNS; two lives of one framework are no rivals."""
    made = seen()
    made.take_frameworks(framework("a", "etl_1", "10.0.0.1") | framework("b", "etl-1", "10.0.0.2"))
    explained = why(made.sources, wire.parse_text("etl-1.mesos") or b"")
    own = [data(ask(made.answers, f"{label}.mesos")) for _, label in sorted(explained.apart.items())]

    assert ["10.0.0.1", "10.0.0.2"] == data(ask(made.answers, "etl-1.mesos"))
    assert ([["10.0.0.1"], ["10.0.0.2"]], ("framework a", "framework b")) == (own, explained.shared_by)
    assert {"etl-1": ("framework a", "framework b")} == made.sources.claims.collisions()

    made.take_frameworks(framework("a", "etl_1", "10.0.0.1") | framework("b", "etl_1", "10.0.0.2"))
    assert ({}, 0) == (made.sources.claims.collisions(), made.sources.claims.shared_count)


def test_agents_of_one_label_have_one_each_beside_it() -> None:
    """`box_1` and `box-1`; the pointer leads to the name that is one machine's alone, and back."""
    made = seen(rules=Rules())
    boxes = {
        key: Agent(id=key, host=f"10.0.9.{n}", port=1, boot_id="", hostname=host)
        for n, (key, host) in enumerate((("a", "box_1"), ("b", "box-1"), ("c", "box-1")))
    }
    made.take_agents(boxes)
    explained = why(made.sources, wire.parse_text("box-1.slave.mesos") or b"")

    assert {"box-1.slave": ("agent a", "agent b", "agent c")} == made.sources.claims.collisions()
    assert ["10.0.9.0", "10.0.9.1", "10.0.9.2"] == data(ask(made.answers, "box-1.slave.mesos"))
    assert ["10.0.9.0"] == data(ask(made.answers, f"{explained.apart['agent a']}.slave.mesos"))
    pointer = data(ask(made.answers, "0.9.0.10.in-addr.arpa", "PTR"))
    assert [f"{explained.apart['agent a']}.slave.mesos."] == pointer


def test_long_frameworks_and_agents_are_told() -> None:
    """By who they are; agents' labels have a digest, so that two long ones stay two."""
    made = seen()
    boxes = {
        str(n): Agent(id=str(n), host=f"10.0.9.{n}", port=1, boot_id="", hostname="h" * 70 + str(n)) for n in (1, 2)
    }
    made.take_agents(boxes)
    made.take_frameworks(framework("f", "f" * 64, "10.0.0.1"))

    assert {"agent 1": ("h" * 70 + "1",), "agent 2": ("h" * 70 + "2",), "framework f": ("f" * 64,)} == (
        made.sources.claims.shortened()
    )
    assert 2 == len({agent_label(box) for box in boxes.values()})
    assert {"framework f": ("f" * 64,)} == why(made.sources, wire.parse_text(f"{'f' * 63}.mesos") or b"").too_long
    assert 3 == made.sources.claims.cut_count


def test_txt_is_no_name() -> None:
    """What dns_sd says of a task is data: any text may stand there."""
    one = member(task=TaskRef(id="t 1", name="web", framework="f", framework_id="f", agent="a-S1"))
    texts = [r.rdata for r in speaking.of_task(one, Rules(dialects=DIALECTS)) if r.kind == TXT]

    assert any(b"task=t 1" in text for text in texts)
