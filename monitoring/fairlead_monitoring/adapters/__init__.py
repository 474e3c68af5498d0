"""The only files that know a peer: HTTP sources, carbon, webhooks, the spool's folder, the registry."""
