"""The rules of a Bamboo's tree on disk, for a start while it is out of sight."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_discovery.policies import Bamboo

log = Log("lb.bamboo")


class Kept:
    """Written when they differ from what lies there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: Mapping[str, Bamboo] | None = None

    def load(self) -> Mapping[str, Bamboo] | None:
        try:
            self._last = msgspec.json.decode(self._path.read_bytes(), type=dict[str, Bamboo])
        except (OSError, msgspec.DecodeError):
            return None
        return self._last

    def put(self, rules: Mapping[str, Bamboo]) -> None:
        if rules == self._last:
            return
        self._last = rules
        try:
            replace_file(self._path, msgspec.json.encode(rules), mode=0o600)
        except OSError as error:
            log.warning("bamboo's rules are not kept on disk", why=str(error))
