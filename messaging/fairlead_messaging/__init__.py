"""Broker topology, the message bus, the link watchdog. What it promises the rest:

- `topology.toml` -> wanted exchanges, queues, bindings, policies and federation of one or several brokers.
  `plan(wanted, actual)` is pure; carrying it out goes through RabbitMQ's management API only, since federation is
  policies and parameters there. Applied twice, the second time does nothing. Exactly one policy wins an object in
  RabbitMQ, so federation's keys join those of the policy that would win, and are never stacked on it.
- `Bus`: publish with windowed confirms, consume with acknowledgements, reconnect, send again what was not confirmed.
  A message is delivered at least once; whoever must not act twice looks at its id.
- A watchdog: federation links the topology expects and the broker does not list, or lists as not running. RabbitMQ
  gives up on links without leaving a trace in its status, so the expected list is ours, not the broker's.

It finds brokers as any other service: by endpoints in the registry, or by addresses in its files. It holds
topology documents under `/fairlead/messaging/topology/…`. It never imports core, dns, lb or monitoring.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairlead_messaging.bus import Bus
    from fairlead_messaging.consuming import Consumer, Delivery
    from fairlead_messaging.decisions.messages import (
        DeclareBinding,
        DeclareExchange,
        DeclareQueue,
        Limits,
        Message,
    )

__all__ = [
    "Bus",
    "Consumer",
    "DeclareBinding",
    "DeclareExchange",
    "DeclareQueue",
    "Delivery",
    "Limits",
    "Message",
]
_HOMES = {"Bus": "bus", "Consumer": "consuming", "Delivery": "consuming"}


def __getattr__(name: str) -> Any:
    """Loads pika only for those who send messages."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'decisions.messages')}"), name)
