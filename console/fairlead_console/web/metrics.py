"""Every metric of the web console: `fairlead_console_…`."""

from prometheus_client import Counter, Gauge

viewers = Gauge("fairlead_console_viewers", "Open pages that are kept live")
pushes = Counter("fairlead_console_pushes_total", "Sections sent to open pages because they changed", ["section"])
failures = Counter("fairlead_console_source_failures_total", "Times a daemon did not answer", ["source"])
