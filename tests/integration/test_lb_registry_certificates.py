"""Certificates from the registry on a real HAProxy: put by the command, served by name, kept through everything."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead_console.main import main
from fairlead_discovery import paths
from fairlead_discovery.records import decode, encode
from fairlead_lb.adapters import vault
from fairlead_lb.decisions.certificates import Sealed
from harness.balancer import Balancer, Task, balancer, fetch, route
from harness.certificates import first_der, self_signed, shown_certificate
from harness.ports import free_port
from harness.servers import Server, require
from harness.verbs import registry_of_verbs
from harness.waiting import eventually

pytestmark = pytest.mark.needs("haproxy", "openssl")
HOST = "shop.example"
WITHIN_S = 20.0


class Stage:
    """A balancer, its registry, a key file, and the command."""

    def __init__(self, folder: Path, place: Balancer, server: Server) -> None:
        self.folder = folder
        self.place = place
        self.server = server
        self.key_file = folder / "keys"

    def pem(self, host: str) -> Path:
        """A new certificate with its key."""
        require("openssl")
        cert, key = self_signed(self.folder, host)
        file = self.folder / f"{host}.pem"
        file.write_text(cert.read_text() + key.read_text())
        return file

    async def fairlead(self, *words: str) -> int:
        return await asyncio.to_thread(main, ["lb", "certificate", *words])

    async def put(self, name: str, host: str, key_file: Path | None = None) -> bytes:
        """What clients are to be shown, DER."""
        file = self.pem(host)
        assert 0 == await self.fairlead("put", name, str(file), "--key-file", str(key_file or self.key_file))
        return first_der(file.read_text())

    async def serves(self, host: str, expected: bytes) -> None:
        port = self.place.settings.https_port

        async def shown() -> bool:
            return expected == await shown_certificate(port, host)

        await eventually(f"the certificate of {host} is shown", shown, within_s=WITHIN_S)

    async def told(self, place: str, why: str) -> None:
        async def there() -> bool:
            return why in (await self.certificates())["problems"].get(place, "")

        await eventually(f"{place}: {why}", there, within_s=WITHIN_S)

    async def well(self) -> None:
        async def none() -> bool:
            return not (await self.certificates())["problems"]

        await eventually("nothing is wrong", none, within_s=WITHIN_S)

    async def certificates(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.place.status())["certificates"]
        return found

    async def closed(self) -> bool:
        try:
            await shown_certificate(self.place.settings.https_port, HOST)
        except ConnectionRefusedError:
            return True
        return False

    async def counted(self) -> bool:
        return "fairlead_lb_bad_certificates 3.0" in (await fetch(self.place.admin, "/metrics"))[1]

    async def record(self, name: str) -> Sealed:
        node = await self.place.registry.read(paths.below(paths.CERTIFICATES, name))
        return decode(Sealed, node.data, place=name)

    async def write(self, name: str, data: bytes) -> None:
        await self.place.registry.write(f"{paths.CERTIFICATES}/{name}", data)


def make_key(file: Path) -> None:
    with file.open("w") as stream:
        words = [sys.executable, "-m", "fairlead_console", "lb", "certificate", "key"]
        subprocess.run(words, stdout=stream, check=True)


@pytest.fixture
async def stage(short_dir: Path) -> AsyncIterator[Stage]:
    keys = short_dir / "keys"
    await asyncio.to_thread(make_key, keys)
    async with (
        registry_of_verbs(short_dir) as (url, server),
        balancer(short_dir, url, https_port=free_port(), certificate_key_file=str(keys)) as place,
    ):
        task = await Task("one").start()
        await place.applied(await place.publish(task.member(), routes=[route(vhosts=(HOST,))]))
        yield Stage(short_dir, place, server)


async def test_certificates_come_change_and_go_without_a_reload(stage: Stage):
    """After the first, which brings TLS. The key stands nowhere unsealed but in files of our own."""
    await stage.serves(HOST, await stage.put("default", HOST))
    await stage.serves("a.example", await stage.put("a", "a.example"))
    await stage.serves("a.example", await stage.put("a.pem", "a.example"))
    default = await shown_certificate(stage.place.settings.https_port, HOST)
    assert 0 == await stage.fairlead("remove", "a")
    await stage.serves("a.example", default)

    async def alone() -> bool:
        served = (await stage.certificates())["served"]
        return [("default.pem", "registry")] == [(c["file"], c["from"]) for c in served]

    await eventually("the status says what is served", alone, within_s=WITHIN_S)
    status = await stage.place.status()
    kept = stage.folder / "data" / "lb" / "registry-certs"
    assert (1, {}) == (status["reloads"], status["certificates"]["problems"])
    assert [0o600, 0o700, 0o600] == [p.stat().st_mode & 0o777 for p in (kept / "default.pem", kept, stage.key_file)]
    assert "PRIVATE" not in str(status) + (await fetch(stage.place.admin, "/_haproxy_getconfig"))[1]
    assert b"BEGIN" not in (await stage.record("default")).data


async def test_the_default_and_the_last_one_can_go_too(stage: Stage):
    """HAProxy never gives up the one it began with: that takes a reload. Without any there is no HTTPS. Keys turn meanwhile:
    the new one opens before it seals, and in the end the old one is gone.
    """
    await stage.serves(HOST, await stage.put("default", HOST))
    old, new = stage.key_file.read_text(), vault.new_key() + "\n"
    stage.key_file.write_text(new + old)
    assert 0 == await stage.fairlead("reseal", "--key-file", str(stage.key_file))
    stage.key_file.write_text(new)
    other = await stage.put("b", "b.example")
    await stage.serves("b.example", other)
    await stage.well()
    assert 0 == await stage.fairlead("remove", "default")
    await stage.serves(HOST, other)
    assert 0 == await stage.fairlead("remove", "b")

    await eventually("HTTPS is off", stage.closed, within_s=WITHIN_S)
    assert (200, "one") == await stage.place.ask(HOST)


async def test_what_is_not_to_be_believed_changes_nothing(stage: Stage):
    """Another's key, changed bytes, two records in one another's places, a name that leads elsewhere; each is named. The good
    ones are served on, also by a balancer that begins anew without the registry.
    """
    shop, other = await stage.put("default", HOST), await stage.put("a", "a.example")
    await stage.serves(HOST, shop)
    await stage.serves("a.example", other)
    good, second = await stage.record("a"), await stage.record("default")
    foreign = stage.folder / "foreign"
    foreign.write_text(vault.new_key())
    foreign.chmod(0o600)

    await stage.put("a", "evil.example", foreign)
    await stage.told("registry: a", "which the key file does not have; its last good content is served on")
    await stage.write(
        "a", encode(Sealed(key=good.key, nonce=good.nonce, data=bytes([good.data[0] ^ 1]) + good.data[1:]))
    )
    await stage.told("registry: a", "was changed, or sealed under another name")
    await stage.write("a", encode(second))
    await stage.write("default", encode(good))
    await stage.write("%2E%2E%2Fevil", encode(good))
    await stage.told("registry: default", "was changed, or sealed under another name")
    await stage.told("registry: %2E%2E%2Fevil", "not a name for a certificate")

    await eventually("all three are counted", stage.counted, within_s=WITHIN_S)
    await stage.serves(HOST, shop)
    await stage.serves("a.example", other)
    assert [] == [*(stage.folder / "data").rglob("*evil*")]
    await outlived(stage, shop)


async def outlived(stage: Stage, shop: bytes) -> None:
    """The balancer begins anew while the registry is away; HAProxy too."""
    await stage.place.kill_daemon()
    stage.place.kill_haproxy()
    await asyncio.to_thread(stage.server.stop)
    await stage.place.start()

    await stage.serves(HOST, shop)


def test_a_key_is_no_sight_for_a_terminal():
    """It is written to a file, of mode 0600 whatever the umask says."""
    control, terminal = os.openpty()
    words = [sys.executable, "-m", "fairlead_console", "lb", "certificate", "key"]
    done = subprocess.run(words, stdout=terminal, stderr=subprocess.PIPE, check=False, text=True)
    os.close(control)
    os.close(terminal)

    assert (1, True) == (done.returncode, "a key is a secret" in done.stderr)
