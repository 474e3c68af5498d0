"""The only files that know the master's scheduler API (`mesos.py`) and the registry's layout (`store.py`)."""
