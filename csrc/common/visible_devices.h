/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * CUDA_VISIBLE_DEVICES: which cards of a machine a process sees, in which order.  Pure.
 *
 * Entries are all indices, all "GPU-…" or all "MIG-…", as the first one is; a UUID may be
 * cut short as long as it names one card.  An entry that names none ends the list, one
 * that comes twice empties it, and an empty list hides all.
 */
#ifndef EMUV_VISIBLE_DEVICES_H
#define EMUV_VISIBLE_DEVICES_H

#include <stdbool.h>

#define EMUV_UUID_TEXT_BYTES 96 /* NVML_DEVICE_UUID_V2_BUFFER_SIZE */

/*
 * The UUID of card `index` as text; false: not known.  Cards are indexed as an index in
 * CUDA_VISIBLE_DEVICES means them.
 */
typedef bool (*emuv_uuid_text_t)(int index, char text[EMUV_UUID_TEXT_BYTES], void *state);

/*
 * Fills `visible` (room for `count`) with the indices of the cards that `value` leaves of
 * `count`, in its order, and returns how many.  NULL leaves all.  "MIG-…" entries name
 * parts of cards and none of these: 0.
 */
int emuv_visible_devices(const char *value, int count, emuv_uuid_text_t uuid, void *state,
			 int *visible);
/*
 * Whether the MIG instance of this UUID ("MIG-…" of today, or the old
 * "MIG-GPU-…/instance/instance") is what `value` leaves: its first entry, CUDA takes no
 * second.
 */
bool emuv_visible_instance(const char *value, const char *uuid);
/* The bytes of "GPU-…" or "MIG-…" written in full; false for all else. */
bool emuv_uuid_bytes(const char *text, unsigned char uuid[16]);

#endif
