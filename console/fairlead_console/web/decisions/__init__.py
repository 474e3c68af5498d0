"""What the page shows, as values: from what the registry and the daemons said."""
