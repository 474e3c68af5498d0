"""`zone_access` over HTTP: what DNS refuses a client no page shows it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.dns_api import Served, api
from harness.names import member, snapshot

WEB, API = "web.marathon.mesos", "api.marathon.mesos"
SECRET = "10.0.0.1"
RULES = {WEB: ["10.0.0.0/8"], "slave.mesos": ["10.0.0.0/8"]}


@pytest.fixture
async def closed(tmp_path: Path) -> AsyncIterator[Served]:
    """`web` and `slave` are for 10.0.0.0/8, `api` is for all; who asks here is 127.0.0.1."""
    made = await api(tmp_path, member(), member(1, name="api"), zone_access=RULES)
    yield made
    await made.client.close()


@pytest.mark.parametrize(
    "path",
    [
        *(f"/v1/hosts/{WEB}", f"/v1/hosts/{WEB.upper()}.", f"/v1/services/{WEB}", "/v1/enumerate", "/v1/axfr"),
        *(f"/v2/records?name={WEB}", f"/v2/records?under={WEB}", f"/v2/history?name={WEB}&at=1s"),
        *(f"/v2/services/{WEB}", "/v2/services/marathon:web", f"/v2/services?name={API}&name={WEB}", "/v2/services"),
        *(f"/v2/explain?name={WEB}&client=10.0.0.9", f"/v2/history?name={WEB}", f"/v2/changes?zone={WEB}"),
    ],
)
async def test_pages_of_a_closed_zone_are_refused(closed: Served, path: str) -> None:
    """403 that names the setting; by its name, by its service, in a list that is not taken apart."""
    async with closed.client.get(path) as response:
        text = await response.text()

    assert (403, True, False) == (response.status, "zone_access" in text, SECRET in text)


async def test_lists_leave_it_out(closed: Served) -> None:
    """Records and changes show what is open; a service that is open has its page; status no names."""
    records = await closed.page("records")
    begun = records["serial"]
    closed.take(snapshot(member(), member(2), member(1, name="api"), member(3, name="api"), revision=begun + 1))
    changes = await closed.page("changes", since=begun)
    status = await closed.page("status")

    shown = {row["name"] for row in records["records"]}
    assert (True, False) == (API in shown, WEB in shown)
    names = {row["name"] for change in changes["changes"] for row in change["names"]}
    assert (True, False) == (API in names, WEB in names)
    assert (await closed.page(f"services/{API}"))["endpoints"]
    assert None is status["collisions"]


async def test_what_a_closed_name_has_is_not_explained(closed: Served) -> None:
    """The zone and the setting are named, nothing else; a near miss does not tell its name."""
    found = await closed.page("explain", name=WEB)
    missed = await closed.page("explain", name="wbe.marathon.mesos")

    assert {"name", "type", "client", "verdict", "says", "zone", "trust"} >= found.keys() - {"serial"}
    assert ("refused", WEB) == (found["verdict"], found["zone"])
    assert "127.0.0.1 may not ask for names of web.marathon.mesos (see `zone_access`)" in found["says"][0]
    assert WEB not in missed.get("near", [])


async def test_who_may_ask_sees_all(tmp_path: Path) -> None:
    """The same pages, from a network that the rule names."""
    made = await api(tmp_path, member(), zone_access={WEB: ["127.0.0.0/8"]})
    try:
        assert SECRET in str(await made.page("services/marathon:web"))
        assert SECRET in str(await made.page("explain", name=WEB))
        assert WEB in str(await made.page("records"))
        assert ["refused"] == [(await made.page("explain", name=WEB, client="10.9.9.9"))["verdict"]]
    finally:
        await made.client.close()
