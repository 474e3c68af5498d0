"""Which records of a set a client gets, and in what orders: nearest first, by weight, a steady part when it is cut.

Tiers: 0 the client's own machine, 1 its zone, 2 its region, 3 elsewhere. Where nothing is known all stand in tier 0.
A set that must be cut keeps, tier by tier, the records with the highest rendezvous scores for the client's network:
each network sees the same part while its records live, one record's going moves only that one, and over many networks
every record is given in proportion to its weight.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import groupby

from fairlead_discovery.decisions import localities

MASK = (1 << 64) - 1
WEIGHT_STEPS = 100  # of unequal SRV weights: the largest is so many times the setting's weight

Chance = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One record's data, how near it stands, how much it should get (relative; 0: only when nothing else is there)."""

    rdata: bytes
    tier: int = 0
    weight: float = 1.0


def steady(candidates: Sequence[Candidate], network: bytes) -> list[Candidate]:
    """All, in the order in which `network` prefers them: the first n of it are what it gets of n."""
    seed = _seed(network)
    return sorted(candidates, key=lambda c: (c.tier, -_score(seed, c), c.rdata))


def part(candidates: Sequence[Candidate], network: bytes, count: int) -> list[Candidate]:
    """The `count` that `network` gets. Their weights are what is left to be done by the order among them.

    A heavy record is in more networks' parts already; in those, it must not be preferred once more.
    """
    if count >= len(candidates):
        return list(candidates)
    total = sum(c.weight for c in candidates)
    even = total / count if count else 0.0
    return [replace(c, weight=max(c.weight, even)) for c in steady(candidates, network)[:count]]


def merged(candidates: Sequence[Candidate], least: int) -> list[Candidate]:
    """A tier of fewer than `least` records is too small to serve its clients alone: it counts as the next one."""
    becomes = localities.merged(Counter(c.tier for c in candidates), least)
    return [c if becomes[c.tier] == c.tier else replace(c, tier=becomes[c.tier]) for c in candidates]


def orders(candidates: Sequence[Candidate], count: int, chance: Chance) -> Iterator[list[Candidate]]:
    """`count` orders: near before far; within a tier each is first as often as its weight says, equal ones equally."""
    ranked = sorted(candidates, key=lambda c: c.tier)
    tiers = [_turns(list(group), count, chance) for _, group in groupby(ranked, key=lambda c: c.tier)]
    for together in zip(*tiers, strict=True):
        yield [candidate for tier in together for candidate in tier]


def how_many(candidates: Sequence[Candidate], most: int) -> int:
    """Orders worth building: one for each record that can come first, `most` where weights need fine steps."""
    nearest = min((c.tier for c in candidates), default=0)
    tiers = [[c.weight for c in candidates if c.tier == nearest], [c.weight for c in candidates if c.tier != nearest]]
    if any(len(set(weights)) > 1 for weights in tiers):
        return most
    return min(max(map(len, tiers), default=1), most)


def numbers(candidates: Sequence[Candidate]) -> list[int]:
    """By what to multiply SRV weights: 1 for all when all are equal, else in proportion, WEIGHT_STEPS for the largest.

    Only what has no weight at all gets 0 (RFC 2782: a very small chance).
    """
    largest = max((c.weight for c in candidates), default=0.0)
    if largest <= 0 or all(c.weight == largest for c in candidates):
        return [1] * len(candidates)
    return [max(1, round(WEIGHT_STEPS * c.weight / largest)) if c.weight > 0 else 0 for c in candidates]


def _turns(tier: list[Candidate], count: int, chance: Chance) -> Iterator[list[Candidate]]:
    if len({c.weight for c in tier}) == 1:
        order = sorted(tier, key=lambda _: chance())
        for start in range(count):
            at = start % len(order)
            yield order[at:] + order[:at]
        return
    for first in _firsts(tier, count, chance):
        rest = sorted((c for c in tier if c is not first), key=lambda c: _lot(c.weight, chance()))
        yield [first, *rest]


def _firsts(tier: Sequence[Candidate], count: int, chance: Chance) -> Iterator[Candidate]:
    """Smooth weighted turns: any stretch of them is near the weights. A chance at the start, so that light ones with
    less than one turn in a round have theirs in some round.
    """
    total = sum(c.weight for c in tier)
    due = [c.weight * chance() for c in tier]
    for _ in range(count):
        due = [have + c.weight for have, c in zip(due, tier, strict=True)]
        at = max(range(len(tier)), key=due.__getitem__)
        due[at] -= total
        yield tier[at]


def _lot(weight: float, chance: float) -> float:
    """Sorted by these, all are drawn one after the other by weight (Efraimidis and Spirakis)."""
    return -math.log(1.0 - chance) / weight if weight > 0 else math.inf


def _score(seed: int, candidate: Candidate) -> float:
    """Weighted rendezvous: -weight / ln(h), h between 0 and 1, both excluded."""
    if candidate.weight <= 0:
        return 0.0
    return -candidate.weight / math.log((_mixed(seed ^ _seed(candidate.rdata)) + 0.5) / (MASK + 1))


@lru_cache(maxsize=65536)
def _seed(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def _mixed(number: int) -> int:
    """SplitMix64's finisher: every bit of the result depends on every bit of `number`."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & MASK
    number = (number ^ number >> 27) * 0x94D049BB133111EB & MASK
    return number ^ number >> 31
