"""The spool's folder: segments of whole lines. One process writes and reads it.

After a kill at any point every batch whose `append` returned is there; of one that did not return, perhaps some whole
lines. A torn last line is never read: after a start a new segment is begun.
"""

import os
from pathlib import Path

from fairlead_monitoring.decisions import segments
from fairlead_monitoring.decisions.segments import Place

SEGMENT_BYTES = 4 * 1024 * 1024
ROLL_S = 20.0
"""A segment is closed after that long: only closed ones can be given up."""


class Spool:
    """Raises OSError."""

    def __init__(self, folder: Path, *, most_bytes: int, roll_s: float = ROLL_S) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._most_bytes = most_bytes
        self._roll_s = roll_s
        found = {segments.number(f.name): f for f in folder.iterdir()}
        self._sizes = {n: _whole(file) for n, file in found.items() if n is not None}
        self._newest = max(self._sizes, default=0)
        self._handle = -1
        self._opened_s = 0.0
        self.handed = 0
        """Segments before this one have been sent: to give them up loses nothing while carbon lives."""
        self.lost_points = 0
        """Given up unsent for want of room, or of a working disk, since the start."""

    @property
    def size_bytes(self) -> int:
        return sum(self._sizes.values())

    @property
    def closed(self) -> list[int]:
        """Numbers of segments that are not written to any more."""
        return [n for n in sorted(self._sizes) if n != self._newest or self._handle < 0]

    def begin(self) -> Place:
        """The oldest byte there is."""
        return Place(min(self._sizes, default=0), 0)

    def append(self, data: bytes, now_s: float) -> None:
        """Durable when it returns. `data` is whole lines."""
        if self._handle >= 0 and self._due(now_s):
            self._close()
        try:
            if self._handle < 0:
                self._open(now_s)
            _write(self._handle, data)
            self._sizes[self._newest] += len(data)
        except OSError:
            self.lost_points += data.count(b"\n")
            self._close()  # its end may be torn: nothing more is added to it
            raise
        self._make_room()

    def _due(self, now_s: float) -> bool:
        return self._sizes[self._newest] >= SEGMENT_BYTES or now_s - self._opened_s >= self._roll_s

    def roll(self, now_s: float) -> None:
        """Closes a segment that is old enough, so that it can settle."""
        if self._handle >= 0 and self._due(now_s):
            self._close()

    def read(self, place: Place, most_bytes: int) -> tuple[bytes, Place]:
        """Whole lines from `place` on, and the place after them; empty when there are no more.

        After the end of the newest segment, once it is closed, comes the beginning of the next one.
        """
        while True:
            size = self._sizes.get(place.segment, 0)
            if place.offset < size:
                return self._lines(place, min(size - place.offset, most_bytes))
            following = min((n for n in self._sizes if n > place.segment), default=None)
            if following is None:
                over = self._handle < 0 and place.segment == self._newest
                return b"", Place(self._newest + 1, 0) if over else place
            place = Place(following, 0)

    def _lines(self, place: Place, most_bytes: int) -> tuple[bytes, Place]:
        with (self._folder / segments.name(place.segment)).open("rb") as stream:
            stream.seek(place.offset)
            data = stream.read(most_bytes)
        data = data[: data.rfind(b"\n") + 1]
        return data, Place(place.segment, place.offset + len(data))

    def drop(self, number: int) -> None:
        (self._folder / segments.name(number)).unlink(missing_ok=True)
        self._sizes.pop(number, None)

    def close(self) -> None:
        self._close()

    def _open(self, now_s: float) -> None:
        self._newest += 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._handle = os.open(self._folder / segments.name(self._newest), flags, 0o600)
        self._sizes[self._newest] = 0
        self._opened_s = now_s

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _make_room(self) -> None:
        for number in segments.too_much(self._sizes, self._most_bytes):
            if number >= self.handed:
                self.lost_points += (self._folder / segments.name(number)).read_bytes().count(b"\n")
            self.drop(number)


def _whole(file: Path) -> int:
    """Bytes up to the end of the last whole line."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        while size > 0:
            begin = max(0, size - 65536)
            stream.seek(begin)
            end = stream.read(size - begin).rfind(b"\n")
            if end >= 0:
                return begin + end + 1
            size = begin
    return 0


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    os.fdatasync(handle)
