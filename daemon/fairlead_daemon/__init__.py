"""What every fairlead daemon is made of: settings, logs, errors, backoff, web server, access checks, main loop.

Contract: nothing here knows what a task, a name or a route is. Everything above may import this package; it
imports none of the others.
"""
