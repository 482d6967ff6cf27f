// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/config.c csrc/common/emuv_environ.c
// corpus: tests/fuzz/corpus/config
/*
 * The environment that the interposer reads: lines NAME=VALUE.  It is understood, or
 * refused in words that fit and quote nothing unprintable into the program's life: a
 * budget is never read out of what is none.
 */
#include <string.h>

#include "config.h"
#include "fuzz.h"

const char *const fuzz_words[] = {
	"EMUV_VRAM=", "EMUV_VIRTUAL=", "EMUV_POLICY=", "EMUV_ALLOCATION=", "EMUV_DRIVER=/", "EMUV_NAME=",
	"EMUV_RUN=", "EMUV_KEEP=", "EMUV_QUIET=", "none", "cap", "spill", "adaptive", "lazy", "eager",
	"18446744073709551615", "18446744073709551614", "99999999999999999999", "0=", "31=", "32=",
	",", "=", "\n", "-", "+", "0x10", "1e9", "8G", " ", "%", "%n%s", "\xff", NULL,
};

/* Whether `text` is decimal digits that make a number below the largest. */
static int plain_number(const char *text, uint64_t *value)
{
	char *end;

	*value = strtoull(text, &end, 10);
	return *text && strspn(text, "0123456789") == strlen(text) && !*end && *value != UINT64_MAX;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = calloc(1, size + 1), *line, *rest = text;
	uint64_t values[EMUV_MAX_DEVICES], plain;
	static emuv_config_t config;
	const char *vram;

	if (size)
		memcpy(text, data, size);
	clearenv();
	while ((line = strsep(&rest, "\n"))) {
		char *equals = strchr(line, '=');

		if (equals && equals > line) {
			*equals = '\0';
			setenv(line, equals + 1, 1);
		}
	}
	memset(&config, 0xa5, sizeof(config));
	emuv_config_read(&config);
	CHECK(memchr(config.problem, 0, sizeof(config.problem)));
	CHECK(memchr(config.hint, 0, sizeof(config.hint)));
	CHECK(memchr(config.name, 0, sizeof(config.name)) && memchr(config.run_id, 0, sizeof(config.run_id)));
	CHECK(config.valid == !config.problem[0]);
	CHECK(config.valid || config.hint[0]);
	vram = getenv("EMUV_VRAM");
	CHECK(vram || !config.valid);
	if (vram && config.valid && plain_number(vram, &plain))
		for (int i = 0; i < EMUV_MAX_DEVICES; i++)
			CHECK(config.control.budget[i].vram_bytes == plain);
	/* Unlimited only where it says so. */
	if (vram && config.valid && !strstr(vram, "none") && !strchr(vram, '='))
		CHECK(config.control.budget[0].vram_bytes != EMUV_UNLIMITED);
	for (int none = 0; vram && none < 2; none++)
		if (emuv_config_sizes(vram, none, 7, values) == 0 && !none)
			for (int i = 0; i < EMUV_MAX_DEVICES; i++)
				CHECK(values[i] != EMUV_UNLIMITED);
	clearenv();
	free(text);
	return 0;
}
