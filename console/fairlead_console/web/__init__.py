"""The web console: one page, rendered here, that keeps itself true through server-sent events.

Reads the registry's snapshots and asks the daemons over HTTP; writes nothing anywhere.
"""
