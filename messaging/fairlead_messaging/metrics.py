"""Every metric of messaging: `fairlead_messaging_…`."""

from prometheus_client import Counter, Gauge

LINKS = Gauge(
    "fairlead_messaging_links",
    "Federation links by state, as expected and listed",
    ["topology", "broker", "state"],
)
LINK_UP = Gauge(
    "fairlead_messaging_link_up",
    "1 while an expected federation link runs, 0 otherwise",
    ["topology", "broker", "vhost", "kind", "name", "upstream"],
)
BROKER_UP = Gauge("fairlead_messaging_broker_up", "1 while a broker's management API answers", ["topology", "broker"])
PENDING = Gauge(
    "fairlead_messaging_pending_steps", "What a broker lacks of its topology and is not done", ["topology", "broker"]
)
OBSTACLES = Gauge(
    "fairlead_messaging_obstacles", "What a person must look at before it is done", ["topology", "broker"]
)
STEPS = Counter(
    "fairlead_messaging_steps_total", "Steps taken to make brokers what is declared", ["topology", "broker"]
)
CONFIRMED = Counter("fairlead_messaging_bus_confirmed_total", "Messages a broker confirmed")
REFUSED = Counter("fairlead_messaging_bus_refused_total", "Messages that ended in an error")
RESENT = Counter("fairlead_messaging_bus_resent_total", "Messages sent again after a connection or channel ended")
DELIVERED = Counter("fairlead_messaging_bus_delivered_total", "Messages that came")
ACKNOWLEDGED = Counter("fairlead_messaging_bus_acknowledged_total", "Deliveries acknowledged")
REJECTED = Counter("fairlead_messaging_bus_rejected_total", "Deliveries rejected")
CONNECTIONS = Counter("fairlead_messaging_bus_connections_total", "Connections opened")
