# What depends on the kernel and on the kind of cgroups, and the whole system, once more in
# virtual machines with Debian's kernel and pure cgroup v2 (tests/vm/machines).  They see the
# build directory unless it is below /tmp or /run, which are their own.

packages += qemu-system-x86 seabios systemd strace

check-vm:
	$(Q)$(MAKE) $(jobs) all unit-tests $(bench_programs)
	$(Q)$(MAKE) $(jobs) DEBUG=1 B=$(B)-vm-test $(B)-vm-test/pratai
	$(Q)tests/vm/machines $(abspath $(B)) $(abspath $(B)-vm-test)

.PHONY: check-vm
