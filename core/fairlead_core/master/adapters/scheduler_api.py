"""`POST /api/v1/scheduler`: Mesos' v1 scheduler API, with its status codes and words."""

import msgspec
from aiohttp import web

from fairlead_core.master.adapters.streams import Stream, serve_stream
from fairlead_core.master.decisions import frameworks, handling
from fairlead_core.master.decisions.calls import Call, parse, validate
from fairlead_core.master.leadership import Leadership, clock
from fairlead_core.master.seat import Elsewhere, Seat
from fairlead_daemon.errors import Refused
from fairlead_daemon.logs import Log

PATHS = ("/api/v1/scheduler", "/master/api/v1/scheduler")
STREAM_HEADER = "Mesos-Stream-Id"
log = Log("master.scheduler")


def add_routes(app: web.Application, seat: Seat) -> None:
    async def scheduler(request: web.Request) -> web.StreamResponse:
        try:
            return await _handle(request, seat)
        except Elsewhere:
            return await seat.elsewhere(request)
        except _Answer as answer:
            return web.Response(status=answer.status, text=answer.text)

    for path in PATHS:
        app.router.add_post(path, scheduler)


class _Answer(Exception):  # noqa: N818  # an HTTP answer in Mesos' plain text
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


async def _handle(request: web.Request, seat: Seat) -> web.StreamResponse:
    seat.leading()
    body = await request.read()
    leadership = seat.leading()
    try:
        call = parse(body)
        validate(call)
    except Refused as error:
        raise _Answer(400, str(error)) from error
    if call.type == "SUBSCRIBE":
        return await _subscribe(request, leadership, call)
    if call.type == "UNKNOWN":
        raise _Answer(501, "calls of type UNKNOWN are not implemented")
    return _other(request, leadership, call)


def _other(request: web.Request, leadership: Leadership, call: Call) -> web.Response:
    assert call.framework_id is not None
    framework = leadership.cluster.frameworks.get(call.framework_id.value)
    if framework is None:
        raise _Answer(400, "Framework cannot be found")
    if not framework.connected:
        raise _Answer(403, "Framework is not subscribed")
    given = request.headers.get(STREAM_HEADER)
    if given is None:
        raise _Answer(400, "All non-subscribe calls should include the 'Mesos-Stream-Id' header")
    if given != framework.stream_id:
        raise _Answer(
            400,
            f"The stream ID '{given}' included in this request didn't match the stream ID currently associated "
            f"with framework ID {framework.id}",
        )
    handling.handle(leadership.cluster, framework, call, clock())
    leadership.settle()
    return web.Response(status=200 if call.type == "UPDATE_FRAMEWORK" else 202)


def _accepts_json(header: str) -> bool:
    if not header.strip():
        return True
    kinds = {part.partition(";")[0].strip().lower() for part in header.split(",")}
    return bool(kinds & {"application/json", "application/*", "*/*"})


async def _subscribe(request: web.Request, leadership: Leadership, call: Call) -> web.StreamResponse:
    assert call.subscribe is not None
    if not _accepts_json(request.headers.get("Accept", "")):
        raise _Answer(406, "Expecting 'Accept' to allow 'application/json'")
    if STREAM_HEADER in request.headers:
        raise _Answer(400, "Subscribe calls should not include the 'Mesos-Stream-Id' header")
    cluster = leadership.cluster
    stream = Stream()
    headers = {STREAM_HEADER: stream.id}
    try:
        framework = frameworks.subscribe(cluster, call.subscribe, stream.id, _address(request), now=clock())
    except frameworks.WasRemoved as error:
        stream.send({"type": "ERROR", "error": {"message": str(error)}})
        stream.close()
        return await serve_stream(request, stream, headers, ended=lambda: None)
    leadership.settle()  # an older stream of it hears of this before it is closed
    leadership.streams[stream.id] = stream
    frameworks.welcome(cluster, framework, msgspec.to_builtins(leadership.info))
    leadership.settle()
    log.info("subscribed", framework=framework.id, name=framework.name, stream=stream.id)

    def ended() -> None:
        leadership.streams.pop(stream.id, None)
        frameworks.disconnected(cluster, framework, stream.id, now=clock())
        leadership.settle()
        log.info("framework stream ended", framework=framework.id, stream=stream.id)

    return await serve_stream(request, stream, headers, ended=ended)


def _address(request: web.Request) -> str:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return f"{peer[0]}:{peer[1]}" if peer else ""
