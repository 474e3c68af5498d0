"""What stands on a broker, wished for or found: one value for every kind, compared by its body alone."""

import enum
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SECRET = re.compile(r"(://[^:/@\s]*):[^@/\s]*@")


class Kind(enum.StrEnum):
    """In the order of making: what comes later may need what came before."""

    CLUSTER_NAME = "cluster name"
    VHOST = "virtual host"
    EXCHANGE = "exchange"
    QUEUE = "queue"
    BINDING = "binding"
    UPSTREAM = "upstream"
    UPSTREAM_SET = "upstream set"
    POLICY = "policy"


ORDER: Mapping[Kind, int] = {kind: number for number, kind in enumerate(Kind)}
Key = tuple[Kind, str, str]
"""Kind, virtual host, name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """`body` is what is compared, and what the management API is sent. A binding's `name` is its whole identity."""

    kind: Kind
    vhost: str
    name: str
    body: Any = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.kind, self.vhost, self.name

    def __str__(self) -> str:
        """`queue jobs`, `queue jobs in /shop`; a binding as `binding orders -> queue audit (order.#)`."""
        where = f" in {self.vhost}" if self.vhost not in {"", "/"} else ""
        return f"{self.kind} {shown_name(self)}{where}"


Things = Mapping[Key, Thing]


def shown_name(thing: Thing) -> str:
    if thing.kind is not Kind.BINDING:
        return thing.name
    source, kind, target, routing_key, arguments = json.loads(thing.name)
    key = f" ({routing_key})" if routing_key else ""
    return f"{source} -> {kind} {target}{key}" + (f" {json.dumps(arguments)}" if arguments else "")


def binding_name(source: str, kind: str, target: str, routing_key: str, arguments: Mapping[str, Any]) -> str:
    """One text for what tells bindings apart. `kind` is "queue" or "exchange"."""
    return json.dumps([source, kind, target, routing_key, dict(arguments)], sort_keys=True, separators=(",", ":"))


def binding(vhost: str, source: str, kind: str, target: str, rest: tuple[str, Mapping[str, Any]]) -> Thing:
    """`rest` is routing key and arguments."""
    return Thing(kind=Kind.BINDING, vhost=vhost, name=binding_name(source, kind, target, *rest))


def binding_parts(thing: Thing) -> tuple[str, str, str, str, Mapping[str, Any]]:
    """Source, kind and name of the target, routing key, arguments."""
    source, kind, target, routing_key, arguments = json.loads(thing.name)
    return source, kind, target, routing_key, arguments


def key_text(key: Key) -> str:
    """A key as the ledger on the broker holds it."""
    return json.dumps(key, separators=(",", ":"))


def key_of_text(text: str) -> Key | None:
    """None for what another version wrote."""
    try:
        kind, vhost, name = json.loads(text)
        return Kind(kind), str(vhost), str(name)
    except (ValueError, TypeError):
        return None


# --- bodies, the same for what is wished for and what is found


def queue_body(type_name: str, *, durable: bool, auto_delete: bool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A classic queue may say so or not: it is the same queue, so that it never does."""
    rest = {key: value for key, value in arguments.items() if key != "x-queue-type"}
    if type_name != "classic":
        rest["x-queue-type"] = type_name
    return {"durable": durable, "auto_delete": auto_delete, "arguments": rest}


def same(one: Thing, other: Thing) -> bool:
    if one.kind is Kind.UPSTREAM:
        return _upstream(one.body, bare=_bare(other.body)) == _upstream(other.body, bare=_bare(one.body))
    return bool(one.body == other.body)


def _upstream(body: Mapping[str, Any], *, bare: bool) -> dict[str, Any]:
    """With `bare`, the other side does not show its credentials, and ours are left out."""
    uris = uris_of(body)
    return {**body, "uri": [SECRET.sub("://", uri) if bare else uri for uri in uris]}


def _bare(body: Mapping[str, Any]) -> bool:
    return not any("@" in uri for uri in uris_of(body))


def uris_of(body: Mapping[str, Any]) -> list[str]:
    uris = body.get("uri", ())
    return [uris] if isinstance(uris, str) else [str(uri) for uri in uris]


def hidden(value: Any) -> Any:
    """The same without passwords: what may be shown and logged."""
    if isinstance(value, str):
        return SECRET.sub(r"\1:***@", value)
    if isinstance(value, Mapping):
        return {key: hidden(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [hidden(one) for one in value]
    return value


def differences(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """`definition.max-length: 10 -> 20`, passwords left out."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            yield from differences(before.get(key), after.get(key), f"{place}.{key}" if place else str(key))
    elif before != after:
        old, new = _short(before), _short(after)
        yield f"{place or 'value'}: {old} -> {new if old != new else 'other credentials'}"


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return str(hidden(value))
    if isinstance(value, Sequence) and all(isinstance(one, str) for one in value):
        return " ".join(str(hidden(one)) for one in value)
    return json.dumps(hidden(value), sort_keys=True)
