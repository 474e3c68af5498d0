"""`fairlead app zdd`: the new version beside the old one, until nobody needs the old one any more."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from fairlead_console.balancer import registrations
from fairlead_console.decisions import zdd
from fairlead_console.decisions.zdd import Plan, Remove, Retire, Scale, Step
from fairlead_console.output import say, show_json
from fairlead_console.use import Calls, Use
from fairlead_console.verbs.app import absolute, get_app, path_of, read_definitions
from fairlead_console.verbs.registry import with_registry
from fairlead_console.watching import follow
from fairlead_daemon.errors import BadSettings, FairleadError, Refused
from fairlead_discovery import paths

POLL_S = 0.2


def deploy(use: Use, file: str, *, complete: str, **how: Any) -> None:
    definition = _definition(file)
    group = zdd.group_of(definition)

    async def run(calls: Calls) -> None:
        apps = (await calls.services("GET", "/v2/apps"))["apps"]
        there = zdd.previous(apps, group)
        zdd.check_alone(apps, group)
        if complete or how["resume"]:
            plan = zdd.resumed(there, complete=complete)
        elif len(there) > 1:
            names = " and ".join(a["id"] for a in there)
            raise Refused(f"{names} stand side by side: --resume, --complete-cur or --complete-prev")
        else:
            before = there[0] if there else None
            now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
            made, plan = zdd.prepared(
                definition, before, initial=how["initial"], keep=how["new_instances"], started_at=now
            )
            if how["dry_run"]:
                show_json(made)
                return
            await calls.services("PUT", path_of(made["id"]), made)
        await Deployment(use, calls, plan, how["timeout_s"]).run()

    use.run(run)


def _definition(file: str) -> Mapping[str, Any]:
    found = read_definitions(file)
    if len(found) > 1:
        raise BadSettings(f"{file}: one app at a time")
    return found[0]


class Deployment:
    """Whatever it knows is asked anew at every turn: it may have been begun by another, a while ago."""

    def __init__(self, use: Use, calls: Calls, plan: Plan, timeout_s: float) -> None:
        self._use = use
        self._calls = calls
        self._plan = plan
        self._timeout_s = timeout_s

    async def run(self) -> None:
        """Raises Refused when a step does not succeed: what serves goes on serving."""
        try:
            while step := await self._next():
                await self._perform(step)
        except FairleadError as error:
            hint = "--resume goes on, --complete-prev goes back" if self._plan.old else "deploy it again"
            raise type(error)(f"{error}; {hint}") from error
        if self._use.as_json:
            show_json({"app": self._plan.new, "instances": self._plan.keep or self._plan.target})
        else:
            self._tell(f"{self._plan.new}: {self._plan.keep or self._plan.target} instances serve")

    def _tell(self, text: str) -> None:
        if not self._use.as_json:
            say(text)

    async def _next(self) -> Step:
        plan = self._plan
        await self._settled(plan.new)
        new = await get_app(self._calls, plan.new)
        await self._routed(new)
        old = await self._old()
        if old is None:
            plan = replace(plan, old="")
        tasks = [task["id"] for task in old.get("tasks", ())] if old is not None else []
        return zdd.next_step(plan, new["instances"], tasks)

    async def _old(self) -> Mapping[str, Any] | None:
        if not self._plan.old:
            return None
        await self._settled(self._plan.old)
        apps = (await self._calls.services("GET", "/v2/apps"))["apps"]
        return await get_app(self._calls, self._plan.old) if any(a["id"] == self._plan.old for a in apps) else None

    async def _settled(self, app_id: str) -> None:
        """Until none of its deployments runs, and all of its instances are healthy."""
        for one in await self._calls.services("GET", "/v2/deployments"):
            if app_id in one.get("affectedApps", ()):
                await follow(self._calls, app_id, one["id"], timeout_s=self._timeout_s, quiet=self._use.as_json)

    async def _routed(self, new: Mapping[str, Any]) -> None:
        """Until each registered balancer has every instance ready, but for those it drains already for the others.

        Raises Refused when one has not in time.
        """
        if not new.get("portDefinitions"):
            return
        framework = str((await self._calls.services("GET", "/v2/info"))["name"])
        service = paths.service_key(framework, absolute(new["id"]))
        wanted = {task["id"] for task in new.get("tasks", ())}
        end_s = time.monotonic() + self._timeout_s
        while left := await self._missing(service, wanted):
            if time.monotonic() > end_s:
                raise Refused(f"{new['id']}: not routed after {self._timeout_s:g} s: {'; '.join(left)}")
            await asyncio.sleep(POLL_S)

    async def _missing(self, service: str, wanted: set[str]) -> list[str]:
        asked = f"?fresh=1&service={quote(service, safe='')}"
        found = []
        for name, admin in await self._balancers():
            status = await self._calls.url("GET", f"{admin}/status{asked}")
            ready = {s["task"] for one in status["services"] for s in one["servers"] if s["state"] == "ready"}
            drained = {task for group in status.get("groups", {}).values() for task in group["drained"]}
            if not wanted <= ready | drained:
                found.append(f"{name} lacks {len(wanted - ready - drained)}")
        return found

    async def _balancers(self) -> list[tuple[str, str]]:
        """Registered ones; without a registry at hand the one we know."""
        if not self._use.addresses.registry:
            return [("the balancer", self._use.addresses.lb)] if self._use.addresses.lb else []
        there = await with_registry(self._use.registry, registrations)
        return [(one.id, one.admin) for one in there if not one.node]

    async def _perform(self, step: Step) -> None:
        match step:
            case Scale(app, instances):
                self._tell(f"{app}: to {instances} instances")
                answer = await self._calls.services("PUT", path_of(app), {"instances": instances})
            case Retire(app, tasks):
                self._tell(f"{app}: {len(tasks)} of its tasks are drained, and end")
                answer = await self._calls.services("POST", "/v2/tasks/delete?scale=true", {"ids": list(tasks)})
            case Remove(app):
                self._tell(f"{app}: what is left of it is drained, and goes")
                answer = await self._calls.services("DELETE", path_of(app))
            case _:
                return
        await follow(
            self._calls,
            step.app,
            str(answer.get("deploymentId", "")),
            timeout_s=self._timeout_s,
            quiet=self._use.as_json,
        )
