"""Names from endpoints, answers from names: Mesos-DNS' names, served from the registry's watch.

Contract: `decisions/` turns records into names (`records.py`), keeps them in an incremental index (`zone.py`) and
turns a packet into a reply (`answer.py`) without clock, socket or chance of its own. `adapters/` holds the sockets,
`daemon.py` the loop. It needs nothing of fairlead but the registry: foreign ServerSets will do.
"""
