"""One serial for one content where no registry's revision says it: name servers of one Mesos master keep digest -> serial.

Each reads the master for itself, at other moments than the others, and may miss what they have seen. Whoever is first with
a content gives it the next serial; whoever comes to the same content later says the same one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from fairlead_dns.decisions.compose import RRset
from fairlead_dns.decisions.journal import SERIALS, later
from fairlead_dns.decisions.ledger import Ledger

REMEMBERED = 256
"""Contents; the ones before are given a new serial when they come back, as they would be anyway."""
DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Word:
    """What stands in the registry: the last contents and their serials, the newest last."""

    said: tuple[tuple[int, str], ...] = ()

    @property
    def newest(self) -> int | None:
        return self.said[-1][0] if self.said else None

    def serial_of(self, digest: str) -> int | None:
        return next((serial for serial, known in self.said if known == digest), None)

    def with_serial(self, serial: int, digest: str) -> "Word":
        others = tuple(each for each in self.said if each[1] != digest)
        return Word((*others, (serial, digest))[-REMEMBERED:])

    @property
    def text(self) -> str:
        """`<serial> <digest>` a line."""
        return "".join(f"{serial} {digest}\n" for serial, digest in self.said)


def parse_word(text: str) -> Word:
    """Lines that nobody of ours wrote are left out."""
    rows = (line.split(" ") for line in text.splitlines())
    return Word(tuple((int(row[0]) % SERIALS, row[1]) for row in rows if len(row) == 2 and row[0].isdecimal()))


def agree(word: Word, digest: str, known: int | None, *, now_s: float) -> tuple[int, Word | None]:
    """The serial of a content, and what then has to stand in the registry (None: what stands there). `known` is the
    serial we say now: one that is not later is no serial for another content, so that a content that comes back gets a
    new one. The first of all is the time, as Mesos-DNS' serials were.
    """
    there = word.serial_of(digest)
    if there is not None and (known is None or there == known or later(there, known)):
        return there, None
    serials = [serial for serial in (word.newest, known) if serial is not None]
    last = next((s for s in serials if not any(later(o, s) for o in serials)), int(now_s) - 1)
    serial = (last + 1) % SERIALS
    return serial, word.with_serial(serial, digest)


@dataclass(slots=True)
class Content:
    """A digest of all names, but for those in `apart`, that follows the ledger: a change costs its own names."""

    ledger: Ledger
    apart: frozenset[bytes]
    """What each server says of itself."""
    _settled: int | None = None

    def digest(self) -> str:
        """Of this moment."""
        return _text(self._base() + self._changes())

    def settling(self) -> None:
        """To be called when what the names hold is about to be settled."""
        self._settled = self._base() + self._changes()

    def _base(self) -> int:
        """Of the last settling; before the first one, of this moment."""
        if self._settled is not None:
            return self._settled
        ledger = self.ledger
        return _sum((name, ledger.held(name)) for name in self._names({*ledger.zone.names, *ledger.gone()}))

    def _changes(self) -> int:
        changed = list(self._names(self.ledger.before))
        now = _sum((name, self.ledger.live(name)) for name in changed)
        return now - _sum((name, self.ledger.before[name]) for name in changed)

    def _names(self, names: Iterable[bytes]) -> Iterable[bytes]:
        return (name for name in names if name not in self.apart)


def _sum(held: Iterable[tuple[bytes, tuple[RRset, ...]]]) -> int:
    """In no order, so that what changes can be taken out and put in."""
    return sum(_number(name, sets) for name, sets in held if sets)


def _number(name: bytes, sets: tuple[RRset, ...]) -> int:
    said = repr((name, [(each.kind, each.ttl_s, each.data) for each in sets])).encode()
    return int.from_bytes(sha256(said).digest(), "big")


def _text(number: int) -> str:
    return sha256(b"%x" % (number % 2**256)).hexdigest()[: 2 * DIGEST_BYTES]
