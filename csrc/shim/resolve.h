/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The way to the real driver and back to emuV: opening the driver, answering
 * cuGetProcAddress, redirecting dlopen.  Knows nothing of budgets.
 */
#ifndef EMUV_RESOLVE_H
#define EMUV_RESOLVE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Opens the driver at `path` by the real dlopen and fills g_real; NULL: the copy of
 * this library that keeps the books (emuv_resolve_is_home) in the driver's place.
 * Once a process; later calls return what the first did.  0, or -ENOENT with the
 * loader's words in `error`.
 */
int emuv_resolve_open(const char *path, char *error, size_t error_bytes);
/* The driver's own symbol, or NULL. */
void *emuv_resolve_symbol(const char *name);
/* Opens another library past emuV's dlopen hook and auditor. */
void *emuv_resolve_library(const char *name);
/* The same of one that the process has loaded; NULL: it has not. */
void *emuv_resolve_loaded(const char *name);

/*
 * What cuGetProcAddress should answer where the driver answered `pointer` for
 * (name, version, flags): emuV's hook if the pointer is one that emuV replaces or,
 * where it is none of the driver's exports, if the triple names a hooked export;
 * else `pointer`.  NULL: a variant of a hooked function newer than emuV knows,
 * which it can neither count nor let pass.
 */
void *emuv_resolve_replace(void *pointer, const char *name, int version,
			   unsigned long long flags);

/* A forked child: the lock of a thread that does not exist there. */
void emuv_resolve_fork_child(void);

/*
 * dlmopen loads a copy of every library into each namespace.  Memory is counted by the
 * copy in the base namespace alone; another copy hands on every call to it.  True for
 * the one that counts.
 */
bool emuv_resolve_is_home(void);

/* The path of this library. */
const char *emuv_resolve_self(void);

#endif
