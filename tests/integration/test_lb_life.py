"""Who dies when: `fairlead lb`, HAProxy, the registry. Traffic flows, and what is served is right afterwards."""

import asyncio
import contextlib
import os
import pwd
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead_daemon.errors import Unavailable
from fairlead_daemon.processes import identify
from fairlead_discovery import paths
from fairlead_discovery.records import Balancer as Registration
from fairlead_discovery.records import Route, decode
from fairlead_discovery.registry import Delete
from fairlead_lb import metrics
from fairlead_lb.adapters import process, socket_cli
from fairlead_lb.decisions import pace
from fairlead_lb.settings import lb_folder
from harness.balancer import Balancer, Task, balancer, fetch, route
from harness.clients import Clients
from harness.ports import free_port
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy")
HOST = "shop.example"
MASTER_CONNECTIONS = 10  # a constant of HAProxy
AGAIN_S = 10.0  # the aim is 0.5 s, measured in benchmarks; this machine is shared


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir) as made:
        yield made


async def served(place: Balancer, *names: str) -> list[Task]:
    tasks = [await Task(n).start() for n in names]
    one = route(vhosts=(HOST,), service_port=place.first_port)
    await place.applied(await place.publish(*(t.member() for t in tasks), routes=[one]))
    return tasks


async def pids(place: Balancer) -> tuple[int, int]:
    found = (await place.status())["haproxy"]
    return found["master_pid"], found["worker_pid"]


async def test_sigterm_leaves_haproxy_serving_and_the_next_adopts_it(place: Balancer):
    """Not one request fails over stop and start; what changed meanwhile is applied without a reload."""
    one, two = await served(place, "one", "two")
    before = await pids(place)
    three = await Task("three").start()
    async with Clients(place.settings.http_port, HOST) as clients:
        await place.stop_daemon()
        await asyncio.sleep(0.2)
        await place.publish(three.member())
        revision = await place.leave(one.member())
        await place.start()
        await place.applied(revision)

    assert [] == clients.failures
    assert before == await pids(place)
    assert 0 == (await place.status())["reloads"]
    await eventually("one has gone", lambda: serves(place, {"two": "ready", "three": "ready"}))
    assert {"one", "two", "three"} >= set(clients.answers)
    assert two.seen


async def serves(place: Balancer, servers: dict[str, str]) -> bool:
    return servers == await place.servers()


async def test_a_drain_is_finished_by_the_next_fairlead_lb(place: Balancer):
    """Killed in the middle of a drain: the successor knows which task is busy, and until when."""
    one, _ = await served(place, "one", "two")
    slow = asyncio.create_task(slow_request(place, one))
    await eventually("the slow request runs", lambda: asked(one))
    revision = await place.leave(one.member())
    await place.applied(revision)
    await place.kill_daemon()
    await place.registry.remove(paths.below(paths.PROGRESS, "lb"))
    await place.start()

    assert ("one",) == (await place.applied(revision)).busy
    assert (200, "one") == await slow
    await eventually("it is not busy", lambda: idle(place))


async def slow_request(place: Balancer, task: Task) -> tuple[int, str]:
    """Repeats until this very task has it."""
    while True:
        answer = await place.ask(HOST, "/?slow=1.5" if not task.seen else "/")
        if answer[1] == task.id:
            return answer


async def asked(task: Task) -> bool:
    return any("slow" in s for s in task.seen)


async def idle(place: Balancer) -> bool:
    return not (await place.progress()).busy


async def test_without_its_notes_an_adopter_knows_tasks_by_their_address(place: Balancer):
    """And what it cannot name keeps every leaving task of the service busy: rather too late than too early."""
    one, _ = await served(place, "one", "two")
    slow = asyncio.create_task(slow_request(place, one))
    await eventually("the slow request runs", lambda: asked(one))
    revision = await place.leave(one.member())
    await place.applied(revision)
    await place.kill_daemon()
    await asyncio.sleep(0)
    forget_tasks(place.folder / "data" / "lb")
    await place.registry.remove(paths.below(paths.PROGRESS, "lb"))
    await place.start()

    assert ("one",) == (await place.applied(revision)).busy
    assert "ready" == (await place.servers())["two"]
    assert (200, "one") == await slow
    await eventually("it is not busy", lambda: idle(place))


def forget_tasks(folder: Path) -> None:
    (folder / "journal").unlink(missing_ok=True)
    picture: dict[str, Any] = msgspec.json.decode((folder / "picture.json").read_bytes())
    for slots in picture["slots"].values():
        for slot in slots.values():
            slot["task"] = ""
    (folder / "picture.json").write_bytes(msgspec.json.encode(picture))


@pytest.mark.parametrize("lb_too", [False, True])
async def test_haproxys_killed_worker_is_replaced_at_once(place: Balancer, lb_too: bool):
    """With today's servers: also those that came since the last reload, also when `fairlead lb` died with it."""
    one, _ = await served(place, "one", "two")
    three = await Task("three").start()
    await place.applied(await place.publish(three.member()))
    await place.applied(await place.leave(one.member()))
    await asyncio.sleep(1.3)  # what is on disk is at most a second old
    master, worker = await pids(place)
    if lb_too:
        await place.kill_daemon()
    os.kill(worker, signal.SIGKILL)
    began = asyncio.get_running_loop().time()
    if lb_too:
        await place.start()
    await eventually("it serves again", lambda: answers(place), within_s=AGAIN_S, every_s=0.005)

    print(f"serving again after {(asyncio.get_running_loop().time() - began) * 1000:.0f} ms")
    await eventually("it is known", lambda: serves(place, {"two": "ready", "three": "ready"}))
    await eventually("it is another HAProxy", lambda: other_master(place, master))
    assert identify(master) is None


async def answers(place: Balancer) -> bool:
    return (await place.ask(HOST))[0] == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_workers_of_a_root_haproxy_are_not_root(place: Balancer):
    """Also after a reload."""
    await served(place, "one")
    _, worker = await pids(place)
    uid = int((Path(f"/proc/{worker}/status").read_text().partition("Uid:")[2]).split()[0])

    assert uid in {pwd.getpwnam(name).pw_uid for name in ("haproxy", "nobody")}


async def test_haproxys_killed_master_leaves_no_second_one(place: Balancer):
    """Two on the same ports would share them silently."""
    await served(place, "one")
    master, worker = await pids(place)
    os.kill(master, signal.SIGKILL)
    await eventually("another one serves", lambda: other_master(place, master))

    assert (200, "one") == await place.ask(HOST)
    assert identify(worker) is None


async def other_master(place: Balancer, master: int) -> bool:
    return (await pids(place))[0] != master and await answers(place)


async def test_haproxy_says_itself_that_it_serves(short_dir: Path):
    """At a port of its own, also while nobody looks after it."""
    port = free_port()
    async with balancer(short_dir, health_port=port) as place:
        await place.kill_daemon()

        assert [200, 404] == [(await place.ask("", path, port=port))[0] for path in ("/_haproxy_health_check", "/x")]


@pytest.mark.parametrize("asked", ["", "/_mlb_signal/hup", "/_mlb_signal/usr1"])
async def test_a_change_by_hand_is_repaired(place: Balancer, asked: str):
    """Someone used HAProxy's socket: the audit finds and undoes it; marathon-lb's signals ask for one, and wait for it."""
    await served(place, "one", "two")
    found = (await place.status())["services"][0]["backend"]
    generation = (await place.status())["haproxy"]["generation"]
    repaired = metrics.REPAIRS.labels("backends")._value.get()
    socket = place.folder / "data" / "lb" / "run" / f"w{generation}.sock"
    reader, writer = await asyncio.open_unix_connection(str(socket))
    writer.write(f"set server {found}/s1 state maint\n".encode())
    writer.write_eof()
    await reader.read(-1)
    writer.close()
    if asked:
        assert 200 == (await fetch(place.admin, asked))[0]
        assert repaired < metrics.REPAIRS.labels("backends")._value.get()
    else:
        assert {"maint", "ready"} == set((await place.servers()).values())

    await eventually("it is undone", lambda: serves(place, {"one": "ready", "two": "ready"}), within_s=15)


async def test_a_file_written_but_not_loaded_is_loaded_by_the_next(place: Balancer):
    """Killed between rename and reload: HAProxy runs the generation before."""
    await served(place, "one")
    folder = place.folder / "data" / "lb"
    await place.kill_daemon()
    for name in ("haproxy.cfg", "picture.json"):
        text = (folder / name).read_text()
        ahead = text.replace("w0.sock", "w1.sock").replace('"generation":0', '"generation":1')
        assert ahead != text
        (folder / name).write_text(ahead)
    two = await Task("two").start()
    revision = await place.publish(two.member())
    await place.start()
    await place.applied(revision)

    assert {"one": "ready", "two": "ready"} == await place.servers()


async def test_after_a_reload_that_haproxy_refused_the_next_adopts_what_serves(place: Balancer):
    """Also where HAProxy calls that worker an old one then (3.1 and later)."""
    await served(place, "one")
    before, file, master = await pids(place), lb_folder(place.settings) / "haproxy.cfg", Path(master_socket(place))
    await place.kill_daemon()
    text = file.read_text()
    file.write_text(f"{text}\nnonsense\n")
    with contextlib.suppress(Unavailable):  # 2.6 says nothing
        await socket_cli.ask(master, "reload")

    async def refused() -> bool:
        with contextlib.suppress(Unavailable):
            return (await process.show(master)).failed > 0
        return False

    await eventually("it has refused", refused, within_s=20)
    file.write_text(text)
    await place.start()

    assert before == await pids(place)
    assert (200, "one") == await place.ask(HOST)


async def test_a_clean_stop_ends_haproxy_and_the_registration(place: Balancer):
    """Only then kills need not wait for this balancer; a mere SIGTERM leaves it registered."""
    await served(place, "one")
    master, worker = await pids(place)
    registration = await place.registry.read(paths.below(paths.BALANCERS, "lb"))
    assert registration is not None
    assert place.admin == decode(Registration, registration.data, place="lb").admin
    status, _ = await fetch(place.admin, "/fairlead/stop", method="POST")
    await place.wait_ended()

    assert 202 == status
    assert (None, None) == (identify(master), identify(worker))
    assert await place.registry.read(paths.below(paths.BALANCERS, "lb")) is None
    assert await place.registry.read(paths.below(paths.PROGRESS, "lb")) is None


async def test_an_emptied_registry_is_not_believed(place: Balancer):
    """All of it gone at once, without a leaving record: everything is routed on, and the reason shown."""
    tasks = await served(place, *(f"t{n}" for n in range(8)))
    await asyncio.sleep(3.3)  # a disappearance is measured against what was there 3 s before
    folder = paths.endpoint_folder("marathon:/shop/web")
    names = await place.registry.tree.names(folder)
    gone = [Delete(f"{folder}/{name}") for name in names]
    await place.registry.commit([*gone, Delete(paths.route("marathon:/shop/web"))])
    await eventually("it is held", lambda: trust(place, "held"))

    assert {t.id for t in tasks} == {(await place.ask(HOST))[1] for _ in range(16)}
    assert (await place.status())["frozen"].startswith("held: ")


async def trust(place: Balancer, word: str) -> bool:
    return bool((await place.status())["trust"] == word)


async def test_without_a_registry_it_serves_what_it_served(short_dir: Path):
    """Nothing listens where the registry should be: HAProxy, adopted or started from disk, routes on; the age grows."""
    async with balancer(short_dir) as place:
        await served(place, "one", "two")
        await place.stop_daemon()
        place.settings = msgspec.structs.replace(place.settings, registry=f"local:{short_dir}/nobody.sock")
        await place.start()
        assert (200, 200) == ((await place.ask(HOST))[0], (await place.ask(HOST))[0])

        os.kill((await pids(place))[1], signal.SIGKILL)
        await eventually("it serves again", lambda: answers(place), within_s=AGAIN_S)
        status = await place.status()
        assert "stale" == status["trust"]
        assert status["frozen"]
        assert {"one": "ready", "two": "ready"} == await place.servers()


async def test_labels_of_a_foreign_task_route_it(place: Balancer):
    """Nobody writes a route for it; a label that is no good is named, the rest of them hold."""
    worker = await Task("worker-1", app="").start()
    labels = {"HAPROXY_0_VHOST": "etl.example", "HAPROXY_0_PORT": str(place.first_port), "HAPROXY_0_BALANCE": "a b"}
    member = worker.member()
    foreign = msgspec.structs.replace(
        member,
        task=msgspec.structs.replace(member.task, framework="etl", name="worker"),
        discovery=msgspec.structs.replace(member.discovery, labels=labels),
    )
    await place.applied(await place.publish_as("etl:worker", foreign))

    assert (200, "worker-1") == await place.ask("etl.example")
    assert (200, "worker-1") == await place.ask("any", port=place.first_port)
    status = await place.status()
    assert ["etl:worker"] == [s["service"] for s in status["services"]]
    assert "HAPROXY_0_BALANCE" in status["refused"]["etl:worker"]


async def test_a_master_that_does_not_answer_is_replaced_without_losing_a_request(
    place: Balancer, monkeypatch: pytest.MonkeyPatch
):
    """Stopped, as one that hangs: another takes over from its worker, which finishes what it has."""
    monkeypatch.setattr(pace, "DEAF_S", 1.0)  # patience is tried by nobody here
    monkeypatch.setattr(process, "BY_SIGNAL_S", 1.0)
    one, two = await served(place, "one", "two")
    master, worker = await pids(place)
    three = await Task("three").start()
    slow = asyncio.create_task(fetch(f"http://127.0.0.1:{place.settings.http_port}", "/?slow=3", host=HOST))
    await eventually("the slow request runs", lambda: either(one, two))
    async with Clients(place.settings.http_port, HOST) as clients:
        os.kill(master, signal.SIGSTOP)
        revision = await place.publish(three.member(), routes=[without_spare("other")])
        await place.applied(revision, within_s=60)
        answer = await slow

    assert [] == clients.failures
    assert 200 == answer[0]
    assert {"one", "two", "three"} == set(await place.servers())
    assert master not in await pids(place)
    assert worker not in await pids(place)
    await eventually("the old one is ended", lambda: gone(master), within_s=60)


async def test_a_master_whose_connections_are_used_up_reloads_all_the_same(
    place: Balancer, monkeypatch: pytest.MonkeyPatch
):
    """It takes ten, and 2.6 may lose one to each command for a worker that ends. It stays, and nobody is refused."""
    monkeypatch.setattr(process, "HEARS_S", 0.5)
    await served(place, "one", "two")
    master, worker = await pids(place)
    three = await Task("three").start()
    with contextlib.ExitStack() as held:
        for _ in range(MASTER_CONNECTIONS):
            held.enter_context(socket.socket(socket.AF_UNIX)).connect(master_socket(place))
        async with Clients(place.settings.http_port, HOST) as clients:
            await place.applied(await place.publish(three.member(), routes=[without_spare("other")]), within_s=60)

    assert [] == clients.failures
    assert master == (await pids(place))[0]
    assert worker != (await pids(place))[1]
    assert {"one", "two", "three"} == set(await place.servers())


async def test_an_old_worker_that_hangs_keeps_nothing_waiting(place: Balancer, monkeypatch: pytest.MonkeyPatch):
    """It does not answer: what comes is applied, by reloads too, and no HAProxy is replaced."""
    monkeypatch.setattr(socket_cli, "OLD_S", 0.5)
    monkeypatch.setattr(pace, "DEAF_S", 1.0)
    one, two = await served(place, "one", "two")
    master, worker = await pids(place)
    slow = asyncio.create_task(fetch(f"http://127.0.0.1:{place.settings.http_port}", "/?slow=2", host=HOST))
    await eventually("the slow request runs", lambda: either(one, two))
    await place.applied(await place.publish(routes=[without_spare("first")]), within_s=60)
    os.kill(worker, signal.SIGSTOP)
    try:
        async with Clients(place.settings.http_port, HOST) as clients:
            three = await Task("three").start()
            await place.applied(await place.publish(three.member(), routes=[without_spare("second")]), within_s=60)
    finally:
        os.kill(worker, signal.SIGCONT)

    assert 200 == (await slow)[0]
    assert [] == clients.failures
    assert master == (await pids(place))[0]
    assert {"one", "two", "three"} == set(await place.servers())


def master_socket(place: Balancer) -> str:
    return str(lb_folder(place.settings) / "run" / "master.sock")


def without_spare(name: str) -> Route:
    """No spare backend has this casing: it takes a reload."""
    return route(f"/{name}", vhosts=(f"{name}.example",), balance="source")


async def either(one: Task, two: Task) -> bool:
    return await asked(one) or await asked(two)


async def gone(pid: int) -> bool:
    return identify(pid) is None
