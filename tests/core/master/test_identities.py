"""Who gets which certificate: the real authority behind a real master, asked by agents that tell the truth or do not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead_core.agent_protocol import IDENTITY_PATH
from fairlead_daemon.logs import Log
from fairlead_daemon.main import Context
from fairlead_discovery import authorityd
from fairlead_discovery.adapters import x509
from fairlead_discovery.authorityd import AuthoritySettings
from fairlead_discovery.identities import fresh_request
from harness.agents import agent
from harness.ports import free_port
from harness.sim_agent import SimAgent
from harness.sim_framework import SimFramework, command_task
from harness.waiting import eventually

Ask = Callable[..., Any]


@pytest.fixture
async def authority(tmp_path: Path, registry_url: str) -> AsyncIterator[AuthoritySettings]:
    """It wants a token of its own, which agents do not have."""
    token = tmp_path / "ca-token"
    settings = AuthoritySettings(registry=registry_url, data_dir=str(tmp_path), port=free_port(), token_file=str(token))
    context = Context(name="ca", log=Log("ca"))
    running = asyncio.create_task(authorityd.run(settings, context))
    await eventually("it has its token", lambda: asyncio.sleep(0, token.exists()))
    yield settings
    context.stop.set()
    await asyncio.wait_for(running, 10)


@pytest.fixture
async def master(make_master: Callable[..., Any], authority: AuthoritySettings) -> Any:
    url = f"http://127.0.0.1:{authority.port}"
    return await make_master(identity_authority=url, identity_token_file=authority.token_file).start()


async def ask(agent: SimAgent, task: str, framework: str, **more: str) -> tuple[int, dict[str, Any], str]:
    key, csr = fresh_request()
    body = {
        "agent_id": agent.agent_id, "stream_id": agent.stream_id, "framework_id": framework, "task_id": task,
        "csr": csr, **more,
    }  # fmt: skip
    async with agent.session.post(agent.url + IDENTITY_PATH, json=body) as response:
        return response.status, await response.json(), key


async def test_an_agent_gets_the_identities_of_its_own_tasks_and_of_no_others(master, session):
    """The service is the master's word; a stream of yesterday, another's task, one that is over: nothing."""
    async with (
        SimAgent(session, master.url, name="one") as one,
        SimFramework(session, master.url, name="etl") as framework,
    ):
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer, name="worker"))
        await framework.reaches("t1", "TASK_RUNNING")
        async with SimAgent(session, master.url, name="two", port=5052) as two:
            status, answer, key = await ask(one, "t1", framework.id)
            others = [
                (await ask(two, "t1", framework.id))[0], (await ask(one, "t2", framework.id))[0],
                (await ask(one, "t1", framework.id, stream_id="old"))[0],
                (await ask(two, "t1", framework.id, agent_id=one.agent_id))[0],
                (await ask(one, "t1", framework.id, csr="rubbish"))[0],
            ]  # fmt: skip
        one.finish("t1")
        await framework.reaches("t1", "TASK_FINISHED")
        over = (await ask(one, "t1", framework.id))[0]

    assert (200, "etl:worker") == (status, x509.seen(answer["chain"]).common_name)
    assert x509.fits(answer["chain"], key)
    assert x509.verified(answer["chain"], answer["bundle"])
    assert [404, 404, 409, 409, 400] == others
    assert 404 == over


async def test_no_task_is_a_balancer(master, session):
    """Whoever is one says for whom it asks: a framework that calls itself so gets nothing."""
    async with (
        SimAgent(session, master.url) as agent,
        SimFramework(session, master.url, name="balancer") as framework,
    ):
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer, name="edge"))
        await framework.reaches("t1", "TASK_RUNNING")
        status, answer, _ = await ask(agent, "t1", framework.id)

    assert 400 == status
    assert "identities of balancer are for balancers alone" in answer["message"]


async def test_an_authority_that_is_away_is_said_to_be(make_master, session):
    """503: agents ask again."""
    master = await make_master(identity_authority=f"http://127.0.0.1:{free_port()}").start()
    async with SimAgent(session, master.url) as agent, SimFramework(session, master.url, name="etl") as framework:
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer, name="worker"))
        await framework.reaches("t1", "TASK_RUNNING")
        status, answer, _ = await ask(agent, "t1", framework.id)

    assert 503 == status
    assert "connection refused" in answer["message"]


async def test_a_real_agent_has_its_tasks_certified(master, session, short_dir: Path):
    """The whole way: label, agent, master, authority, file. No agent has the authority's token."""
    labels = {
        "labels": [{"key": "FAIRLEAD_IDENTITY", "value": "true"}, {"key": "FAIRLEAD_APP_ID", "value": "/shop/web"}]
    }
    async with (
        agent(short_dir, master.url.removeprefix("http://"), token="on") as real,
        SimFramework(session, master.url, name="marathon") as framework,
    ):
        offer = await framework.an_offer()
        await framework.accept(offer, command_task("t1", offer, command={"value": "sleep 60"}, labels=labels))
        await framework.reaches("t1", "TASK_RUNNING")
        file = real.sandbox("t1", framework.id) / "identity" / "identity.pem"
        seen = x509.seen(file.read_text())

    assert ("spiffe://fairlead.internal/app/marathon/shop/web",) == seen.uris
    assert "marathon:%2Fshop%2Fweb" == seen.common_name
