"""Log lines: `2026-11-20T09:00:00.123 info dns.zone rebuilt names=12 took_ms=3`. One event, then its fields."""

import logging
import sys
from typing import Any, TextIO

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def _field(key: str, value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if not text or any(c.isspace() or c in '"=' or not c.isprintable() for c in text):
        escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
        return f'{key}="{escaped}"'
    return f"{key}={text}"


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        fields = getattr(record, "fields", {})
        message = record.getMessage().replace("\n", "\\n")
        parts = [f"{stamp}.{int(record.msecs):03d}", record.levelname.lower(), record.name, message]
        parts += [_field(k, v) for k, v in fields.items()]
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class Log:
    """`log.info("adopted", pid=12)`. Values are escaped: nothing a peer sends can forge a line."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def _emit(self, level: int, event: str, fields: dict[str, Any], *, trace: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields}, exc_info=trace)

    def debug(self, event: str, **fields: Any) -> None:
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._emit(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """An error with the current traceback: a bug, never a peer's fault."""
        self._emit(logging.ERROR, event, fields, trace=True)


def set_up(level: str, stream: TextIO = sys.stderr) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    for noisy in ("aiohttp.access", "kazoo", "asyncio"):
        logging.getLogger(noisy).setLevel(max(LEVELS[level], logging.WARNING))
