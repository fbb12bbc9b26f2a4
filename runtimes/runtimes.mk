# The runtimes, staged below $(B)/runtimes/NAME as a node reads them: runtime.json, and
# layer/, the files that lie over the image in every sandbox of that runtime.
#
# python3: the .pyc files beside the sources are for the interpreter of this machine, are
# never checked against their source (unchecked-hash: it is part of the same read-only
# layer) and carry the paths that the files have in a sandbox.  Another interpreter
# passes them over by their name.

python3_parts := $(wildcard runtimes/python3/*.py)
python3_stage := $(B)/runtimes/python3
python3_layer := $(python3_stage)/layer/opt/pratai/python3

runtimes: $(python3_stage)/.staged

$(python3_stage)/.staged: $(python3_parts) runtimes/python3/runtime.json runtimes/runtimes.mk
	@rm -rf $(python3_stage)
	@mkdir -p $(python3_layer)
	install -m 0644 $(python3_parts) $(python3_layer)
	install -m 0644 runtimes/python3/runtime.json $(python3_stage)
	$(PYTHON) -I -m compileall -q -f --invalidation-mode unchecked-hash \
		-s $(python3_layer) -p /opt/pratai/python3 $(python3_layer)
	@touch $@

# nodejs: read as it is, by whatever node the image has.

nodejs_parts := $(wildcard runtimes/nodejs/*.js)
nodejs_stage := $(B)/runtimes/nodejs
nodejs_layer := $(nodejs_stage)/layer/opt/pratai/nodejs

runtimes: $(nodejs_stage)/.staged

$(nodejs_stage)/.staged: $(nodejs_parts) runtimes/nodejs/runtime.json runtimes/runtimes.mk
	$(Q)rm -rf $(nodejs_stage)
	$(Q)mkdir -p $(nodejs_layer)
	$(Q)install -m 0644 $(nodejs_parts) $(nodejs_layer)
	$(Q)install -m 0644 runtimes/nodejs/runtime.json $(nodejs_stage)
	@touch $@

# exec: static, so that it runs in an image with nothing else.

exec_parts := $(patsubst runtimes/%.c,$(B)/runtime-objects/%.o,$(wildcard runtimes/exec/*.c))
exec_stage := $(B)/runtimes/exec
exec_program := $(exec_stage)/layer/opt/pratai/exec/serve

runtimes: $(exec_program) $(exec_stage)/runtime.json

# Not beside the staged files, which are installed.
$(B)/runtime-objects/%.o: runtimes/%.c Makefile
	$(Q)mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c $< -o $@

$(exec_program): $(exec_parts) $(base)
	$(Q)mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) $(if $(SAN)$(COV),,-static-pie) -o $@ $^ -lm

$(exec_stage)/runtime.json: runtimes/exec/runtime.json
	$(Q)install -D -m 0644 $< $@

# Reads what users upload and what builds send, locked in: core/build/unpack_main.c.

$(B)/pratai-unpack: $(B)/core/build/unpack_main.o $(B)/core/build/unpack_lock.o \
		$(call library,rootfs) $(B)/sandbox/seccomp.o $(base)
	$(CC) $(LDFLAGS) -o $@ $^ -larchive -lsodium -lcrypto -lcjson -lm
