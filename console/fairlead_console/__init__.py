"""The face of the bundle: the `fairlead` command, `fairlead up`, later the web console and the package catalogue.

Contract: the only package that may import all others, and that none imports. `main` starts a daemon without loading
anything of the rest; `verbs/` speak HTTP and DNS to running daemons and never read their files, apart from
`addresses.json` and the token; `up/` supervises all of them on one machine; `decisions/` is pure.
"""
