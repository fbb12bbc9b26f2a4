# Benchmarks: tables, JSON and plots under $(B)/bench.  They decide no test.  The packages
# are those that we are compared with, and an HTTP load generator.

bench_packages := bubblewrap crun runc hey

$(B)/bench/floor: bench/floor.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -static -o $@ $<

bench: deps
	@sh packaging/deps.sh $(bench_packages)
	$(Q)$(MAKE) all $(B)/bench/floor
	BUILD=$(B) $(PYTHON) bench/launch.py
	BUILD=$(B) $(PYTHON) bench/webhook.py

.PHONY: bench
