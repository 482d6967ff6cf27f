/* SPDX-License-Identifier: GPL-2.0-only */
#include "residency.h"

#include "contexts.h"
#include "host_memory.h"
#include "real.h"
#include "relaxed.h"

/*
 * The v1 forms of cuMemAdvise and cuMemPrefetchAsync are used: every driver since
 * CUDA 8.0 exports them, whatever newer forms it has.
 */

/* From now on no page of the range migrates by itself. */
static CUresult pin(CUdeviceptr address, uint64_t bytes, CUdevice device)
{
	CUresult result;

	result = g_real.cuMemAdvise(address, bytes, CU_MEM_ADVISE_SET_PREFERRED_LOCATION,
				    CU_DEVICE_CPU);
	if (result)
		return result;
	return g_real.cuMemAdvise(address, bytes, CU_MEM_ADVISE_SET_ACCESSED_BY, device);
}

CUresult emuv_residency_place(const emuv_where_t *where, CUdeviceptr address, uint64_t bytes,
			      uint64_t head, bool eager)
{
	uint64_t to_device = 0, to_host = 0;
	CUstream side;
	CUresult result;

	result = pin(address, bytes, where->device);
	if (result)
		return result;

	/*
	 * Hints from here on: where one fails, the bytes stay on the host and are
	 * reached over the link.  They are charged as resident all the same, which
	 * errs on the safe side.
	 */
	side = emuv_contexts_side_stream(where->context);
	/* Never on the NULL stream, for which a capture elsewhere would be invalidated. */
	if (side && head && !g_real.cuMemPrefetchAsync(address, head, where->device, side))
		to_device = head;
	if (side && eager && bytes > head &&
	    !g_real.cuMemPrefetchAsync(address + head, bytes - head, CU_DEVICE_CPU, side))
		to_host = bytes - head;
	emuv_account_hints(where->device, 2 * bytes, to_device, to_host);
	return CUDA_SUCCESS;
}

#define PIECES 32

/* Moves to the host what is over, or until there is room for `want` more. */
static void demote(const emuv_where_t *where, uint64_t want, CUstream side)
{
	emuv_piece_t pieces[PIECES];
	size_t n, n_moved;

	if (!side)
		return;
	do {
		bool moved[PIECES];
		bool done;

		n_moved = 0;
		n = emuv_account_demote(where->device, want, pieces, PIECES);
		/* The charge falls when the pages are gone: nobody gets their room before. */
		for (size_t i = 0; i < n; i++)
			moved[i] = !g_real.cuMemPrefetchAsync(pieces[i].address, pieces[i].bytes,
							      CU_DEVICE_CPU, side);
		done = !n || !g_real.cuStreamSynchronize(side);
		for (size_t i = 0; i < n; i++) {
			emuv_account_demoted(&pieces[i], done && moved[i]);
			n_moved += done && moved[i];
		}
		/* A driver that moves nothing would be asked for the same ones for ever. */
	} while (n == PIECES && n_moved);
}

/*
 * The program's own managed memory is no plain memory: what of it is over is pinned to
 * the host like a spill.  Copies that the program has allowed would not count: no more
 * of them.
 */
static bool unfree(const emuv_where_t *where)
{
	emuv_entry_t ranges[PIECES];
	size_t n = emuv_account_unfree(where->device, ranges, PIECES);
	bool any = false;

	for (size_t i = 0; i < n; i++) {
		uint64_t there, span = emuv_entry_span(&ranges[i]);
		bool backed = !emuv_host_available(&there) || span <= there;
		bool pinned = backed &&
			      !g_real.cuMemAdvise(ranges[i].key, span,
						  CU_MEM_ADVISE_UNSET_READ_MOSTLY,
						  where->device) &&
			      !pin(ranges[i].key, span, where->device);

		emuv_account_pinned(&ranges[i], pinned);
		any |= pinned;
	}
	return any;
}

void emuv_residency_shrink(const emuv_where_t *where)
{
	CUstream side;
	int mode;

	/* With no context there is no stream to move them on: the next call will. */
	if (!emuv_account_over(where->device) || !where->context)
		return;
	mode = emuv_relaxed_enter();
	side = emuv_contexts_side_stream(where->context);
	demote(where, 0, side);
	while (unfree(where))
		demote(where, 0, side);
	emuv_relaxed_leave(mode);
}

bool emuv_residency_make_room(const emuv_where_t *where, uint64_t bytes)
{
	emuv_report_t report;
	int mode;

	emuv_account_report(where->device, &report);
	if (report.room < bytes && where->context) {
		mode = emuv_relaxed_enter();
		demote(where, bytes, emuv_contexts_side_stream(where->context));
		emuv_relaxed_leave(mode);
		emuv_account_report(where->device, &report);
	}
	return report.room >= bytes;
}
