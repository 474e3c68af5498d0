"""Real servers for tests: started on private ports in temporary folders, ended by pid."""
