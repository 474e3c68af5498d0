"""Samples, exporters, alert rules, notifiers.

What it gives the rest:

- Samples: one measured value with name, labels and time, read from every daemon, HAProxy and brokers; an hour of them
  in memory. Where they come from stands in the registry, or in the settings. A source that is away is a sample too.
- Exporters: the pages `/metrics` and `/sd` for Prometheus; Graphite, through a spool on disk. Format and sending are
  apart. What carbon cannot take now is spooled and sent later.
- Rules: `judge(rule, history, now_s)` is pure; the states are pending, firing, resolved and no-data. One change of
  state is one notification, also across a kill. No-data is not well, and never counts as resolved.

It holds silences and its journal under `/fairlead/monitoring/…`. It never imports core, dns, lb or messaging.
"""
