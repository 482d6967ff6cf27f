// SPDX-License-Identifier: GPL-2.0-only
/*
 * cuGetProcAddress by name: for every row of the driver's list, at every version
 * from the row's own up to the next one's, the answer is that row's export if emuV
 * hooks it, and otherwise what the driver said.  And which file names dlopen turns
 * to emuV.  resolve.c is included, for its table is its own.
 */
#include "../../csrc/shim/resolve.c"

#include "check.h"

/* Hooks that do nothing: only their addresses matter. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define EMUV_HOOK(export, params, args) \
	CUresult export params          \
	{                               \
		return CUDA_SUCCESS;    \
	}
#include "hooks.def"
#pragma GCC diagnostic pop

static const size_t n_api = sizeof api / sizeof *api;
static char stranger; /* a pointer that is no export of the driver's */

/* The version at which a newer row of the same name takes over, or the list ends. */
static int superseded(const api_t *row)
{
	int at = api_newest + 1;

	for (size_t i = 0; i < n_api; i++)
		if (strcmp(api[i].name, row->name) == 0 && api[i].flag == row->flag &&
		    api[i].version > row->version && api[i].version < at)
			at = api[i].version;
	return at;
}

static bool has_flagged_row(const char *name)
{
	for (size_t i = 0; i < n_api; i++)
		if (api[i].flag && strcmp(api[i].name, name) == 0)
			return true;
	return false;
}

static void *expected(const char *export)
{
	const hooked_t *found = hooked_export(export);

	return found ? found->hook : &stranger;
}

static void check_row(const api_t *row)
{
	const int until = superseded(row);
	const int versions[] = { row->version, (row->version + until) / 2, until - 1 };

	for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
		if (versions[i] < row->version || versions[i] >= until)
			continue;
		/* Rows of a later ABI introduced at the same version do not exist. */
		CHECK(emuv_resolve_replace(&stranger, row->name, versions[i],
					   row->flag ? 2 : 0) == expected(row->export));
		/* Where there is no per-thread form, the flag changes nothing. */
		if (!row->flag && !has_flagged_row(row->name))
			CHECK(emuv_resolve_replace(&stranger, row->name, versions[i], 2) ==
			      expected(row->export));
		/* Legacy streams asked for by name of the flag. */
		if (!row->flag)
			CHECK(emuv_resolve_replace(&stranger, row->name, versions[i], 1) ==
			      expected(row->export));
	}
}

static void names(void)
{
	size_t hooks_met = 0;

	for (size_t i = 0; i < n_api; i++) {
		check_row(&api[i]);
		hooks_met += hooked_export(api[i].export) != NULL;
	}
	CHECK_EQ(hooks_met, N_HOOKED); /* every hook is a row of the driver's list */
	CHECK(n_hooked_rows >= N_HOOKED);
	CHECK(n_hooked_rows < sizeof hooked_rows / sizeof *hooked_rows); /* none left out */

	/* Before a function existed, or what nobody knows: the driver's word. */
	CHECK(emuv_resolve_replace(&stranger, "cuMemAllocAsync", 11010, 0) == &stranger);
	CHECK(emuv_resolve_replace(&stranger, "cuMemAlloc", 0, 0) == &stranger);
	CHECK(emuv_resolve_replace(&stranger, "curs_set", 13000, 0) == &stranger);
	CHECK(emuv_resolve_replace(&stranger, "", 0, 0) == &stranger);
	CHECK(emuv_resolve_replace(&stranger, "cuMemAlloc_v2", 13000, 0) == &stranger);
}

/* What the driver answers for known names, from the versions that real programs ask for. */
static void known(void)
{
	static const struct {
		const char *name;
		int version, flags;
		void *hook;
	} rows[] = {
		{ "cuMemAlloc", 2000, 0, (void *)cuMemAlloc },
		{ "cuMemAlloc", 3020, 0, (void *)cuMemAlloc_v2 },
		{ "cuMemAlloc", 13000, 2, (void *)cuMemAlloc_v2 },
		{ "cuMemFree", 3020, 0, (void *)cuMemFree_v2 },
		{ "cuMemGetInfo", 3020, 0, (void *)cuMemGetInfo_v2 },
		{ "cuDeviceTotalMem", 12000, 0, (void *)cuDeviceTotalMem_v2 },
		{ "cuMemAllocManaged", 6000, 0, (void *)cuMemAllocManaged },
		{ "cuMemAllocAsync", 11020, 0, (void *)cuMemAllocAsync },
		{ "cuMemAllocAsync", 11020, 2, (void *)cuMemAllocAsync_ptsz },
		{ "cuMemFreeAsync", 12080, 2, (void *)cuMemFreeAsync_ptsz },
		{ "cuMemAllocFromPoolAsync", 11020, 2, (void *)cuMemAllocFromPoolAsync_ptsz },
		{ "cuGetProcAddress", 11030, 0, (void *)cuGetProcAddress },
		{ "cuGetProcAddress", 12000, 0, (void *)cuGetProcAddress_v2 },
		{ "cuCtxCreate", 3020, 0, (void *)cuCtxCreate_v2 },
		{ "cuCtxCreate", 11040, 0, (void *)cuCtxCreate_v3 },
		{ "cuCtxCreate", 13000, 0, (void *)cuCtxCreate_v4 },
		{ "cuDevicePrimaryCtxRelease", 7000, 0, (void *)cuDevicePrimaryCtxRelease },
		{ "cuDevicePrimaryCtxRelease", 11000, 0, (void *)cuDevicePrimaryCtxRelease_v2 },
		{ "cuArray3DCreate", 3020, 0, (void *)cuArray3DCreate_v2 },
		{ "cuMemCreate", 10020, 0, (void *)cuMemCreate },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		CHECK(emuv_resolve_replace(&stranger, rows[i].name, rows[i].version,
					   (unsigned long long)rows[i].flags) == rows[i].hook);
}

/* ---- versions newer than the list ---- */

static void *answered_for_newest;
static CUresult ask_driver(const char *symbol, void **pfn, int version, cuuint64_t flags)
{
	(void)symbol, (void)flags;
	CHECK_EQ(version, api_newest);
	*pfn = answered_for_newest;
	return CUDA_SUCCESS;
}

/*
 * A driver newer than emuV: what it answers as before is hooked as before, and a
 * variant that emuV cannot know is withheld, never let through uncounted.
 */
static void newer_than_the_list(void)
{
	static char newer;
	const int later = api_newest + 1000;

	g_real.cuGetProcAddress = ask_driver;
	answered_for_newest = &stranger;
	CHECK(emuv_resolve_replace(&stranger, "cuMemAlloc", later, 0) == (void *)cuMemAlloc_v2);
	CHECK(emuv_resolve_replace(&newer, "cuMemAlloc", later, 0) == NULL);
	CHECK(emuv_resolve_replace(&newer, "cuStreamCreate", later, 0) == &newer);
}

/* The pointer decides before the name does: a driver may answer any version it likes. */
static void pointers(void)
{
	static char real[N_HOOKED];

	for (size_t i = 0; i < N_HOOKED; i++) {
		hooked[i].real = &real[i];
		map[map_slot(hooked[i].real)] = &hooked[i];
	}
	for (size_t i = 0; i < N_HOOKED; i++) {
		CHECK(emuv_resolve_replace(&real[i], "cuMemAlloc", 13000, 0) == hooked[i].hook);
		CHECK(emuv_resolve_replace(&real[i], "no such name", 1, 0) == hooked[i].hook);
	}
	CHECK(emuv_resolve_replace(&stranger, "cuStreamCreate", 13000, 0) == &stranger);
	CHECK(emuv_resolve_replace(&stranger, "cuMemAlloc", 13000, 0) == (void *)cuMemAlloc_v2);
}

static void files(void)
{
	static const struct {
		const char *file;
		bool ours;
	} rows[] = {
		{ "libcuda.so", true },
		{ "libcuda.so.1", true },
		{ "libcuda.so.580.65.06", true },
		{ "/usr/lib/x86_64-linux-gnu/libcuda.so.1", true },
		{ "/usr/lib/wsl/lib/libcuda.so", true },
		{ "./libcuda.so.1", true },
		{ "libcudart.so.12", false },
		{ "libcuda.so1", false },
		{ "libcuda.solution", false },
		{ "libcudadebugger.so.1", false },
		{ "/opt/libcuda.so.1/libfoo.so", false },
		{ "xlibcuda.so.1", false },
		{ "libcuda", false },
		{ "", false },
		{ "/", false },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		const char *file = emuv_dlopen_file(rows[i].file, (void *)files);

		if (rows[i].ours)
			CHECK(strcmp(file, emuv_resolve_self()) == 0);
		else
			CHECK(file == rows[i].file);
	}
	CHECK(emuv_dlopen_file(NULL, NULL) == NULL);
	CHECK(emuv_resolve_self()[0] != '\0');
	CHECK(emuv_dlopen_real() == (void *)dlsym(RTLD_NEXT, "dlopen"));
}

/* Nothing in g_real is NULL before there is a driver, and a driver that is not there says so. */
static void no_driver(void)
{
	void *const *slots = (void *const *)&g_real;
	char error[256] = "";
	int version = 0;

	for (size_t i = 0; i < sizeof g_real / sizeof *slots; i++)
		CHECK(slots[i] != NULL);
	CHECK_EQ(g_real.cuDriverGetVersion(&version), CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER);
	CHECK(emuv_resolve_symbol("cuInit") == NULL);
	CHECK_EQ(emuv_resolve_open("/nonexistent/libcuda.so.1", error, sizeof error), -ENOENT);
	CHECK(strstr(error, "cannot open") != NULL);
	CHECK(strstr(error, EMUV_OWN_MARK) == NULL); /* emuV's own spelling is its own affair */
	error[0] = '\0'; /* asked again: the same answer, and the same words */
	CHECK_EQ(emuv_resolve_open("/elsewhere", error, sizeof error), -ENOENT);
	CHECK(strstr(error, "cannot open") != NULL);
	CHECK(strstr(error, EMUV_OWN_MARK) == NULL); /* emuV's own spelling is its own affair */
	for (size_t i = 0; i < sizeof g_real / sizeof *slots; i++)
		CHECK(slots[i] != NULL);
}

int main(void)
{
	alarm(50);
	no_driver();
	collect_hooked_rows();
	names();
	known();
	newer_than_the_list();
	pointers();
	files();
	return 0;
}
