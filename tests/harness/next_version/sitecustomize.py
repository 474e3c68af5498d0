"""Makes a fairlead daemon one of the next version, when the file named by NEXT_VERSION names it (a line each).

The next version has the next schema, and writes a key that this one does not know into every record.
"""

import os
from pathlib import Path

KEY = "of_the_next_version"


def _mine() -> bool:
    try:
        words = Path("/proc/self/cmdline").read_text().split("\0")
        named = Path(os.environ["NEXT_VERSION"]).read_text().split()
    except (OSError, KeyError):
        return False
    return any(name.rpartition("-")[0] in words if name[-1:].isdigit() else name in words for name in named)


def _become_next() -> None:
    import msgspec

    from fairlead_discovery import records

    plain = records.encode

    def encode(record: object) -> bytes:
        data = plain(record)
        if not isinstance(record, records.Record):
            return data
        return plain({**msgspec.json.decode(data), KEY: {"deep": [1, None]}})

    records.SCHEMA += 1
    records.encode = encode


if _mine():
    _become_next()
