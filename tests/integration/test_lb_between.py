"""From balancer to balancer over mTLS: two machines' node balancers on real HAProxy, and whoever is none of them."""

import asyncio
import ssl
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from fairlead_discovery import paths
from fairlead_discovery.policies import Intentions, Source, path_of
from fairlead_discovery.records import Balancer as Record
from fairlead_discovery.records import Port, Route, RoutePort, TaskRef, Traffic, encode
from fairlead_discovery.registry import Put
from harness.balancer import Balancer, Task, fetch
from harness.between import HERE, THERE, Pair, is_there, two_machines, vhost
from harness.mesh import Caller
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
IN_MODULE = pytest.mark.asyncio(loop_scope="module")
BARE, TRAPPED = "127.0.0.4", "127.0.0.5"
"""Addresses of a machine without a balancer, and of one where somebody else listens."""
WEB, OPS = "marathon:/shop/web", "etl:ops"
DAY_S = 86_400.0


async def intend(pair: Pair, app: str, *sources: Source) -> None:
    """Nobody else may call it."""
    record = Intentions(service=f"marathon:{app}", sources=sources, default="deny")
    await pair.applied(await pair.here.registry.commit([Put(path_of(record), encode(record))]))


async def ask_door(caller: Caller, lb: Balancer, app: str, sni: str = "x", **more: str) -> tuple[int, str]:
    """The mesh port of a machine, as another balancer asks."""
    headers = {"X-Fairlead-Service": f"marathon:{app.replace('/', '%2F')}", **more}
    at = (lb.settings.mesh_bind, lb.settings.mesh_port)
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection(*at, ssl=caller.context(), server_hostname=sni)
        try:
            lines = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items() if v)
            writer.write(f"GET / HTTP/1.1\r\nHost: any\r\nConnection: close\r\n{lines}\r\n".encode())
            raw = await reader.read(-1)
        finally:
            writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/"):
        raise ConnectionError(f"cut answer: {raw[:40]!r}")
    return int(head.split()[1]), body.decode()


async def refused(caller: Caller, lb: Balancer, app: str) -> bool:
    try:
        await ask_door(caller, lb, app, X_Fairlead_Between="1")
    except OSError:
        return True
    return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair() -> AsyncIterator[Pair]:
    async with two_machines() as made:
        yield made


@IN_MODULE
async def test_a_plain_caller_reaches_another_machines_task_through_its_balancer(pair: Pair):
    """In plain on either machine, in TLS between them; the task hears of nobody, and of the client's own address."""
    [task] = await pair.deploy("/far", THERE)
    found = await pair.ask("/far", "/x")
    [asked] = [s for s in (await pair.here.status())["services"] if s["service"] == "marathon:/far" and "home" not in s]

    assert (200, "far-3") == found
    assert [f"machine:{THERE}"] == [server["task"] for server in asked["servers"]]
    assert ["GET /x"] == task.seen
    assert {"x-fairlead-caller", "x-fairlead-between", "x-fairlead-service"}.isdisjoint(task.last_headers)
    assert "127.0.0.1" == task.last_headers["x-forwarded-for"]
    assert "x-forwarded-proto" not in task.last_headers, "the caller came in plain"


@IN_MODULE
async def test_a_services_second_port_is_found_on_the_other_side(pair: Pair):
    """By the name that callers of the mesh use for it too."""
    task = await Task("two", app="/two", host=THERE).start()
    one = msgspec.structs.replace(task.member(), ports=(Port(index=1, number=task.port, host_port=task.port),))
    asked = Route(service="marathon:/two", app="/two", ports=(RoutePort(index=1, vhosts=(vhost("/two"),)),))
    await pair.applied(await pair.here.publish(one, routes=[asked]))
    named = await ask_door(await pair.mesh.caller(WEB), pair.there, "", **{"X-Fairlead-Service": "marathon:%2Ftwo/1"})

    assert (200, "two") == await pair.ask("/two")
    assert (200, "two") == named


@IN_MODULE
async def test_the_servers_side_judges_too_and_hears_who_the_caller_is(pair: Pair):
    """Who has a certificate at the first balancer is that at the second one, and at the task."""
    [task] = await pair.deploy("/cart", THERE)
    await intend(pair, "/cart", Source(name=WEB))
    web, ops = await pair.mesh.caller(WEB), await pair.mesh.caller(OPS)
    stolen = pair.balancer(pair.here)
    found = [
        (await ask_door(web, pair.here, "/cart"))[0], (await ask_door(ops, pair.here, "/cart"))[0],
        (await pair.ask("/cart"))[0],
        (await ask_door(stolen, pair.there, "/cart", X_Fairlead_Between="1", X_Fairlead_Caller="marathon:%2Fshop%2Fweb"))[0],
        (await ask_door(stolen, pair.there, "/cart", X_Fairlead_Between="1", X_Fairlead_Caller="etl:ops"))[0],
        (await ask_door(stolen, pair.there, "/cart", X_Fairlead_Between="1"))[0],
    ]  # fmt: skip

    assert [200, 403, 403, 200, 403, 403] == found
    assert "marathon:%2Fshop%2Fweb" == task.last_headers["x-fairlead-caller"]


@IN_MODULE
async def test_nobody_but_a_balancer_says_for_whom_it_asks(pair: Pair):
    """A service that claims another's name, or to be between, is who its certificate says; a way in for balancers is none for it."""
    [task] = await pair.deploy("/vault", THERE)
    await intend(pair, "/vault", Source(name=WEB))
    ops, web = await pair.mesh.caller(OPS), await pair.mesh.caller(WEB)
    claims = {"X_Fairlead_Between": "1", "X_Fairlead_Caller": "marathon:%2Fshop%2Fweb"}
    found = [
        (await ask_door(ops, pair.there, "/vault", **claims))[0],
        (await ask_door(web, pair.there, "/vault", **{**claims, "X_Fairlead_Caller": "etl:ops"}))[0],
        (await ask_door(web, pair.there, "", **{"X-Fairlead-Service": "home/marathon:%2Fvault"}))[0],
    ]
    seen, heard = len(task.seen), task.last_headers["x-fairlead-caller"]
    plain = await fetch(f"http://{THERE}:{pair.there.settings.http_port}", "/", host=vhost("/vault"))

    assert [403, 200, 404] == found
    assert (1, "marathon:%2Fshop%2Fweb") == (seen, heard)
    assert 403 == plain[0]


@IN_MODULE
async def test_the_way_in_for_balancers_is_not_named_by_the_tls_name_either(pair: Pair):
    """It has no rules of the route: those were kept where the caller is."""
    task = await Task("ops1", app="/ops", host=THERE).start()
    ref = TaskRef(id="ops1", name="ops", framework="etl", framework_id="f", agent="a", app="")
    closed = RoutePort(index=0, vhosts=("ops.example",), traffic=Traffic(allow=("10.9.9.9/32",)))
    await pair.here.publish(routes=[Route(service=OPS, ports=(closed,))])
    await pair.applied(await pair.here.publish_as(OPS, msgspec.structs.replace(task.member(), task=ref)))
    web = await pair.mesh.caller(WEB)
    by_header, by_tls = {"X-Fairlead-Service": OPS}, {"X-Fairlead-Service": ""}
    found = [
        await ask_door(web, pair.there, "", **by_header),
        await ask_door(web, pair.there, "", OPS, **by_tls),
        await ask_door(web, pair.there, "", f"home/{OPS}", **by_tls),
    ]
    await task.stop()

    assert [403, 403, 400] == [status for status, _ in found]
    assert [] == task.seen


@IN_MODULE
async def test_wrong_expired_foreign_and_missing_certificates_do_not_come_in(pair: Pair):
    """At the door: no request of theirs is looked at."""
    [task] = await pair.deploy("/shut", THERE)
    name = "balancer:node-2"
    old = await pair.mesh.caller(name, of=pair.mesh.authority(ago_s=2 * DAY_S))
    foreign = await pair.mesh.caller(name, of=pair.mesh.authority(folder="other"))
    right = await pair.mesh.caller(name)
    bare = ssl.create_default_context(cafile=str(right.place.bundle_file))
    bare.check_hostname = False

    assert [True, True, False] == [await refused(one, pair.there, "/shut") for one in (old, foreign, right)]
    assert b"" == await without_certificate(pair.there, bare)
    assert ["GET /"] == task.seen, "the right one's"


async def without_certificate(lb: Balancer, context: ssl.SSLContext) -> bytes:
    try:
        reader, writer = await asyncio.open_connection(lb.settings.mesh_bind, lb.settings.mesh_port, ssl=context)
        writer.write(b"GET / HTTP/1.1\r\nHost: any\r\nX-Fairlead-Service: marathon:%2Fshut\r\n\r\n")
        answer = await reader.read(-1)
        writer.close()
    except OSError:
        return b""
    return answer


@IN_MODULE
async def test_who_shows_anothers_certificate_at_a_machines_door_is_not_spoken_to(pair: Pair):
    """A service's own, an expired one of a balancer, a foreign one: whoever listens there learns nothing."""
    expired = await pair.mesh.caller("balancer:trap", of=pair.mesh.authority(ago_s=2 * DAY_S))
    foreign = await pair.mesh.caller("balancer:trap", of=pair.mesh.authority(folder="other"))
    seen: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(1000))
        writer.close()

    found = []
    for number, caller in enumerate((await pair.mesh.caller(OPS), expired, foreign)):
        server = await asyncio.start_server(note, TRAPPED, 0, ssl=server_context(caller))
        door = server.sockets[0].getsockname()[1]
        record = Record(id="trap", admin="", node=True, mesh_host=TRAPPED, mesh_port=door, hosts=(TRAPPED,))
        await pair.here.registry.write(paths.below(paths.BALANCERS, "trap"), encode(record))
        await eventually("the door is known", lambda door=door: knows_door(pair, door), within_s=20)
        await pair.deploy(f"/trap{number}", TRAPPED)
        found.append((await pair.ask(f"/trap{number}"))[0])
        server.close()
    await pair.here.registry.remove(paths.below(paths.BALANCERS, "trap"))

    assert [503, 503, 503] == found
    assert not b"".join(seen)


def server_context(caller: Caller) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(caller.place.file)
    return made


async def knows_door(pair: Pair, door: int) -> bool:
    node = await pair.here.registry.read(paths.below(paths.BALANCERS, "trap"))
    return node is not None and str(door).encode() in node.data


@IN_MODULE
async def test_a_machine_without_a_door_is_not_reached_in_plain(pair: Pair):
    """The service is told so; tasks elsewhere are reached all the same."""
    [task] = await pair.deploy("/bare", BARE)
    first = (await pair.ask("/bare"))[0]
    await pair.deploy("/bare", THERE)
    second = await pair.ask("/bare")
    problems = (await pair.here.status())["problems"]

    assert (503, (200, "bare-3")) == (first, second)
    assert [] == task.seen
    assert f"no balancer takes callers over mTLS at {BARE}" in str(problems["marathon:/bare"])


@IN_MODULE
async def test_the_own_machines_tasks_come_first_and_a_moving_one_is_followed_without_a_loss(pair: Pair):
    """GET and POST, while the only task goes from machine to machine; no reload for it."""
    tasks = await pair.deploy("/near", HERE, THERE)
    near = {(await pair.ask("/near"))[1] for _ in range(6)}
    for lb in (pair.here, pair.there):  # else one that has time, for new spares, may come in between
        await eventually("nothing else is due", lambda lb=lb: settled(lb), within_s=60)
    reloads = [(await lb.status())["reloads"] for lb in (pair.here, pair.there)]
    failures: list[object] = []
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            for method in ("GET", "POST"):
                try:
                    status, _ = await pair.ask("/near", method=method)
                except OSError as error:
                    status = repr(error)
                if status != 200:
                    failures.append((method, status))

    running = asyncio.create_task(load())
    for gone, kept in ((0, 1), (1, 0), (0, 1)):
        await pair.applied(await pair.here.leave(tasks[gone].member()))
        await asyncio.sleep(0.2)
        back = await pair.here.publish(tasks[gone].member())
        await pair.here.gone(tasks[gone].id)
        await pair.applied(back)
        await eventually("it is served", lambda gone=gone, kept=kept: asyncio.sleep(0, tasks[kept].seen), within_s=10)
    stop.set()
    await running

    assert {"near-2"} == near
    assert [] == failures
    assert reloads == [(await lb.status())["reloads"] for lb in (pair.here, pair.there)]


@IN_MODULE
async def test_a_balancer_without_the_task_asks_another_machine_once(pair: Pair):
    """The first balancer may know less than the second; a third one is asked by nobody who was asked for somebody."""
    await pair.deploy("/moved", HERE)
    caller = pair.balancer(pair.here)
    once = await ask_door(caller, pair.there, "/moved", X_Fairlead_Between="1")
    twice = await ask_door(caller, pair.there, "/moved", X_Fairlead_Between="2")

    assert ((200, "moved-2"), 503) == (once, twice[0])


@IN_MODULE
async def test_it_is_served_on_without_authority_registry_and_daemons(pair: Pair):
    """What HAProxy has, it does; a balancer's door that is gone is found out, and the next machine asked."""
    tasks = await pair.deploy("/on", THERE)
    await pair.there.kill_daemon()
    first = await pair.ask("/on")
    pair.there.kill_haproxy()
    await eventually("it is gone", lambda: gone(pair.there), within_s=10)
    second = (await pair.ask("/on"))[0]
    await pair.there.start()
    await eventually("its door is open again", lambda: is_there(THERE, pair.there.settings.mesh_port), within_s=30)
    await eventually("it is reached again", lambda: reached(pair, "/on"), within_s=30)

    assert ((200, "on-3"), 503) == (first, second)
    assert tasks


async def settled(lb: Balancer) -> bool:
    return not (await lb.status())["reload_due"]


async def gone(lb: Balancer) -> bool:
    return not await is_there(lb.settings.mesh_bind, lb.settings.mesh_port)


async def reached(pair: Pair, app: str) -> bool:
    return (await pair.ask(app))[0] == 200
