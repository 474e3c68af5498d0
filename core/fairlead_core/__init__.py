"""The offer scheduler: master, agent with its keeper, service scheduler.

Contract: `master/`, `agent/` and `services/` never import one another. Master and agent meet in
`agent_protocol.py`, services and master in Mesos' v1 scheduler HTTP API only. What they share as plain values
stands directly in this folder.
"""
