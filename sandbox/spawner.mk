# The spawner's program: static, since each sandbox starts as a copy of it.

programs += $(B)/pratai-spawner
all: $(B)/pratai-spawner

$(B)/pratai-spawner: $(B)/sandbox/spawner_main.o $(call library,sandbox) $(base)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $(if $(SAN)$(COV),,-static-pie) -o $@ $^ -lm

# They start it, so whoever builds one of them needs it.
$(B)/pratai-node $(B)/tests/unit/test_spawner: | $(B)/pratai-spawner
