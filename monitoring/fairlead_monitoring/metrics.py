"""Every metric of the monitor itself: `fairlead_monitor_…`. What it says of other parts is named in decisions/houses.py."""

from prometheus_client import Counter, Gauge, Histogram

rounds = Counter("fairlead_monitor_rounds_total", "Looks at sources, by outcome", ["outcome"])
round_seconds = Histogram(
    "fairlead_monitor_round_seconds",
    "Time of a look at a source that answered",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)
series = Gauge("fairlead_monitor_series", "Series kept in memory")
series_left_out = Gauge("fairlead_monitor_series_left_out", "Values not kept since the start: too many series")
judge_seconds = Histogram(
    "fairlead_monitor_judge_seconds", "Time to judge all rules", buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.5)
)
alerts = Gauge("fairlead_monitor_alerts", "Alerts by state", ["state"])
rule_errors = Gauge("fairlead_monitor_rule_errors", "Rules that cannot be judged as they stand")
leading = Gauge("fairlead_monitor_leading", "1 while this monitor tells and exports")
calls = Counter("fairlead_monitor_webhook_calls_total", "Webhook calls, by outcome", ["outcome"])
call_seconds = Histogram(
    "fairlead_monitor_tell_seconds",
    "From a change of state to the webhook's answer",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2, 5, 30, 300),
)
graphite_connected = Gauge("fairlead_monitor_graphite_connected", "1 while carbon is connected")
graphite_points = Counter("fairlead_monitor_graphite_points_total", "Points sent to carbon, repeated ones included")
spool_bytes = Gauge("fairlead_monitor_spool_bytes", "Bytes on disk that carbon may not have yet")
spool_lost = Gauge("fairlead_monitor_spool_lost_points", "Points given up since the start: no room, or a failing disk")
