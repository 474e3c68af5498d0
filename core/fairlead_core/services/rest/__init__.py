"""Marathon's REST v2 over aiohttp. Contract: a handler reads the fleet at once, or changes it through `Changes`."""
