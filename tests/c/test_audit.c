// SPDX-License-Identifier: GPL-2.0-only
/*
 * The auditor: what it reads of LD_AUDIT, which names it redirects, and whom it lets
 * pass.  The loader itself is tests/integration/test_getting_past.py's.
 */
#include "../../csrc/audit/audit.c"

#include <string.h>

#include "check.h"

/* As the loader calls the constructor: with the environment of the new program. */
static void begin(const char *first, const char *second)
{
	char *environment[] = { (char *)first, (char *)second, NULL };

	memset(interposer, 0, sizeof interposer);
	memset(nvml, 0, sizeof nvml);
	start(0, NULL, environment);
}

static const char *sought(const char *name)
{
	uintptr_t cookie = 0;
	const char *found = la_objsearch(name, &cookie, 0);

	CHECK_EQ(cookie, 0);
	return found;
}

#define CHECK_TEXT(got, wanted) CHECK(strcmp(got, wanted) == 0)

static void items(void)
{
	static char longest[PATH_BYTES + 64] = "LD_AUDIT=/";

	begin("HOME=/root", NULL);
	CHECK_TEXT(interposer, "");
	begin("LD_AUDIT=/opt/emuv/libemuv-audit.so", NULL);
	CHECK_TEXT(interposer, "/opt/emuv/libemuv.so");
	CHECK_TEXT(nvml, ""); /* the machine has none */
	begin("EMUV_NVML=/usr/lib/libnvidia-ml.so.1", "LD_AUDIT=/a b/libemuv-audit.so");
	CHECK_TEXT(interposer, "/a b/libemuv.so");
	CHECK_TEXT(nvml, "/a b/libemuv-nvml.so");
	/* Among others; the first of two. */
	begin("LD_AUDIT=:/x/other.so::/y/libemuv-audit.so:/z/libemuv-audit.so:", NULL);
	CHECK_TEXT(interposer, "/y/libemuv.so");
	begin("LD_AUDIT=libemuv-audit.so", NULL);
	CHECK_TEXT(interposer, "libemuv.so");
	/* What only looks so. */
	begin("LD_AUDIT=/y/libemuv-audit.so.1:/y/xlibemuv-audit.so:/libemuv-audit.so/", NULL);
	CHECK_TEXT(interposer, "");
	begin("LD_AUDIT=", "XLD_AUDIT=/y/libemuv-audit.so");
	CHECK_TEXT(interposer, "");
	/* The longest path that fits, and one byte more. */
	for (int more = 0; more < 2; more++) {
		const size_t head = strlen("LD_AUDIT="), file = strlen(OWN_NAME);
		const size_t path = PATH_BYTES - 1 + (size_t)more;

		memset(longest + head, 'd', path - file - 1);
		longest[head] = '/';
		strcpy(longest + head + path - file - 1, "/" OWN_NAME);
		CHECK_EQ(strlen(longest + head), path);
		begin(longest, NULL);
		CHECK_EQ(strlen(interposer), more ? 0 : path - file + strlen("libemuv.so"));
	}
}

static void names(void)
{
	static const char *const drivers[] = {
		"libcuda.so", "libcuda.so.1", "libcuda.so.580.65.06", "/usr/lib/libcuda.so.1",
		"./libcuda.so", "a/.//libcuda.so.1",
	};
	static const char *const others[] = {
		"", "/", "libcuda.so/", "libcuda.s", "libcuda.so1", "libcudart.so.12", "xlibcuda.so",
		"libcuda.so.1/libfoo.so", "/usr/lib/.//./libcuda.so.1", "libemuv.so",
		"/usr/lib/.//./libnvidia-ml.so.1", "libnvidia-mlx.so",
	};

	begin("LD_AUDIT=/e/libemuv-audit.so", NULL);
	for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++)
		CHECK_TEXT(sought(drivers[i]), "/e/libemuv.so");
	/* The very string: the loader frees nothing, and compares pointers. */
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		CHECK(sought(others[i]) == others[i]);
	CHECK_TEXT(sought("libnvidia-ml.so.1"), "libnvidia-ml.so.1");
	begin("LD_AUDIT=/e/libemuv-audit.so", "EMUV_NVML=/usr/lib/libnvidia-ml.so.1");
	CHECK_TEXT(sought("/usr/lib/libnvidia-ml.so.1"), "/e/libemuv-nvml.so");
	/* Nothing known: nothing redirected. */
	begin("HOME=/root", NULL);
	CHECK_TEXT(sought("libcuda.so.1"), "libcuda.so.1");
}

/* The real ones and what they are made of find each other. */
static void real_ones(void)
{
	static const struct {
		const char *path;
		bool real;
	} opened[] = {
		{ "/usr/lib/.//./libcuda.so.1", true },
		{ "/usr/lib/libnvidia-ml.so.550.1", true },
		{ "/e/libemuv.so", false },
		{ "/usr/bin/python3", false },
		{ "", false },
	};

	begin("LD_AUDIT=/e/libemuv-audit.so", NULL);
	for (size_t i = 0; i < sizeof opened / sizeof *opened; i++) {
		struct link_map map = { .l_name = (char *)opened[i].path };
		uintptr_t cookie = 0;

		CHECK_EQ(la_objopen(&map, LM_ID_BASE, &cookie), 0); /* none of its symbols */
		CHECK_EQ(cookie == REAL, opened[i].real);
		CHECK_TEXT(la_objsearch("libcuda.so.1", &cookie, LA_SER_ORIG),
			   opened[i].real ? "libcuda.so.1" : "/e/libemuv.so");
	}
	{
		struct link_map map = { .l_name = NULL };
		uintptr_t cookie = 0;

		CHECK_EQ(la_objopen(&map, LM_ID_BASE, &cookie), 0);
		CHECK_EQ(cookie, 0);
	}
}

int main(void)
{
	alarm(55);
	CHECK_EQ(la_version(1), 1); /* an older loader's */
	CHECK_EQ(la_version(LAV_CURRENT + 1), LAV_CURRENT);
	items();
	names();
	real_ones();
	return 0;
}
