"""The Resolver on the HTTP watch API of real daemons: every name, changes, servers that die and come back."""

import asyncio
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from discovery.records_of import WEB, leave, member, publish, withdraw
from fairlead_daemon.errors import BadSettings, Refused
from fairlead_discovery import paths
from fairlead_discovery.adapters.blocking import BlockingResolver
from fairlead_discovery.backends import open_registry
from fairlead_discovery.decisions.dns_labels import task_hash
from fairlead_discovery.decisions.listing import Found, Index, Told, differs, member_of, seconds, told
from fairlead_discovery.decisions.mirror import BEHIND_S, Mirror
from fairlead_discovery.decisions.trust import Confirmed
from fairlead_discovery.listing import Listing
from fairlead_discovery.reading import confirm, tell_confirmed
from fairlead_discovery.records import Leaving, Reason
from fairlead_discovery.registry import Delete, Registry
from fairlead_discovery.resolver import Resolver
from fairlead_discovery.snapshots import Snapshot, Trust
from harness.ports import free_port
from harness.servers import Server
from harness.waiting import eventually, wait_until

DNS = "web.marathon.mesos"
TOKEN = "x" * 32


@dataclass
class House:
    """A local registry and two `fairlead discovery`, as processes."""

    folder: Path
    url: str
    registry: Server
    servers: list[Server]
    ports: list[int]

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]},127.0.0.1:{self.ports[1]}"

    def wait_ready(self, number: int) -> None:
        def probe() -> bool:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[number]}/ready", timeout=2) as answer:
                return answer.status == 200

        self.servers[number].wait_ready("fairlead discovery", probe, within_s=60)

    def knows_nothing(self, number: int) -> bool:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[number]}/v2/services", headers=headers)
        try:
            urllib.request.urlopen(request, timeout=2).close()
        except urllib.error.HTTPError as error:
            return error.code == 503 and "nothing is known yet" in error.read().decode()
        return False


def fairlead(folder: Path, name: str, *words: str) -> Server:
    return Server([sys.executable, "-m", "fairlead_console", *words], log=folder / f"{name}.log")


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    url, ports = f"local:{folder}/r.sock", [free_port(), free_port()]
    token = folder / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    common = ("--set", f"registry={url}", "--set", f"token_file={token}")
    registry = fairlead(folder, "registry", "registry", *common, "--set", f"data_dir={folder}", "--set", "token=off")
    registry.start()
    wait_until("the registry serves", (folder / "r.sock").exists)
    servers = [
        fairlead(folder, f"d{n}", "discovery", *common, "--set", f"data_dir={folder}/d{n}", "--set", f"port={port}",
                 "--set", "token=on", "--set", "reads=token")
        for n, port in enumerate(ports)
    ]  # fmt: skip
    found = House(folder, url, registry, servers, ports)
    for server in servers:
        server.start()
    for number in range(2):
        found.wait_ready(number)
    yield found
    for server in (*servers, registry):
        server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def registry(house: House) -> AsyncIterator[Registry]:
    """With one endpoint; emptied afterwards, in order."""
    opened = await open_registry(house.url)
    await opened.commit([*(Delete(paths.leaving(f"t{n}"), missing_ok=True) for n in (1, 2, 3)), publish(1)])
    yield opened
    left = [n for n in (1, 2, 3) if await opened.read(withdraw(n).path) is not None]
    await opened.commit([change for n in left for change in (withdraw(n), leave(n))])
    await opened.close()


@asynccontextmanager
async def resolving(house: House, **more: object) -> AsyncIterator[Resolver]:
    async with Resolver(house.http, token_file=house.folder / "token", **more) as resolver:  # type: ignore[arg-type]
        yield resolver


async def until_tasks(resolver: Resolver, *tasks: str) -> None:
    async def probe() -> bool:
        return [each.task for each in resolver.endpoints(WEB)] == [*tasks]

    await eventually(f"the endpoints are {tasks}", probe, within_s=40)


async def until_trust(resolver: Resolver, trust: Trust) -> None:
    async def probe() -> bool:
        return resolver.snapshot.trust is trust

    await eventually(f"the trust is {trust}", probe, within_s=30)


async def test_every_name_is_found_and_changes_come(house: House, registry: Registry):
    """Key, app id, DNS name, port's name, one instance; pick, watch, and what has left."""
    instance = f"web-{task_hash('t1')}-a1.marathon.mesos"
    async with resolving(house) as resolver:
        await until_tasks(resolver, "t1")
        names = (WEB, "/shop/web", DNS, f"_web._tcp.{DNS.partition('.')[2]}", instance)
        picked = {name: resolver.pick(name).port for name in names}
        seen = []
        async with asyncio.timeout(60):
            async for endpoints in resolver.watch(DNS):
                seen.append([each.task for each in endpoints])
                if len(seen) == 1:
                    await registry.commit([publish(2)])
                elif len(seen) == 2:
                    await registry.commit([withdraw(1), leave(1)])
                else:
                    break

    assert dict.fromkeys(names, member(1).serviceEndpoint.port) == picked
    assert [["t1"], ["t1", "t2"], ["t2"]] == seen


async def test_some_names_alone(house: House, registry: Registry):
    """What was not asked for is refused, not taken for absent."""
    await registry.commit([publish(2)])
    async with resolving(house, names=[DNS]) as resolver:
        async with asyncio.timeout(60):
            async for endpoints in resolver.watch(DNS):
                if len(endpoints) == 2:
                    break
        with pytest.raises(Refused, match="not among the names"):
            resolver.pick("/shop/other")


async def test_a_server_that_knows_nothing_yet_takes_nothing_away(house: House, registry: Registry):
    """It was restarted without its file while the registry is away: it says 503, and the resolver keeps what it has."""
    async with Resolver(f"http://127.0.0.1:{house.ports[0]}", token_file=house.folder / "token") as resolver:
        await until_tasks(resolver, "t1")
        house.servers[0].kill()
        house.registry.pause()
        try:
            (house.folder / "d0" / "discovery.snapshot").unlink(missing_ok=True)
            house.servers[0].start()
            await eventually(
                "it says that it knows nothing", lambda: asyncio.to_thread(house.knows_nothing, 0), within_s=40
            )
            await until_trust(resolver, Trust.STALE)
            tasks = [each.task for each in resolver.endpoints(WEB)]
        finally:
            house.registry.resume()
        await until_trust(resolver, Trust.LIVE)
        await until_tasks(resolver, "t1")

    assert ["t1"] == tasks


async def test_without_the_token_nothing_is_told(house: House, registry: Registry):
    """The registry is closed, and so is this; who asks is told why, and where the token is named."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{house.ports[0]}/v2/services") as a:
        status = a.status
    with pytest.raises(Refused, match=r"401 .*FAIRLEAD_TOKEN_FILE"):
        await Resolver(house.http).__aenter__()

    assert 401 == status


async def test_scripts_ask_over_http_too(house: House, registry: Registry):
    """The blocking face."""

    def script() -> str:
        with BlockingResolver(house.http, token_file=house.folder / "token") as resolver:
            return resolver.pick(DNS).task

    assert "t1" == await asyncio.to_thread(script)


async def test_servers_die_and_come_back(house: House, registry: Registry):
    """One takes over from the other; with none the last good endpoints stand, stale; a restarted one goes on."""
    async with resolving(house, keep=house.folder / "kept") as resolver:
        await until_tasks(resolver, "t1")
        house.servers[0].kill()
        await registry.commit([publish(2)])
        await until_tasks(resolver, "t1", "t2")
        await eventually("it is kept", lambda: asyncio.to_thread((house.folder / "kept").exists), within_s=40)
        house.servers[1].kill()
        await until_trust(resolver, Trust.STALE)
        alone = [each.task for each in resolver.endpoints(WEB)]
        async with resolving(house, keep=house.folder / "kept") as later:
            await until_trust(later, Trust.STALE)
            kept = {each.task for each in later.endpoints(DNS)}
        await registry.commit([publish(3)])
        for number in (0, 1):
            house.servers[number].start()
        await until_tasks(resolver, "t1", "t2", "t3")
        await until_trust(resolver, Trust.LIVE)
    for number in (0, 1):
        house.wait_ready(number)

    assert ["t1", "t2"] == alone
    assert {"t1"} <= kept <= {"t1", "t2"}


async def test_a_server_out_of_sight_of_the_registry_says_so(house: House, registry: Registry):
    """Its trust is the resolver's."""
    async with resolving(house) as resolver:
        await until_tasks(resolver, "t1")
        house.registry.pause()
        try:
            await until_trust(resolver, Trust.STALE)
            picked = resolver.pick(DNS).task
        finally:
            house.registry.resume()
        await until_trust(resolver, Trust.LIVE)

    assert "t1" == picked


@pytest.mark.parametrize("url", ["http://", "http://h/x", "http://h:1,ftp://b", "https://h?x=1"])
async def test_a_url_that_is_none_is_refused(url: str):
    """At once."""
    with pytest.raises(BadSettings, match="registry"):
        await Resolver(url).__aenter__()


# --- decisions


def piece(revision: int, *tasks: int, **more: object) -> Told:
    address = [member(n).serviceEndpoint for n in tasks]
    found = tuple(told(WEB, member(n), at) for n, at in zip(tasks, address, strict=True))
    return Told(
        **{
            "cluster": "c",
            "revision": revision,
            "trust": Trust.LIVE,
            "whole": True,
            "services": {WEB: found} if tasks else {},
            **more,
        }
    )  # type: ignore[arg-type]  # fields by name


def test_what_is_told_is_the_member_again():
    """All that a program needs to find it."""
    found = told(WEB, member(1), member(1).serviceEndpoint)

    assert found == told(WEB, member_of(found), member_of(found).serviceEndpoint)
    assert isinstance(found, Found)


def test_pieces_count_together():
    """Nothing of a whole before its last piece; nothing of one that was broken off."""
    mirror = Mirror()
    first = mirror.take(piece(5, 1), "a-1", now_s=1.0)
    begun = mirror.take(piece(6, more=True, services={}), "a-2", now_s=2.0)
    mirror.begin()
    later = mirror.take(piece(6, 2, whole=False), "a-3", now_s=3.0)

    assert (True, None) == (first is not None, begun)
    assert later is not None
    assert ["t2"] == [each.task.id for each in later.members[WEB].values()]


def test_an_unchanged_service_stays_the_same_object():
    """Pools made of it stay, though another server told everything anew."""
    mirror = Mirror()
    first = mirror.take(piece(5, 1), "a-1", now_s=1.0)
    again = mirror.take(piece(7, 1), "b-1", now_s=2.0)

    assert first is not None
    assert again is not None
    assert first.members[WEB] is again.members[WEB]


def test_a_server_that_lags_behind_is_not_believed_for_a_while():
    """What stood stays, stale; if it goes on so, the registry itself was put back."""
    mirror = Mirror()
    mirror.take(piece(9, 1, 2), "a-1", now_s=1.0)
    behind = mirror.take(piece(5, 1), "b-1", now_s=2.0)
    still = mirror.take(piece(5, 1), "b-2", now_s=3.0 + BEHIND_S)

    assert behind is not None
    assert still is not None
    assert (Trust.STALE, 2) == (behind.trust, len(behind.members[WEB]))
    assert (Trust.LIVE, 5, 1) == (still.trust, still.revision, len(still.members[WEB]))


@pytest.mark.parametrize(
    ("odd", "trust"),
    [
        ({"cluster": "", "revision": -1, "trust": Trust.STALE}, Trust.STALE),
        ({"cluster": "other", "trust": Trust.HELD}, Trust.HELD),
        ({"revision": 3, "trust": Trust.STALE}, Trust.STALE),
    ],
)
def test_a_server_that_does_not_know_takes_nothing_away(odd: dict[str, object], trust: Trust):  # a table's column
    """Just started while the registry is away, or not believing it: what another told stands, however long."""
    mirror = Mirror()
    mirror.take(piece(9, 1, 2), "a-1", now_s=1.0)
    for now_s in (2.0, 3.0 + BEHIND_S, 100.0):
        told_nothing = Told(**{"cluster": "c", "revision": 9, "whole": True, **odd})  # type: ignore[arg-type]  # fields by name
        mirror.take(told_nothing, "b-1", now_s=now_s)

    assert (9, trust, 99.0) == (mirror.snapshot.revision, mirror.snapshot.trust, mirror.snapshot.age_s)
    assert 2 == len(mirror.snapshot.members[WEB])


EMPTY = {"services": {}, "bare": True}
FEW = {"services": {}, "left": ("t9",)}


@pytest.mark.parametrize(
    ("odd", "why"),
    [({"cluster": "new", **EMPTY}, "cluster new, it was c"), (EMPTY, "empty"), (FEW, "4 of 4 tasks are gone at once")],
)
def test_what_is_not_to_be_believed_is_held_until_it_is_confirmed(odd: dict[str, object], why: str):  # a table's column
    """As by a reader of the registry: another cluster, an emptied one, much gone at once; though the server says live."""
    mirror = Mirror()
    mirror.take(piece(9, 1, 2, 3, 4), "a-1", now_s=1.0)
    for now_s in (2.0, 3.0 + BEHIND_S, 100.0):
        mirror.take(piece(10, **odd), "b-1", now_s=now_s)
        mirror.take(piece(10, **{**odd, "whole": False}), "b-2", now_s=now_s)
    mirror.lost("the stream ended", now_s=101.0)
    held = mirror.snapshot
    word = Confirmed(cluster=str(odd.get("cluster", "c")), revision=10, time_s=102.0)
    mirror.take(piece(10, **{**odd, "whole": False, "confirmed": word}), "b-3", now_s=103.0)

    assert (9, Trust.HELD, 4) == (held.revision, held.trust, len(held.members[WEB]))
    assert why in held.why
    assert (10, Trust.LIVE, {}) == (mirror.snapshot.revision, mirror.snapshot.trust, mirror.snapshot.members)


@pytest.mark.parametrize("back", [piece(11, 1, 2, 3, 4), piece(11, 1, 2, left=("t3", "t4")), piece(11, 5, 6, 7, 8)])
def test_what_comes_back_left_in_order_or_was_replaced_is_believed(back: Told):
    """No word is needed."""
    mirror = Mirror()
    mirror.take(piece(9, 1, 2, 3, 4), "a-1", now_s=1.0)
    mirror.take(piece(2, cluster="new"), "b-1", now_s=2.0)
    mirror.take(back, "a-2", now_s=3.0)

    assert (11, Trust.LIVE) == (mirror.snapshot.revision, mirror.snapshot.trust)


async def test_a_listing_tells_what_its_followers_judge_by():
    """Whether all is empty, who left in order, and what was confirmed."""
    registry, listing = await open_registry("memory:confirmed"), Listing()
    telling = asyncio.create_task(tell_confirmed(registry, listing.confirm))
    word = await confirm(registry)
    await eventually("it has the word", lambda: asyncio.sleep(0, listing.confirmed == word), within_s=30)
    telling.cancel()
    await registry.close()
    left = Leaving(task="t1", service=WEB, member="", reason=Reason.KILL, deadline_s=0.0)
    listing.take(Snapshot(revision=1, trust=Trust.LIVE))
    empty = listing.telling((), whole=True)
    listing.take(Snapshot(revision=2, trust=Trust.LIVE, leaving={"t1": left}))
    leaving = listing.telling((), whole=True)

    assert (True, (), word) == (empty.bare, empty.left, empty.confirmed)
    assert (False, ("t1",)) == (leaving.bare, leaving.left)


@pytest.mark.parametrize(
    ("asked", "news"),
    [("7-0a1b2c3d-live", False), ("3-0a1b2c3d-live", False), ("0a1b2c3d-live", False), ("7", False), ("6", True),
     ("7-0a1b2c3e-live", True), ("7-0a1b2c3d-stale", True), ("0-none-live", True), ("-1", True)],
)  # fmt: skip
def test_an_index_tells_what_is_news(asked: str, news: bool):  # a table's column
    """By what was told and how far to believe it; the revision alone counts where nothing else is given."""
    assert news == differs(asked, Index(7, "0a1b2c3d", "live"))


@pytest.mark.parametrize(("text", "expected"), [("30s", 30.0), ("500ms", 0.5), ("2m", 120.0), ("1.5", 1.5)])
def test_waits_have_units(text: str, expected: float):
    """As Consul's."""
    assert expected == seconds(text)
