# The filters are compiled while building: gen_seccomp prints them as C text, which
# sandbox/seccomp.c includes.  Only this program and pratai-seccomp need libseccomp.

seccomp_compiler := $(addprefix $(B)/sandbox/seccomp_,compile.o names.o policy.o rules.o run.o)

$(B)/sandbox/gen_seccomp: $(B)/sandbox/gen_seccomp_main.o $(seccomp_compiler) $(base)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lseccomp -lm

$(B)/sandbox/seccomp_filter.inc: $(B)/sandbox/gen_seccomp
	$(call say,GEN,$@)
	$(Q)$< >$@.new
	$(Q)mv $@.new $@

$(B)/sandbox/seccomp.o: $(B)/sandbox/seccomp_filter.inc

# Reads profiles of the user's for `pratai run`, which starts it.

programs += $(B)/pratai-seccomp
all: $(B)/pratai-seccomp

$(B)/pratai-seccomp: $(B)/sandbox/seccomp_main.o $(B)/sandbox/profile.o $(seccomp_compiler) $(base)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lseccomp -lcjson -lm
