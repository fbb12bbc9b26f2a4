# The checks.  The last line of each is `N passed, N failed, N skipped`.
#
#   make check          all of it       make check SUITES='unit sandbox'   some of it
#   make check-quick    what needs no server beyond our own, in under two minutes
#   make SAN=address,undefined check-quick    the same, built with sanitizers

SUITES ?=

# What a check builds by a make of its own is built on all processors, unless make was told -j.
jobs = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

check: deps
	$(Q)$(MAKE) $(jobs) all unit-tests $(bench_programs)
	$(Q)$(PYTHON) tests/check.py --build $(B) $(SUITES)

check-quick:
	$(Q)$(MAKE) $(jobs) all unit-tests
	$(Q)$(PYTHON) tests/check.py --build $(B) --quick $(SUITES)

.PHONY: check check-quick
