"""The service scheduler: long-running apps behind Marathon's REST v2, on any Mesos v1 master.

Contract: `decisions/` turns definitions, instances and offers into values and never waits; `adapters/` alone knows
the master's HTTP API and the registry's layout; `term.py` is one leadership, the only owner of the state while it
lasts; `rest/` answers HTTP. The master is reached through the v1 scheduler API and nothing else.
"""
