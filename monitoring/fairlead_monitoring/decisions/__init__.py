"""What follows from what was measured: no clock, no socket, no file."""
