"""Records, the registry and its backends, leader election, announcing, resolving.

Contract: what two subsystems share is a frozen record of `records.py`, stored under a path of `paths.py`, written
and watched through the `Registry` protocol of `registry.py`. What a reader may believe of it is decided once,
in `reading.py`. Nothing here knows DNS, HAProxy or Mesos' HTTP API.
"""
