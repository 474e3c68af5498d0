"""What the service scheduler measures."""

from prometheus_client import Counter, Gauge, Histogram

apps = Gauge("fairlead_services_apps", "Apps that are defined")
excluded = Gauge("fairlead_services_excluded_apps", "Apps that cannot be scheduled as they are defined")
instances = Gauge("fairlead_services_instances", "Instances by what they are doing", ["state"])
pending = Gauge("fairlead_services_pending_instances", "Instances that wait for an offer")
deployments = Gauge("fairlead_services_deployments", "Deployments that run")
leading = Gauge("fairlead_services_leading", "1 while this process is the leading scheduler")
subscribed = Gauge("fairlead_services_subscribed", "1 while the master's event stream is open")
launches = Counter("fairlead_services_launches_total", "Tasks launched")
kills = Counter("fairlead_services_kills_total", "Tasks asked to end, by reason", ["reason"])
updates = Counter("fairlead_services_status_updates_total", "Status updates, by state", ["state"])
failures = Counter("fairlead_services_task_failures_total", "Tasks that ended by themselves")
offers = Counter("fairlead_services_offers_total", "Offers, by what became of them", ["outcome"])
record_seconds = Histogram("fairlead_services_record_seconds", "Time to record changed instances in the registry")
