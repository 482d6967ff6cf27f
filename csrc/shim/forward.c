/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every function of the driver that emuV does not hook: a jump through a slot
 * that holds the driver's own function once it has been looked up.
 *
 * The stubs are weak.  A hook of the same name (hook_entry.c) is strong and wins
 * at link time, so that "everything but the hooks" needs no list of its own.
 */
#include <errno.h>
#include <stdint.h>

#include "cuda_abi.h"
#include "lifecycle.h"
#include "resolve.h"

static const char *const names[] = {
#define EMUV_API(export, name, version, flag) #export,
#include "driver_api.def"
#undef EMUV_API
};

/* stubs.S: slot i at first leads to emuv_forward_lookup(i). */
extern void *emuv_forward_slots[sizeof names / sizeof *names];

/* The driver that is there does not have the function. */
static CUresult absent(void)
{
	return CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER;
}

/* Called from the stubs with the index of the function; its answer is jumped to. */
void *emuv_forward_lookup(uint64_t index);
void *emuv_forward_lookup(uint64_t index)
{
	int saved = errno;
	void *function;

	/* Before the driver is open nothing is remembered: it may open later. */
	if (emuv_lifecycle_driver())
		return (void *)&absent;
	function = emuv_resolve_symbol(names[index]);
	if (!function)
		function = (void *)&absent;
	__atomic_store_n(&emuv_forward_slots[index], function, __ATOMIC_RELEASE);
	errno = saved;
	return function;
}
