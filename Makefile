# Thin: every target is a script. `make up ARGS="--zk 127.0.0.1:2181"` passes options on.
.PHONY: up test test-haproxy check bench soak

up:
	@scripts/up $(ARGS)

test:
	@scripts/test $(ARGS)

test-haproxy:
	@scripts/test-haproxy $(HAPROXY) $(ARGS)

check:
	@scripts/check

bench:
	@scripts/bench $(ARGS)

soak:
	@scripts/soak $(ARGS)
