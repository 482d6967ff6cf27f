// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/shim/config.c
// link: csrc/common/emuv_environ.c
/* The environment's word: every good form is read, every bad one is refused and quoted. */
#include <string.h>

#include "check.h"
#include "config.h"

#define MISSING NULL

static const char *const variables[] = {
	"EMUV_VRAM", "EMUV_VIRTUAL", "EMUV_POLICY", "EMUV_ALLOCATION", "EMUV_DRIVER",
	"EMUV_NAME", "EMUV_RUN", "EMUV_KEEP", "EMUV_QUIET", "EMUV_KEEP_DEVICE",
};

static void environment(void)
{
	for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
		unsetenv(variables[i]);
	setenv("EMUV_VRAM", "1024", 1);
	setenv("EMUV_DRIVER", "/usr/lib/libcuda.so.1", 1);
}

static emuv_config_t with(const char *variable, const char *value)
{
	emuv_config_t config;

	environment();
	if (value)
		setenv(variable, value, 1);
	else
		unsetenv(variable);
	memset(&config, 0x5a, sizeof config); /* read() must fill all of it */
	emuv_config_read(&config);
	return config;
}

static const struct {
	const char *variable, *value;
} bad[] = {
	{ "EMUV_VRAM", MISSING }, { "EMUV_VRAM", "" }, { "EMUV_VRAM", " " },
	{ "EMUV_VRAM", "4GiB" }, { "EMUV_VRAM", "4G" }, { "EMUV_VRAM", "1e9" },
	{ "EMUV_VRAM", "0x1000" }, { "EMUV_VRAM", "1.5" }, { "EMUV_VRAM", "50%" },
	{ "EMUV_VRAM", "-1" }, { "EMUV_VRAM", "+1" }, { "EMUV_VRAM", " 1" },
	{ "EMUV_VRAM", "1 " }, { "EMUV_VRAM", "1\n" }, { "EMUV_VRAM", "1,2" },
	{ "EMUV_VRAM", "18446744073709551615" }, /* spelled "none" */
	{ "EMUV_VRAM", "18446744073709551616" }, { "EMUV_VRAM", "99999999999999999999999" },
	{ "EMUV_VRAM", "None" }, { "EMUV_VRAM", "none1" }, { "EMUV_VRAM", "unlimited" },
	{ "EMUV_VRAM", "=1" }, { "EMUV_VRAM", "0=" }, { "EMUV_VRAM", "0=1," },
	{ "EMUV_VRAM", ",0=1" }, { "EMUV_VRAM", "0=1;1=2" }, { "EMUV_VRAM", "0=1,0=2" },
	{ "EMUV_VRAM", "32=1" }, { "EMUV_VRAM", "-1=1" }, { "EMUV_VRAM", "0=1,1" },
	{ "EMUV_VRAM", "0=1,1=4GiB" }, { "EMUV_VRAM", "4294967296=1" }, { "EMUV_VRAM", "0==1" },
	{ "EMUV_VIRTUAL", "" }, { "EMUV_VIRTUAL", "none" }, { "EMUV_VIRTUAL", "1.5x" },
	{ "EMUV_VIRTUAL", "-1" }, { "EMUV_VIRTUAL", "0=none" }, { "EMUV_VIRTUAL", "8G" },
	{ "EMUV_POLICY", "" }, { "EMUV_POLICY", "Cap" }, { "EMUV_POLICY", "adaptive" },
	{ "EMUV_POLICY", "spill " },
	{ "EMUV_ALLOCATION", "" }, { "EMUV_ALLOCATION", "Lazy" }, { "EMUV_ALLOCATION", "1" },
	{ "EMUV_DRIVER", MISSING }, { "EMUV_DRIVER", "" }, { "EMUV_DRIVER", "libcuda.so.1" },
	{ "EMUV_DRIVER", "./libcuda.so.1" },
};

static void refused(void)
{
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		emuv_config_t config = with(bad[i].variable, bad[i].value);

		if (config.valid)
			fprintf(stderr, "accepted: %s='%s'\n", bad[i].variable, bad[i].value);
		CHECK_EQ(config.valid, 0);
		CHECK(strstr(config.problem, bad[i].variable) != NULL);
		if (bad[i].value)
			CHECK(strstr(config.problem, bad[i].value) != NULL); /* quoted */
		CHECK(strlen(config.hint) > 10);
		CHECK(strstr(config.hint, "emuv-run") != NULL);
	}
}

static void good_sizes(void)
{
	emuv_config_t config = with("EMUV_VRAM", "201326592");

	CHECK(config.valid);
	for (int i = 0; i < EMUV_MAX_DEVICES; i++) {
		CHECK_EQ(config.control.budget[i].vram_bytes, MIB(192));
		CHECK_EQ(config.control.budget[i].virtual_bytes, 0);
	}
	CHECK_EQ(config.control.policy, EMUV_POLICY_CAP);
	CHECK_EQ(config.control.allocation, EMUV_ALLOCATION_LAZY);
	CHECK_EQ(config.control.generation, 0);

	CHECK_EQ(with("EMUV_VRAM", "none").control.budget[5].vram_bytes, EMUV_UNLIMITED);
	CHECK_EQ(with("EMUV_VRAM", "0").control.budget[0].vram_bytes, 0);
	CHECK_EQ(with("EMUV_VRAM", "0007").control.budget[0].vram_bytes, 7);
	CHECK_EQ(with("EMUV_VRAM", "18446744073709551614").control.budget[0].vram_bytes,
		 UINT64_MAX - 1);

	config = with("EMUV_VRAM", "1=100,31=none,0=7");
	CHECK(config.valid);
	CHECK_EQ(config.control.budget[0].vram_bytes, 7);
	CHECK_EQ(config.control.budget[1].vram_bytes, 100);
	CHECK_EQ(config.control.budget[2].vram_bytes, EMUV_UNLIMITED); /* not named */
	CHECK_EQ(config.control.budget[31].vram_bytes, EMUV_UNLIMITED);
	config = with("EMUV_VIRTUAL", "1=9");
	CHECK(config.valid);
	CHECK_EQ(config.control.budget[0].virtual_bytes, 0); /* not named */
	CHECK_EQ(config.control.budget[1].virtual_bytes, 9);
}

static void words(void)
{
	char text[300];
	emuv_config_t config;

	CHECK_EQ(with("EMUV_POLICY", "spill").control.policy, EMUV_POLICY_SPILL);
	CHECK_EQ(with("EMUV_POLICY", "cap").control.policy, EMUV_POLICY_CAP);
	CHECK_EQ(with("EMUV_ALLOCATION", "eager").control.allocation, EMUV_ALLOCATION_EAGER);
	CHECK_EQ(with("EMUV_KEEP", "1").keep, 1);
	CHECK_EQ(with("EMUV_KEEP", "yes").keep, 0);
	CHECK_EQ(with("EMUV_QUIET", "1").quiet, 1);
	CHECK_EQ(with("EMUV_QUIET", MISSING).quiet, 0);
	CHECK(strcmp(with("EMUV_RUN", "0af3").run_id, "0af3") == 0);
	/* Too long a name is cut, and still ends. */
	memset(text, 'n', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	config = with("EMUV_NAME", text);
	CHECK(config.valid);
	CHECK_EQ(strlen(config.name), EMUV_TEXT_BYTES - 1);
	/* A very long bad value is quoted as far as it fits. */
	config = with("EMUV_VRAM", text);
	CHECK_EQ(config.valid, 0);
	CHECK(strlen(config.problem) < sizeof config.problem);
	CHECK(strstr(config.problem, "nnnn") != NULL);
	CHECK_EQ(strnlen(with("EMUV_DRIVER", "/a/b").driver, 10), 4);
}

/* The list form leaves nothing unset and reads nothing past its end. */
static void sizes_alone(void)
{
	uint64_t values[EMUV_MAX_DEVICES];

	CHECK_EQ(emuv_config_sizes("3=5", 0, 77, values), 0);
	for (int i = 0; i < EMUV_MAX_DEVICES; i++)
		CHECK_EQ(values[i], i == 3 ? 5 : 77);
	CHECK(emuv_config_sizes("none", 0, 77, values) != 0);
	CHECK_EQ(emuv_config_sizes("none", 1, 77, values), 0);
	CHECK_EQ(values[9], EMUV_UNLIMITED);
}

static void kept(void)
{
	static const char *const wrong[] = {
		"", ",", "1", "1-", "-1", "1-2-3", "2-1", "1-2,", ",1-2", "1-2 ", "<=2", "2MiB",
		"1-99999999999999999999999", "lib nccl", "libnccl,", "libnccl;", "-lib", ".so",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", /* 64 */
		"a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a", /* 33 */
	};
	emuv_config_t config = with("EMUV_KEEP_DEVICE", "0-2097152,libnccl.so+x-1,7-7,_a");

	CHECK(config.valid);
	CHECK_EQ(config.keep_device.n, 4);
	CHECK_EQ(config.keep_device.rule[0].least, 0);
	CHECK_EQ(config.keep_device.rule[0].most, 2097152);
	CHECK(strcmp(config.keep_device.rule[1].name, "libnccl.so+x-1") == 0);
	CHECK_EQ(config.keep_device.rule[2].most, 7);
	CHECK(strcmp(config.keep_device.rule[3].name, "_a") == 0);
	CHECK_EQ(with("EMUV_KEEP_DEVICE", MISSING).keep_device.n, 0);
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		config = with("EMUV_KEEP_DEVICE", wrong[i]);
		CHECK_EQ(config.valid, 0);
		CHECK(strstr(config.problem, "EMUV_KEEP_DEVICE") != NULL);
	}
}

int main(void)
{
	alarm(50);
	refused();
	good_sizes();
	words();
	sizes_alone();
	kept();
	return 0;
}
