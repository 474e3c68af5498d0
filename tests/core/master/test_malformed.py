"""Every field of every call, wrong in every way: an answer in words, never a 500, never the daemon's end."""

import asyncio
import contextlib
import copy
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import msgspec
import pytest

from fairlead_core import bodies
from harness.sim_agent import SimAgent
from harness.sim_framework import SimFramework, command_task, until

JSON = {"Content-Type": "application/json"}
DEEP: Any = [[[[["deep"]]]]]
WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**62, 2**63, 10**30, 10**400, 1.5, 1e308, -1e308, float("nan"), float("inf"), "", "x",
    "nan", "9" * 400, "/", "\x00", "ä" * 200, [], {}, [None], [1], {"value": 7}, {"value": None}, [{"value": {}}], DEEP,
)  # fmt: skip
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("DECLINE", {"decline": {"offer_ids": [{"value": "o"}], "filters": {"refuse_seconds": 5.0}}}),
    ("REVIVE", {"revive": {"roles": ["*"]}}),
    ("SUPPRESS", {"suppress": {"roles": ["*"]}}),
    ("KILL", {"kill": {"task_id": {"value": "t"}, "kill_policy": {"grace_period": {"nanoseconds": 1}}}, "fairlead": {"reason": "scale"}}),
    ("SHUTDOWN", {"shutdown": {"executor_id": {"value": "e"}, "agent_id": {"value": "a"}}}),
    ("ACKNOWLEDGE", {"acknowledge": {"agent_id": {"value": "a"}, "task_id": {"value": "t"}, "uuid": "dQ=="}}),
    ("RECONCILE", {"reconcile": {"tasks": [{"task_id": {"value": "t"}, "agent_id": {"value": "a"}}]}}),
    ("MESSAGE", {"message": {"executor_id": {"value": "e"}, "agent_id": {"value": "a"}, "data": "eA=="}}),
    ("ACCEPT_INVERSE_OFFERS", {"accept_inverse_offers": {"inverse_offer_ids": [{"value": "i"}]}}),
    ("ACCEPT", {"accept": {"offer_ids": [{"value": "o"}], "operations": [{"type": "LAUNCH", "id": {"value": "x"}, "launch": {"task_infos": [{"task_id": {"value": "t"}}]}}], "filters": {"refuse_seconds": 1}}}),
)  # fmt: skip
FRAMEWORK = {
    "user": "nobody", "name": "n", "failover_timeout": 0.0, "roles": ["a"], "checkpoint": True, "hostname": "h",
    "webui_url": "http://h:1/", "principal": "p", "labels": {"labels": [{"key": "k", "value": "v"}]},
    "capabilities": [{"type": "MULTI_ROLE"}],
}  # fmt: skip
TASK = {
    "name": "t",
    "command": {"value": "true"},
    "health_check": {"type": "TCP", "tcp": {"port": 1}},
    "labels": {"labels": [{"key": "FAIRLEAD_DRAIN_SECONDS", "value": "3"}]},
    "discovery": {"visibility": "CLUSTER", "name": "d", "ports": {"ports": [{"number": 31000, "name": "http", "protocol": "tcp"}]}},
    "kill_policy": {"grace_period": {"nanoseconds": 1}},
    "max_completion_time": {"nanoseconds": 1},
    "container": {"type": "DOCKER", "docker": {"port_mappings": [{"container_port": 1, "host_port": 2}]}, "network_infos": [{"port_mappings": []}]},
    "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.001}}, {"name": "ports", "type": "RANGES", "ranges": {"range": []}}],
}  # fmt: skip
STATUS = {
    "task_id": {"value": "t"}, "state": "TASK_RUNNING", "uuid": "dQ==", "timestamp": 1.0, "healthy": True, "message": "m",
    "labels": {"labels": [{"key": "k", "value": "v"}]},
    "container_status": {"network_infos": [{"ip_addresses": [{"ip_address": "127.0.0.1"}]}]},
}  # fmt: skip


def mutations(value: Any, wrong: tuple[Any, ...] = WRONG) -> Iterator[Any]:
    """The value with each of its parts replaced by each wrong one."""
    yield from wrong
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    for key in keys:
        for other in mutations(value[key], wrong):
            changed = copy.copy(value)
            changed[key] = other
            yield changed


def of_fields(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same, where the whole stays an object."""
    for key, part in value.items():
        for other in mutations(part):
            yield {**value, key: other}


class Poster:
    """Posts many at once; remembers every answer that a client's mistake must never get."""

    def __init__(self, session: aiohttp.ClientSession, url: str, **headers: str) -> None:
        self.session, self.url, self.headers = session, url, {**JSON, **headers}
        self.wrong: list[str] = []
        self.sent = 0
        self._some = asyncio.Semaphore(16)

    async def all(self, values: Iterator[Any]) -> None:
        await asyncio.gather(*(self.one(json.dumps(value).encode()) for value in values))

    async def one(self, body: bytes) -> int:
        """Streams that open are closed at once."""
        self.sent += 1
        async with self._some, self.session.post(self.url, data=body, headers=self.headers) as answer:
            if answer.status >= 500 and answer.status != 501:
                self.wrong.append(f"{answer.status} {body[:300]!r} {(await answer.read())[:200]!r}")
            if answer.status == 200:
                answer.close()
            return answer.status


@pytest.fixture
async def framework(master, session):
    async with SimFramework(session, master.url) as subscribed:
        yield subscribed


async def test_scheduler_calls(master, session, framework):
    """Each with each field wrong; the framework that sent them is still served."""
    poster = Poster(session, master.url + "/api/v1/scheduler", **{"Mesos-Stream-Id": framework.stream_id})
    for kind, payload in CALLS:
        call = {"type": kind, "framework_id": {"value": framework.id}, **payload}
        await poster.all(of_fields(call))

    assert [] == poster.wrong
    assert poster.sent > 1000
    assert 202 == await framework.call("REVIVE")


async def test_subscriptions(master, session):
    """FrameworkInfo with each field wrong: refused, or a framework like any other that pages show and a leader keeps."""
    poster = Poster(session, master.url + "/api/v1/scheduler")
    await poster.all({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}} for info in of_fields(FRAMEWORK))
    await poster.all(
        of_fields({"type": "SUBSCRIBE", "subscribe": {"framework_info": FRAMEWORK, "suppressed_roles": ["a"]}})
    )

    assert [] == poster.wrong
    assert await works(master, session)


async def test_operator_calls(master, session, framework):
    """A drain of 10^400 ns, and the like."""
    async with SimAgent(session, master.url) as agent:
        poster = Poster(session, master.url + "/api/v1")
        change = {"agent_id": {"value": agent.agent_id}, "max_grace_period": {"nanoseconds": 1}, "mark_gone": False}
        await poster.all(of_fields({"type": "DRAIN_AGENT", "drain_agent": change}))
        await poster.all(of_fields({"type": "DEACTIVATE_AGENT", "deactivate_agent": change}))
        await poster.all(of_fields({"type": "TEARDOWN", "teardown": {"framework_id": {"value": "no"}}}))

        assert [] == poster.wrong
        assert await works(master, session, framework)


async def test_launches(master, session, framework):
    """A thousand wrong TaskInfos in one ACCEPT: each is refused in words or runs, is published, and outlives the leader."""
    async with SimAgent(session, master.url, resources="cpus:64;mem:64000;ports:[31000-32000]") as agent:
        offer = await until(lambda: next(iter(framework.offers.values()), None))
        infos = [
            {"task_id": {"value": f"t{n}"}, "agent_id": offer["agent_id"], **info}
            for n, info in enumerate(json.loads(json.dumps(i)) for i in of_fields(TASK) if encodable(i))
        ]
        operation = {"type": "LAUNCH", "launch": {"task_infos": infos}}
        accept = {"offer_ids": [offer["id"]], "operations": [operation]}
        assert 202 == await framework.call("ACCEPT", accept=accept)
        told = await until(lambda: (s := states(framework)) and len(s) == len(infos) and s, 10)
        refused = [i for i, state in told.items() if state == "TASK_ERROR"]
        await agent.stop()
        agent.start()
        await agent.registered.wait()

        assert len(refused) > 300
        assert len(told) - len(refused) > 100
        assert await works(master, session, framework)


def encodable(value: Any) -> bool:
    """What the body check lets pass: the rest is refused as a whole, which the other tests see."""
    try:
        bodies.check(json.dumps(value).encode())
        msgspec.json.decode(json.dumps(value).encode())
    except msgspec.DecodeError:
        return False
    return True


def states(framework: SimFramework) -> dict[str, str]:
    updates = [e["update"]["status"] for e in framework.events if e["type"] == "UPDATE"]
    return {s["task_id"]["value"]: s["state"] for s in updates}


async def test_agents_calls(master, session, framework):
    """Registrations and reports with each field wrong; an agent beside them keeps its stream."""
    task = {**TASK, "task_id": {"value": "t"}, "agent_id": {"value": "a"}}
    state = {"framework_id": framework.id, "task": task, "status": STATUS, "acknowledged": True}
    register = {
        "type": "REGISTER", "version": 1, "agent_id": "", "boot_id": "b", "process_id": "1", "hostname": "h", "ip": "127.0.0.1",
        "port": 1, "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}}], "zone": "z",
        "attributes": [{"name": "rack", "type": "TEXT", "text": {"value": "r"}}],
        "frameworks": [{"id": {"value": "f"}, **FRAMEWORK}],
        "executors": [{"executor_id": {"value": "e"}, "framework_id": {"value": "f"}, "resources": []}],
    }  # fmt: skip
    async with SimAgent(session, master.url, port=9) as agent:
        streams = Poster(session, master.url + "/agent/v1/stream")
        await streams.all(of_fields(register))
        await streams.all({**register, "tasks": [{**state, "task": other}]} for other in of_fields(task))
        await streams.all({**register, "tasks": [{**state, "status": other}]} for other in of_fields(STATUS))
        reports = Poster(session, master.url + "/agent/v1/reports")
        whole = {"agent_id": agent.agent_id, "stream_id": agent.stream_id}
        update = {"type": "UPDATE", "framework_id": framework.id, "status": STATUS, "latest_state": "TASK_RUNNING"}
        ended = {"type": "EXECUTOR_ENDED", "framework_id": framework.id, "executor_id": "e", "status": 0}
        message = {"type": "MESSAGE", "framework_id": framework.id, "executor_id": "e", "data": "x"}
        for report in (update, ended, message):
            await reports.all(of_fields({**whole, "reports": [report]}))

        assert [] == streams.wrong + reports.wrong
        assert await works(master, session, framework)


@pytest.mark.parametrize("path", ["/api/v1/scheduler", "/api/v1", "/agent/v1/stream", "/agent/v1/reports"])
async def test_deep_nesting(master, session, path):
    """The stack is not the sender's to use up: 400, whatever the depth."""
    poster = Poster(session, master.url + path)
    for depth in (65, 900, 100_000):
        assert 400 == await poster.one(b"[" * depth)
        assert 400 == await poster.one(b'{"type":"DECLINE","x":' + b"[" * depth + b"]" * depth + b"}")

    assert await works(master, session)


def test_brackets_and_digits_in_strings_are_text():
    """Only what is structure counts as nesting, only what is a number as a number."""
    value = {"a": "[" * 1000 + '\\"' + "{" * 1000, "b": "9" * 400, "c": [1.5e308, 12345678901234567890.5, 2**63 - 1]}

    bodies.check(json.dumps(value).encode())
    with pytest.raises(msgspec.DecodeError, match="64 bits"):
        bodies.check(b'{"a": "9", "b": [1, -9223372036854775808]}')
    with pytest.raises(msgspec.DecodeError, match="deep"):
        bodies.check(b'"]]]]]"' + b"[" * 65)


async def works(master, session, *quiet: SimFramework) -> bool:
    """Another framework launches on another agent, and the pages can be read. `quiet` are to take no offers of it."""
    for one in quiet:
        assert 202 == await one.call("SUPPRESS")
    for page in ("/state", "/state-summary", "/slaves", "/frameworks", "/tasks", "/metrics/snapshot", "/health"):
        async with session.get(master.url + page) as answer:
            assert 200 == answer.status, page
    for kind in ("GET_STATE", "GET_AGENTS", "GET_FRAMEWORKS", "GET_TASKS"):
        assert 200 == (await master.operate(kind))[0]
    async with contextlib.AsyncExitStack() as stack:
        other = await stack.enter_async_context(SimFramework(session, master.url, name="other"))
        agent = await stack.enter_async_context(SimAgent(session, master.url, name="other", port=77))
        offer = await until(lambda: next((o for o in other.offers.values() if o["hostname"] == agent.name), None))
        task = command_task("good", offer)
        await other.call(
            "ACCEPT",
            accept={"offer_ids": [offer["id"]], "operations": [{"type": "LAUNCH", "launch": {"task_infos": [task]}}]},
        )
        await until(lambda: states(other).get("good") == "TASK_RUNNING")
    return True
