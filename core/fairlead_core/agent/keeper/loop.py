"""The keeper's loop: one thread, one selector; requests, exits and deadlines come in, records and signals go out."""

import os
import selectors
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fairlead_core.agent.keeper.protocol import (
    LINE_LIMIT_BYTES,
    Answer,
    AnyReply,
    AnyRequest,
    End,
    Ended,
    Forget,
    Held,
    List,
    Spawn,
)
from fairlead_core.agent.keeper.records import Folder, boot_id
from fairlead_core.agent.keeper.remains import carries, end_remains
from fairlead_core.agent.keeper.spawning import Child, fork
from fairlead_daemon.processes import identify

START_LIMIT_S = 10.0
"""A program that is not running by then (a hung file system) is given up."""
SWEEP_LIMIT_S = 2.0
STOP_GRACE_S = 3.0
UNSENT_LIMIT_BYTES = 32 * 1024 * 1024
_TICK_S = 0.02
_PEER = struct.Struct("3i")  # pid, uid, gid of SO_PEERCRED
_requests = msgspec.json.Decoder(AnyRequest)


def say(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), "keeper", text, file=sys.stderr, flush=True)  # noqa: T201  # its log


@dataclass(slots=True, eq=False)
class Client:
    connection: socket.socket
    received: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Starting:
    """A child between fork and exec, and who waits for it."""

    child: Child
    client: Client
    request: int
    key: str
    deadline_s: float


class Keeper:
    """Owns all state. `run` returns when it was told to stop and nothing runs any more."""

    def __init__(self, folder: Path, instance: str) -> None:
        self._folder = Folder(folder)
        self._instance = instance
        self._boot_id = boot_id()
        self._selector = selectors.DefaultSelector()
        self._held: dict[str, Held] = {}
        self._key_of: dict[int, str] = {}
        self._starting: dict[int, Starting] = {}
        self._kills: dict[str, float] = {}
        self._sweeps: dict[str, float] = {}
        self._clients: set[Client] = set()
        self._stopping = False

    # --- start -------------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Ends what a predecessor's death left running and writes down that it is lost."""
        records = self._folder.load()
        if not end_remains(records.values(), self._instance):
            say("some processes of the keeper before would not end")
        for held in records.values():
            self._held[held.key] = held if held.ended_s else self._lost(held)

    def _lost(self, held: Held) -> Held:
        why = "the keeper died" if held.boot_id == self._boot_id else "the machine restarted"
        lost = msgspec.structs.replace(held, ended_s=time.time(), lost=why)
        self._save(lost, durable=True)
        return lost

    def listen(self) -> None:
        """Through the folder's descriptor, so that no path is too long for a socket."""
        folder = os.open(self._folder.path, os.O_RDONLY | os.O_DIRECTORY)
        self._folder.socket.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"/proc/self/fd/{folder}/{self._folder.socket.name}")
        os.close(folder)
        self._folder.socket.chmod(0o600)
        listener.listen(16)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
        self._folder.write_identity()

    def watch_signals(self) -> None:
        ours, wakeup = socket.socketpair()
        for end in (ours, wakeup):
            end.setblocking(False)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._wakeup = wakeup
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._signalled(ours))

    def _signalled(self, ours: socket.socket) -> None:
        numbers = ours.recv(4096)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        for key in set(self._key_of.values()):
            self._end(key, STOP_GRACE_S)

    # --- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        while not (self._stopping and not self._key_of and not self._sweeps):
            for event, _ in self._selector.select(self._patience_s(time.monotonic())):
                event.data()
            self._reap()
            self._deadlines(time.monotonic())
        self._folder.socket.unlink(missing_ok=True)

    def _patience_s(self, now_s: float) -> float | None:
        if self._sweeps:
            return _TICK_S
        deadlines = [*self._kills.values(), *(s.deadline_s for s in self._starting.values())]
        return max(0.0, min(deadlines) - now_s) if deadlines else None

    def _deadlines(self, now_s: float) -> None:
        for key in [k for k, at_s in self._kills.items() if at_s <= now_s]:
            del self._kills[key]
            self._signal(key, signal.SIGKILL)
        for starting in [s for s in self._starting.values() if s.deadline_s <= now_s]:
            self._started(starting, f"it did not start within {START_LIMIT_S:.0f} s")
        if self._sweeps:
            self._sweep(now_s)

    # --- connections -------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        _, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid not in {os.getuid(), 0}:
            say(f"refused a connection of user {uid}")
            connection.close()
            return
        connection.setblocking(False)
        client = Client(connection)
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._ready(client))

    def _ready(self, client: Client) -> None:
        if client.unsent:
            self._flush(client)
        try:
            data = client.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        client.received += data
        *lines, rest = client.received.split(b"\n")
        client.received = bytearray(rest)
        for line in lines:
            self._asked(client, bytes(line))
        if len(client.received) > LINE_LIMIT_BYTES:
            self._drop(client)

    def _drop(self, client: Client) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._selector.unregister(client.connection)
            client.connection.close()

    def _send(self, client: Client, reply: AnyReply) -> None:
        if client not in self._clients:
            return
        client.unsent += msgspec.json.encode(reply) + b"\n"
        self._flush(client)

    def _flush(self, client: Client) -> None:
        try:
            while client.unsent:
                del client.unsent[: client.connection.send(client.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if len(client.unsent) > UNSENT_LIMIT_BYTES:
            self._drop(client)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        self._selector.modify(client.connection, events, lambda: self._ready(client))

    def _asked(self, client: Client, line: bytes) -> None:
        try:
            request = _requests.decode(line)
        except msgspec.DecodeError as error:
            say(f"dropped a connection that said {line[:100]!r}: {error}")
            self._drop(client)
            return
        match request:
            case Spawn():
                self._spawn(client, request)
            case List():
                self._send(client, Answer(id=request.id, held=tuple(self._held.values())))
            case End():
                self._end(request.key, request.grace_s)
                self._send(client, Answer(id=request.id))
            case Forget():
                self._send(client, Answer(id=request.id, error=self._forget(request.key)))

    # --- tasks -------------------------------------------------------------------------------------------------------

    def _spawn(self, client: Client, request: Spawn) -> None:
        launch = request.launch
        held = self._held.get(launch.key)
        if held is not None and all(s.key != launch.key for s in self._starting.values()):
            self._send(client, Answer(id=request.id, held=(held,)))
        elif held is not None or self._stopping:
            why = "the keeper stops" if self._stopping else "it is being started by another request"
            self._send(client, Answer(id=request.id, error=why, again=True))
        else:
            try:
                self._begin(client, request)
            except OSError as error:
                self._send(client, Answer(id=request.id, error=f"the keeper cannot start it: {error.strerror}"))

    def _begin(self, client: Client, request: Spawn) -> None:
        """The child goes on only when its pid is on disk: whatever runs can be found and ended."""
        key = request.launch.key
        child = fork(request.launch, instance=self._instance)
        identity = identify(child.pid)
        ticks = identity.start_ticks if identity else 0
        held = Held(key=key, pid=child.pid, start_ticks=ticks, boot_id=self._boot_id, started_s=time.time())
        try:
            self._folder.save(held)
        except OSError:
            child.cancel()
            raise
        self._held[key] = held
        self._key_of[child.pid] = key
        starting = Starting(child, client, request.id, key, time.monotonic() + START_LIMIT_S)
        self._starting[child.pid] = starting
        self._selector.register(child.trouble, selectors.EVENT_READ, lambda: self._told(starting))
        child.go()

    def _told(self, starting: Starting) -> None:
        try:
            self._started(starting, os.read(starting.child.trouble, 4096).decode(errors="replace"))
        except BlockingIOError:
            return

    def _started(self, starting: Starting, trouble: str) -> None:
        child, key = starting.child, starting.key
        if self._starting.pop(child.pid, None) is None:
            return
        self._selector.unregister(child.trouble)
        os.close(child.trouble)
        if not trouble:
            self._send(starting.client, Answer(id=starting.request, held=(self._held[key],)))
            return
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)  # ours and not reaped yet: the pid is nobody else's
        del self._held[key], self._key_of[child.pid]
        self._kills.pop(key, None)
        self._folder.forget(key)
        self._send(starting.client, Answer(id=starting.request, error=trouble))

    def _end(self, key: str, grace_s: float) -> None:
        held = self._held.get(key)
        if held is None or held.ended_s or held.pid not in self._key_of:
            return
        deadline_s = time.monotonic() + max(0.0, grace_s)
        if key not in self._kills:
            self._signal(key, signal.SIGTERM)
        self._kills[key] = min(deadline_s, self._kills.get(key, deadline_s))

    def _signal(self, key: str, number: signal.Signals) -> None:
        """To the whole group. The leader is our child and not reaped, so the group's number is still its own."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._held[key].pid, number)

    def _forget(self, key: str) -> str:
        held = self._held.get(key)
        if held is not None and not held.ended_s:
            return "it runs"
        self._folder.forget(key)
        self._held.pop(key, None)
        return ""

    # --- exits -------------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Peeks before it waits: until then a dead leader's number, and so its group's, is nobody else's."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            self._exited(found.si_pid)

    def _exited(self, pid: int) -> None:
        if (starting := self._starting.get(pid)) is not None:
            self._told(starting)
        key = self._key_of.pop(pid, None)
        if key is not None:
            self._signal(key, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if key is None:
            return  # an orphan that came to us
        self._kills.pop(key, None)
        held = msgspec.structs.replace(self._held[key], ended_s=time.time(), status=status)
        self._held[key] = held
        self._save(held, durable=True)
        self._sweeps[key] = time.monotonic() + SWEEP_LIMIT_S
        self._sweep(time.monotonic())

    def _save(self, held: Held, *, durable: bool) -> None:
        """A full disk keeps no exit from being reported: a second report of it does no harm."""
        try:
            self._folder.save(held, durable=durable)
        except OSError as error:
            say(f"cannot record {held.key}: {error.strerror}")

    def _sweep(self, now_s: float) -> None:
        """An ended task is reported when its processes that left its group are gone too.

        One that also cleared its environment can be told from other tasks' only when no other task is there.
        """
        orphans = self._orphans()
        alone = not self._key_of and len(self._sweeps) == 1
        for key, limit_s in list(self._sweeps.items()):
            mark = f"{self._instance}/{key}\0"
            group = self._held[key].pid
            left = [pid for pid in orphans if alone or carries(pid, mark) or _session(pid) == group]
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)  # our child: not reaped, so the pid is its own
            if not left or now_s > limit_s:
                del self._sweeps[key]
                self._announce(key)

    def _announce(self, key: str) -> None:
        for client in list(self._clients):
            self._send(client, Ended(held=self._held[key]))

    def _orphans(self) -> list[int]:
        """Our living children that are no task's first process: they came to us when their parents ended."""
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
        return [pid for word in text.split() if (pid := int(word)) not in self._key_of and identify(pid) is not None]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
