"""RabbitMQ's management API: the only file that knows its paths. Errors come in words, and without passwords."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from fairlead_daemon.errors import FairleadError, Refused, Unavailable
from fairlead_messaging.decisions.gates import parse_version
from fairlead_messaging.decisions.links import Listed, read_listed
from fairlead_messaging.decisions.planned import Actual, Delete, Plan, Put, Step
from fairlead_messaging.decisions.things import (
    Key,
    Kind,
    Thing,
    binding,
    binding_parts,
    key_of_text,
    key_text,
    queue_body,
)
from fairlead_messaging.decisions.wanted import Place
from fairlead_messaging.decisions.words import reason_in_words

WAIT_S = 10.0
NOT_FOUND, UNAUTHORISED, FIRST_SERVER_ERROR = 404, 401, 500
QUEUE_COLUMNS = "name,vhost,durable,auto_delete,exclusive,arguments,messages,consumers,type"


class Missing(Refused):
    """404: there is no such thing."""


class Management:
    """One broker's API. Every call raises Unavailable (no answer) or Refused (the broker's reason, in words)."""

    def __init__(self, session: aiohttp.ClientSession, broker: str, place: Place) -> None:
        self.broker = broker
        self._session = session
        self._base = place.management.rstrip("/")
        self._login = aiohttp.BasicAuth(place.user, place.password)

    # --- reading

    async def actual(self, topology: str) -> Actual:
        """Everything that a topology can declare, as it stands now."""
        overview, *parts = await asyncio.gather(
            self._get("/api/overview"),
            self._get("/api/vhosts?columns=name"),
            self._get("/api/exchanges?columns=name,vhost,type,durable,auto_delete,internal,arguments"),
            self._get(f"/api/queues?columns={QUEUE_COLUMNS}"),
            self._get("/api/bindings"),
            self._get("/api/policies"),
            self._get("/api/parameters/federation-upstream", absent=[]),
            self._get("/api/parameters/federation-upstream-set", absent=[]),
            self._get("/api/cluster-name"),
            self._get(f"/api/global-parameters/{_ledger(topology)}", absent={}),
            self._get("/api/federation-links", absent=None),
        )
        try:
            return _actual(overview, parts)
        except (KeyError, TypeError, AttributeError, ValueError) as error:  # not RabbitMQ, or one nobody has seen yet
            raise Unavailable(f"{self.broker}: {self._base}: an answer cannot be read: {error!r}") from error

    async def links(self) -> tuple[Listed, ...]:
        """Every federation link it lists."""
        return read_listed(await self._get("/api/federation-links", absent=[]))

    # --- writing

    async def carry_out(self, plan: Plan, steps: tuple[Step, ...], topology: str, *, force: bool = False) -> int:
        """Does the steps in order; returns how many. The ledger is written before anything is made, so that nothing
        that was made can be forgotten, and after what was deleted. Raises at the first step that fails, naming it.
        """
        if not steps:
            return 0
        done = {step.thing.key for step in steps if isinstance(step, Put)}
        deleted = {step.thing.key for step in steps if isinstance(step, Delete)}
        before = _read_ledger(
            (await self._get(f"/api/global-parameters/{_ledger(topology)}", absent={})).get("value", {})
        )
        making = before | (done & plan.made)
        if making != before:
            await self._write_ledger(topology, making)
        for step in steps:
            await self._perform(step, force=force)
        if deleted & making:
            await self._write_ledger(topology, making - deleted)
        return len(steps)

    async def _perform(self, step: Step, *, force: bool) -> None:
        try:
            if isinstance(step, Put):
                await self._put(step.thing)
            else:
                await self._delete(step.thing, force=force)
        except Missing:
            if isinstance(step, Put):
                raise
        except Refused as error:
            raise Refused(f"{self.broker}: {step.action} {step.thing}: {error}") from error

    async def _put(self, thing: Thing) -> None:
        if thing.kind is Kind.BINDING:
            source, kind, target, routing_key, arguments = binding_parts(thing)
            path = f"/api/bindings/{_q(thing.vhost)}/e/{_q(source)}/{kind[0]}/{_q(target)}"
            await self._call("POST", path, {"routing_key": routing_key, "arguments": arguments})
            return
        body = thing.body
        if thing.kind in {Kind.UPSTREAM, Kind.UPSTREAM_SET}:
            body = {"value": thing.body}
        await self._call("PUT", _path(thing), body)

    async def _delete(self, thing: Thing, *, force: bool) -> None:
        if thing.kind is Kind.BINDING:
            await self._delete_binding(thing)
            return
        guarded = thing.kind is Kind.QUEUE and not force and "x-queue-type" not in thing.body["arguments"]
        await self._call("DELETE", _path(thing) + ("?if-empty=true&if-unused=true" if guarded else ""))

    async def _delete_binding(self, thing: Thing) -> None:
        source, kind, target, _, _ = binding_parts(thing)
        path = f"/api/bindings/{_q(thing.vhost)}/e/{_q(source)}/{kind[0]}/{_q(target)}"
        for row in await self._get(path, absent=[]):
            if _binding(row).key == thing.key:
                await self._call("DELETE", f"{path}/{_q(row['properties_key'])}")

    async def _write_ledger(self, topology: str, made: "frozenset[Key] | set[Key]") -> None:
        name = _ledger(topology)
        value = {"made": sorted(key_text(key) for key in made)}
        await self._call("PUT", f"/api/global-parameters/{name}", {"name": name, "value": value})

    # --- calls

    async def _get(self, path: str, **otherwise: Any) -> Any:
        """With `absent=…`, what to answer instead of a 404."""
        try:
            return await self._call("GET", path)
        except Missing:
            if "absent" not in otherwise:
                raise
            return otherwise["absent"]

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        data = msgspec.json.encode(body) if body is not None else None
        url = f"{self._base}{path}"
        try:
            async with (
                asyncio.timeout(WAIT_S),
                self._session.request(method, _encoded(url), data=data, headers=headers, auth=self._login) as response,
            ):
                raw = await response.read()
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Unavailable(f"{self.broker}: {self._base} does not answer: {error or 'no answer in time'}") from error
        if status < 400:
            return _decoded(raw, f"{self.broker}: {self._base}{path}")
        raise self._error(status, raw)

    def _error(self, status: int, raw: bytes) -> FairleadError:
        reason = _reason(raw)
        if status == UNAUTHORISED and b"not_authori" in raw.lower():
            return Refused(f"{self.broker}: user or password is wrong, or the user may not do this ({reason})")
        if status >= FIRST_SERVER_ERROR:
            return Unavailable(f"{self.broker}: {self._base}: status {status}, {reason}")
        return Missing(reason) if status == NOT_FOUND else Refused(reason)


def _encoded(url: str) -> Any:
    from yarl import URL  # noqa: PLC0415  # aiohttp's own

    return URL(url, encoded=True)  # `%2F` is a name here, not a path


def _decoded(raw: bytes, place: str) -> Any:
    try:
        return msgspec.json.decode(raw) if raw else None
    except msgspec.DecodeError as error:
        raise Unavailable(f"{place}: no management API answers there") from error


def _reason(raw: bytes) -> str:
    try:
        value = msgspec.json.decode(raw)
        reason = value.get("reason", value.get("error", ""))
        return reason_in_words(reason if isinstance(reason, str) else str(reason))
    except (msgspec.DecodeError, AttributeError):
        return raw[:200].decode("utf-8", "replace").strip() or "no reason given"


def _q(name: str) -> str:
    return quote(name, safe="")


def _ledger(topology: str) -> str:
    return f"fairlead-topology-{topology}"


def _read_ledger(value: Mapping[str, Any]) -> frozenset[Key]:
    keys = (key_of_text(str(text)) for text in value.get("made", ()))
    return frozenset(key for key in keys if key is not None)


PATHS: Mapping[Kind, str] = {
    Kind.EXCHANGE: "exchanges",
    Kind.QUEUE: "queues",
    Kind.UPSTREAM: "parameters/federation-upstream",
    Kind.UPSTREAM_SET: "parameters/federation-upstream-set",
    Kind.POLICY: "policies",
}


def _path(thing: Thing) -> str:
    if thing.kind is Kind.CLUSTER_NAME:
        return "/api/cluster-name"
    if thing.kind is Kind.VHOST:
        return f"/api/vhosts/{_q(thing.name)}"
    return f"/api/{PATHS[thing.kind]}/{_q(thing.vhost)}/{_q(thing.name)}"


# --- rows as things


def _actual(overview: Mapping[str, Any], parts: Sequence[Any]) -> Actual:
    vhosts, exchanges, queues, bindings, policies, upstreams, sets, cluster, ledger, links = parts
    found = [
        *(Thing(kind=Kind.VHOST, vhost="", name=row["name"]) for row in vhosts),
        *map(_exchange, exchanges),
        *map(_queue, queues),
        *(_binding(row) for row in bindings if row["source"]),
        *map(_policy, policies),
        *(_parameter(Kind.UPSTREAM, row) for row in upstreams),
        *(_parameter(Kind.UPSTREAM_SET, row) for row in sets),
        Thing(kind=Kind.CLUSTER_NAME, vhost="", name="cluster", body={"name": cluster["name"]}),
    ]
    version = str(overview["rabbitmq_version"])
    return Actual(
        version=parse_version(version),
        version_text=version,
        things={thing.key: thing for thing in found},
        made=_read_ledger(ledger.get("value", {})),
        messages=_counts(queues, "messages"),
        consumers=_counts(queues, "consumers"),
        federation=links is not None,
        links=len(links or ()),
    )


def _exchange(row: Mapping[str, Any]) -> Thing:
    keys = ("type", "durable", "auto_delete", "internal", "arguments")
    return Thing(kind=Kind.EXCHANGE, vhost=row["vhost"], name=row["name"], body={key: row[key] for key in keys})


def _queue(row: Mapping[str, Any]) -> Thing:
    arguments = row.get("arguments") or {}
    kind = str(row.get("type") or arguments.get("x-queue-type", "classic"))
    body = queue_body(kind, durable=row["durable"], auto_delete=row["auto_delete"], arguments=arguments)
    if row.get("exclusive"):
        body["exclusive"] = True
    return Thing(kind=Kind.QUEUE, vhost=row["vhost"], name=row["name"], body=body)


def _binding(row: Mapping[str, Any]) -> Thing:
    rest = (str(row["routing_key"]), row["arguments"])
    return binding(row["vhost"], row["source"], row["destination_type"], row["destination"], rest)


def _policy(row: Mapping[str, Any]) -> Thing:
    body = {key: row[key] for key in ("pattern", "apply-to", "priority", "definition")}
    return Thing(kind=Kind.POLICY, vhost=row["vhost"], name=row["name"], body=body)


def _parameter(kind: Kind, row: Mapping[str, Any]) -> Thing:
    return Thing(kind=kind, vhost=row["vhost"], name=row["name"], body=row["value"])


def _counts(queues: list[Mapping[str, Any]], column: str) -> dict[Key, int]:
    return {(Kind.QUEUE, row["vhost"], row["name"]): int(row[column]) for row in queues if row.get(column)}
