/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An auditor for the dynamic loader (LD_AUDIT, rtld-audit(7)): whoever looks for the
 * CUDA driver or for NVML, by whatever spelling, from whatever library or namespace,
 * finds emuV's library, which lies beside this file.  The name of everything else is
 * handed back as it came, so that RPATH, RUNPATH and $ORIGIN hold.
 *
 * Two are let through: emuV, which opens the real ones by a spelling that nobody else
 * uses (emuv_library_name.h), and the real ones, whose parts may bear their names.
 *
 * It is loaded into every process of a run and stays out of the way: no C library (a
 * second one would be loaded for it), nothing allocated, and neither la_symbind nor
 * la_pltenter, which would make the loader look at every call between libraries.
 */
#define _GNU_SOURCE
#include <link.h>
#include <stdint.h>

#include "emuv_library_name.h"

#define OWN_NAME "libemuv-audit.so"
#define PATH_BYTES 4096
#define REAL ((uintptr_t)1) /* cookie of the real libraries and their parts */

/* Empty: not known, or not wanted; nothing is redirected. */
static char interposer[PATH_BYTES], nvml[PATH_BYTES];

static bool starts_with(const char *text, const char *start)
{
	while (*start && *text == *start)
		text++, start++;
	return !*start;
}

static void join(char *path, const char *folder, size_t folder_bytes, const char *file)
{
	size_t n = 0;

	for (; n < folder_bytes; n++)
		path[n] = folder[n];
	do
		path[n++] = *file;
	while (*file++);
}

/* Where emuV's libraries are, from that item of LD_AUDIT which is this file. */
static void read_items(const char *items, bool has_nvml)
{
	const char *end;

	for (const char *item = items; *item; item = *end ? end + 1 : end) {
		const char *file = item;

		for (end = item; *end && *end != ':'; end++)
			if (*end == '/')
				file = end + 1;
		if (end - file != sizeof OWN_NAME - 1 || !starts_with(file, OWN_NAME) ||
		    file - item + sizeof OWN_NAME > PATH_BYTES)
			continue;
		join(interposer, item, (size_t)(file - item), "libemuv.so");
		if (has_nvml)
			join(nvml, item, (size_t)(file - item), "libemuv-nvml.so");
		return;
	}
}

/* The loader hands its own environment to constructors, and calls them before la_version. */
__attribute__((constructor)) static void start(int argc, char **argv, char **environment)
{
	const char *items = "";
	bool has_nvml = false; /* as with the preload: where the launcher has found one */

	(void)argc, (void)argv;
	for (; environment && *environment; environment++) {
		if (starts_with(*environment, "LD_AUDIT="))
			items = *environment + sizeof "LD_AUDIT=" - 1;
		has_nvml = has_nvml || starts_with(*environment, "EMUV_NVML=/");
	}
	read_items(items, has_nvml);
}

#define EXPORT __attribute__((visibility("default")))

EXPORT unsigned int la_version(unsigned int version)
{
	return version < LAV_CURRENT ? version : LAV_CURRENT;
}

EXPORT char *la_objsearch(const char *name, uintptr_t *cookie, unsigned int flag)
{
	const enum emuv_library meant = emuv_library_meant(name);

	(void)flag;
	if (*cookie == REAL)
		return (char *)name;
	if (meant == EMUV_DRIVER_LIBRARY && interposer[0])
		return interposer;
	return meant == EMUV_NVML_LIBRARY && nvml[0] ? nvml : (char *)name;
}

/* Whatever bears a real one's name and was not turned away is that, or a part of it. */
EXPORT unsigned int la_objopen(struct link_map *map, Lmid_t where, uintptr_t *cookie)
{
	const char *file = map->l_name ? emuv_file_of(map->l_name) : "";

	(void)where;
	if (emuv_is_named(file, "libcuda.so") || emuv_is_named(file, "libnvidia-ml.so"))
		*cookie = REAL;
	return 0; /* no look at its symbols */
}
