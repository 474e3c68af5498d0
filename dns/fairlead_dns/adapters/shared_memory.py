"""Memory for the store: a file without a name, written by one process and mapped read-only by the others."""

import mmap
import os
from contextlib import suppress
from dataclasses import dataclass

from fairlead_dns.decisions.store import StoreError

MOST_BYTES, LEAST_BYTES = 1 << 34, 1 << 28
"""Room, not memory: a page costs nothing until it is written."""


@dataclass(slots=True)
class Memory:
    """`handle`: read-only, to be passed on."""

    handle: int
    view: memoryview

    def close(self) -> None:
        """The view may still be in use: then the memory goes with the process."""
        os.close(self.handle)
        with suppress(BufferError):
            self.view.release()


def make() -> Memory:
    """All zeros. Raises StoreError when the system gives no room at all."""
    writing = os.memfd_create("fairlead-dns", os.MFD_CLOEXEC)
    try:
        size = MOST_BYTES
        while True:
            try:
                os.ftruncate(writing, size)
                mapped = mmap.mmap(writing, size)
                break
            except (OSError, ValueError, OverflowError) as error:
                size //= 2
                if size < LEAST_BYTES:
                    raise StoreError(f"no room for shared names: {error}") from error
        return Memory(os.open(f"/proc/self/fd/{writing}", os.O_RDONLY | os.O_CLOEXEC), memoryview(mapped))
    finally:
        os.close(writing)


def read(handle: int) -> memoryview:
    return memoryview(mmap.mmap(handle, os.fstat(handle).st_size, prot=mmap.PROT_READ))
