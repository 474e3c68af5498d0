"""What upstreams have said, for as long as it holds and a while longer. Bounded in entries and in bytes.

An answer is kept under its whole question and given for that question only: nothing that came along with it is ever
taken for an answer to another, so an upstream's reply can poison no other name.
"""

from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

from fairlead_dns.decisions import wire
from fairlead_dns.decisions.forward_wire import Reply

ENTRY_BYTES = 600
"""About what an entry costs beside its records."""
TTL_BYTES = 100
STALE_TTL_S = 30
"""TTL of an answer that is past its time, and how long no upstream is asked again after all failed (RFC 8767)."""
POPULAR_HITS = 3
PREFETCH_LEAST_S = 10
PREFETCH_SHARE = 10
"""A popular answer is asked for again in the last tenth of its time."""


class Key(NamedTuple):
    """`name` folded. The class is always IN; DO and CD change what an upstream says."""

    name: bytes
    kind: int
    do: bool
    cd: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Times in seconds."""

    entries: int = 20_000
    bytes: int = 32 * 1024 * 1024
    longest_s: int = 86_400
    negative_longest_s: int = 3_600
    failure_s: int = 5
    """At most 300 (RFC 9520)."""
    stale_s: int = 86_400
    """How long after its time an answer may still be given while no upstream answers. 0: never."""
    prefetch: bool = True


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer: an extended error (RFC 8914), and its text, which names no upstream."""

    ede: int
    text: str


@dataclass(slots=True, eq=False)
class Entry:
    """One answer, or that there is none."""

    key: Key
    reply: Reply
    stored_s: float
    keep_s: int
    failure: Failure | None = None
    hits: int = 0
    touched: bool = False
    """Asked for since it was last considered for eviction."""
    quiet_until_s: float = 0.0
    """Upstreams have failed to renew it: until then they are not asked again."""

    _aged: tuple[int, bytes] = (-1, b"")

    def records(self, now_s: float) -> bytes:
        """As they are to be given now: TTLs count down, rounded so that none is given too long."""
        age_s = ceil(now_s - self.stored_s)
        if self._aged[0] != age_s:
            self._aged = (age_s, self.reply.aged(age_s))
        return self._aged[1]

    def fresh(self, now_s: float) -> bool:
        return now_s - self.stored_s < self.keep_s

    @property
    def cost(self) -> int:
        return ENTRY_BYTES + 2 * len(self.reply.records) + TTL_BYTES * len(self.reply.ttls)


@dataclass(slots=True)
class Cache:
    """Owned by one task. Oldest first out, what has been asked for meanwhile gets a second round."""

    policy: Policy
    entries: dict[Key, Entry] = field(default_factory=dict)
    used_bytes: int = 0
    evicted: int = 0

    def find(self, key: Key, now_s: float) -> Entry | None:
        """Fresh, or still good to be given stale; None otherwise."""
        entry = self.entries.get(key)
        if entry is None:
            return None
        if now_s - entry.stored_s >= entry.keep_s + (0 if entry.failure else self.policy.stale_s):
            self._remove(entry)
            return None
        entry.touched = True
        return entry

    def keep(self, key: Key, reply: Reply, now_s: float) -> Entry | None:
        """None when the reply may not be kept; an older one is then forgotten."""
        limit_s = self.policy.longest_s if _is_positive(reply) else self.policy.negative_longest_s
        keep_s = min(reply.keep_s or 0, limit_s)
        if not keep_s or not reply.useful or reply.cut:
            self.forget(key)
            return None
        return self._put(Entry(key, reply, now_s, keep_s))

    def keep_failure(self, key: Key, failure: Failure, now_s: float) -> Entry:
        """The entry to answer with: the older good one, quiet for a while, or the failure, kept shortly."""
        older = self.find(key, now_s)
        if older is not None and not older.failure:
            older.quiet_until_s = now_s + STALE_TTL_S
            return older
        return self._put(Entry(key, Reply(wire.SERVFAIL), now_s, self.policy.failure_s, failure))

    def wants_prefetch(self, entry: Entry, now_s: float) -> bool:
        return entry.hits >= POPULAR_HITS and entry.failure is None and now_s >= self.settled_until(entry)

    def settled_until(self, entry: Entry) -> float:
        """When it should be asked for again, if it is popular; otherwise when its time is over."""
        end_s = entry.stored_s + entry.keep_s
        if not self.policy.prefetch or entry.keep_s < PREFETCH_LEAST_S:
            return end_s
        return end_s - entry.keep_s / PREFETCH_SHARE

    def forget(self, key: Key) -> None:
        if (entry := self.entries.get(key)) is not None:
            self._remove(entry)

    def _put(self, entry: Entry) -> Entry:
        self.forget(entry.key)
        if entry.cost > self.policy.bytes // 8 or not self.policy.entries:
            return entry
        self.entries[entry.key] = entry
        self.used_bytes += entry.cost
        while len(self.entries) > self.policy.entries or self.used_bytes > self.policy.bytes:
            self._evict()
        return entry

    def _evict(self) -> None:
        """Ends: the second time round an entry is untouched."""
        oldest = next(iter(self.entries.values()))
        if oldest.touched and len(self.entries) > 1:
            oldest.touched = False
            self.entries[oldest.key] = self.entries.pop(oldest.key)
            return
        self._remove(oldest)
        self.evicted += 1

    def _remove(self, entry: Entry) -> None:
        del self.entries[entry.key]
        self.used_bytes -= entry.cost


def _is_positive(reply: Reply) -> bool:
    return reply.rcode == wire.NOERROR and reply.counts[0] > 0
