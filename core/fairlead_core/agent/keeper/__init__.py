"""The keeper: one small process per agent, the parent of all its tasks. It spawns, waits and records, nothing else.

Run as `python -m fairlead_core.agent.keeper FOLDER INSTANCE`; it leaves its starter at once (a session of its own) and
holds in FOLDER: `lock` (one keeper at a time), `socket`, `identity.json`, `tasks/<digest>.json` (one record a task).
Every task's environment carries FAIRLEAD_TASK_KEY=<instance>/<key>. SIGTERM ends its tasks, then itself.

Contract: imports only the standard library, msgspec and `fairlead_daemon.processes`, so that it stays small.
"""
