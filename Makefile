# Pratai: one makefile, everything out of tree below build/ (or B=dir).
#
#   make            build          make check        every test
#   make deps       packages       make check-quick  what needs no other server
#   make demo       the main job   make bench        benchmarks
#   make install PREFIX=/usr/local DESTDIR=          make doctor   what is missing
#
# Variants, each in a directory of its own: SAN=address,undefined  COV=1  DEBUG=1

PREFIX ?= /usr/local
SAN ?=
variant := $(if $(SAN),-san)$(if $(COV),-cov)$(if $(DEBUG),-debug)
B ?= build$(variant)
CC = gcc
PYTHON = /usr/bin/python3

VERSION := 0.1.0

# make V=1 shows the commands themselves.
Q = $(if $(V),,@)
say = $(if $(V),,@printf '%-5s %s\n' $(1) $(2))

WARN = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla -Wundef \
	-Wimplicit-fallthrough $(if $(CI),-Werror)
HARDEN = -fPIE -fstack-protector-strong -fstack-clash-protection \
	$(if $(SAN)$(DEBUG),,-D_FORTIFY_SOURCE=3)
OPTIMIZE = $(if $(DEBUG)$(SAN),-O1,-O2)
CFLAGS += -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -g $(OPTIMIZE) $(WARN) $(HARDEN) \
	-ffunction-sections -fdata-sections -I. -I$(B) \
	-DPRATAI_VERSION='"$(VERSION)"' -DPRATAI_PREFIX='"$(PREFIX)"' \
	$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -DPRATAI_TEST_BUILD) \
	$(if $(DEBUG),-DPRATAI_TEST_BUILD) $(if $(COV),--coverage)
LDFLAGS += -pie -Wl,-z,relro,-z,now -Wl,--gc-sections -Wl,--as-needed \
	$(if $(SAN),-fsanitize=$(SAN)) $(if $(COV),--coverage)

# ---- modules: a static library each ----------------------------------------------

modules := core/base core/model netio store sandbox rootfs core/build core/api core/agent \
	core/scheduler core/node core/client core/run
objects = $(patsubst %.c,$(B)/%.o,$(filter-out %/main.c %_main.c,$(wildcard $(1)/*.c)))
library = $(B)/lib$(subst /,-,$(1)).a
define module_rule
$(call library,$(1)): $(call objects,$(1))
	$$(Q)rm -f $$@
	$$(Q)$$(AR) rcs $$@ $$^
endef
$(foreach m,$(modules),$(eval $(call module_rule,$(m))))

$(B)/%.o: %.c Makefile
	$(Q)mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c $< -o $@

-include $(shell find $(B) -name '*.d' -type f 2>/dev/null)

base := $(call library,core/base)
model := $(call library,core/model) $(base)
LIBS_control := -lzmq -lcurl -lmicrohttpd -lsqlite3 -larchive -lsodium -lcrypto -lcjson -lpthread -lm
LIBS_node := -lzmq -lcurl -larchive -lseccomp -lsodium -lcrypto -lcjson -lm
LIBS_client := -lcurl -larchive -lsodium -lcrypto -lcjson -lm

# ---- programs ----------------------------------------------------------------------

programs := $(B)/pratai $(B)/pratai-client $(B)/pratai-control $(B)/pratai-node \
	$(B)/pratai-unpack $(B)/pratai-build
all: $(programs) runtimes recipes
.DEFAULT_GOAL := all

include $(wildcard sandbox/*.mk runtimes/*.mk tests/*.mk bench/*.mk)

# Static: half a millisecond less to start, which is a tenth of a sandbox.
$(B)/pratai: $(B)/core/run/run_main.o $(call library,core/run) $(call library,sandbox) \
		$(call library,rootfs) $(base)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $(if $(SAN)$(COV),,-static-pie) -o $@ $^ -lm

$(B)/pratai-client: $(B)/core/client/client_main.o $(call library,core/client) \
		$(call library,netio) $(call library,rootfs) $(model)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_client)

$(B)/pratai-control: $(B)/core/api/control_main.o $(call library,core/api) \
		$(call library,core/agent) $(call library,core/scheduler) $(call library,store) \
		$(call library,rootfs) $(call library,netio) $(model)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_control)

# core/node for its text of strangers'.
$(B)/pratai-build: $(B)/core/build/recipe_main.o $(call library,core/build) \
		$(call library,core/node) $(call library,sandbox) $(call library,rootfs) $(base)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -larchive -lsodium -lcrypto -lcjson -lm

recipes: $(patsubst rootfs/%,$(B)/%,$(wildcard rootfs/recipes/*))
$(B)/recipes/%: rootfs/recipes/%
	$(Q)mkdir -p $(@D)
	$(Q)install -m 0644 $< $@

$(B)/pratai-node: $(B)/core/node/node_main.o $(call library,core/node) $(call library,core/build) \
		$(call library,sandbox) $(call library,rootfs) $(call library,netio) $(model)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS_node)

# ---- packages -------------------------------------------------------------------------
# Fragments may add to these: packages += ...  Debian's npm and a vendor's nodejs exclude each
# other: what the machine has of the two is taken.

packages += build-essential pkg-config python3 python3-pip \
	libzmq3-dev libseccomp-dev libcap-dev libarchive-dev libcjson-dev \
	libcurl4-openssl-dev libssl-dev libmicrohttpd-dev libsqlite3-dev libsodium-dev \
	libcmocka-dev mandoc python3-pytest python3-requests busybox-static \
	curl zip unzip strace procps iproute2 util-linux nftables slirp4netns \
	zstd xz-utils umoci buildah skopeo mmdebstrap \
	$(if $(shell command -v node),,nodejs) $(if $(shell command -v npm),,npm)

deps:
	@sh packaging/deps.sh $(packages)

doctor:
	@sh packaging/doctor.sh $(packages)

# ---- installation ---------------------------------------------------------------------
# The tree works from wherever it is put: programs find each other by their own place.

bin_dir = $(DESTDIR)$(PREFIX)/bin
sbin_dir = $(DESTDIR)$(PREFIX)/sbin
lib_dir = $(DESTDIR)$(PREFIX)/lib/pratai
share_dir = $(DESTDIR)$(PREFIX)/share/pratai
man_dir = $(DESTDIR)$(PREFIX)/share/man
doc_dir = $(DESTDIR)$(PREFIX)/share/doc/pratai
completion_dir = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
unit_dir = $(DESTDIR)$(PREFIX)/lib/systemd/system
helpers = $(filter-out $(B)/pratai,$(programs))
manuals = $(wildcard man/*.[1-8])
documents = README.md NEWS.md SECURITY.md LICENSE

install: all
	install -d $(bin_dir) $(sbin_dir) $(lib_dir) $(doc_dir) $(completion_dir) $(unit_dir)
	install -m 0755 $(B)/pratai $(bin_dir)/pratai
	install -m 0755 $(helpers) $(lib_dir)
	ln -sf ../lib/pratai/pratai-control ../lib/pratai/pratai-node $(sbin_dir)
	rm -rf $(lib_dir)/runtimes
	cp -R $(B)/runtimes $(lib_dir)/runtimes
	rm -f $(lib_dir)/runtimes/*/.staged
	chmod -R u=rwX,go=rX $(lib_dir)/runtimes
	install -d $(share_dir)/recipes
	install -m 0644 $(B)/recipes/* $(share_dir)/recipes
	for m in $(manuals); do \
		install -D -m 0644 $$m $(man_dir)/man$${m##*.}/$${m##*/} || exit 1; done
	install -m 0644 $(documents) $(doc_dir)
	$(B)/pratai-client help --completion bash >$(completion_dir)/pratai
	sed 's,@PREFIX@,$(PREFIX),' packaging/pratai.service.in >$(unit_dir)/pratai.service
	chmod 0644 $(completion_dir)/pratai $(unit_dir)/pratai.service

uninstall:
	rm -f $(bin_dir)/pratai $(sbin_dir)/pratai-control $(sbin_dir)/pratai-node \
		$(completion_dir)/pratai $(unit_dir)/pratai.service
	rm -f $(foreach m,$(manuals),$(man_dir)/man$(subst .,,$(suffix $m))/$(notdir $m))
	rm -rf $(lib_dir) $(share_dir) $(doc_dir)

# ---- the main job, shown --------------------------------------------------------------

demo: deps
	$(MAKE) all
	@PRATAI=$(abspath $(B)/pratai) PYTHON=$(PYTHON) sh packaging/demo.sh

# ---- words ----------------------------------------------------------------------------

check-man:
	@for m in $(manuals); do \
		mandoc -T lint -W warning $$m || { echo "$$m: see above" >&2; exit 1; }; done

clean:
	rm -rf $(B)

.PHONY: all clean runtimes recipes deps doctor install uninstall demo check-man
