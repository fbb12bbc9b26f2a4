# The program that tests/escape runs inside and outside: static, so that it needs nothing there.

$(B)/tests/escape/probe: $(wildcard tests/escape/probe*.c) tests/escape/probe.h
	$(Q)mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O1 $(WARN) -I. -static -o $@ $(filter %.c,$^)

# Asks a spawner to run it.
$(B)/tests/escape/ask: $(B)/tests/escape/ask.o $(call library,sandbox) $(call library,rootfs) $(base) \
		$(B)/pratai-spawner
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) -larchive -lsodium -lcrypto -lseccomp -lm

unit-tests: $(B)/tests/escape/probe $(B)/tests/escape/ask
