"""Every metric of discovery. `fairlead_registry_…` is the `local` backend's process, the rest any reader or writer."""

from prometheus_client import Counter, Gauge, Histogram

clients = Gauge("fairlead_registry_clients", "Connections to the local registry")
sessions = Gauge("fairlead_registry_sessions", "Sessions of the local registry, connected or within their 10 s")
revision = Gauge("fairlead_registry_revision", "Revision of the local registry")
store_seconds = Histogram(
    "fairlead_registry_store_seconds",
    "Time to bring one batch to disk",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2),
)
store_changes = Counter("fairlead_registry_store_changes", "Nodes written to disk")

in_sight = Gauge("fairlead_discovery_in_sight", "1 while the registry is in sight")
reconnects = Counter("fairlead_discovery_reconnects", "Times the registry came back into sight")
sessions_lost = Counter("fairlead_discovery_sessions_lost", "Sessions that ended without us: all is announced again")
moves = Counter("fairlead_discovery_moves", "Times this process went along when its registry moved")
commits = Counter("fairlead_discovery_commits", "Commits by outcome", ["outcome"])
commit_seconds = Histogram(
    "fairlead_discovery_commit_seconds",
    "Time of a commit, from call to answer",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2, 5),
)
snapshot_revision = Gauge("fairlead_discovery_snapshot_revision", "Revision of the newest snapshot")
snapshot_age_seconds = Gauge(
    "fairlead_discovery_snapshot_age_seconds", "Seconds since the snapshot was known to be true"
)
snapshot_trust = Gauge("fairlead_discovery_snapshot_trust", "1 for the trust the snapshot has", ["trust"])
snapshot_bad_nodes = Gauge("fairlead_discovery_snapshot_bad_nodes", "Nodes that could not be read")
name_servers_refused = Gauge(
    "fairlead_discovery_name_servers_refused",
    "Announced name servers that are not heeded: unreadable, or a TTL beyond a day",
)
foreign_skipped = Gauge("fairlead_discovery_foreign_skipped", "Foreign nodes that could not be read", ["format"])

watchers = Gauge("fairlead_discovery_watchers", "Long polls, rings' too, streams and big answers under way")
watchers_refused = Counter("fairlead_discovery_watchers_refused", "Watchers refused: there were too many")
watchers_slow = Counter("fairlead_discovery_watchers_slow", "Clients cut off, because they read nothing")

announced = Gauge(
    "fairlead_announce_instances", "Instances of this announcer: announced, or missing for now", ["state"]
)
checks = Counter("fairlead_announce_checks", "Health checks done, good and bad", ["type", "result"])
held = Gauge("fairlead_coordination_held", "1 while this process holds the lock, semaphore or election", ["name"])
fence = Gauge("fairlead_coordination_fence", "The newest fencing token of this process", ["name"])
