"""Checks against the servers themselves."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from fairlead_discovery.adapters.probes import probe
from fairlead_discovery.decisions.checks import Check, postgres_startup
from harness.ports import free_port
from harness.rabbitmq import Epmd, RabbitMQ
from harness.servers import Server, missing, require
from harness.waiting import eventually
from harness.zookeeper import ZooKeeper


@pytest.mark.timeout(120)
async def test_a_rabbitmq_is_healthy_while_it_runs():
    """The opening of an AMQP connection, answered by a real broker; not by its management port, and not when it is gone."""
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    folder.chmod(0o755)
    epmd = Epmd(folder)
    broker = RabbitMQ(folder / "b", epmd, "checked")
    check = Check(type="rabbitmq", timeout_s=1.0)
    try:
        await asyncio.to_thread(broker.start)

        async def healthy() -> bool:
            return await probe(check, "127.0.0.1", broker.port) == ""

        await eventually("the broker is healthy", healthy, within_s=20)
        assert "" != await probe(check, "127.0.0.1", broker.management_port)
        await asyncio.to_thread(broker.kill)

        assert "Connect" in await probe(check, "127.0.0.1", broker.port)
    finally:
        await asyncio.to_thread(broker.stop)
        epmd.stop()
        shutil.rmtree(folder, ignore_errors=True)


POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql/none"))


def as_nobody() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []


def lay_out(data: Path) -> Path:
    data.mkdir()
    if os.getuid() == 0:
        os.chown(data, 65534, 65534)
    command = [*as_nobody(), str(POSTGRES / "initdb"), "-D", str(data), "-U", "owner", "--auth=trust"]
    subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=data)
    return data


async def test_a_postgresql_is_healthy_until_it_shuts_down(short_dir: Path):
    """It refuses our unknown user and lives; while it waits for its last client it takes no one: not healthy."""
    if not POSTGRES.exists():
        missing("postgresql is not installed")
    data, port = await asyncio.to_thread(lay_out, short_dir / "pg"), free_port()
    options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
    server = Server(
        [*as_nobody(), str(POSTGRES / "postgres"), "-D", str(data), "-p", str(port), *options], log=short_dir / "pg.log"
    )
    server.start()
    check = Check(type="postgres", timeout_s=1.0)
    try:

        async def healthy() -> bool:
            return await probe(check, "127.0.0.1", port) == ""

        await eventually("PostgreSQL is healthy", healthy, within_s=20)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(postgres_startup("owner"))
        assert b"R" == await reader.read(1)
        os.kill(server.pid, signal.SIGTERM)

        async def shutting_down() -> bool:
            return "shutting down" in await probe(check, "127.0.0.1", port)

        await eventually("it says that it is shutting down", shutting_down, within_s=5)
        writer.close()
        await eventually("it ends", lambda: asyncio.to_thread(lambda: not server.running()))
    finally:
        server.kill()


async def test_a_redis_is_healthy_while_it_serves(short_dir: Path):
    """Also when it wants a password; not while it is paused, and not when it is gone."""
    port = free_port()
    words = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(short_dir),
        "--requirepass",
        "s3cret",
    ]
    server = Server([require("redis-server"), *words], log=short_dir / "redis.log")
    server.start()
    check = Check(type="redis", timeout_s=1.0)
    try:

        async def healthy() -> bool:
            return await probe(check, "127.0.0.1", port) == ""

        await eventually("Redis is healthy", healthy, within_s=20)
        server.pause()
        paused = await probe(check, "127.0.0.1", port)
        server.resume()
        await eventually("Redis is healthy again", healthy, within_s=20)
        await asyncio.to_thread(server.kill)
        gone = await probe(check, "127.0.0.1", port)
    finally:
        server.kill()

    assert "no answer within 1 s" == paused
    assert "Connect" in gone


async def test_another_protocols_server_is_not_healthy(zookeeper: ZooKeeper):
    """A ZooKeeper is no Redis, no PostgreSQL and no HTTP server; it takes TCP connections."""
    checks = [Check(type=kind, timeout_s=0.5) for kind in ("redis", "postgres", "rabbitmq", "http")]

    assert all(await asyncio.gather(*(probe(check, "127.0.0.1", zookeeper.port) for check in checks)))
    assert "" == await probe(Check(type="tcp"), "127.0.0.1", zookeeper.port)
