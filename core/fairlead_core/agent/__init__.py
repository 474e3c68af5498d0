"""The agent: runs a machine's tasks through its keeper, checks their health, tells the master.

Contract: `decisions/` is pure; `adapters/` alone know the kernel, the disk, HTTP and DNS; `keeper/` is the small
process that is the parent of all tasks and imports nothing of the rest; `daemon.py` ties them together.
Everything the agent must not forget is on disk before it acts on it, so that it may be killed between any two lines.
"""
