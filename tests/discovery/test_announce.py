"""Announcing: from what stands to what should stand, whoever was there before; and the janitor's part."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.web import Health
from fairlead_discovery import announce, janitor, paths
from fairlead_discovery.adapters.memory import cluster
from fairlead_discovery.announce import Announcer
from fairlead_discovery.announcer import FileOptions, first_server, own_address, until, wanted_of
from fairlead_discovery.backends import open_registry
from fairlead_discovery.composed import ComposedRegistry
from fairlead_discovery.decisions.announce_files import from_nerve
from fairlead_discovery.decisions.announcements import Bridge, Departing, Service, changes_to, check_all, member_of
from fairlead_discovery.decisions.checks import Check
from fairlead_discovery.decisions.nodes import Nodes
from fairlead_discovery.decisions.ops import of_change
from fairlead_discovery.records import Balancer, Leaving, Member, NameServer, Progress, Reason, decode, encode
from fairlead_discovery.registry import Create, Delete
from harness.waiting import eventually

QUICK = Check(type="tcp", interval_s=0.02, timeout_s=0.5, fall=2)
DB = Service(name="db", host="127.0.0.1", port=5432, checks=(QUICK,), drain_s=5.0)
GONE = Departing(reason=Reason.UNHEALTHY, deadline_s=0.0)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits of minutes and seconds, made short."""
    monkeypatch.setattr(janitor, "FIRST_LOOK_S", 0.4)
    monkeypatch.setattr(janitor, "DEAD_RECORD_S", 0.3)
    monkeypatch.setattr(janitor, "GRACE_S", 0.3)
    monkeypatch.setattr(janitor, "LAST_S", 0.5)
    monkeypatch.setattr(announce, "DEAD_RECORD_S", 0.3)
    monkeypatch.setattr(announce, "POLL_S", 0.2)


# --- decisions


@given(st.sets(st.sampled_from([5432, 5433, 5434])), st.sampled_from([None, 5432, 5433]), st.booleans())
def test_one_commit_leads_from_anything_to_what_is_wanted(standing: set[int], wanted: int | None, left: bool):
    """Whatever stands of our task before; a member and a leaving record never stand together."""
    members = {
        port: member_of(Service(name="db", host="h", port=port, id="i"), "127.0.0.1") for port in (5432, 5433, 5434)
    }
    service = Service(name="db", host="h", port=1, id="i")
    names = {port: paths.member_name(service.task, encode(member)) for port, member in members.items()}
    nodes = Nodes()
    before = [of_change_of(service, names[port], members[port]) for port in standing]
    if left and not standing:
        before += list(changes_to(service, ["x"], None, GONE))[1:]
    nodes.apply(tuple(map(of_change, before)), session="")
    record = {paths.leaving(service.task)} if left and not standing else set()

    member = members[wanted] if wanted else None
    changes = changes_to(service, [names[p] for p in standing], member, GONE)
    nodes.apply(tuple(map(of_change, changes)), session="")

    now = set(nodes.names(paths.endpoint_folder(service.key)))
    assert ({names[wanted]} if wanted else set()) == now
    record_stands = bool(nodes.names(paths.LEAVING))
    assert (wanted is None and bool(standing or record)) == record_stands


def of_change_of(service: Service, name: str, member: object) -> Create:
    return Create(paths.member(service.key, name), encode(member))


def test_an_announced_member_reads_as_any_other():
    """Names, ports, labels and weight; its task's id says that no master stands for it."""
    service = Service(
        name="db", host="h", port=5432, port_name="pg", vhost="db.example", weight=2, additional_ports={"http": 8080}
    )
    member = member_of(service, "10.0.0.5")

    assert ("announced~static:db~h-5432", "db", "static") == (member.task.id, member.task.name, member.task.framework)
    assert [("pg", 5432), ("http", 8080)] == [(port.name, port.host_port) for port in member.ports]
    assert {"HAPROXY_0_VHOST": "db.example"} == member.discovery.labels
    assert (2, "10.0.0.5") == (member.weight, member.serviceEndpoint.host)
    assert paths.is_announced(paths.task_of(paths.member_name(member.task.id, encode(member))))


# --- files


def test_a_toml_file_holds_static_and_external_services(tmp_path: Path):
    """Several endpoints of one service; `check = "none"` announces without asking."""
    file = tmp_path / "static.toml"
    file.write_text(
        '[[services]]\nname = "db"\nendpoints = ["10.0.0.5:5432", "[fd00::1]:5432"]\ncheck = "postgres"\n'
        '[[services]]\nname = "mail"\nhost = "mail.example.org"\nport = 25\ncheck = "none"\nframework = "external"\n'
    )
    services = wanted_of(file, FileOptions()).services

    assert [("db", "10.0.0.5"), ("db", "fd00::1"), ("mail", "mail.example.org")] == [(s.name, s.host) for s in services]
    assert ["postgres", "postgres"] == [s.checks[0].type for s in services if s.checks]
    assert () == services[2].checks


def test_nerves_file_and_its_folder_are_read(tmp_path: Path):
    """`service_conf_dir` too; keys that mean nothing here stop nothing."""
    (tmp_path / "conf.d").mkdir()
    check = {"type": "rabbitmq", "rise": 3, "fall": 2, "timeout": 0.2, "username": "guest"}
    (tmp_path / "conf.d" / "bus.json").write_text(json.dumps({"host": "h", "port": 5672, "checks": [check]}))
    file = tmp_path / "nerve.conf.json"
    web = {"host": "h", "port": 80, "zk_hosts": ["z:1"], "zk_path": "/nerve/web", "check_interval": 2, "checks": []}
    file.write_text(
        json.dumps({"instance_id": "i-1", "listen_port": 1025, "service_conf_dir": "conf.d", "services": {"web": web}})
    )
    bus, shop = wanted_of(file, FileOptions(framework="nerve", write_nerve=True)).services

    assert ("bus", "nerve", 5672, "i-1-5672") == (bus.name, bus.framework, bus.port, bus.id)
    assert Check(type="rabbitmq", interval_s=0.5, timeout_s=0.2, rise=3, fall=2) == bus.checks[0]
    assert ["/nerve/web"] == [also.path for also in shop.also]


def test_what_is_not_followed_of_nerves_file_is_noted():
    """Each key by its place, with what is instead; one that says nothing is no matter."""
    web = {"port": 80, "zk_hosts": ["z:1"], "haproxy_server_options": "backup", "use_path_encoding": True}
    bus = {"port": 1, "haproxy_server_options": "", "use_path_encoding": False, "reporter_type": "etcd"}
    wanted = from_nerve({"services": {"web": web, "bus": bus}}, where="n.json", framework="f", write_nerve=False)
    noted = [note.partition(" is not followed")[0] for note in wanted.notes]

    keys = ("haproxy_server_options", "use_path_encoding", "zk_hosts")
    assert [*(f"n.json: services.web: {key}" for key in keys), "n.json: services.bus: reporter_type etcd"] == noted


def test_nerves_further_checks_have_their_like_here(tmp_path: Path):
    """Over TLS any certificate will do, as for Nerve; PostgreSQL is asked without psql."""
    checks = [{"type": "http", "uri": "/health", "ssl": True}, {"type": "postgresql", "user": "me", "dbname": "d"}]
    file = tmp_path / "nerve.conf.json"
    file.write_text(json.dumps({"services": {"web": {"host": "h", "port": 443, "checks": checks}}}))
    web, db = wanted_of(file, FileOptions()).services[0].checks

    assert ("https", "/health", False) == (web.type, web.path, web.verify)
    assert ("postgres", "me") == (db.type, db.user)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no service"),
        ("[[services]]\nname = 'x'\n", "port"),
        ("[[services]]\nname = 'x'\nport = 0\n", "x: port: 0 is no port"),
        ("[[services]]\nname = 'x'\nport = 1\ncolour = 2\n", "colour"),
        ("[[services]]\nname = 'x'\nport = 1\ncheck = 'ping'\n", "check 'ping'"),
        ("[[services]]\nname = 'x'\nport = 1\nvhost = 'a b'\n", "vhost"),
        ("[[services]]\nname = 'x'\nendpoints = ['h']\n", "'h' is no host:port"),
        ("[[services]]\nname = 'x'\nport = 1\n[[services]]\nname = 'x'\nport = 1\n", "announced twice"),
        ("[[services]]\nname = 'x'\nport = 1\nchecks = [{type = 'tcp', fall = 0}]\n", "at least 1"),
        ("services", "static.toml"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_place(tmp_path: Path, text: str, words: str):
    """The file and what in it."""
    file = tmp_path / "static.toml"
    file.write_text(text)

    with pytest.raises(BadSettings) as refused:
        check_all((wanted := wanted_of(file, FileOptions())).services, wanted.bridges, where=str(file))
    assert words in str(refused.value)
    assert "static.toml" in str(refused.value) or "check" in str(refused.value)


def test_a_machine_is_known_by_the_address_that_reaches_the_registry():
    """The loopback for a local one."""
    urls = ("local:/run/r.sock", "zk://127.0.0.1:2181,b:2181/x")

    assert ["127.0.0.1"] * 2 == [own_address(url) for url in urls]


@pytest.mark.parametrize(
    "url", ["zk://h1:2181", "zk://h1:2181?auth=/etc/zk", "zk://h1:2181,h2:2182/prod?readers=none", "zk://u:p@h1:2181/x"]
)
def test_the_first_server_of_a_registry_is_asked_which_way_leads_there(url: str):
    """Whatever stands behind it in the URL."""
    assert ("h1", 2181) == first_server(url)


# --- the announcer, on the memory backend, with real sockets


class Stage:
    def __init__(self, place: str, registry: ComposedRegistry, announcer_registry: ComposedRegistry) -> None:
        self.place = place
        self.registry = registry
        self.theirs = announcer_registry
        self.server: asyncio.Server | None = None
        self.service = DB
        self.stop = asyncio.Event()

    async def listen(self) -> None:
        self.server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", self.service.port)

    async def deafen(self) -> None:
        assert self.server is not None
        self.server.close()
        await self.server.wait_closed()

    async def members(self) -> list[str]:
        return list(await self.registry.tree.names(paths.endpoint_folder(self.service.key)))

    async def record(self) -> Leaving | None:
        node = await self.registry.read(paths.leaving(self.service.task))
        return None if node is None else decode(Leaving, node.data, place="record")

    async def until_members(self, count: int, *, within_s: float = 3.0) -> None:
        async def so() -> bool:
            return len(await self.members()) == count

        await eventually(f"{count} members", so, within_s=within_s)

    async def until_record(self, fits: Callable[[Leaving | None], bool], *, within_s: float = 4.0) -> None:
        async def so() -> bool:
            return fits(await self.record())

        await eventually("the leaving record", so, within_s=within_s)


@pytest.fixture
async def stage(free_port: int) -> AsyncIterator[Stage]:
    place = uuid4().hex
    made = Stage(place, await open_registry(f"memory:{place}"), await open_registry(f"memory:{place}"))
    made.service = Service(name="db", host="127.0.0.1", port=free_port, checks=(QUICK,), drain_s=5.0)
    await made.listen()
    yield made
    if made.server is not None:
        made.server.close()
    await made.registry.close()
    await made.theirs.close()


@asynccontextmanager
async def announced(stage: Stage) -> AsyncIterator[Announcer]:
    announcer = Announcer(stage.theirs, [stage.service])
    task = asyncio.create_task(until(stage.stop, announcer.run()))
    try:
        await stage.until_members(1)
        yield announcer
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_member_comes_and_goes_with_its_checks(stage: Stage):
    """It leaves a record behind for two seconds, so that readers tell it from a fault; its return ends the record."""
    async with announced(stage):
        await stage.deafen()
        await stage.until_members(0)
        assert Reason.UNHEALTHY == (await stage.record()).reason

        await stage.listen()

        await stage.until_members(1)
        assert await stage.record() is None


async def test_a_name_is_resolved_for_readers_that_take_addresses_alone(stage: Stage):
    """An external service by its host's name; its id stays the name's."""
    stage.service = msgspec.structs.replace(stage.service, host="localhost", checks=())
    async with announced(stage):
        name = (await stage.members())[0]
        node = await stage.registry.read(paths.member(stage.service.key, name))

    assert node is not None
    assert decode(Member, node.data, place="m").serviceEndpoint.host in {"127.0.0.1", "::1"}
    assert f"announced~static:db~localhost-{stage.service.port}" == paths.task_of(name)


async def test_what_is_not_announced_is_said_with_its_reason(stage: Stage):
    """For /ready: nothing once it stands, the check's words when it fails."""
    health = Health()
    announcer = Announcer(stage.theirs, [stage.service], health=health)
    first = dict(health.waits)
    task = asyncio.create_task(until(stage.stop, announcer.run()))

    async def waits(text: str) -> bool:
        return text in " ".join(health.waits.values()) if text else not health.waits

    await eventually("it is announced", lambda: waits(""))
    await stage.deafen()
    await eventually("it says why not", lambda: waits("tcp: [Errno 111]"))
    task.cancel()
    await asyncio.wait([task])

    assert {stage.service.task: "tcp: not checked yet"} == first


def test_pauses_are_not_all_alike():
    """A tenth more or less, so that a thousand announcers spread."""
    pauses = [announce.jittered(1.0) for _ in range(200)]

    assert 0.9 <= min(pauses) < 0.97
    assert 1.03 < max(pauses) <= 1.1


async def test_the_record_of_an_unhealthy_one_ends(stage: Stage):
    """Two seconds later, by the announcer itself."""
    async with announced(stage):
        await stage.deafen()
        await stage.until_record(lambda record: record is not None)

        await stage.until_record(lambda record: record is None, within_s=4)


async def test_a_successor_takes_over_what_its_predecessor_left(stage: Stage):
    """Another member of the same instance, and a leaving record: both go with the first commit."""
    old = member_of(stage.service, "127.0.0.9")
    data = encode(old)
    path = paths.member(stage.service.key, paths.member_name(stage.service.task, data))
    changes = changes_to(stage.service, ["gone"], None, GONE)[1:]
    await stage.registry.commit([Create(path, data), *changes])
    async with announced(stage):

        async def taken_over() -> bool:
            return (
                await stage.members()
                == [paths.member_name(stage.service.task, encode(member_of(stage.service, "127.0.0.1")))]
                and await stage.record() is None
            )

        await eventually("taken over", taken_over)


async def test_a_member_that_somebody_removed_stands_again(stage: Stage):
    """Within the poll's two seconds."""
    async with announced(stage):
        (name,) = await stage.members()
        await stage.registry.commit([Delete(paths.member(stage.service.key, name))])
        await stage.until_members(0)

        await stage.until_members(1, within_s=4)


async def test_a_registry_that_goes_and_comes_loses_nothing(stage: Stage):
    """What the checks say meanwhile is written afterwards."""
    async with announced(stage):
        cluster(stage.place).stop()
        await stage.deafen()
        await asyncio.sleep(0.2)
        cluster(stage.place).start()

        await stage.until_members(0, within_s=4)


async def test_the_end_waits_for_names_and_balancers(stage: Stage):
    """Withdrawn at once, ended when the balancer has drained and the TTL and a second are over."""
    name_server = NameServer(id="n", address="127.0.0.1", largest_ttl_s=0)
    await stage.registry.announce(paths.below(paths.NAME_SERVERS, "n"), encode(name_server))
    await stage.registry.write(paths.below(paths.BALANCERS, "b"), encode(Balancer(id="b", admin="")))
    async with announced(stage) as announcer:
        stage.stop.set()
        leaving = asyncio.create_task(announcer.leave())
        await stage.until_members(0)
        assert Reason.DRAIN == (await stage.record()).reason
        progress = paths.below(paths.PROGRESS, "b")
        await stage.registry.write(progress, encode(Progress(applied_revision=1000, busy=(stage.service.task,))))
        await asyncio.sleep(1.3)
        assert not leaving.done()

        await stage.registry.write(progress, encode(Progress(applied_revision=1000)))

        async with asyncio.timeout(2):
            await leaving
        assert await stage.record() is None
        assert () == await stage.registry.tree.names(paths.ANNOUNCED)


async def test_the_end_waits_no_longer_than_it_may(stage: Stage):
    """A balancer that says nothing costs `drain_s`."""
    stage.service = Service(name="db", host="127.0.0.1", port=stage.service.port, checks=(QUICK,), drain_s=0.3)
    await stage.registry.write(paths.below(paths.BALANCERS, "b"), encode(Balancer(id="b", admin="")))
    async with announced(stage) as announcer:
        stage.stop.set()

        async with asyncio.timeout(1.5):
            await announcer.leave()
        assert ([], None) == (await stage.members(), await stage.record())


async def test_the_janitor_withdraws_what_a_dead_announcer_left(stage: Stage):
    """Its lease ends with its session; the member goes with a record `dead`, and that goes after two seconds."""
    task = asyncio.create_task(janitor.Janitor(stage.registry).run())
    async with announced(stage):
        pass
    cluster(stage.place).expire(stage.theirs.store)
    await stage.theirs.close()

    await stage.until_members(0)
    assert Reason.DEAD == (await stage.record()).reason
    await stage.until_record(lambda record: record is None)
    task.cancel()


async def test_the_janitor_takes_no_service_to_zero_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """Both instances lose their leases together: it may be a cut, and they stay for a minute."""
    monkeypatch.setattr(janitor, "LAST_S", 60.0)
    task = asyncio.create_task(janitor.Janitor(stage.registry).run())
    theirs = [await open_registry(f"memory:{stage.place}") for _ in range(2)]
    services = [Service(name="db", host="127.0.0.1", port=stage.service.port, checks=(), id=str(n)) for n in range(2)]
    running = [asyncio.create_task(Announcer(r, [s]).run()) for r, s in zip(theirs, services, strict=True)]
    await stage.until_members(2)
    for each in running:
        each.cancel()
    await asyncio.wait(running)
    await asyncio.gather(*(registry.close() for registry in theirs))
    await asyncio.sleep(1.2)
    assert 2 == len(await stage.members())
    task.cancel()


async def test_a_new_leaders_janitor_finds_what_died_before_it(stage: Stage):
    """Nobody led when the announcer died: after a moment for late announcers the member goes."""
    async with announced(stage):
        pass
    await stage.theirs.close()
    task = asyncio.create_task(janitor.Janitor(stage.registry).run())

    await stage.until_members(0, within_s=4)
    task.cancel()


async def test_the_janitor_leaves_those_alone_who_come_back(stage: Stage):
    """A session that ended under a living announcer: its lease stands again at once, its member all the time."""
    task = asyncio.create_task(janitor.Janitor(stage.registry).run())
    async with announced(stage):
        before = await stage.members()
        cluster(stage.place).expire(stage.theirs.store)
        await asyncio.sleep(0.8)

        assert before == await stage.members()
    task.cancel()


# --- bridges


@pytest.mark.parametrize(("settle_s", "last"), [(0.3, [84]), (3600.0, [82, 84])])
async def test_a_foreign_folder_becomes_members_here(stage: Stage, settle_s: float, last: list[int]):
    """They come, change and go with its nodes; junk and leaders are left out. Owners that were gone have time to return."""
    path = "/aurora/www/prod/web"
    bridge = Bridge(name="web", framework="aurora", format="serverset", path=path, vhost="w.example", settle_s=settle_s)
    announcer = Announcer(stage.theirs, (), [bridge])
    task = asyncio.create_task(announcer.run())
    folder = paths.endpoint_folder("aurora:web")

    async def ports() -> list[int]:
        nodes = [await stage.registry.read(f"{folder}/{name}") for name in await stage.registry.tree.names(folder)]
        return sorted(decode(Member, node.data, place="m").serviceEndpoint.port for node in nodes if node)

    async def until_ports(*expected: int) -> None:
        async def so() -> bool:
            return await ports() == list(expected)

        await eventually(f"members at {expected}", so)

    async def write(number: int, port: int, name: str = "member") -> None:
        data = {"serviceEndpoint": {"host": "10.0.0.1", "port": port}, "additionalEndpoints": {}, "status": "ALIVE"}
        await stage.registry.write(f"{bridge.path}/{name}_{number:010d}", json.dumps(data).encode())

    try:
        await write(1, 80)
        await write(2, 81)
        await write(3, 80, "singleton_candidate")
        await stage.registry.write(f"{bridge.path}/member_0000000009", b"junk")
        await until_ports(80, 81)
        await write(2, 82)
        await until_ports(80, 82)
        await stage.registry.remove(f"{bridge.path}/member_0000000001")
        await until_ports(82)
        await stage.registry.remove(f"{bridge.path}/member_0000000002")
        await asyncio.sleep(0.3)
        assert [82] == await ports(), "an empty folder is a fault of its owner"
        await write(4, 84)
        await until_ports(*last)
    finally:
        task.cancel()
        await asyncio.wait([task])
    async with asyncio.timeout(3):
        await announcer.leave()

    assert [] == await ports()
