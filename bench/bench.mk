# Benchmarks: tables, JSON and plots under $(B)/bench.  They decide no test.  The packages
# are those that we are compared with, and an HTTP load generator.  See bench/README.md.

bench_packages := bubblewrap crun runc systemd-container firejail hey
bench_programs := $(B)/bench/floor $(B)/bench/true $(B)/bench/spawn_bench

$(B)/bench/floor $(B)/bench/true: $(B)/bench/%: bench/%.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -static -o $@ $<

$(B)/bench/spawn_bench: $(B)/bench/spawn_bench.o $(call library,sandbox) $(call library,rootfs) \
		$(base)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lsodium -lcrypto -lcjson -lm

bench-launch: $(bench_programs)
	BUILD=$(B) $(PYTHON) bench/launch.py

bench-egress: all $(bench_programs)
	BUILD=$(B) $(PYTHON) bench/egress.py

# IMAGE: options of image.py, such as --large.
bench-image: all $(bench_programs)
	BUILD=$(B) $(PYTHON) bench/image.py $(IMAGE)

bench: deps
	@sh packaging/deps.sh $(bench_packages)
	$(Q)$(MAKE) all $(bench_programs)
	BUILD=$(B) $(PYTHON) bench/launch.py
	BUILD=$(B) $(PYTHON) bench/egress.py
	BUILD=$(B) $(PYTHON) bench/webhook.py
	BUILD=$(B) $(PYTHON) bench/image.py

.PHONY: bench bench-launch bench-egress bench-image
