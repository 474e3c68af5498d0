"""One call per change of state: killed before and after every step there is, out of sight, with two monitors."""

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead_daemon.backoff import Backoff
from fairlead_discovery.backends import open_registry
from fairlead_monitoring import alerting as module
from fairlead_monitoring.adapters.journal import Journal
from fairlead_monitoring.alerting import Alerting
from fairlead_monitoring.collecting import own_session
from fairlead_monitoring.decisions.evaluation import Moment
from fairlead_monitoring.decisions.expression import parse
from fairlead_monitoring.decisions.ring import Ring
from fairlead_monitoring.decisions.rules import Rule
from fairlead_monitoring.decisions.samples import series
from fairlead_monitoring.leading import Leading
from harness.hook import Hook
from harness.waiting import eventually

RULES = {"hot": Rule(name="hot", when=parse("heat > 1"), summary="{place} is hot")}
_names = count()


class Killed(BaseException):
    """As SIGKILL: nothing after it runs."""


class Steps:
    """Counts the steps of a monitor's life, and kills it at one."""

    def __init__(self, kill_at: int = 0) -> None:
        self.kill_at = kill_at
        self.names: list[str] = []

    def step(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self.kill_at:
            raise Killed(name)

    def around(self, thing: object, name: str) -> None:
        """Counts before and after a method."""
        inner: Callable[..., Any] = getattr(thing, name)

        async def later(*args: Any, **kwargs: Any) -> Any:
            self.step(f"before {name}")
            result = await inner(*args, **kwargs)
            self.step(f"after {name}")
            return result

        def at_once(*args: Any, **kwargs: Any) -> Any:
            self.step(f"before {name}")
            result = inner(*args, **kwargs)
            self.step(f"after {name}")
            return result

        setattr(thing, name, later if asyncio.iscoroutinefunction(inner) else at_once)


@pytest.fixture
def hook() -> Iterator[Hook]:
    receiver = Hook().start()
    yield receiver
    receiver.stop()


class Life:
    """One monitor from its start to its end, on a world that outlives it."""

    def __init__(self, folder: Path, registry_url: str, hook: Hook, steps: Steps, *, name: str = "one") -> None:
        self.folder, self.url, self.hook, self.steps, self.name = folder, registry_url, hook, steps, name
        self.ring = Ring(keep_s=3600, forget_s=300, most_series=100)
        self.news = asyncio.Event()

    async def run(self, body: Callable[["Life"], Any]) -> None:
        """Until `body` is done, or the kill comes. Its session ends with it."""
        registry = await open_registry(self.url)
        self.journal = Journal(self.folder / f"{self.name}.jsonl")
        self.leading = Leading(led=self.journal.led, mine=lambda data: data == self.name.encode())
        for method in ("put", "take", "lead"):
            self.steps.around(self.journal, method)
        self.alerting = Alerting(RULES, (self.hook.url,), self.journal, self.leading)
        self.steps.around(registry, "write")
        fast = Backoff(first_s=0.02, most_s=0.05)
        try:
            async with own_session() as session, asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self.leading.run(registry, self.name.encode())),
                    group.create_task(self.alerting.judge(self._moment, self.news, registry)),
                    group.create_task(self.alerting.write(registry)),
                    group.create_task(self.alerting.tell(self.hook.url, session, fast, wait_s=5)),
                ]
                await body(self)
                for task in tasks:
                    task.cancel()
        finally:
            await registry.close()

    def heat(self, value: float) -> None:
        self.ring.add("s", time.time(), {series("heat", place="attic"): value})
        self.news.set()

    def _moment(self, now_s: float) -> Moment:
        return Moment(ring=self.ring, now_s=now_s, fresh_s=60)


async def attempt(life: Life, body: Callable[[Life], Any]) -> bool:
    """False when it was killed."""
    killed = False
    try:
        await life.run(body)
    except* Killed:
        killed = True
    return not killed


def settled(hook: Hook, alerting: Alerting, states: list[str]) -> Callable[[], Any]:
    async def check() -> bool:
        return hook.states() == states and not any(a.waiting for a in alerting.alerts.values())

    return check


def heated(hook: Hook, value: float, states: list[str]) -> Callable[[Life], Any]:
    async def body(life: Life) -> None:
        life.heat(value)
        await eventually(f"{states} told", settled(hook, life.alerting, states), within_s=8)

    return body


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.005)
    monkeypatch.setattr(module, "TICK_S", 0.02)


async def killed_at(kill_at: int, folder: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A story of firing and resolved, killed at one step, begun again. The names of all steps that were made."""
    url, steps = f"memory:telling-{next(_names)}", Steps(kill_at)
    original = module.post

    async def counted(*args: Any, **kwargs: Any) -> None:
        steps.step("before post")
        await original(*args, **kwargs)
        steps.step("after post")

    monkeypatch.setattr(module, "post", counted)
    for value, states in ((5.0, ["firing"]), (0.0, ["firing", "resolved"])):
        while not await attempt(Life(folder, url, hook, steps), heated(hook, value, states)):
            pass
    monkeypatch.setattr(module, "post", original)
    return steps.names


async def test_every_change_is_told_once_whenever_the_monitor_is_killed(
    hook: Hook, short_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    """Killed before and after every write to disk, to the registry, and every call: two changes, two keys, in order.

    Only a kill between the receiver's answer and its record repeats the call, under the same key.
    """
    steps = await killed_at(0, short_dir / "none", hook, monkeypatch)
    assert {"before put", "after put", "before write", "after write", "before post", "after take"} < set(steps)

    for kill_at in range(1, len(steps) + 1):
        hook.calls.clear()
        made = await killed_at(kill_at, short_dir / str(kill_at), hook, monkeypatch)
        repeated = len(hook.calls) - len(hook.told())

        assert ["firing", "resolved"] == hook.states(), made[kill_at - 1]
        assert repeated == 0 or (repeated == 1 and made[kill_at - 1] in {"after post", "before take"}), (
            f"{repeated} repeated, killed {made[kill_at - 1]}"
        )


async def test_a_webhook_that_is_down_gets_every_change_later_in_order(hook: Hook, short_dir: Path):
    """Firing, resolved and firing again while it answers 503: three calls once it is back, each taken once."""
    hook.answer = lambda _body: 503

    async def body(life: Life) -> None:
        for number, value in enumerate((5.0, 0.0, 5.0), 1):
            life.heat(value)
            await eventually("judged", waiting(life, number))
        hook.answer = lambda _body: 200
        await eventually("told", settled(hook, life.alerting, ["firing", "resolved", "firing"]))

    await Life(short_dir, f"memory:telling-{next(_names)}", hook, Steps()).run(body)


def waiting(life: Life, number: int) -> Callable[[], Any]:
    async def check() -> bool:
        return [number] == [len(a.waiting) for a in life.alerting.alerts.values()]

    return check


async def test_a_refused_change_is_given_up_and_the_next_one_told(hook: Hook, short_dir: Path):
    """A 400 will not become better by repeating it."""
    hook.answer = lambda body: 400 if body["state"] == "firing" else 200

    async def body(life: Life) -> None:
        life.heat(5.0)
        await eventually("refused", settled(hook, life.alerting, ["firing"]))
        life.heat(0.0)
        await eventually("told", settled(hook, life.alerting, ["firing", "resolved"]))

    await Life(short_dir, f"memory:telling-{next(_names)}", hook, Steps()).run(body)
    assert 2 == len(hook.calls)


async def test_two_monitors_tell_once(hook: Hook, short_dir: Path):
    """The second one takes over where the first stood: what fires is not told again, its end is told once."""
    url = f"memory:telling-{next(_names)}"
    first, second = (Life(short_dir, url, hook, Steps(), name=n) for n in ("one", "two"))
    took_over = asyncio.Event()

    async def leads(life: Life) -> None:
        life.heat(5.0)
        await eventually("told", settled(hook, life.alerting, ["firing"]))
        await asyncio.sleep(0.1)

    async def follows(life: Life) -> None:
        life.heat(5.0)
        await eventually("the other leads", lambda: _true(life.leading.elsewhere))
        took_over.set()
        await eventually("it leads", lambda: _true(life.leading.acting))
        await asyncio.sleep(0.1)
        life.heat(0.0)
        await eventually("told", settled(hook, life.alerting, ["firing", "resolved"]))

    async def first_then() -> None:
        async def body(life: Life) -> None:
            await leads(life)
            await took_over.wait()

        await first.run(body)

    async with asyncio.TaskGroup() as group:
        group.create_task(first_then())
        await eventually("the first leads", lambda: _true(hasattr(first, "leading") and first.leading.acting))
        group.create_task(second.run(follows))

    assert 2 == len(hook.calls)


async def _true(value: bool) -> bool:
    return value


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_torn_journal_keeps_its_whole_lines(tmp_path: Path, cut: int):
    """Cut anywhere, what was written before the last line is there, and the next line is whole."""
    from fairlead_monitoring.decisions.alerts import Scene, advance, new_alert
    from fairlead_monitoring.decisions.judging import Fact

    def fired(place: str) -> Any:
        scene = Scene(now_s=1.0, receivers=("http://hook",), silenced=lambda _a: False)
        return advance(new_alert(RULES["hot"], (("place", place),), now_s=1.0), RULES["hot"], Fact.BAD, 2.0, scene)

    file = tmp_path / "j.jsonl"
    Journal(file).put([fired("attic")])
    whole = file.read_bytes()
    Journal(file).put([fired("cellar")])
    file.write_bytes(file.read_bytes()[: len(whole) + cut])
    again = Journal(file)
    again.put([fired("roof")])
    last = Journal(file)

    assert {fired("attic").id, fired("roof").id} <= last.alerts.keys()
    assert msgspec.json.encode(last.alerts[fired("attic").id]) == msgspec.json.encode(fired("attic"))


def test_a_long_journal_is_written_afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its length follows the alerts there are, not the changes there were."""
    from fairlead_monitoring.adapters import journal as journals

    monkeypatch.setattr(journals, "COMPACT_LINES", 10)
    journal = Journal(tmp_path / "j.jsonl")
    for turn in range(100):
        journal.lead(leading=turn % 2 == 0)

    assert (tmp_path / "j.jsonl").read_bytes().count(b"\n") < 15
    assert Journal(tmp_path / "j.jsonl").led is False
