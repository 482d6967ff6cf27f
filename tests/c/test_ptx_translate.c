// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/sim/ptx/*.c
// sanitize: address
/*
 * What the translator finds out about a kernel: does it wait, and for whom; how much
 * memory it takes; that the same text gives the same C.
 */
#include <string.h>

#include "check.h"
#include "ptx/ptx.h"

#define HEAD                                                                                  \
	".version 8.0\n.target sm_80\n.address_size 64\n"                                      \
	".extern .shared .b8 dynamic[];\n.global .u32 flag;\n"                                \
	".func (.param .b32 r) lock() { .reg .u32 %x; atom.global.cas.b32 %x, [flag], 0, 1;"  \
	" st.param.b32 [r], %x; ret; }\n"                                                     \
	".func nothing() { ret; }\n.global .u64 table[1] = {nothing};\n"                      \
	".func deep(.param .b32 n) { .local .b8 l[40]; .reg .u64 %a; mov.u64 %a, l;"          \
	" call nothing; ret; }\n"                                                             \
	".func again() { .local .b8 l[40]; .reg .u64 %a; mov.u64 %a, l; call again; ret; }\n" \
	".entry k(.param .u64 p) {\n"                                                         \
	" .reg .u32 %x<9>; .reg .u64 %d<9>; .reg .pred %p<9>; .shared .b32 s[8];\n"           \
	" ld.param.u64 %d0, [p]; mov.u32 %x0, %tid.x;\n"
#define LOOP(body) "L: " body " add.u32 %x0, %x0, 1; setp.lt.u32 %p0, %x0, 99; @%p0 bra L;"

typedef struct {
	const char *what, *body;
	bool waits, crosses;
	size_t shared, local; /* local 0: without a bound */
} case_t;

static const case_t cases[] = {
	{ "nothing", "", false, false, 0, 16 },
	{ "an atomic in a loop", LOOP("atom.global.add.u32 %x1, [%d0], 1;"), false, true, 0, 16 },
	{ "its result kept", LOOP("atom.global.add.u32 %x1, [%d0], 1; st.global.u32 [%d0+8], %x1;"),
	  false, true, 0, 16 },
	{ "something done by its result",
	  LOOP("atom.global.add.u32 %x1, [%d0], 1; setp.lt.u32 %p1, %x1, 5;"
	       "@!%p1 bra M; st.global.u32 [%d0+8], %x1; M:"), false, true, 0, 16 },
	{ "a loop ended by its result",
	  LOOP("atom.global.add.u32 %x1, [%d0], 1; setp.lt.u32 %p1, %x1, 5; @%p1 bra M;") "M:", true,
	  true, 0, 16 },
	{ "a thread ended by it", LOOP("atom.global.add.u32 %x1, [%d0], 1; setp.eq.u32 %p1, %x1, 5;"
				       "@%p1 ret;"), true, true, 0, 16 },
	{ "a compare and swap again", "L: ld.global.u32 %x1, [%d0]; add.u32 %x2, %x1, 1;"
	  "atom.global.cas.b32 %x3, [%d0], %x1, %x2; setp.ne.u32 %p0, %x1, %x3; @%p0 bra L;", true,
	  true, 0, 16 },
	{ "a flag set by it, in another register", "mov.u32 %x5, 0; L: setp.ne.u32 %p1, %x5, 0;"
	  "@%p1 bra M; atom.global.exch.b32 %x1, [%d0], 1; setp.ne.u32 %p0, %x1, 0; @%p0 bra L;"
	  "mov.u32 %x5, 1; bra L; M:", true, true, 0, 16 },
	{ "as often as an atomic before it said", "atom.global.add.u32 %x1, [%d0], 1;"
	  "L: sub.u32 %x1, %x1, 1; setp.ne.u32 %p0, %x1, 0; @%p0 bra L;", false, true, 0, 16 },
	{ "an inner loop", LOOP("I: ld.volatile.global.u32 %x1, [%d0]; setp.eq.u32 %p1, %x1, 0;"
				"@%p1 bra I;"), true, true, 0, 16 },
	{ "a volatile read", LOOP("ld.volatile.global.u32 %x1, [%d0];"), false, true, 0, 16 },
	{ "for ever", "ld.volatile.global.u32 %x1, [%d0]; L: ld.volatile.global.u32 %x1, [%d0]; bra L;",
	  true, true, 0, 16 },
	{ "a lock in a function", "L: { .param .b32 r; call (r), lock; ld.param.u32 %x1, [r]; }"
	  "setp.ne.u32 %p0, %x1, 0; @%p0 bra L;", true, true, 0, 16 },
	{ "volatile shared memory", "ld.volatile.shared.u32 %x1, [s];", true, false, 32, 16 },
	{ "a barrier", "st.shared.u32 [s], %x0; bar.sync 0; ld.shared.u32 %x1, [s];", false, false, 32,
	  16 },
	{ "barriers in a loop", LOOP("barrier.cta.sync.aligned 0;"), false, false, 0, 16 },
	{ "another barrier", "bar.sync 1;", true, false, 0, 16 },
	{ "a barrier of some", "bar.sync 0, 64;", true, false, 0, 16 },
	{ "a shuffle", "shfl.sync.idx.b32 %x1, %x0, 0, 31, -1;", false, false, 0, 16 },
	{ "a shuffle of before", "shfl.idx.b32 %x1, %x0, 0, 31;", true, false, 0, 16 },
	{ "a barrier that counts", "bar.red.popc.u32 %x1, 0, 1;", false, false, 0, 16 },
	{ "an argument kept over a barrier", "{ .param .b32 n; st.param.b32 [n], 1; bar.sync 0;"
	  "call deep, (n); }", true, false, 0, 48 + 16 + 16 },
	{ "local memory", "{ .param .b32 n; st.param.b32 [n], 1; call deep, (n); }", false, false, 0,
	  48 + 16 + 16 },
	{ "recursion", "call again;", false, false, 0, 0 },
};

static void check(const case_t *one)
{
	char text[8192], why[PTX_WHY_BYTES];
	ptx_module_t *module;
	ptx_code_t code, second;
	ptx_function_t *entry;

	snprintf(text, sizeof(text), "%s%s\nret; }\n", HEAD, one->body);
	if (ptx_parse(text, &module, why) != PTX_OK || ptx_link(&module, 1, &module, why) != PTX_OK) {
		fprintf(stderr, "%s: %s\n", one->what, why);
		_exit(1);
	}
	entry = ptx_function_named(module, "k");
	CHECK(entry);
	if (ptx_translate(module, entry, &code, why) != PTX_OK) {
		fprintf(stderr, "%s: %s\n", one->what, why);
		_exit(1);
	}
	if (code.synchronises != one->waits || code.cross_block != one->crosses ||
	    code.shared_bytes != one->shared || code.local_bytes != one->local) {
		fprintf(stderr, "%s: waits %d, crosses %d, shared %zu, local %zu\n", one->what,
			code.synchronises, code.cross_block, code.shared_bytes, code.local_bytes);
		_exit(1);
	}
	CHECK(ptx_translate(module, entry, &second, why) == PTX_OK);
	CHECK(strcmp(code.c_text, second.c_text) == 0);
	ptx_code_drop(&code);
	ptx_code_drop(&second);
	ptx_module_drop(module);
}

int main(void)
{
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		check(&cases[i]);
	return 0;
}
