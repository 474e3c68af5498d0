"""`--listen HOST:PORT` of commands that run for long: /health, /ready and /metrics, as every daemon has them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fairlead_daemon.errors import BadSettings
from fairlead_daemon.settings import DaemonSettings
from fairlead_daemon.web import Health, make_app, serve


@asynccontextmanager
async def pages(listen: str, health: Health) -> AsyncIterator[str]:
    """Serves them meanwhile; gives `host:port` as bound, "" when nothing is to be served. Raises BadSettings."""
    if not listen:
        yield ""
        return
    host, port = parse_listen(listen)
    settings = DaemonSettings(host=host, port=port, token="off")  # noqa: S106  # a mode: there is nothing to write
    runner, bound = await serve(make_app(settings, health), settings, option="listen")
    try:
        yield f"{host}:{bound}"
    finally:
        await runner.cleanup()


def parse_listen(text: str) -> tuple[str, int]:
    """`127.0.0.1:9120`, `[::1]:9120`, `:9120` on the loopback. Raises BadSettings."""
    host, colon, port = text.rpartition(":")
    plain = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or int(port) > 65535 or (":" in plain and not host.startswith("[")):
        raise BadSettings(f"listen: {text!r} is no host:port")
    return plain or "127.0.0.1", int(port)
