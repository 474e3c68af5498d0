"""The folder of zone files: read at the start and when they change; a broken one changes nothing."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context
from fairlead_dns.adapters import zonefiles
from fairlead_dns.adapters.zonefiles import ZoneFolder
from fairlead_dns.decisions import tsig, wire
from fairlead_dns.hiding import Hiding
from fairlead_dns.publishing import Publishing
from fairlead_dns.transfer_settings import TransferSettings, peers
from harness.names import ede, member, names, rcode, snapshot
from harness.naming import Running, running
from harness.waiting import eventually

KEY = 'key "one" { algorithm hmac-sha256; secret "c2VjcmV0c2VjcmV0"; };\n'


def write(folder: Path, text: str, *, serial: int = 1, name: str = "file.test.zone") -> None:
    """As an editor does it: another file in its place."""
    folder.mkdir(exist_ok=True)
    fresh = folder / "fresh"
    fresh.write_text(f"$TTL 60\n@ SOA ns root {serial} 3600 600 86400 5\n@ NS ns\nns A 10.0.0.1\n{text}")
    fresh.replace(folder / name)


class Heard:
    """A ZoneFolder and what it told."""

    def __init__(self, folder: Path) -> None:
        self.told: list[str] = []
        self.folder = ZoneFolder(folder, self._took, lambda apex: self.told.append(f"{wire.text(apex)} refused"))

    def _took(self, apex, zone, change) -> None:
        self.told.append(f"{wire.text(apex)} {change.serial_before if change else '-'} {zone.serial if zone else '-'}")


def why(caplog) -> str:
    """The reason of the one refusal in the log."""
    (reason,) = [r.__dict__["fields"]["why"] for r in caplog.records if r.getMessage() == "zone refused"]
    return reason


async def test_zones_come_change_and_go(tmp_path):
    """Named by their files; other files are none; an unchanged one is not read again."""
    write(tmp_path, "")
    (tmp_path / "notes.txt").write_text("no zone")
    heard = Heard(tmp_path)
    await heard.folder.look()
    await heard.folder.look()
    write(tmp_path, "a A 10.0.0.2", serial=2)
    await heard.folder.look()
    (tmp_path / "file.test.zone").unlink()
    await heard.folder.look()

    assert ["file.test - 1", "file.test 1 2", "file.test - -"] == heard.told


async def test_a_change_of_an_included_file_is_a_change_of_the_zone(tmp_path):
    """And only of the zone that includes it."""
    write(tmp_path, "$INCLUDE hosts.inc\n")
    write(tmp_path, "", name="other.test.zone")
    (tmp_path / "hosts.inc").write_text("a A 10.0.0.2\n")
    heard = Heard(tmp_path)
    await heard.folder.look()
    (tmp_path / "hosts.inc").write_text("a A 10.0.0.3\nb A 10.0.0.4\n")
    await heard.folder.look()

    assert ["file.test - 1", "other.test - 1", "file.test 1 1"] == heard.told


async def test_a_broken_file_is_refused_once_and_the_zone_stays(tmp_path, caplog):
    """With file, line and reason; taken when it is right again."""
    write(tmp_path, "")
    heard = Heard(tmp_path)
    await heard.folder.look()
    write(tmp_path, "a A 10.0.0.300", serial=2)
    for _ in range(3):
        await heard.folder.look()
    assert ["file.test - 1", "file.test refused"] == heard.told
    assert why(caplog).startswith("file.test.zone:5: ")
    assert 1 == heard.folder.loaded[b"\4file\4test\0"].zone.serial
    assert 1 == heard.folder.broken
    write(tmp_path, "a A 10.0.0.3", serial=2)
    await heard.folder.look()

    assert "file.test 1 2" == heard.told[-1]
    assert 0 == heard.folder.broken


async def test_whatever_fails_is_one_zones_affair(tmp_path, monkeypatch, caplog):
    """An error nobody thought of refuses that zone; the next one is served."""
    real = zonefiles.compile_zone

    def fails(apex, entries):
        assert apex != b"\3bad\4test\0"
        return real(apex, entries)

    monkeypatch.setattr(zonefiles, "compile_zone", fails)
    write(tmp_path, "", name="bad.test.zone")
    write(tmp_path, "")
    heard = Heard(tmp_path)
    await heard.folder.look()

    assert ["bad.test refused", "file.test - 1"] == heard.told
    assert why(caplog).startswith("bad.test.zone: AssertionError: ")


async def test_line_ends_may_be_those_of_windows(tmp_path):
    """Read as any text file."""
    write(tmp_path, "a A 10.0.0.2\r\nb A 10.0.0.3\r\n")
    heard = Heard(tmp_path)
    await heard.folder.look()

    assert ["file.test - 1"] == heard.told


async def test_of_two_files_for_one_zone_the_second_is_refused(tmp_path, caplog):
    """By name and once; the one that is served stays, whatever the other is called, until it goes."""
    write(tmp_path, "", serial=1)
    heard = Heard(tmp_path)
    await heard.folder.look()
    write(tmp_path, "", serial=2, name="FILE.test.zone")
    for _ in range(3):
        await heard.folder.look()
    refused = [r.__dict__["fields"] for r in caplog.records if "another file gives the same zone" in r.getMessage()]
    assert [{"file": "FILE.test.zone", "served": "file.test.zone"}] == refused
    assert (1, ["file.test - 1"]) == (heard.folder.broken, heard.told)
    (tmp_path / "file.test.zone").unlink()
    await heard.folder.look()

    assert (0, 2) == (heard.folder.broken, heard.folder.loaded[b"\4file\4test\0"].zone.serial)


async def test_a_fifo_is_refused_and_stops_nobody(tmp_path, caplog):
    """As zone file and as included file; nobody writes to it, nobody waits."""
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "alone.test.zone")
    write(tmp_path, "$INCLUDE pipe\n", name="bad.test.zone")
    write(tmp_path, "")
    heard = Heard(tmp_path)
    async with asyncio.timeout(20):
        await heard.folder.look()

    assert ["alone.test refused", "bad.test refused", "file.test - 1"] == heard.told
    whys = [r.__dict__["fields"]["why"] for r in caplog.records if r.getMessage() == "zone refused"]
    expected = ["alone.test.zone:0: alone.test.zone: not a regular file"]
    assert [*expected, "bad.test.zone:5: pipe: not a regular file"] == whys


async def test_a_link_out_of_the_folder_is_refused_once(tmp_path):
    """Not again at each look; and read when something else stands in its place."""
    (tmp_path / "zones").mkdir()
    write(tmp_path, "")
    os.symlink(tmp_path / "file.test.zone", tmp_path / "zones" / "file.test.zone")
    heard = Heard(tmp_path / "zones")
    for _ in range(3):
        await heard.folder.look()
    assert ["file.test refused"] == heard.told
    write(tmp_path / "zones", "")
    await heard.folder.look()

    assert ["file.test refused", "file.test - 1"] == heard.told


@pytest.mark.parametrize("file", ["../secret", "/etc/hostname", "link"])
async def test_no_file_outside_of_the_folder_is_included(tmp_path, file, caplog):
    """Neither by its path nor by a link."""
    (tmp_path / "secret").write_text("a A 10.0.0.1\n")
    write(tmp_path / "zones", f"$INCLUDE {file}\n")
    os.symlink(tmp_path / "secret", tmp_path / "zones" / "link")
    heard = Heard(tmp_path / "zones")
    await heard.folder.look()

    assert ["file.test refused"] == heard.told
    assert f"file.test.zone:5: {file} lies outside of zones_dir" == why(caplog)
    (tmp_path / "zones" / "file.test.zone").unlink()
    await heard.folder.look()
    assert (0, "file.test - -") == (heard.folder.broken, heard.told[-1])


async def test_an_unchanged_serial_is_told(tmp_path, caplog):
    """In words: secondaries would not fetch the change."""
    write(tmp_path, "")
    heard = Heard(tmp_path)
    await heard.folder.look()
    write(tmp_path, "a A 10.0.0.2")
    await heard.folder.look()

    assert "its serial did not rise: secondaries will not fetch it" in caplog.text
    assert ["file.test - 1", "file.test 1 1"] == heard.told


async def has(dns: Running, name: str, expected: tuple[str, list[str]]) -> None:
    async def same() -> bool:
        reply = await dns.ask(name)
        found = rcode(reply), sorted(str(rr.rdata) for rr in reply.rr)
        assert expected == found, found
        return True

    await eventually(f"{name} is {expected}", same, within_s=20)


async def test_the_daemon_serves_what_stands_in_the_folder(tmp_path):
    """From the start on, and after a change; SIGHUP needs no change. A broken zone is SERVFAIL, never "no such name"."""
    zones = tmp_path / "zones"
    write(zones, "a A 10.0.0.2")
    write(zones, "broken", name="broken.test.zone")
    write(zones, "", name="mesos.zone")
    write(zones, "", name="file.mesos.zone")
    async with running(tmp_path, zones_dir=str(zones)) as dns:
        await has(dns, "a.file.test", ("NOERROR", ["10.0.0.2"]))
        await has(dns, "a.broken.test", ("SERVFAIL", []))
        await has(dns, "a.mesos", ("NXDOMAIN", []))
        write(zones, "b A 10.0.0.3", serial=2)
        write(zones, "a A 10.0.0.9", name="broken.test.zone")
        await has(dns, "a.file.test", ("NXDOMAIN", []))
        await has(dns, "b.file.test", ("NOERROR", ["10.0.0.3"]))
        await has(dns, "a.broken.test", ("NOERROR", ["10.0.0.9"]))
        dns.context.reload.set()
        (zones / "file.test.zone").unlink()
        await has(dns, "b.file.test", ("REFUSED", []))
        page = (await dns.text("/metrics"))[1]

    assert "fairlead_dns_zone_files 2.0" in page
    assert 'fairlead_dns_hidden_names{zone="file.mesos"} ' in page
    assert 'fairlead_dns_serial{zone="broken.test"} 1.0' in page


async def test_a_folder_that_hangs_keeps_nobody_from_ending(tmp_path, monkeypatch):
    """As on a share that is gone, while the zones are read for the first time."""
    begun, back = threading.Event(), threading.Event()

    def hangs(_folder):
        begun.set()
        back.wait(60)
        return {}

    monkeypatch.setattr(zonefiles, "_zones", hangs)
    context = Context(name="dns", log=Log("dns"))
    starting = asyncio.create_task(Publishing(TransferSettings(zones_dir=str(tmp_path)), names(), context).start())
    await asyncio.to_thread(begun.wait, 20)
    context.stop.set()
    async with asyncio.timeout(20):
        await starting
    back.set()


async def test_a_zone_file_that_hides_names_of_endpoints_is_told(caplog):
    """When it comes and when it begins to hide something; not at each change; no more when it is gone."""
    made, apexes = names(), [b"\x08marathon\5mesos\0", b"\4file\4test\0"]
    hiding = Hiding(made, lambda: apexes)
    await hiding.look()
    made.take_snapshot(snapshot(member(0), revision=7))
    await hiding.look()
    made.take_snapshot(snapshot(member(0), member(1), revision=8))
    await hiding.look()
    counted = dict(hiding.counts)
    told = [r.__dict__["fields"] for r in caplog.records if "hides their names" in r.getMessage()]
    apexes.clear()
    await hiding.look()

    assert ["marathon.mesos", "marathon.mesos"] == [fields["zone"] for fields in told]
    assert [0, True] == [told[0]["hidden"], "web.marathon.mesos" in told[1]["such_as"]]
    assert [b"\x08marathon\5mesos\0"] == list(counted)
    assert counted[b"\x08marathon\5mesos\0"] > told[1]["hidden"] > 0
    assert {} == hiding.counts


def settings(folder: Path, keys: str = KEY, *, mode: int = 0o600, **values) -> TransferSettings:
    file = folder / "keys"
    file.write_text(keys)
    file.chmod(mode)
    return TransferSettings(keys_file=str(file), **values)


def test_peers_are_networks_keys_or_both(tmp_path):
    """Who may fetch, who is told."""
    found = peers(
        settings(
            tmp_path,
            transfers=("10.0.0.0/8", "key:one", "127.0.0.1 key:one"),
            secondaries=("10.0.0.9", "[::1]:5353 key:one"),
        )
    )
    one = b"\3one\0"
    asked = [("10.1.1.1", None), ("9.9.9.9", None), ("9.9.9.9", one), ("127.0.0.1", one)]

    assert [[True, False, False], [False] * 3, [False, True, False], [False, True, True]] == [
        [p.admits(*who) for p in found.permits] for who in asked
    ]
    assert [("10.0.0.9", 53, None), ("::1", 5353, one)] == [
        (s.place.ip, s.place.port, s.key.name if s.key else None) for s in found.secondaries
    ]
    assert {one} == set(found.keys)
    assert isinstance(found.keys[one], tsig.Key)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"mode": 0o644}, "keys_file: .*is open to others: chmod 600 it"),
        ({"keys": "key x;"}, "keys_file: .*not a key statement"),
        ({"transfers": ("10.0.0.0/40",)}, "transfers: '10.0.0.0/40' is no network"),
        ({"transfers": ("key:two",)}, "transfers: key two is not in keys_file"),
        ({"transfers": ("",)}, "transfers: '' is neither a network nor a key"),
        ({"secondaries": ("nowhere",)}, "secondaries: 'nowhere'"),
        ({"secondaries": ("key:one",)}, "secondaries: 'key:one' names no one address"),
        ({"secondaries": ("tls://10.0.0.1",)}, "secondaries: tls://10.0.0.1: NOTIFY goes over UDP only"),
        ({"transfers_at_once": 0}, "transfers_at_once: 0 is not between 1 and 1000"),
    ],
)
def test_wrong_settings_name_their_key(tmp_path, values, reason):
    """Before anything is served."""
    with pytest.raises(BadSettings, match=reason):
        peers(settings(tmp_path, **values))


async def test_what_has_not_been_read_is_refused_until_it_is(tmp_path):
    """By the names of the files alone; one that is gone when its turn comes is nobody's any more."""
    write(tmp_path, "")
    write(tmp_path, "", name="gone.test.zone")
    heard = Heard(tmp_path)
    await heard.folder.claim()
    assert ["file.test refused", "gone.test refused"] == sorted(heard.told)
    heard.told.clear()
    (tmp_path / "gone.test.zone").unlink()
    await heard.folder.look()

    assert ["file.test - 1", "gone.test - -"] == sorted(heard.told)


async def test_a_large_file_keeps_nobody_waiting_for_the_server(tmp_path, monkeypatch):
    """It listens before it reads: SERVFAIL with "not ready" for what is in the file, then the answer."""
    may, look = asyncio.Event(), ZoneFolder.look

    async def late(folder: ZoneFolder, **how: bool) -> None:
        await may.wait()
        await look(folder, **how)

    monkeypatch.setattr(ZoneFolder, "look", late)
    write(tmp_path / "zones", "a A 10.0.0.2")
    async with running(tmp_path, apex="a.file.test", until="SERVFAIL", zones_dir=str(tmp_path / "zones")) as dns:
        assert 14 == ede(await dns.ask("a.file.test"))
        may.set()
        await dns.until("a.file.test", ["10.0.0.2"])
