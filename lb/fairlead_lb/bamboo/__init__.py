"""Bamboo's surface: its file, its API, its tree in ZooKeeper, its templates."""
