"""Response rate limiting as in BIND: who is made to be flooded with our replies gets few of them.

An account for each (client's network, kind of answer, name) holds up to a second's replies and may be overdrawn by
`window_s` seconds' worth; a reply from an overdrawn account is not sent, but for every `slip`th, which goes out
truncated: a real client then asks over TCP, where nothing is limited.
"""

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv6Address, ip_address

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.acl import NOBODY, Acl

ACCOUNTS = 100_000
FORGOTTEN_AT_ONCE = 1000


class Kind(Enum):
    ANSWER = "answer"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    ERROR = "error"


class Verdict(Enum):
    SEND = "send"
    SLIP = "slip"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Replies a second; 0 is no limit for that kind."""

    per_second: dict[Kind, int]
    window_s: int = 15
    slip: int = 2
    """Every so manieth withheld reply goes out truncated; 0: none."""
    v4_bits: int = 24
    v6_bits: int = 56
    report_only: bool = False
    exempt: Acl = NOBODY


@dataclass(slots=True)
class _Account:
    balance: float
    last_s: float
    withheld: int = 0


Key = tuple[bytes, Kind, bytes]


@dataclass(slots=True)
class Limiter:
    """Owned by one task. Bounded: of too many accounts the oldest are forgotten."""

    rates: Rates
    counts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))
    """Verdicts so far, those of `report_only` as they would have been."""
    _accounts: dict[Key, _Account] = field(default_factory=dict)
    _networks: dict[str, bytes | None] = field(default_factory=dict)

    def judge(self, client: str, reply: bytes, name: bytes, now_s: float) -> Verdict:
        """Of a reply about to go out over UDP to a client without a valid cookie; `name`: what its account is for."""
        network = self._network(client)
        kind = kind_of(reply)
        rate = self.rates.per_second.get(kind, 0)
        if network is None or not rate:
            return Verdict.SEND
        verdict = self._withdraw((network, kind, b"" if kind is Kind.ERROR else name), rate, now_s)
        self.counts[verdict] += 1
        return Verdict.SEND if self.rates.report_only else verdict

    @property
    def accounts(self) -> int:
        return len(self._accounts)

    def _withdraw(self, key: Key, rate: int, now_s: float) -> Verdict:
        account = self._accounts.get(key)
        if account is None:
            if len(self._accounts) >= ACCOUNTS:
                for old in tuple(self._accounts)[:FORGOTTEN_AT_ONCE]:
                    del self._accounts[old]
            account = self._accounts[key] = _Account(rate, now_s)
        earned = max(0.0, now_s - account.last_s) * rate
        account.last_s = now_s
        account.balance = max(min(rate, account.balance + earned) - 1, -self.rates.window_s * rate)
        if account.balance >= 0:
            account.withheld = 0
            return Verdict.SEND
        account.withheld += 1
        return Verdict.SLIP if self.rates.slip and account.withheld % self.rates.slip == 0 else Verdict.DROP

    def _network(self, client: str) -> bytes | None:
        """The client's network; None when it is exempt."""
        if client in self._networks:
            return self._networks[client]
        if len(self._networks) >= ACCOUNTS:
            self._networks.clear()
        found = self._networks[client] = None if self.rates.exempt.admits(client) else self._masked(client)
        return found

    def _masked(self, client: str) -> bytes:
        try:
            address = ip_address(client)
        except ValueError:
            return b""
        bits = self.rates.v6_bits if isinstance(address, IPv6Address) else self.rates.v4_bits
        host_bits = address.max_prefixlen - bits
        return (int(address) >> host_bits << host_bits).to_bytes(len(address.packed), "big")


def kind_of(reply: bytes) -> Kind:
    code = reply[3] & 15
    if code == wire.NXDOMAIN:
        return Kind.NXDOMAIN
    if code != wire.NOERROR:
        return Kind.ERROR
    return Kind.ANSWER if reply[6] or reply[7] or reply[2] & wire.TC >> 8 else Kind.NODATA
