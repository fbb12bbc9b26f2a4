# What depends on the kernel and on the kind of cgroups, once more in a virtual machine with
# Debian's kernel and pure cgroup v2 (tests/vm/vm-run).  Boots twice: as an ordinary process
# beside others, and as a service of systemd's with Delegate=yes.  The machine sees the
# build directory unless it is below /tmp or /run, which are its own.

VM_UNIT := test_cgroup test_cgroup_manager test_seccomp test_caps
vm_unit_programs = $(VM_UNIT:%=$(B)/tests/unit/%)

check-vm: $(vm_unit_programs) $(B)/pratai
	@case "$(abspath $(B))" in /tmp/*|/run/*) \
		echo "check-vm: a build directory below /tmp or /run is not seen inside" >&2; exit 2;; esac
	VM_SYSTEMD=1 tests/vm/vm-run tests/vm/check $(abspath $(B)) $(VM_UNIT)
	tests/vm/vm-run tests/vm/check $(abspath $(B)) $(VM_UNIT) -- tests/sandbox
	VM_TIMEOUT=1500 tests/vm/vm-run tests/vm/check $(abspath $(B)) -- \
		-m 'not slow and not index' tests/system

.PHONY: check-vm
