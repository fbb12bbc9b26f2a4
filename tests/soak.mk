# Many sandboxes, and nothing grows (tests/soak/soak.py).  check has a short one.
#
#   make soak    ten thousand in a row and 64 at a time for ten minutes, by each way in,
#                and a tenth of both with network egress; half an hour, as root

soak:
	$(Q)$(MAKE) all $(bench_programs)
	$(Q)$(PYTHON) tests/soak/soak.py $(B)

.PHONY: soak
