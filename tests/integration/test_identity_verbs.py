"""`fairlead intention` and `fairlead ca` on a real registry, and the authority's own process."""

import json
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_discovery import paths
from fairlead_discovery.authorityd import AuthoritySettings, check
from fairlead_discovery.backends import open_registry
from fairlead_discovery.policies import Intentions, Split, path_of
from fairlead_discovery.records import encode
from fairlead_discovery.registry import Put
from harness.ports import free_port
from harness.servers import Server
from harness.verbs import Verb, registry_of_verbs, verb
from harness.waiting import eventually

WEB, CART = "marathon:/shop/web", "marathon:/shop/cart"


@pytest.fixture
async def url(short_dir: Path) -> AsyncIterator[str]:
    async with registry_of_verbs(short_dir) as (found, _):
        yield found


@pytest.fixture
def fairlead(capsys: pytest.CaptureFixture[str]) -> Verb:
    return verb(capsys)


async def test_whom_a_star_leaves_out_is_said_when_it_is_used(url: str, fairlead: Any):
    """Callers without an identity: what to say of them, what counts for them; no more once it was said."""
    first = (await fairlead("intention", "deny", "*", CART, "--method", "get", "--path", "/admin"))[1]
    listed = (await fairlead("intention", "list"))[1]
    checked = (await fairlead("intention", "check", WEB, CART, "GET", "/admin"))[1]
    advice = first.partition("add: fairlead ")[2].split()
    await fairlead(*advice)
    again = (await fairlead("intention", "deny", "*", CART, "--method", "get", "--path", "/admin"))[1]

    assert ["intention", "deny", "anonymous", CART, "--method", "GET", "--path", "/admin"] == advice
    assert ["anonymous", CART, "balancers'", "default", "all", "all"] == listed.splitlines()[-1].split()
    assert "without an identity (anonymous): may: default" == checked.splitlines()[-1]
    assert "anonymous" not in again
    assert 1 == (await fairlead("intention", "check", "anonymous", CART, "GET", "/admin"))[0]


async def test_a_record_that_cannot_be_read_stops_no_verb_of_the_others(url: str, fairlead: Any):
    """It is named, judged as balancers judge it, and forgotten when asked for by name."""
    await fairlead("intention", "allow", WEB, CART)
    broken = {"a:rubbish": b"{", "a:kind": encode(Split(service="a:kind"))}
    registry = await open_registry(url)
    await registry.commit([Put(path_of(Intentions(service=s)), data) for s, data in broken.items()])
    await registry.close()
    listed = await fairlead("intention", "list")
    checked = await fairlead("intention", "check", WEB, "a:kind")
    kept = await fairlead("intention", "deny", WEB, "a:rubbish")
    wrong = await fairlead("intention", "remove", "*", CART, "--broken")
    gone = [await fairlead("intention", "remove", "*", service, "--broken") for service in broken]
    after = await fairlead("intention", "list")

    assert (0, True) == (listed[0], WEB in listed[1])
    assert all(f"{service}: " in listed[2] for service in broken)
    assert 1 == checked[0]
    assert (1, True) == (kept[0], "--broken` forgets it whole" in kept[2])
    assert (1, True) == (wrong[0], "can be read" in wrong[2])
    assert [0, 0] == [code for code, _, _ in gone]
    assert (0, "") == (after[0], after[2])


async def test_intentions_are_said_listed_checked_and_forgotten(url: str, fairlead: Any):
    """The same caller and the same methods and paths: the later word replaces the earlier one."""
    await fairlead("intention", "allow", WEB, CART, "--method", "get", "--path", "/items")
    await fairlead("intention", "allow", "*", CART)
    await fairlead("intention", "deny", "*", CART)
    await fairlead("intention", "default", "deny", CART)
    listed = json.loads((await fairlead("intention", "list", "--json"))[1])
    checks = [
        (await fairlead("intention", "check", *words))[0]
        for words in ((WEB, CART, "GET", "/items/1"), (WEB, CART, "POST", "/items"), ("etl:x", CART), (WEB, "etl:y"))
    ]
    removed = [(await fairlead("intention", "remove", who, CART))[0] for who in (WEB, WEB)]
    await fairlead("intention", "remove", "*", CART)
    await fairlead("intention", "default", "none", CART)

    assert [("marathon:/shop/web", ["GET"]), ("*", [])] == [
        (s["name"], s.get("methods", [])) for s in listed[CART]["sources"]
    ]
    assert "deny" == listed[CART]["default"]
    assert [0, 1, 1, 0] == checks
    assert [0, 1] == removed
    assert {} == json.loads((await fairlead("intention", "list", "--json"))[1])


@pytest.mark.parametrize("words", [("allow", "web", CART), ("deny", WEB, CART, "--path", "x"), ("allow", WEB, "cart")])
async def test_what_cannot_be_judged_is_not_written(url: str, fairlead: Any, words: tuple[str, ...]):
    """The place is named."""
    code, _, error = await fairlead("intention", *words)

    assert 1 == code
    assert any(name in error for name in ("service", "path"))


async def test_the_authority_gives_identities_to_who_has_the_token(
    url: str, short_dir: Path, fairlead: Any, monkeypatch: pytest.MonkeyPatch
):
    """Its own process: keys in closed folders, roots in the registry, nothing without the token."""
    port, out, made = free_port(), short_dir / "out", short_dir / "made"
    initialised = [
        (await fairlead("ca", "init", "--dir", str(made), "--trust-domain", "t.internal"))[1] for _ in (1, 2)
    ]
    sets = {
        "registry": url,
        "data_dir": str(short_dir),
        "port": port,
        "ca_dir": str(made),
        "trust_domain": "t.internal",
    }
    words = [w for key, value in sets.items() for w in ("--set", f"{key}={value}")]
    server = Server([sys.executable, "-m", "fairlead_console", "ca", *words], log=short_dir / "ca.log").start()
    monkeypatch.setenv("FAIRLEAD_CA", f"127.0.0.1:{port}")
    await eventually("it answers", lambda: answered(fairlead), within_s=30)
    stranger = await fairlead("ca", "issue", WEB, "--out", str(short_dir / "no"))
    monkeypatch.setenv("FAIRLEAD_TOKEN_FILE", str(short_dir / "token"))
    issued = json.loads((await fairlead("ca", "issue", WEB, "--out", str(out), "--json"))[1])
    rotated = json.loads((await fairlead("ca", "rotate", "--json"))[1])
    again = await fairlead("ca", "rotate")
    bundle = (await fairlead("ca", "bundle"))[1]
    told = await eventually("the registry has both roots", lambda: trusted(url), within_s=30)
    server.stop()

    assert [True, False] == [" made" in text for text in initialised]
    assert (1, False) == (stranger[0], (short_dir / "no").exists())
    assert "spiffe://t.internal/app/marathon/shop/web" == issued["spiffe_id"]
    assert {0o600} == {stat.S_IMODE(p.stat().st_mode) for p in out.iterdir()}
    assert 0o700 == stat.S_IMODE(out.stat().st_mode)
    assert [True, False] == [root["signs"] for root in rotated["roots"]]
    assert (1, True) == (again[0], "under way" in again[2])
    assert 2 == bundle.count("BEGIN CERTIFICATE")
    assert not any("PRIVATE KEY" in text for text in (told, bundle, (short_dir / "ca.log").read_text()))


async def answered(fairlead: Any) -> bool:
    return 0 == (await fairlead("ca", "status", "--json"))[0]


async def trusted(url: str) -> str:
    """The document, once it has both roots."""
    opened = await open_registry(url, follow=False)
    try:
        node = await opened.read(paths.TRUST)
    finally:
        await opened.close()
    text = node.data.decode() if node is not None else ""
    return text if text.count("BEGIN CERTIFICATE") == 2 else ""


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("trust_domain", {"trust_domain": "Bad Domain"}),
        ("leaf_s", {"leaf_s": 1.0}),
        ("overlap_s", {"overlap_s": 0.0}),
        ("signer_roots", {"signer": ("/bin/sign",)}),
        ("signer_roots", {"signer_roots": "/x"}),
        ("signer_url", {"signer_url": "http://elsewhere/sign", "signer_roots": "/x"}),
        ("signer_url", {"signer_url": "https://x", "signer": ("/bin/sign",), "signer_roots": "/x"}),
    ],
)
def test_settings_of_the_authority_that_cannot_be_are_refused(key: str, settings: dict[str, Any]):
    """The key is named."""
    with pytest.raises(BadSettings, match=f"^{key}: "):
        check(AuthoritySettings(**settings))
