// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/sim/ptx/*.c
// corpus: tests/ptx tests/fuzz/corpus/ptx
/*
 * PTX that nobody wrote: one text or several with a NUL between them, parsed, linked and
 * translated.  The answer is a module or a message of one line.
 */
#include <stdbool.h>
#include <string.h>

#include "fuzz.h"
#include "ptx/ptx.h"

#define TEXTS 3

const char *const fuzz_words[] = {
	"0", "-1", "1", "0xffffffffffffffff", "18446744073709551616", "99999999", "{", "}",
	"(", ")", "[", "]", ";", ",", ":", ".", "%", "@", "!", "|", "\"", "/*", "//", "<", ">",
	"_", ".b8", ".v4", ".reg", ".param", ".local", ".shared", ".global", ".align 1048576",
	"[]", "<4000000000>", "ret;", "exit;", "bra A;", "{ .reg .b32 %r<9>;", "mov.u64", "call",
	"%tid", "%tid.x", ".extern", ".visible .func", "= {", ".entry e() {}", "0f7fc00000",
	"[1073741824]", "\\", "\x80", "0d", ".f32", ".pred", "@%p0", "1e999999", NULL,
};

static void translate(const ptx_module_t *module)
{
	char why[PTX_WHY_BYTES];

	for (ptx_function_t *one = module->functions; one; one = one->next) {
		ptx_code_t code;
		ptx_status_t status;

		if (!one->entry)
			continue;
		status = ptx_translate(module, one, &code, why);
		CHECK((status == PTX_OK) == (code.c_text != NULL));
		CHECK(status == PTX_OK || (*why && !strchr(why, '\n')));
		if (status == PTX_OK)
			ptx_code_drop(&code);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	ptx_module_t *modules[TEXTS] = { NULL }, *linked = NULL;
	char *texts = calloc(1, size + 1), *text = texts, why[PTX_WHY_BYTES] = "";
	ptx_status_t status = PTX_OK;
	unsigned int count = 0;

	if (size)
		memcpy(texts, data, size);
	do {
		status = ptx_parse(text, &modules[count], why);
		count += status == PTX_OK;
		text += strlen(text) + 1;
	} while (status == PTX_OK && count < TEXTS && text < texts + size);
	if (status == PTX_OK)
		status = ptx_link(modules, count, &linked, why); /* takes them */
	else
		for (unsigned int i = 0; i < count; i++)
			ptx_module_drop(modules[i]);
	CHECK(status == PTX_OK || (*why && !strchr(why, '\n')));
	if (status == PTX_OK) {
		translate(linked);
		ptx_module_drop(linked);
	}
	free(texts);
	return 0;
}
