# The checks.  The last line of each is `N passed, N failed, N skipped`.
#
#   make check          all of it       make check SUITES='unit sandbox'   some of it
#   make check-quick    what needs no server beyond our own, in under two minutes
#   make SAN=address,undefined check-quick    the same, built with sanitizers

SUITES ?=

check: deps
	$(Q)$(MAKE) all unit-tests $(bench_programs)
	$(Q)$(PYTHON) tests/check.py --build $(B) $(SUITES)

check-quick: all unit-tests
	$(Q)$(PYTHON) tests/check.py --build $(B) --quick $(SUITES)

.PHONY: check check-quick
