# Unit tests: each tests/unit/test_*.c is a cmocka program with a main of its own, linked
# with all our libraries (a group: what a test does not use is not looked at).
#
#   make check-unit                          all of them; fails at the end if one did
#   make check-unit UNIT='test_loop test_mq' some of them
#   make check-unit UNIT_MODULES='netio core/base'   when another module does not build

UNIT ?= $(basename $(notdir $(wildcard tests/unit/test_*.c)))
UNIT_MODULES ?= $(modules)
unit_libraries = $(foreach m,$(UNIT_MODULES),$(call library,$(m)))
unit_programs = $(UNIT:%=$(B)/tests/unit/%)
LIBS_unit := -lcmocka -lzmq -lcurl -lmicrohttpd -lsqlite3 -larchive -lseccomp -lcap -lsodium -lcrypto \
	-lcjson -lpthread -lm

$(B)/tests/unit/test_%: $(B)/tests/unit/test_%.o $(unit_libraries)
	$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(unit_libraries) -Wl,--end-group $(LIBS_unit)

unit-tests: $(unit_programs)

# Every program's whole output is beside it in a .log; what failed is shown at once.
check-unit: $(unit_programs)
	@failed=0; for t in $(unit_programs); do \
		if $$t >$$t.log 2>&1; then \
			echo "ok $${t##*/}: $$(grep -c '^\[       OK' $$t.log) tests," \
				"$$(grep -c '^\[  SKIPPED \].*[a-z]$$' $$t.log) skipped"; \
		else \
			failed=1; cat $$t.log; echo "FAILED $${t##*/}, see $$t.log"; \
		fi; \
	done; exit $$failed

.SECONDARY: $(unit_programs:=.o)
.PHONY: unit-tests check-unit
