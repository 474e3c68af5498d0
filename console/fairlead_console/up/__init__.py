"""`fairlead up`: every daemon as a process on one machine, watched, and ended in order.

Contract: the processes are sessions of their own that log to files and hold no pipe of `up`, so that a killed `up`
costs nothing; the next one finds them by `processes.json` or their command line, and replaces them one at a time.
Only a clean end (Ctrl-C, SIGTERM) ends tasks and HAProxy; app definitions stay in the registry.
"""
