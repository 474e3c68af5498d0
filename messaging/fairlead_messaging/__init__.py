"""Broker topology, the message bus, the link watchdog. Not yet: nothing here runs. This is the contract to fill.

What it will give the rest:

- `topology.toml` -> wanted exchanges, queues, bindings, users, upstreams and policies of one or several brokers.
  `plan(wanted, actual) -> [Put | Delete]` is pure; applying it goes through RabbitMQ's management API only, since
  federation is policies and parameters there. Applied twice, the second time does nothing. Exactly one policy wins
  an object in RabbitMQ, so keys of several wishes for one object are merged into that one, never stacked.
- `Bus`: publish with windowed confirms, consume with acknowledgements, reconnect, send again what was not confirmed.
  A message is delivered at least once; whoever must not act twice looks at its id.
- A watchdog: federation links the topology expects and the broker does not list, or lists as not running. RabbitMQ
  gives up on links without leaving a trace in its status, so the expected list is ours, not the broker's.

It finds brokers as any other service: endpoints in the registry, never addresses in its settings alone. It holds
topology documents under `/fairlead/messaging/topology/…`. It never imports core, dns, lb or monitoring.
"""
