"""The alerts written down: lines appended to a file of our own, and documents in the registry for the next leader.

A line is `{"alert": …}` (replaces the one of its id), `{"taken": [alert, change, receiver]}`, `{"ended": alert}` or
`{"led": bool}`. After a kill at any point the file says what was intended and what was delivered, up to a torn last line.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from fairlead_daemon.files import replace_file
from fairlead_daemon.logs import Log
from fairlead_monitoring.decisions.alerts import Alert, taken

log = Log("monitor.journal")
COMPACT_LINES = 2000


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    alert: Alert | None = None
    taken: tuple[str, str, str] | None = None
    ended: str | None = None
    led: bool | None = None


_decoder = msgspec.json.Decoder(_Line)


class Journal:
    """The file. Writing raises OSError; what cannot be read is left out, and said."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self._torn = False
        self.alerts: dict[str, Alert] = {}
        self.led = False
        """Whether we led when it was last known who leads."""
        self._load()

    def put(self, alerts: Iterable[Alert]) -> None:
        """Durable when it returns, all of them in one write."""
        found = list(alerts)
        self._append([_Line(alert=alert) for alert in found])
        self.alerts.update({alert.id: alert for alert in found})

    def take(self, alert_id: str, change_id: str, receiver: str) -> None:
        """The receiver has the change."""
        line = _Line(taken=(alert_id, change_id, receiver))
        self._append([line])
        self._apply(line)

    def end(self, alert_ids: Iterable[str]) -> None:
        lines = [_Line(ended=key) for key in alert_ids if key in self.alerts]
        if lines:
            self._append(lines)
        for line in lines:
            self._apply(line)

    def lead(self, *, leading: bool) -> None:
        if leading != self.led:
            self._append([_Line(led=leading)])
            self.led = leading

    def clear(self) -> None:
        """Another monitor leads: what we knew is its past."""
        if self.alerts or self.led:
            self.alerts, self.led = {}, False
            self._compact()

    # --- the file

    def _load(self) -> None:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("journal unreadable", file=self._path, why=str(error))
            return
        for text in raw.split(b"\n"):
            if text:
                self._read(text)
        self._torn = bool(raw) and not raw.endswith(b"\n")

    def _read(self, text: bytes) -> None:
        try:
            self._apply(_decoder.decode(text))
            self._lines += 1
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("journal line left out", file=self._path, why=str(error))

    def _apply(self, line: _Line) -> None:
        if line.alert is not None:
            self.alerts[line.alert.id] = line.alert
        if line.taken is not None and line.taken[0] in self.alerts:
            self.alerts[line.taken[0]] = taken(self.alerts[line.taken[0]], *line.taken[1:])
        if line.ended is not None:
            self.alerts.pop(line.ended, None)
        if line.led is not None:
            self.led = line.led

    def _append(self, lines: list[_Line]) -> None:
        if self._torn or self._lines > COMPACT_LINES + 4 * len(self.alerts):
            self._compact()
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._torn = True  # until it is whole
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fdatasync(handle)
        finally:
            os.close(handle)
        self._torn = False
        self._lines += len(lines)

    def _compact(self) -> None:
        lines = [_Line(led=self.led), *(_Line(alert=alert) for alert in self.alerts.values())]
        replace_file(self._path, b"".join(msgspec.json.encode(line) + b"\n" for line in lines), mode=0o600)
        self._lines, self._torn = len(lines), False


def decode_alerts(nodes: Mapping[str, Any]) -> dict[str, Alert]:
    """From the registry's documents; one that cannot be read is left out, and said."""
    found: dict[str, Alert] = {}
    for name, node in nodes.items():
        try:
            alert = msgspec.json.decode(node.data, type=Alert)
            found[alert.id] = alert
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("alert unreadable", name=name, why=str(error))
    return found
