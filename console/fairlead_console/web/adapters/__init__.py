"""Where values come in: daemons over HTTP, the registry's snapshots."""
