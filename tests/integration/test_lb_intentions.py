"""Intentions on a real HAProxy: who has no certificate, changes without a reload, what is broken denies."""

import asyncio
import contextlib
import http.client
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from fairlead_discovery.policies import Intentions, Source, Split, path_of
from fairlead_discovery.records import encode
from fairlead_discovery.registry import Delete, Put
from fairlead_lb.decisions.intentions import judge
from harness.balancer import Balancer, balancer, fetch, service
from harness.clients import Clients

pytestmark = pytest.mark.needs("haproxy")
WEB = "marathon:/shop/web"


@pytest.fixture
async def place(short_dir: Path) -> AsyncIterator[Balancer]:
    async with balancer(short_dir, spare_backends=4) as made:
        yield made


async def intend(place: Balancer, *sources: Source, default: str = "", to: str = WEB) -> None:
    record = Intentions(service=to, sources=sources, default=default)
    await place.applied(await place.registry.commit([Put(path_of(record), encode(record))]))


async def ask(place: Balancer, path: str = "/", method: str = "GET", host: str = "shop.example") -> int:
    return (await fetch(f"http://127.0.0.1:{place.settings.http_port}", path, host=host, method=method))[0]


async def test_intentions_come_and_go_without_a_reload_and_disturb_nobody(place: Balancer):
    """A bystander under load loses nothing; the denied one is told in words."""
    await service(place, "/shop/web", vhosts=("shop.example",))
    await service(place, "/other", vhosts=("other.example",))
    async with Clients(place.settings.http_port, "other.example") as bystander:
        open_ = await ask(place)
        await intend(place, default="deny")
        denied = await place.ask()
        await intend(place, Source(name="anonymous"), default="deny")
        named = await ask(place)
        await intend(place, Source(name="*"), default="deny")
        anybody = await ask(place)
        await place.applied(await place.registry.commit([Delete(path_of(Intentions(service=WEB)))]))
        again = await ask(place)

    assert (200, 403, 200, 403, 200) == (open_, denied[0], named, anybody, again)
    assert f"anonymous may not call {WEB.replace('/', '%2F')} so\n" == denied[1]
    assert [] == bystander.failures
    assert 0 == (await place.status())["reloads"]


async def test_methods_and_paths_are_judged_as_they_are_meant(place: Balancer):
    """Also where a client writes them differently; what servers read differently is refused."""
    await service(place, "/shop/web", vhosts=("shop.example",))
    await intend(
        place,
        Source(name="anonymous", methods=("GET",)),
        Source(name="anonymous", paths=("/put",), methods=("PUT",)),
        Source(name="anonymous", action="deny", paths=("/admin",)),
        default="deny",
    )
    asked = [
        ("GET", "/"), ("GET", "/adminx"), ("PUT", "/put/x"),
        ("GET", "/admin"), ("GET", "/admin/x"), ("GET", "/%61dmin"), ("GET", "/a/../admin"), ("GET", "//admin"),
        ("GET", "/x%2f..%2fadmin"), ("GET", "/%2e/admin"), ("GET", "/%252e/admin"), ("GET", "/admin;a=b"),
        ("GET", "/a\\..\\admin"), ("POST", "/"), ("PUT", "/"), ("PUT", "/putx"), ("GEt", "/"), ("*", "/"),
    ]  # fmt: skip

    assert [200] * 3 + [403] * 15 == [await ask(place, path, method) for method, path in asked]


async def test_tcp_connections_are_refused_without_a_word(place: Balancer):
    """And let in again."""
    await service(place, "/db", service_port=place.first_port, mode="tcp")
    where = f"http://127.0.0.1:{place.first_port}"

    assert 200 == (await fetch(where, "/"))[0]
    await intend(place, default="deny", to="marathon:/db")
    with pytest.raises(OSError):  # reset, or closed without an answer
        await fetch(where, "/")
    await intend(place, Source(name="anonymous"), default="deny", to="marathon:/db")
    assert 200 == (await fetch(where, "/"))[0]


async def test_deny_by_default_lets_a_new_service_in_only_when_told(short_dir: Path):
    """From its first moment, in a spare backend; and after HAProxy was started anew without a registry."""
    async with balancer(short_dir, spare_backends=2, intentions_default="deny") as place:
        await service(place, "/shop/web", vhosts=("shop.example",))
        before = await ask(place)
        await intend(place, Source(name="anonymous"))
        after = await ask(place)
        await intend(place, Source(name="anonymous", action="deny"))
        await asyncio.sleep(1.1)  # the picture is saved once a second
        await place.kill_daemon()
        place.kill_haproxy()
        await place.start()

        assert (403, 200, 403) == (before, after, await ask(place))
        assert 0 == (await place.status())["reloads"]


async def test_a_broken_intention_leaves_the_last_good_one_and_denies_where_there_is_none(place: Balancer):
    """It may have been a denial; it is named, and costs nobody else anything."""
    await service(place, "/shop/web", vhosts=("shop.example",))
    await service(place, "/other", vhosts=("other.example",))
    await service(place, "/third", vhosts=("third.example",))
    await intend(place, Source(name="anonymous"))
    bad = {
        WEB: encode(Intentions(service=WEB, default="deny", sources=(Source(name="no service"),))),
        "marathon:/other": b"{rubbish",
        "marathon:/third": encode(Split(service="marathon:/third")),
    }
    changes = [Put(path_of(Intentions(service=s)), data) for s, data in bad.items()]
    await place.applied(await place.registry.commit(changes))
    refused = (await place.status())["refused"]

    hosts = ("shop.example", "other.example", "third.example")
    assert [200, 403, 403] == [await ask(place, host=host) for host in hosts]
    assert "the last good ones stay" in refused[WEB]
    assert "nobody may call it" in refused["marathon:/other"]
    assert "split~marathon:/third; nobody may call it" in refused["marathon:/third"]


async def test_a_client_cannot_say_who_it_is(place: Balancer):
    """The header that names a caller is ours alone."""
    await service(place, "/shop/web", vhosts=("shop.example",))
    await intend(place, Source(name="marathon:/trusted"), default="deny")
    reader, writer = await asyncio.open_connection("127.0.0.1", place.settings.http_port)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: shop.example\r\nX-Fairlead-Caller: marathon:%2Ftrusted\r\nConnection: close\r\n\r\n"
    )
    answer = await reader.read(-1)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 403")


PIECES = (
    "/", "/", "/", "a", "admin", "%61dmin", "put", "b", ".", "..", "%2e", "%2E", "%2f", "%5C", "%25", "%252f", ";",
    "%3b", "\\", "%00", "%1f", "%0a", "%20", "+", "%2B", "%3F", "%c3%a9", "%7e", "%", "%4", "%zz", "%6", "1",
)  # fmt: skip


async def test_haproxy_judges_every_path_as_the_words_do(place: Balancer):
    """Hundreds of generated ones, over one connection: `intention check` says what happens."""
    await service(place, "/shop/web", vhosts=("shop.example",))
    said = (
        Source(name="anonymous", methods=("GET", "POST")),
        Source(name="anonymous", paths=("/put", "/a/put/"), methods=("PUT",)),
        Source(name="anonymous", action="deny", paths=("/admin", "/a/admin")),
        Source(name="anonymous", paths=("/admin/a",), methods=("POST",)),
    )
    await intend(place, *said, default="deny")
    chance = random.Random(7)
    paths = {"/" + "".join(chance.choices(PIECES, k=chance.randint(0, 5))) for _ in range(400)}
    asked = [(chance.choice(("GET", "PUT", "POST")), path) for path in sorted(paths)]
    found = {WEB: Intentions(service=WEB, sources=said, default="deny")}
    told = [judge(WEB, found, "allow", "anonymous", method, path).allowed for method, path in asked]
    let_in = await asyncio.to_thread(_let_in, place.settings.http_port, asked)

    assert [] == [(*one, words) for one, words, real in zip(asked, told, let_in, strict=True) if words is not real]
    assert 20 < sum(told) < len(told) - 20


def _let_in(port: int, asked: Sequence[tuple[str, str]]) -> list[bool]:
    there = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    found = []
    with contextlib.closing(there):
        for method, path in asked:
            there.request(method, path, headers={"Host": "shop.example"})
            answer = there.getresponse()
            answer.read()
            found.append(answer.headers.get("X-Fairlead-Denied") is None)
    return found
