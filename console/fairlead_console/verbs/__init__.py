"""One module a verb. Each `--help` has an example; each takes `--json` and `--data-dir`."""
