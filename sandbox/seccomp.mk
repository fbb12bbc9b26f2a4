# The filter is compiled while building: gen_seccomp prints it as C text, which
# sandbox/seccomp.c includes.  Only this program needs libseccomp.

$(B)/sandbox/gen_seccomp: $(B)/sandbox/gen_seccomp_main.o $(B)/sandbox/seccomp_rules.o
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lseccomp

$(B)/sandbox/seccomp_filter.inc: $(B)/sandbox/gen_seccomp
	$(call say,GEN,$@)
	$(Q)$< >$@.new
	$(Q)mv $@.new $@

$(B)/sandbox/seccomp.o: $(B)/sandbox/seccomp_filter.inc
