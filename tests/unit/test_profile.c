/*
 * Profiles and the compiler: what is read is what the compiled program does, whatever the
 * table; what is not a profile is a sentence, whatever the bytes; what a watch writes is read
 * back as the same answers.
 */
#include <errno.h>
#include <linux/audit.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "core/base/buf.h"
#include "core/base/err.h"
#include "sandbox/filter.h"
#include "sandbox/profile.h"
#include "sandbox/seccomp_compile.h"
#include "sandbox/seccomp_names.h"
#include "sandbox/seccomp_policy.h"
#include "sandbox/seccomp_run.h"
#include "sandbox/watch.h"

static struct seccomp_table table;
static struct sock_filter code[SECCOMP_CODE_MAX];
static uint64_t seed = 88172645463325252;

static uint64_t
random_number(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* The compiled program's answer; the compiler compares it with the table, all over. */
static uint32_t
answer_to(long number, uint64_t arg0, uint64_t arg1)
{
	struct seccomp_data data = {
		.nr = (int)number, .arch = seccomp_architecture(), .args = {arg0, arg1}};
	unsigned length;
	struct err e = {0};

	if (seccomp_compile(&table, code, &length, &e))
		fail_msg("%s", e.text);
	return seccomp_run(code, length, &data);
}

static void
read_text(const char *text)
{
	struct err e = {0};

	if (profile_read(&table, text, strlen(text), "6.1.0-13-amd64", &e))
		fail_msg("%s: %s", text, e.text);
}

#define ERRNO(n) (SECCOMP_RET_ERRNO | (n))

static void
test_actions(void **state)
{
	(void)state;
	read_text("{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrno\":\"ENOSYS\",\"syscalls\":["
		  "{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ALLOW\"},"
		  "{\"name\":\"write\",\"action\":\"SCMP_ACT_LOG\",\"args\":null},"
		  "{\"names\":[\"open\"],\"action\":\"SCMP_ACT_KILL\",\"args\":[]},"
		  "{\"names\":[\"close\"],\"action\":\"SCMP_ACT_KILL_PROCESS\"},"
		  "{\"names\":[\"dup\"],\"action\":\"SCMP_ACT_TRAP\"},"
		  "{\"names\":[\"dup3\"],\"action\":\"SCMP_ACT_ERRNO\",\"errno\":\"EDOM\"},"
		  "{\"names\":[\"pipe2\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":4095},"
		  "{\"names\":[\"lseek\"],\"action\":\"SCMP_ACT_ERRNO\"}]}");
	assert_int_equal(answer_to(SYS_read, 0, 0), SECCOMP_RET_ALLOW);
	assert_int_equal(answer_to(SYS_write, 0, 0), SECCOMP_RET_LOG);
	assert_int_equal(answer_to(SYS_close, 0, 0), SECCOMP_RET_KILL_PROCESS);
	assert_int_equal(answer_to(SYS_dup, 0, 0), SECCOMP_RET_TRAP);
	assert_int_equal(answer_to(SYS_dup3, 0, 0), ERRNO(EDOM));
	assert_int_equal(answer_to(SYS_pipe2, 0, 0), ERRNO(4095));
	assert_int_equal(answer_to(SYS_lseek, 0, 0), ERRNO(EPERM));
	assert_int_equal(answer_to(SYS_getpid, 0, 0), ERRNO(ENOSYS));
}

static void
test_the_first_that_holds(void **state)
{
	(void)state;
	read_text("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":["
		  "{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":2,"
		  "\"args\":[{\"index\":0,\"value\":1,\"op\":\"SCMP_CMP_EQ\"}]},"
		  "{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":3,"
		  "\"args\":[{\"index\":0,\"value\":1,\"op\":\"SCMP_CMP_GE\"}]},"
		  "{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":4},"
		  "{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":5,"
		  "\"args\":[{\"index\":0,\"value\":0,\"op\":\"SCMP_CMP_EQ\"}]}]}");
	assert_int_equal(answer_to(SYS_read, 1, 0), ERRNO(2));
	assert_int_equal(answer_to(SYS_read, 2, 0), ERRNO(3));
	assert_int_equal(answer_to(SYS_read, 0, 0), ERRNO(4));
}

static void
test_numbers_beyond(void **state)
{
	(void)state;
	read_text("{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":["
		  "{\"names\":[\"openat2\"],\"action\":\"SCMP_ACT_ALLOW\"}]}");
	assert_int_equal(answer_to(SYS_openat2 - 1, 0, 0), ERRNO(EPERM));
	assert_int_equal(answer_to(SYS_openat2 + 1, 0, 0), ERRNO(ENOSYS));
	assert_int_equal(answer_to(5000, 0, 0), ERRNO(ENOSYS));
	read_text("{\"defaultAction\":\"SCMP_ACT_ALLOW\"}");
	assert_int_equal(answer_to(0x40000000 | SYS_read, 0, 0), ERRNO(ENOSYS));
	assert_int_equal(answer_to(-1, 0, 0), ERRNO(ENOSYS));
	read_text("{\"defaultAction\":\"SCMP_ACT_KILL_PROCESS\"}");
	assert_int_equal(answer_to(5000, 0, 0), SECCOMP_RET_KILL_PROCESS);
}

static void
test_includes_and_excludes(void **state)
{
	static const struct {
		const char *condition;
		bool counts;
	} cases[] = {
		{"\"includes\":{\"caps\":[\"CAP_SYS_ADMIN\"]}", false},
		{"\"excludes\":{\"caps\":[\"CAP_SYS_ADMIN\"]}", true},
		{"\"includes\":{\"arches\":[\"s390x\"]}", false},
		{"\"excludes\":{\"arches\":[\"s390x\"]}", true},
		{"\"includes\":{\"arches\":[\"amd64\",\"arm64\"]}", true},
		{"\"excludes\":{\"arches\":[\"amd64\",\"arm64\"]}", false},
		{"\"includes\":{\"minKernel\":\"4.8\"}", true},
		{"\"includes\":{\"minKernel\":\"6.1\"}", true},
		{"\"includes\":{\"minKernel\":\"6.2\"}", false},
		{"\"includes\":{\"minKernel\":\"10.0\"}", false},
		{"\"excludes\":{\"minKernel\":\"4.8\"}", false},
		{"\"excludes\":{\"minKernel\":\"6.10\"}", true},
		{"\"includes\":{},\"excludes\":null", true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char text[400];

		snprintf(text, sizeof text,
			 "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],"
			 "\"action\":\"SCMP_ACT_ERRNO\",%s}]}",
			 cases[i].condition);
		read_text(text);
		if (answer_to(SYS_read, 0, 0) !=
		    (cases[i].counts ? ERRNO(EPERM) : SECCOMP_RET_ALLOW))
			fail_msg("%s", cases[i].condition);
	}
}

static bool
holds(unsigned op, uint64_t a, uint64_t value, uint64_t two)
{
	switch (op) {
	case 0: return a != value;
	case 1: return a < value;
	case 2: return a <= value;
	case 3: return a == value;
	case 4: return a >= value;
	case 5: return a > value;
	default: return (a & value) == two;
	}
}

/* Every operator over values that differ in the high word, the low one, or both. */
static void
test_operators(void **state)
{
	static const char *const ops[] = {"NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"};
	static const uint64_t values[] = {0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 32,
					  (1ull << 32) + 1, (1ull << 53) + 1, INT64_MAX,
					  1ull << 63, UINT64_MAX - 1, UINT64_MAX};
	enum { VALUES = sizeof values / sizeof values[0] };

	(void)state;
	for (unsigned op = 0; op < 7; op++)
		for (unsigned v = 0; v < VALUES; v++) {
			uint64_t two = values[v] & values[(v * 5 + 3) % VALUES];
			unsigned length;
			struct err e;
			char text[400];

			snprintf(text, sizeof text,
				 "{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],"
				 "\"action\":\"SCMP_ACT_ERRNO\",\"args\":[{\"index\":5,\"value\":%llu,"
				 "\"valueTwo\":%llu,\"op\":\"SCMP_CMP_%s\"}]}]}",
				 (unsigned long long)values[v], (unsigned long long)two, ops[op]);
			read_text(text);
			assert_int_equal(seccomp_compile(&table, code, &length, &e), 0);
			for (unsigned a = 0; a < VALUES; a++) {
				struct seccomp_data data = {.nr = SYS_read,
							    .arch = seccomp_architecture()};
				uint32_t want = holds(op, values[a], values[v], two)
							? ERRNO(EPERM) : SECCOMP_RET_ALLOW;

				data.args[5] = values[a];
				if (seccomp_run(code, length, &data) != want)
					fail_msg("%s, argument %#llx", text,
						 (unsigned long long)values[a]);
			}
		}
}

static struct seccomp_condition
random_condition(void)
{
	struct seccomp_condition c = {.arg = (uint8_t)(random_number() % SECCOMP_ARGS),
				      .test = (uint8_t)(random_number() % 6),
				      .mask = UINT64_MAX, .value = random_number() % 4};

	if (random_number() % 3 == 0)
		c.value = c.value << 32 | random_number() % 4;
	if (random_number() % 3 == 0)
		c.mask = random_number() >> random_number() % 64;
	return c;
}

/* Tables that nobody would write: seccomp_compile compares each program with its table. */
static void
test_random_tables(void **state)
{
	unsigned compiled = 0;

	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		unsigned calls = 1 + (unsigned)(random_number() % 40), length;
		unsigned entries = (unsigned)(random_number() % (round % 10 ? 12 : 100));
		struct err e = {0};

		seccomp_table_init(&table, seccomp_architecture(), SECCOMP_RET_ALLOW);
		for (unsigned i = 0; i < calls; i++)
			table.calls[random_number() % SECCOMP_NUMBERS].otherwise =
				ERRNO((uint32_t)(random_number() % 200));
		for (unsigned i = 0; i < calls * entries / 8; i++) {
			struct seccomp_entry entry = {.answer = ERRNO((uint32_t)(i % 50)),
						      .count = (unsigned)(random_number() % 5)};

			for (unsigned k = 0; k < entry.count; k++)
				entry.all[k] = random_condition();
			if (seccomp_table_add(&table, (unsigned)(random_number() % (round + 1)), &entry,
					      &e))
				break;
		}
		if (seccomp_compile(&table, code, &length, &e) == 0)
			compiled++;
		else if (e.cls != ERR_LIMIT)
			fail_msg("round %u: %s", round, e.text);
	}
	assert_true(compiled > 250);
}

static const char sample[] =
	"{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrnoRet\":38,\"archMap\":[{\"architecture\":"
	"\"SCMP_ARCH_X86_64\",\"subArchitectures\":[\"SCMP_ARCH_X86\"]},{\"architecture\":"
	"\"SCMP_ARCH_AARCH64\"}],\"syscalls\":[{\"names\":[\"read\",\"write\"],\"action\":"
	"\"SCMP_ACT_ALLOW\"},{\"names\":[\"personality\",\"clone\"],\"action\":\"SCMP_ACT_ALLOW\","
	"\"args\":[{\"index\":0,\"value\":18446744073709551615,\"valueTwo\":12345678901234567,\"op\":"
	"\"SCMP_CMP_MASKED_EQ\"}],\"includes\":{\"minKernel\":\"4.8\"},\"excludes\":{\"caps\":["
	"\"CAP_SYS_ADMIN\"],\"arches\":[\"s390\"]},\"comment\":\"\\\"#1\\\\\"}]}";

/* The bytes of a profile changed, cut and repeated: read, or one sentence; never more. */
static void
test_broken_profiles(void **state)
{
	static const char pieces[] = "\"{}[]:,0123456789.-eE\\#nulltruefalse \t\n\xc3\xa9\xff";
	char text[2 * sizeof sample];
	unsigned good = 0;

	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		size_t len = sizeof sample - 1, at;
		struct err e = {0};

		memcpy(text, sample, sizeof sample);
		for (unsigned k = 0; k < round % 5; k++) {
			at = random_number() % len;
			switch (random_number() % 4) {
			case 0: text[at] = pieces[random_number() % (sizeof pieces - 1)]; break;
			case 1: memmove(text + at, text + at + 1, --len - at); break;
			case 2: memmove(text + at / 2, text + at, len - at), len -= at - at / 2; break;
			default:
				if (len + 1 < sizeof text)
					memmove(text + at + 1, text + at, len++ - at);
			}
			if (len == 0)
				break;
		}
		text[len] = '\0';
		if (profile_read(&table, text, len, "6.1", &e) == 0) {
			unsigned length;

			good++;
			assert_int_equal(seccomp_compile(&table, code, &length, &e), 0);
		} else {
			assert_true(e.cls == ERR_INPUT || e.cls == ERR_LIMIT);
			assert_true(e.text[0] && !strchr(e.text, '\n'));
		}
	}
	assert_true(good > 4000 && good < 19000);
}

static void
test_names(void **state)
{
	char name[SECCOMP_NAME_MAX];
	unsigned known = 0;

	(void)state;
	for (int n = 0; n < SECCOMP_NUMBERS; n++) {
		if (!seccomp_name(n, name))
			continue;
		known++;
		assert_int_equal(seccomp_number(name), n);
	}
	assert_true(known > 280);
	assert_int_equal(seccomp_number("fchmodat2"), 452);
	assert_int_equal(seccomp_number("s390_runtime_instr"), SECCOMP_NUMBER_ELSEWHERE);
	assert_int_equal(seccomp_number("opennat"), SECCOMP_NUMBER_UNKNOWN);
	assert_int_equal(seccomp_number(""), SECCOMP_NUMBER_UNKNOWN);
}

/* Strict refuses all that the default refuses. */
static void
test_strict_is_less(void **state)
{
	static struct seccomp_table full;
	struct err e;

	(void)state;
	assert_null(seccomp_policy_find("none"));
	assert_int_equal(seccomp_policy_table(&full, seccomp_policy_find("default"), &e), 0);
	assert_int_equal(seccomp_policy_table(&table, seccomp_policy_find("strict"), &e), 0);
	for (int n = 0; n < SECCOMP_NUMBERS; n++)
		for (unsigned i = 0; i < 2000; i++) {
			struct seccomp_data data = {
				.nr = n, .arch = seccomp_architecture(),
				.args = {random_number() >> random_number() % 64,
					 random_number() >> random_number() % 64,
					 random_number() >> random_number() % 64}};

			if (seccomp_table_answer(&table, &data) == SECCOMP_RET_ALLOW)
				assert_int_equal(seccomp_table_answer(&full, &data), SECCOMP_RET_ALLOW);
		}
}

/* What a watch has seen, as it would be noted, is written and read back as the same answers. */
static void
test_a_learned_profile_is_read_back(void **state)
{
	static const struct filter_call calls[] = {
		{.name = "read", .number = SYS_read},
		{.name = "mount", .number = SYS_mount},
		{.name = "ioctl", .number = SYS_ioctl, .masks = {0, 0xffffffff}},
		{.name = "lseek", .number = SYS_lseek, .masks = {UINT64_MAX, 1}},
	};
	static struct sock_filter any[] = {{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
	static struct filter filter = {.code = any, .length = 1, .calls = calls, .call_count = 4};
	static struct watch w;
	struct buf out = {0};
	struct err e;

	(void)state;
	assert_int_equal(watch_init(&w, &filter, true, &e), 0);
	w.calls[0] = (struct watch_call){.number = SYS_read, .answer = SECCOMP_RET_ALLOW, .next = -1};
	w.calls[1] = (struct watch_call){.number = SYS_mount, .answer = ERRNO(EPERM), .next = -1};
	w.calls[2] = (struct watch_call){
		.number = SYS_ioctl, .answer = SECCOMP_RET_ALLOW, .args = {0, 21505}, .next = -1};
	w.calls[3] = (struct watch_call){
		.number = SYS_lseek, .answer = ERRNO(EDOM), .args = {UINT64_MAX - 1, 1}, .next = -1};
	w.call_count = 4;
	assert_int_equal(watch_put_profile(&w, true, &out, &e), 0);
	read_text(out.data);
	assert_int_equal(answer_to(SYS_read, 7, 7), SECCOMP_RET_ALLOW);
	assert_int_equal(answer_to(SYS_mount, 7, 7), ERRNO(EPERM));
	assert_int_equal(answer_to(SYS_ioctl, 7, 1ull << 32 | 21505), SECCOMP_RET_ALLOW);
	assert_int_equal(answer_to(SYS_ioctl, 7, 21506), SECCOMP_RET_KILL_PROCESS);
	assert_int_equal(answer_to(SYS_lseek, UINT64_MAX - 1, 3), ERRNO(EDOM));
	assert_int_equal(answer_to(SYS_lseek, UINT64_MAX, 3), SECCOMP_RET_KILL_PROCESS);
	assert_int_equal(answer_to(SYS_getpid, 0, 0), SECCOMP_RET_KILL_PROCESS);
	w.lost = 1;
	assert_int_equal(watch_put_profile(&w, true, &out, &e), -1);
	assert_int_equal(e.cls, ERR_LIMIT);
	watch_close(&w);
	buf_free(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_actions),
		cmocka_unit_test(test_the_first_that_holds),
		cmocka_unit_test(test_numbers_beyond),
		cmocka_unit_test(test_includes_and_excludes),
		cmocka_unit_test(test_operators),
		cmocka_unit_test(test_random_tables),
		cmocka_unit_test(test_broken_profiles),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_strict_is_less),
		cmocka_unit_test(test_a_learned_profile_is_read_back),
	};

	return cmocka_run_group_tests_name("profile", tests, NULL, NULL);
}
