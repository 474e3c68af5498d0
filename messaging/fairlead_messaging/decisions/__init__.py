"""Pure: the topology, the plan, the links, the window of unconfirmed messages. No await, clock, socket or log."""
