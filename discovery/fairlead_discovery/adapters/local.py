"""The unix socket between daemons and `fairlead registry`: both of its ends."""

import asyncio
import grp
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fairlead_daemon.errors import BadSettings, Refused
from fairlead_daemon.logs import Log
from fairlead_discovery import messages as m
from fairlead_discovery.adapters.linked import LinkedStore
from fairlead_discovery.hub import Client, Hub

log = Log("registry")
PATH_LIMIT = 100
"""Linux takes 107 bytes; HAProxy's sockets beside it need some of them."""
BUFFER_BYTES = 1 << 20
REQUEST_LIMIT_BYTES = 16 << 20
PROBE_S = 1.0
LINGER_S = 1.0
"""A killed process closes its connections a moment before its end can be seen."""


def open_store(place: str) -> LinkedStore:
    path = checked_path(place)

    async def connect(on_message: Callable[[m.AnyReply], None], on_lost: Callable[[], None]) -> ClientEnd:
        _, end = await asyncio.get_running_loop().create_unix_connection(
            lambda: ClientEnd(on_message, on_lost), str(path)
        )
        return end

    return LinkedStore(connect, str(path))


def checked_path(place: str) -> Path:
    """Raises BadSettings when no socket can have that path."""
    path = Path(place)
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise BadSettings(f"registry: {path}: a socket's path has at most {PATH_LIMIT} bytes, choose a shorter one")
    return path


class ClientEnd(asyncio.Protocol):
    """A Link (see linked.py)."""

    def __init__(self, on_message: Callable[[m.AnyReply], None], on_lost: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._frames = m.Unframer()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data, m.replies):
                self._on_message(message)
        except Refused as error:
            log.warning("registry unreadable", why=str(error))
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self._on_lost()

    def send(self, message: m.AnyRequest) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(m.frame(message))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class ServerEnd(asyncio.Protocol):
    """A Peer (see hub.py). A process that dies ends its session at once: it cannot come back."""

    def __init__(self, hub: Hub, ends: "set[ServerEnd]") -> None:
        self._hub = hub
        self._ends = ends
        self._frames = m.Unframer(REQUEST_LIMIT_BYTES)
        self._transport: asyncio.Transport | None = None
        self._client: Client | None = None
        self._process = -1
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=BUFFER_BYTES)
        self._client = self._hub.attach(self)
        self._ends.add(self)
        self._watch_process(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        assert self._client is not None
        try:
            for message in self._frames.feed(data, m.requests):
                self._hub.receive(self._client, message)
        except Refused as error:
            log.warning("client unreadable", why=str(error))
            self.close()

    def connection_lost(self, _error: Exception | None) -> None:
        assert self._client is not None
        self._ends.discard(self)
        self._hub.detach(self._client)
        if self._process >= 0:
            asyncio.get_running_loop().call_later(LINGER_S, self._forget_process)

    def pause_writing(self) -> None:
        self._paused = True
        assert self._transport is not None
        self._transport.pause_reading()  # who does not read its answers cannot ask for more

    def resume_writing(self) -> None:
        self._paused = False
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self._hub.nudge()

    def send(self, message: m.AnyReply) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(m.frame(message))

    def backed_up(self) -> bool:
        return self._paused

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _watch_process(self, connection: socket.socket) -> None:
        pid = _peer_pid(connection)
        if pid <= 0 or pid == os.getpid():  # 0: in another pid namespace, then its silence must tell
            return
        with suppress(OSError):
            self._process = os.pidfd_open(pid)
            asyncio.get_running_loop().add_reader(self._process, self._process_died)

    def _process_died(self) -> None:
        self._forget_process()
        session = self._client.session if self._client is not None else ""
        if self._hub.lives(session):
            log.info("session ended with its process", session=session)
            self._hub.end_session(session)

    def _forget_process(self) -> None:
        if self._process >= 0:
            asyncio.get_running_loop().remove_reader(self._process)
            os.close(self._process)
            self._process = -1


def _peer_pid(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", raw)[0]
    return pid


class Server:
    """Listens on the socket: mode 0600, or 0660 with `group`."""

    def __init__(self, path: Path, hub: Hub, group: str) -> None:
        self._path = path
        self._hub = hub
        self._group = group
        self._ends: set[ServerEnd] = set()
        self._server: asyncio.AbstractServer | None = None
        self._bound = False

    async def start(self) -> None:
        """Raises BadSettings when the path is taken or cannot be made."""
        _clear(self._path)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            before = os.umask(0o177)
            try:
                listener.bind(str(self._path))
            finally:
                os.umask(before)
            self._bound = True
            self._open_to_group()
        except OSError as error:
            raise BadSettings(f"registry: {self._path}: {error.strerror}") from error
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: ServerEnd(self._hub, self._ends), sock=listener, backlog=256
        )

    def _open_to_group(self) -> None:
        if not self._group:
            return
        try:
            gid = grp.getgrnam(self._group).gr_gid
        except KeyError as error:
            raise BadSettings(f"socket_group: no group {self._group!r} on this machine") from error
        os.chown(self._path, -1, gid)
        self._path.chmod(0o660)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for end in tuple(self._ends):
            end.close()
        if self._bound:  # else the socket is another registry's
            self._path.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Takes a dead registry's socket away. Raises BadSettings when a living one answers, or it is no socket."""
    if not path.exists():
        return
    if not path.is_socket():
        raise BadSettings(f"registry: {path} exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise BadSettings(f"registry: {path}: {error}") from error
    raise BadSettings(f"registry: another registry serves {path}")
