"""Samples, exporters, alert rules, notifiers. Not yet: nothing here runs. This is the contract to fill.

What it will give the rest:

- Samples: one measured value with name, labels and time, read from every daemon's `/metrics`, HAProxy and brokers; an
  hour of them in memory. Targets come from the registry's endpoints, not from a list someone keeps.
- Exporters, each a pure `lines(samples, now_s) -> bytes` and a few lines of socket: Prometheus, Graphite, Ganglia,
  Zabbix. What a peer cannot take now is spooled and sent later, neither lost nor sent twice.
- Rules: `judge(rule, history, now_s) -> state` is pure; the states are pending, firing, resolved and no-data. One
  change of state is one notification. A rule that cannot be judged says so: no-data is not well.
- A guard that takes bad hosts out of service and never more of them than a cap says.

It holds rules, silences, verdicts and its journal under `/fairlead/monitoring/…`, the verdicts as records that core
reads. It never imports core, dns, lb or messaging.
"""
