"""The agent's metrics, names `fairlead_agent_…`."""

from prometheus_client import Counter, Gauge

UPDATES = Counter("fairlead_agent_status_updates", "Status updates made, by state", ["state"])
RESENT = Counter("fairlead_agent_status_updates_resent", "Status updates sent again for want of an acknowledgement")
LAUNCH_FAILURES = Counter("fairlead_agent_launch_failures", "Tasks that could not be started")
KEEPER_DEATHS = Counter("fairlead_agent_keeper_deaths", "Keepers that died and took their tasks with them")
OLD_EPOCHS = Counter("fairlead_agent_old_epoch_commands", "Commands refused because a newer leader had spoken")
RECONNECTS = Counter("fairlead_agent_master_connections", "Streams opened to a leading master")
CONNECTED = Gauge("fairlead_agent_connected", "1 while a leading master's stream is open")
RESOLVING = Gauge("fairlead_agent_resolving", "1 when tasks get their own resolv.conf")
CHECKS = Counter("fairlead_agent_health_checks", "Health checks made, by outcome", ["outcome"])
IDENTITIES = Counter("fairlead_agent_identities", "Certificates asked for tasks, by result", ["result"])
TASKS = Gauge("fairlead_agent_tasks", "Tasks not ended")
UNACKNOWLEDGED = Gauge("fairlead_agent_unacknowledged_updates", "Tasks with a status update not acknowledged yet")
CHECKPOINT_FAILURES = Counter("fairlead_agent_checkpoint_failures", "Checkpoints that could not be written")
