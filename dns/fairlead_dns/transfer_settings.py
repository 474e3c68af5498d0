"""What `fairlead dns` can be told about zone files and secondaries, and what follows from it."""

from dataclasses import dataclass
from pathlib import Path

from fairlead_daemon.errors import BadSettings
from fairlead_dns.adapters.regular import read_text
from fairlead_dns.decisions import tsig, wire
from fairlead_dns.decisions.acl import Acl, parse_networks
from fairlead_dns.decisions.forward_upstreams import Place, parse_place
from fairlead_dns.decisions.transfer import Permit
from fairlead_dns.forward_settings import ForwardSettings

MEGABYTE = 1024 * 1024
EVERYONE = ("any",)


class TransferSettings(ForwardSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing may be transferred unless `transfers` says so."""

    zones_dir: str = ""
    """Folder of master files: each `NAME.zone` in it is served as zone NAME; read again when it changes and on SIGHUP."""
    keys_file: str = ""
    """TSIG keys as `tsig-keygen` prints them; a file that only its owner may read. Read again on SIGHUP."""
    transfers: tuple[str, ...] = ()
    """Who may fetch whole zones (AXFR, IXFR): `10.0.0.0/8`, `key:NAME`, or `10.0.0.0/8 key:NAME` for both at once."""
    transfers_at_once: int = 8
    """Most whole zones sent at once; a client beyond that gets SERVFAIL and comes again."""
    secondaries: tuple[str, ...] = ()
    """Servers told of each new serial (NOTIFY): `ip`, `ip:port` or `ip:port key:NAME`, at most a few times a second."""
    journal_changes: int = 10_000
    """Changes kept of each zone for IXFR and history; a secondary further behind fetches the whole zone."""
    journal_mb: float = 32.0
    """Most memory of each zone's journal, in MiB; the oldest changes go first."""
    journal_kept: bool = True
    """Whether the journal of the registry's names is kept in data_dir too, so that IXFR and history outlive a restart."""


@dataclass(frozen=True, slots=True)
class Secondary:
    """Who is told of new serials; with a key, signed."""

    place: Place
    key: tsig.Key | None = None


@dataclass(frozen=True, slots=True)
class Peers:
    """Who may fetch, who is told, by which keys."""

    keys: dict[bytes, tsig.Key]
    permits: tuple[Permit, ...]
    secondaries: tuple[Secondary, ...]


def peers(settings: TransferSettings) -> Peers:
    """Reads the key file. Raises BadSettings naming the key of the settings."""
    _check("transfers_at_once", settings.transfers_at_once, 1, 1000)
    _check("journal_changes", settings.journal_changes, 0, 1_000_000)
    _check("journal_mb", settings.journal_mb, 0, 4096)
    keys = _keys(settings)
    return Peers(
        keys,
        tuple(_permit(text, keys) for text in settings.transfers),
        tuple(_secondary(text, keys) for text in settings.secondaries),
    )


def _keys(settings: TransferSettings) -> dict[bytes, tsig.Key]:
    if not settings.keys_file:
        return {}
    file = Path(settings.keys_file)
    try:
        if file.stat().st_mode & 0o077:
            raise BadSettings(f"keys_file: {file} is open to others: chmod 600 it")
        return tsig.parse_keys(read_text(file))
    except (OSError, ValueError) as error:
        raise BadSettings(f"keys_file: {file}: {error}") from error


def _permit(text: str, keys: dict[bytes, tsig.Key]) -> Permit:
    networks, key = _parts("transfers", text, keys)
    try:
        return Permit(Acl(parse_networks(networks or EVERYONE)), None if key is None else key.name)
    except ValueError as error:
        raise BadSettings(f"transfers: {error}") from error


def _secondary(text: str, keys: dict[bytes, tsig.Key]) -> Secondary:
    places, key = _parts("secondaries", text, keys)
    if len(places) != 1:
        raise BadSettings(f"secondaries: {text!r} names no one address, expected ip:port and perhaps key:NAME")
    place = parse_place("secondaries", places[0])
    if place.transport != "udp":
        raise BadSettings(f"secondaries: {places[0]}: NOTIFY goes over UDP only, expected ip:port")
    return Secondary(place, key)


def _parts(option: str, text: str, keys: dict[bytes, tsig.Key]) -> tuple[tuple[str, ...], tsig.Key | None]:
    """`10.0.0.0/8 key:NAME` into what is no key, and the key."""
    words = text.split()
    named = [word.removeprefix("key:") for word in words if word.startswith("key:")]
    others = tuple(word for word in words if not word.startswith("key:"))
    if not words or len(named) > 1:
        raise BadSettings(f"{option}: {text!r} is neither a network nor a key, nor one of each")
    key = keys.get(wire.parse_text(named[0]) or b"") if named else None
    if named and key is None:
        raise BadSettings(f"{option}: key {named[0]} is not in keys_file")
    return others, key


def _check(key: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise BadSettings(f"{key}: {value} is not between {least:g} and {most:g}")
