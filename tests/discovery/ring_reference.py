"""The ring once more, from its specification in docs/ring.md, as another language would write it: plainly.

Shares no code with the real one. `python ring_reference.py` prints the golden vectors (ring_vectors.json).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).with_name("ring_vectors.json")
Member = Mapping[str, Any]
LEVELS = (("zone",), ("zone", "rack"), ("zone", "rack", "machine"), ("zone", "rack", "machine", "name"))


def word(data: bytes, at: int) -> int:
    return int.from_bytes(data[8 * at : 8 * at + 8], "big")


def slot(key: str, slots: int) -> int:
    return word(hashlib.sha256(key.encode()).digest(), 0) * slots // 2**64


def points(name: str, count: int) -> list[int]:
    return [word(hashlib.sha256(f"{name}#{i // 4}".encode()).digest(), i % 4) for i in range(count)]


def full(member: Member) -> dict[str, Any]:
    """With every key; a member without a machine has one of its own."""
    own = {"name": "", "weight": 1, "machine": "", "rack": "", "zone": "", **member}
    own["milli"] = floor(Fraction(str(own["weight"])) * 1000 + Fraction(1, 2))
    own["machine"] = f"m{own['machine']}" if own["machine"] else f"n{own['name']}"
    return own


def table(shape: Mapping[str, int], given: Sequence[Member]) -> list[list[str]]:
    slots, replicas = shape["slots"], shape["replicas"]
    members = sorted(map(full, given), key=lambda m: m["name"])
    owner_of: dict[int, dict[str, Any]] = {}
    for member in members:
        count = max(1, floor(Fraction(shape["points"] * member["milli"], 1000) + Fraction(1, 2)))
        for point in points(member["name"], count):
            owner_of.setdefault(point, member)
    ring = sorted(owner_of)
    walks = {}
    for s in range(slots):
        place = s * 2**64 // slots
        walk = [p for p in ring if p >= place] + [p for p in ring if p < place]
        walks[s] = [owner_of[p] for p in walk], (walk[0] - place) % 2**64 if walk else 0
    order = sorted(range(slots), key=lambda s: (walks[s][1], s))
    most_rack, most_zone = limits(members, replicas)
    owners: list[list[dict[str, Any]]] = [[] for _ in range(slots)]
    held = {m["name"]: 0 for m in members}
    for rank in range(min(replicas, len({m["machine"] for m in members}))):
        quota = quotas(shape, members, most_rack, most_zone, rank + 1)
        for s in order:
            mine = owners[s]
            elsewhere = [m for m in walks[s][0] if m["machine"] not in [o["machine"] for o in mine]]
            zone_fits = [m for m in elsewhere if [o["zone"] for o in mine].count(m["zone"]) < most_zone]
            fits = [m for m in zone_fits if [at(o) for o in mine].count(at(m)) < most_rack]
            bounded = [m for m in fits if held[m["name"]] < quota[m["name"]]][:1]
            relaxed = (least(candidates, held, quota) for candidates in (fits, zone_fits, elsewhere))
            chosen = next(found for found in (bounded, *relaxed) if found)[0]
            mine.append(chosen)
            held[chosen["name"]] += 1
    return [[o["name"] for o in mine] for mine in owners]


def least(candidates: Sequence[Member], held: Mapping[str, int], quota: Mapping[str, int]) -> list[Member]:
    """Whoever has the least of its quota, in millionths, the first by name among equals."""
    by_name = {m["name"]: m for m in candidates}
    filled = sorted(by_name, key=lambda name: (held[name] * 1_000_000 // max(1, quota[name]), name))
    return [by_name[name] for name in filled[:1]]


def at(member: Member) -> tuple[str, str]:
    return member["zone"], member["rack"]


def limits(members: Sequence[Member], replicas: int) -> tuple[int, int]:
    """The most copies of a slot in one rack, in one zone."""
    zones, racks = {m["zone"] for m in members}, {at(m) for m in members}
    racked = len(racks) > 1 and any(m["rack"] for m in members)
    return max(1, 2 * replicas // 3) if racked else replicas, ceil(Fraction(replicas, max(1, len(zones))))


def quotas(
    shape: Mapping[str, int], members: Sequence[Member], most_rack: int, most_zone: int, copies: int
) -> dict[str, int]:
    slots = shape["slots"]
    most = (slots * min(most_zone, copies), slots * min(most_rack, copies), slots, slots)
    groups: dict[tuple[str, ...], int] = {(): slots * copies}
    for level, keys in enumerate(LEVELS):
        finer: dict[tuple[str, ...], int] = {}
        for group, total in groups.items():
            parts: dict[tuple[str, ...], int] = {}
            for m in members:
                key = tuple(m[k] for k in keys)
                if key[: len(group)] == group:
                    parts[key] = parts.get(key, 0) + m["milli"]
            finer |= dict(zip(parts, divide(total, list(parts.values()), most[level]), strict=True))
        groups = finer
    return {group[-1]: ceil(Fraction(got * shape["bound_percent"], 100)) for group, got in groups.items()}


def divide(total: int, weights: Sequence[int], most: int) -> list[int]:
    """Water filling, then largest remainders, the first of equals first."""
    fixed: set[int] = set()
    while True:
        left = total - most * len(fixed)
        rest = [i for i in range(len(weights)) if i not in fixed]
        share = {i: Fraction(left * weights[i], sum(weights[j] for j in rest)) for i in rest}
        over = {i for i in rest if share[i] >= most}
        if not over:
            break
        fixed |= over
    out = [most if i in fixed else floor(share[i]) for i in range(len(weights))]
    missing = left - sum(floor(share[i]) for i in rest)
    for i in sorted(rest, key=lambda i: floor(share[i]) - share[i])[:missing]:
        out[i] += 1
    return out


# --- golden vectors

KEYS = ["", "a", "user:42", "user:43", "/orders/2024/11", "żółw", "鍵", "\U0001f511", "line\nbreak"]
RINGS: list[tuple[str, dict[str, int], list[dict[str, Any]]]] = [
    ("one member", {"slots": 16, "points": 8, "replicas": 1, "bound_percent": 100}, [{"name": "only"}]),
    (
        "three equal members",
        {"slots": 64, "points": 32, "replicas": 1, "bound_percent": 100},
        [{"name": "a"}, {"name": "b"}, {"name": "c"}],
    ),
    (
        "weights, two copies",
        {"slots": 64, "points": 32, "replicas": 2, "bound_percent": 100},
        [{"name": "a", "weight": 0.5}, {"name": "b"}, {"name": "c", "weight": 2}, {"name": "ü"}],
    ),
    (
        "loosely bound",
        {"slots": 64, "points": 16, "replicas": 1, "bound_percent": 125},
        [{"name": f"n{i}"} for i in range(5)],
    ),
    (
        "three copies in two racks",
        {"slots": 64, "points": 16, "replicas": 3, "bound_percent": 100},
        [{"name": f"n{i}", "rack": f"r{i % 2}"} for i in range(5)],
    ),
    (
        "three copies in three zones, one of them small, two members on one machine",
        {"slots": 64, "points": 16, "replicas": 3, "bound_percent": 100},
        [
            {"name": f"n{i}", "zone": "abc"[min(i // 3, 2)], "rack": f"r{i % 2}", "machine": "m" if i < 2 else ""}
            for i in range(8)
        ],
    ),
    (
        "fewer machines than copies",
        {"slots": 16, "points": 8, "replicas": 3, "bound_percent": 100},
        [{"name": "a", "machine": "m"}, {"name": "b", "machine": "m"}, {"name": "c"}],
    ),
]


def vectors() -> dict[str, Any]:
    return {
        "slots_of_keys": [{"key": key, "slots": 16384, "slot": slot(key, 16384)} for key in KEYS],
        "points": [{"name": name, "points": [f"{p:016x}" for p in points(name, 6)]} for name in ("a", "n-1", "ü")],
        "rings": [
            {"about": about, "shape": shape, "members": members, "owners": table(shape, members)}
            for about, shape, members in RINGS
        ],
    }


if __name__ == "__main__":
    rows = (f"{json.dumps(key)}: [\n" + ",\n".join(map(json.dumps, found)) + "\n]" for key, found in vectors().items())
    print("{\n" + ",\n".join(rows) + "\n}")
