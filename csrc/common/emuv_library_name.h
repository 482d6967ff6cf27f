/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which file names mean a library that emuV stands in front of, and the spelling by
 * which emuV itself opens that.
 *
 * Under an auditor the loader remembers every name that was redirected as another name
 * of emuV's library: by a name that a program has used, emuV would find itself.  So it
 * opens DIRECTORY/.//./FILE, which dlopen's hook and the auditor let pass.
 *
 * Freestanding: the auditor has no C library.
 */
#ifndef EMUV_LIBRARY_NAME_H
#define EMUV_LIBRARY_NAME_H

#include <stdbool.h>
#include <stddef.h>

#define EMUV_OWN_MARK ".//./" /* between a directory's "/" and the file */

enum emuv_library { EMUV_OTHER_LIBRARY, EMUV_DRIVER_LIBRARY, EMUV_NVML_LIBRARY };

static inline const char *emuv_file_of(const char *path)
{
	const char *file = path;

	for (; *path; path++)
		if (*path == '/')
			file = path + 1;
	return file;
}

/* "name", or "name." and more: libcuda.so, libcuda.so.1, libcuda.so.580.65.06. */
static inline bool emuv_is_named(const char *file, const char *name)
{
	while (*name && *file == *name)
		file++, name++;
	return !*name && (!*file || *file == '.');
}

/* What `path` means, by whatever spelling but emuV's own. */
static inline enum emuv_library emuv_library_meant(const char *path)
{
	const char *file = emuv_file_of(path), *mark = EMUV_OWN_MARK;
	const size_t n = sizeof EMUV_OWN_MARK - 1;
	size_t same = 0;

	while (same < n && (size_t)(file - path) > n && file[same - n] == mark[same])
		same++;
	if (same == n)
		return EMUV_OTHER_LIBRARY;
	if (emuv_is_named(file, "libcuda.so"))
		return EMUV_DRIVER_LIBRARY;
	return emuv_is_named(file, "libnvidia-ml.so") ? EMUV_NVML_LIBRARY : EMUV_OTHER_LIBRARY;
}

/* `path` in emuV's own spelling, or as it is where it has no directory or is too long. */
static inline const char *emuv_own_spelling(const char *path, char *spelling, size_t bytes)
{
	size_t directory = (size_t)(emuv_file_of(path) - path), n = 0;

	if (!directory)
		return path;
	for (size_t i = 0; i < directory && n < bytes; i++)
		spelling[n++] = path[i];
	for (const char *at = EMUV_OWN_MARK; *at && n < bytes; at++)
		spelling[n++] = *at;
	for (const char *at = path + directory; *at && n < bytes; at++)
		spelling[n++] = *at;
	if (n >= bytes)
		return path;
	spelling[n] = '\0';
	return spelling;
}

#endif
