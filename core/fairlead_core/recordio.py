r"""RecordIO, the framing of Mesos' streams: `<decimal length>\n<data>`, chunk boundaries mean nothing."""

from collections.abc import Iterator

from fairlead_daemon.errors import Refused

RECORD_LIMIT_BYTES = 64 * 1024 * 1024
_LONGEST_LENGTH = 20  # digits of an unsigned 64-bit integer


def frame(data: bytes) -> bytes:
    return b"%d\n%b" % (len(data), data)


class Unframer:
    """Feed bytes as they come, take whole records. The same records come out however the bytes were cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises Refused on a length that is no number, or over RECORD_LIMIT_BYTES."""
        self._buffer += data
        while (record := self._take()) is not None:
            yield record

    def _take(self) -> bytes | None:
        end = self._buffer.find(b"\n", 0, _LONGEST_LENGTH + 1)
        if end < 0:
            if len(self._buffer) > _LONGEST_LENGTH:
                raise Refused(f"record length expected, got {bytes(self._buffer[:_LONGEST_LENGTH])!r}")
            return None
        head = bytes(self._buffer[:end])
        if not head.isdigit() or int(head) > RECORD_LIMIT_BYTES:
            raise Refused(f"record length expected, got {head!r}")
        stop = end + 1 + int(head)
        if len(self._buffer) < stop:
            return None
        record = bytes(self._buffer[end + 1 : stop])
        del self._buffer[:stop]
        return record
