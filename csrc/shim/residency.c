/* SPDX-License-Identifier: GPL-2.0-only */
#include "residency.h"

#include "contexts.h"
#include "real.h"
#include "relaxed.h"

/*
 * The v1 forms of cuMemAdvise and cuMemPrefetchAsync are used: every driver since
 * CUDA 8.0 exports them, whatever newer forms it has.
 */
CUresult emuv_residency_place(const emuv_where_t *where, CUdeviceptr address, uint64_t bytes,
			      uint64_t head, bool eager)
{
	uint64_t advised = 0, to_device = 0, to_host = 0;
	CUstream side;
	CUresult result;

	result = g_real.cuMemAdvise(address, bytes, CU_MEM_ADVISE_SET_PREFERRED_LOCATION,
				    CU_DEVICE_CPU);
	if (result)
		return result;
	advised += bytes;
	result = g_real.cuMemAdvise(address, bytes, CU_MEM_ADVISE_SET_ACCESSED_BY, where->device);
	if (result)
		return result;
	advised += bytes;

	/*
	 * Hints from here on: where one fails, the bytes stay on the host and are
	 * reached over the link.  They are charged as resident all the same, which
	 * errs on the safe side.
	 */
	side = emuv_contexts_side_stream(where->context);
	if (head && !g_real.cuMemPrefetchAsync(address, head, where->device, side))
		to_device = head;
	if (eager && bytes > head &&
	    !g_real.cuMemPrefetchAsync(address + head, bytes - head, CU_DEVICE_CPU, side))
		to_host = bytes - head;
	emuv_account_hints(where->device, advised, to_device, to_host);
	return CUDA_SUCCESS;
}

void emuv_residency_shrink(const emuv_where_t *where)
{
	emuv_entry_t ranges[32];
	CUstream side;
	size_t n, n_moved;
	int mode;

	/* With no context there is no stream to move them on: the next call will. */
	if (!emuv_account_over(where->device) || !where->context)
		return;
	mode = emuv_relaxed_enter();
	side = emuv_contexts_side_stream(where->context);
	do {
		bool moved[sizeof ranges / sizeof *ranges];
		bool done;

		n_moved = 0;
		n = emuv_account_demote(where->device, ranges, sizeof ranges / sizeof *ranges);
		/* The charge falls when the pages are gone: nobody gets their room before. */
		for (size_t i = 0; i < n; i++)
			moved[i] = !g_real.cuMemPrefetchAsync(ranges[i].key, ranges[i].bytes,
							      CU_DEVICE_CPU, side);
		done = !n || !g_real.cuStreamSynchronize(side);
		for (size_t i = 0; i < n; i++) {
			emuv_account_demoted(&ranges[i], done && moved[i]);
			n_moved += done && moved[i];
		}
		/* A driver that moves nothing would be asked for the same ones for ever. */
	} while (n == sizeof ranges / sizeof *ranges && n_moved);
	emuv_relaxed_leave(mode);
}
