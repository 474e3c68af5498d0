"""Keys and values in memory that several processes share: one writes, all read, nobody waits for anybody.

    word 0: magic · BUCKETS words: where each bucket's table stands · blocks

A table is a block: how many slots, then the slots: 0 free, 1 given up, else the record's place and a part of its key's
hash. A record is a block: checksum and lengths in one word, then key and value. A word is written whole, so that a
reader finds a table and a record or those of before. What is let go is used again only when every reader has told that
it has gone on (`settle`), so that nobody reads what is being overwritten; the checksum would tell, all the same.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from zlib import crc32

MAGIC = 0x666C_646E_7301
WORD = 8
BUCKETS = 4096
FIRST_BLOCK = 1 + BUCKETS
GIVEN_UP = 1
TAG_BITS = 24
LEAST_SLOTS = 4
KEY_BYTES, VALUE_BYTES = 255, (1 << 24) - 1
TRIES = 1000
"""A reader that finds nonsense so often reads what is nonsense."""


class _TornError(Exception):
    """What was read is not whole: it is being written over."""


class StoreError(RuntimeError):
    """Full, or not what a writer writes."""


@dataclass(slots=True)
class Reader:
    """`words` may change under it at any time."""

    memory: memoryview
    words: memoryview = field(init=False)

    def __post_init__(self) -> None:
        self.words = self.memory.cast("Q")

    def get(self, key: bytes) -> bytes | None:
        """Raises StoreError when what stands there was not written by a Writer."""
        hashed = crc32(key)
        for _ in range(TRIES):
            try:
                for slot in self.slots(hashed):
                    word = self.words[slot]
                    if word == 0:
                        return None
                    if _fits(word, hashed):
                        known, value = self.read(word >> TAG_BITS)
                        if known == key:
                            return value
            except _TornError:
                continue
            return None
        raise StoreError("shared names are not readable")

    def slots(self, hashed: int) -> Iterator[int]:
        """Words of the slots in which such a key may stand, in order; after one that is free it does not."""
        table = self.words[1 + hashed % BUCKETS]
        count = self.words[table] if table else 0
        at = hashed >> 12
        return (table + 1 + (at + step) % count for step in range(count))

    def read(self, record: int) -> tuple[bytes, bytes]:
        """Key and value."""
        head = self.words[record]
        keys, values = head >> 24 & KEY_BYTES, head & VALUE_BYTES
        start = (record + 1) * WORD
        data = bytes(self.memory[start : start + keys + values])
        if crc32(data) != head >> 32:
            raise _TornError
        return data[:keys], data[keys:]


def _fits(word: int, hashed: int) -> bool:
    """Whether the slot's key may be the one of this hash."""
    return word != GIVEN_UP and word & (1 << TAG_BITS) - 1 == hashed >> 8


@dataclass(slots=True)
class Writer:
    """Owned by one task; the memory is all zeros at first. `used` words are in use or were."""

    memory: memoryview
    words: memoryview = field(init=False)
    reader: Reader = field(init=False)
    used: int = FIRST_BLOCK
    count: int = 0
    _free: dict[int, list[int]] = field(default_factory=dict)
    """Words of a block -> blocks."""
    _retired: deque[tuple[int, int, int]] = field(default_factory=deque)
    """(number of the change, block, its words): somebody may still read them."""
    _taken: dict[int, int] = field(default_factory=dict)
    """Bucket -> slots of its table that are not free."""
    change: int = 0
    """Number of the change that is being written."""

    def __post_init__(self) -> None:
        self.words = self.memory.cast("Q")
        self.reader = Reader(self.memory)
        self.words[0] = MAGIC

    @property
    def used_bytes(self) -> int:
        return self.used * WORD

    def get(self, key: bytes) -> bytes | None:
        return self.reader.get(key)

    def put(self, key: bytes, value: bytes) -> bool:
        """Returns whether it is another value than before. Raises StoreError when the memory is full."""
        hashed = crc32(key)
        slot, known = self._slot(key, hashed)
        if slot and known == value:
            return False
        word = self._write(key, value) << TAG_BITS | hashed >> 8
        if slot:
            old = self.words[slot]
            self.words[slot] = word
            self._retire(old >> TAG_BITS)
        else:
            self._enter(hashed, word)
            self.count += 1
        return True

    def remove(self, key: bytes) -> bool:
        """Returns whether it was there."""
        slot, _ = self._slot(key, crc32(key))
        if not slot:
            return False
        old = self.words[slot]
        self.words[slot] = GIVEN_UP
        self._retire(old >> TAG_BITS)
        self.count -= 1
        return True

    def settle(self, change: int) -> None:
        """Every reader has gone on to what was written at `change`: what was let go until then may be used again."""
        while self._retired and self._retired[0][0] <= change:
            _, block, words = self._retired.popleft()
            self._free.setdefault(words, []).append(block)

    def _slot(self, key: bytes, hashed: int) -> tuple[int, bytes]:
        """Word of the key's slot, and its value; 0 when it is not there."""
        for slot in self.reader.slots(hashed):
            word = self.words[slot]
            if word == 0:
                break
            if _fits(word, hashed):
                known, value = self.reader.read(word >> TAG_BITS)
                if known == key:
                    return slot, value
        return 0, b""

    def _enter(self, hashed: int, word: int) -> None:
        bucket = hashed % BUCKETS
        taken = self._taken.get(bucket, 0)
        table = self.words[1 + bucket]
        if not table or taken * 4 >= self.words[table] * 3:
            taken = self._grow(bucket)
        at = next(slot for slot in self.reader.slots(hashed) if self.words[slot] in (0, GIVEN_UP))
        self._taken[bucket] = taken + (self.words[at] == 0)
        self.words[at] = word

    def _grow(self, bucket: int) -> int:
        """A new table with room for as many again; returns how many slots of it are taken."""
        old = self.words[1 + bucket]
        slots = self.words[old] if old else 0
        kept = [w for w in self.words[old + 1 : old + 1 + slots] if w not in (0, GIVEN_UP)]
        wanted = LEAST_SLOTS
        while wanted < 2 * (len(kept) + 1):
            wanted *= 2
        made, size = self._allocate(1 + wanted)
        self.words[made : made + size] = memoryview(bytes(size * WORD)).cast("Q")
        self.words[made] = wanted
        for word in kept:
            start = self._hash_of(word >> TAG_BITS) >> 12
            at = next(s for s in range(start, start + wanted) if not self.words[made + 1 + s % wanted])
            self.words[made + 1 + at % wanted] = word
        self.words[1 + bucket] = made
        if old:
            self._retired.append((self.change, old, _rounded(1 + slots)))
        return len(kept)

    def _hash_of(self, record: int) -> int:
        start = (record + 1) * WORD
        return crc32(self.memory[start : start + (self.words[record] >> 24 & KEY_BYTES)])

    def _write(self, key: bytes, value: bytes) -> int:
        if len(key) > KEY_BYTES or len(value) > VALUE_BYTES:
            raise StoreError(f"{len(key)} and {len(value)} bytes are too long to share")
        data = key + value
        record, _ = self._allocate(_words(len(data)))
        start = (record + 1) * WORD
        self.memory[start : start + len(data)] = data
        self.words[record] = crc32(data) << 32 | len(key) << 24 | len(value)
        return record

    def _allocate(self, words: int) -> tuple[int, int]:
        """A block, and how many words it has."""
        size = _rounded(words)
        free = self._free.get(size)
        if free:
            return free.pop(), size
        if self.used + size > len(self.words):
            raise StoreError(f"the {len(self.words) * WORD} bytes for shared names are full")
        self.used += size
        return self.used - size, size

    def _retire(self, record: int) -> None:
        head = self.words[record]
        self._retired.append((self.change, record, _rounded(_words((head >> 24 & KEY_BYTES) + (head & VALUE_BYTES)))))


def _words(data_bytes: int) -> int:
    """Of a record."""
    return 1 + -(-data_bytes // WORD)


def _rounded(words: int) -> int:
    """Few sizes, so that what is let go fits what comes: steps of an eighth, of four words at the least."""
    step = max(4, 1 << max(0, words.bit_length() - 4))
    return -(-words // step) * step
