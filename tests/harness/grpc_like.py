"""A server and a client that speak HTTP/2 in clear, with trailers, as gRPC does."""

import asyncio
from collections.abc import Mapping

import h2.config
import h2.connection
import h2.events

TRAILERS = (("grpc-status", "0"),)


class H2Server:
    """Answers each stream with its body, upper case, and trailers."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> "H2Server":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        bodies: dict[int, bytes] = {}
        try:
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    self._take(connection, event, bodies)
                writer.write(connection.data_to_send())
        except OSError:
            pass
        finally:
            writer.close()

    def _take(self, connection: h2.connection.H2Connection, event: object, bodies: dict[int, bytes]) -> None:
        if isinstance(event, h2.events.DataReceived):
            bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            stream = event.stream_id
            connection.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            connection.send_data(stream, bodies.pop(stream, b"").upper())
            connection.send_headers(stream, list(TRAILERS), end_stream=True)


async def call(port: int, host: str, body: bytes) -> tuple[Mapping[str, str], bytes, Mapping[str, str]]:
    """Headers, body and trailers of one POST."""
    async with asyncio.timeout(15):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        connection.send_headers(
            1,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", host),
                (":path", "/shop.Cart/Add"),
                ("te", "trailers"),
            ],
        )
        connection.send_data(1, body, end_stream=True)
        writer.write(connection.data_to_send())
        found: tuple[dict[str, str], list[bytes], dict[str, str]] = ({}, [], {})
        try:
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.ResponseReceived):
                        found[0].update(event.headers)
                    elif isinstance(event, h2.events.DataReceived):
                        found[1].append(event.data)
                    elif isinstance(event, h2.events.TrailersReceived):
                        found[2].update(event.headers)
                    elif isinstance(event, h2.events.StreamEnded):
                        return found[0], b"".join(found[1]), found[2]
                writer.write(connection.data_to_send())
        finally:
            writer.close()
    raise ConnectionError("the answer was cut")
