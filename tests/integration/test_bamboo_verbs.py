"""An old Bamboo's unit file, tree and template, taken over with the commands an operator has."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead_console.main import main
from fairlead_discovery.adapters.zookeeper import Client, Insert, Link
from fairlead_discovery.adapters.zookeeper_place import parse_place
from fairlead_discovery.backends import open_registry
from fairlead_discovery.policies import Bamboo, path_of
from fairlead_discovery.records import encode
from fairlead_discovery.registry import Put
from harness.balancer import fetch, member
from harness.ports import free_port
from harness.servers import Server
from harness.waiting import eventually, wait_until
from harness.zookeeper import ZooKeeper

pytestmark = pytest.mark.needs("haproxy", "java")
TREE = "/bamboo-verbs"
NODES = {
    "%2Fshop": '{"version":"2","config":{"Acl":"hdr(host) -i shop.example"}}',
    "%2Fold": "path_end .gif",
    "%2Fbad": "lua.x",
}


async def _fill(url: str) -> None:
    up = asyncio.Event()

    def linked(link: Link) -> None:
        if link.session:
            up.set()

    client = Client(parse_place(url.removeprefix("zk://").partition("/")[0]), linked)
    async with asyncio.timeout(30):
        await up.wait()
    await client.create(TREE)
    await client.transact([Insert(f"{TREE}/{name}", data.encode()) for name, data in NODES.items()])
    await client.close()


async def _publish(url: str) -> None:
    registry = await open_registry(url)
    data = encode(member("shop-1", 31000, app="/shop", host="10.0.0.1"))
    await registry.commit([
        Put("/fairlead/endpoints/marathon:%2Fshop/member_shop-1_00000000", data),
        Put(path_of(Bamboo(service="marathon:/old")), encode(Bamboo(service="marathon:/old", acl="path /mine"))),
    ])  # fmt: skip
    await registry.close()


@pytest.fixture(scope="module")
def url(zookeeper: ZooKeeper) -> str:
    """A registry with one app, and a Bamboo's tree beside it."""
    asyncio.run(_fill(zookeeper.url))
    asyncio.run(_publish(f"{zookeeper.url}{TREE}-registry"))
    return f"{zookeeper.url}{TREE}-registry"


@pytest.fixture
def fairlead(capsys: pytest.CaptureFixture[str], url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("FAIRLEAD_REGISTRY", url)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(words))
        return (code, *capsys.readouterr())

    return run


def test_a_bamboos_rules_are_imported(fairlead: Any, zookeeper: ZooKeeper):
    """Shown first, then written in one commit; another rule of ours is kept, what is none is named: exit 1."""
    source = f"{zookeeper.url}{TREE}"
    dry = fairlead("route", "import-bamboo", "--from", source, "--dry-run", "--json")
    done = fairlead("route", "import-bamboo", "--from", source)
    again = fairlead("route", "import-bamboo", "--from", source, "--json")
    gone = fairlead("route", "import-bamboo", "--from", f"{zookeeper.url}/no-such-tree")

    assert [("/bad", "refused"), ("/old", "kept"), ("/shop", "add")] == results(dry[1])
    assert 1 == dry[0] == done[0]
    assert "routes shop.example" in done[1]
    assert "fairlead route wait --revision" in done[1]
    assert [("/bad", "refused"), ("/old", "kept"), ("/shop", "same")] == results(again[1])
    assert (1, True) == (gone[0], "no such node" in gone[2]), gone


def test_rules_are_listed_beside_routes(fairlead: Any):
    """With what of them is a host or path, and what a condition."""
    listed = {one["service"]: one for one in json.loads(fairlead("route", "list", "--json")[1])}
    table = fairlead("route", "list")[1]

    assert ("bamboo", [], 1) == tuple(listed["marathon:/old"][key] for key in ("source", "hosts", "conditions"))
    assert "path /mine" in table


def results(text: str) -> list[tuple[str, str]]:
    return [(rule["id"], rule["result"]) for rule in json.loads(text)["rules"]]


def test_a_template_is_rendered_with_the_apps_of_now(fairlead: Any, zookeeper: ZooKeeper, tmp_path: Path):
    """With the rules of the tree and of the registry; a broken one is named by its line."""
    template = tmp_path / "h.j2"
    template.write_text("{% for a in Apps %}{{ a.Id }} {{ a.Tasks[0].Host }} {{ Services[a.Id].Acl }}\n{% endfor %}")
    rendered = fairlead("lb", "template", "render", str(template), "--zookeeper", f"{zookeeper.url}{TREE}")
    template.write_text("{{ Apps[0].Nothing[0] }")
    broken = fairlead("lb", "template", "render", str(template))

    assert (0, "/shop 10.0.0.1 hdr(host) -i shop.example\n", "") == rendered
    assert 1 == broken[0]
    assert f"{template}: line 1: " in broken[2]


def test_a_templates_output_is_kept_current_without_a_balancer(url: str, tmp_path: Path):
    """By a command in the foreground; the operator's own reload follows."""
    (tmp_path / "h.j2").write_text("{% for a in Apps %}{{ a.Id }}\n{% endfor %}")
    words = [
        "lb",
        "template",
        "watch",
        "h.j2",
        "--to",
        "out",
        "--validate",
        "grep -q shop {{.}}",
        "--reload",
        "touch loaded",
    ]
    command = [sys.executable, "-m", "fairlead_console", *words, "--registry", url]
    server = Server(command, log=tmp_path / "log", cwd=tmp_path).start()
    wait_until("it is loaded", (tmp_path / "loaded").exists, within_s=45)
    text = (tmp_path / "out").read_text()
    server.stop()

    assert "/shop\n" == text


@pytest.fixture
async def old(url: str, short_dir: Path, zookeeper: ZooKeeper) -> AsyncIterator[tuple[Server, dict[str, int]]]:
    """What an old unit file starts."""
    ports = {name: free_port() for name in ("api", "http", "admin")}
    (short_dir / "h.j2").write_text("{% for a in Apps %}{{ a.Id }} {{ Services[a.Id].Acl }}\n{% endfor %}")
    config = {
        "Bamboo": {"Zookeeper": {"Host": zookeeper.hosts, "Path": TREE}, "Endpoint": "http://x:8000"},
        "HAProxy": {
            "TemplatePath": str(short_dir / "h.j2"),
            "OutputPath": str(short_dir / "out.cfg"),
            "ReloadValidationCommand": "test -s {{.}}",
            "ReloadCommand": f"echo load >> {short_dir}/loads",
        },
        "Other": 1,
    }
    (short_dir / "b.json").write_text(json.dumps(config))
    sets = {"registry": url, "http_port": ports["http"], "https_port": 0, "port": ports["admin"], "service_ports": "",
            "data_dir": str(short_dir / "d"), "token": "off", "max_connections": 100, "id": "old", "spare_backends": 1}  # fmt: skip
    words = [w for k, v in sets.items() for w in ("-set", f"{k}={v}")]
    command = [sys.executable, "-m", "fairlead_lb.bamboo.command", "-config", str(short_dir / "b.json")]
    server = Server(
        [*command, "-bind", f"127.0.0.1:{ports['api']}", "-log", str(short_dir / "log"), *words], log=short_dir / "x"
    )
    server.start()
    await asyncio.to_thread(
        wait_until, "it serves", lambda: "bamboo's API listens" in (short_dir / "log").read_text(), within_s=30
    )
    yield server, {**ports, "folder": short_dir}  # type: ignore[dict-item]  # the folder beside the ports
    await fetch(f"http://127.0.0.1:{ports['admin']}", "/fairlead/stop", method="POST")
    await asyncio.to_thread(server.stop)


async def test_what_an_old_unit_file_starts_is_served_on(old: tuple[Server, dict[str, Any]]):
    """File, tree, API, template, default rule and log: nothing but the name of the program's package has changed."""
    _, place = old
    api, folder = f"http://127.0.0.1:{place['api']}", place["folder"]

    async def state() -> bool:
        return "/shop" in json.loads((await fetch(api, "/api/state"))[1])["Services"]

    async def written() -> bool:
        return (folder / "out.cfg").read_text() == "/shop hdr(host) -i shop.example\n" and (folder / "loads").exists()

    async def served() -> bool:
        hosts = (await fetch(f"http://127.0.0.1:{place['admin']}", "/_haproxy_getvhostmap"))[1]
        return "shop.example " in hosts

    await eventually("the tree is read", state, within_s=45)
    await eventually("the template is written and loaded", written, within_s=45)
    await eventually("the rule is served", served, within_s=45)

    report = json.loads((await fetch(f"http://127.0.0.1:{place['admin']}", "/fairlead/bamboo"))[1])

    assert ("", "") == (report["tree"]["problem"], report["template"]["problem"])
    assert {} == report["tree"]["skipped"]
    assert (200, "OK") == await fetch(api, "/status")
    assert "Other: not known, not used" in (folder / "log").read_text()
