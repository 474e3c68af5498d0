"""The only files of the agent that know the kernel, the disk, HTTP, DNS and the registry."""
