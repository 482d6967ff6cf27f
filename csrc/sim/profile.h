/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The model card: rates and times that the virtual clock charges.  profiles/ *.ini have
 * the numbers and where each is from.
 */
#ifndef EMUV_SIM_PROFILE_H
#define EMUV_SIM_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
	char name[64];
	/* bytes a second */
	uint64_t link_to_device, link_to_host;
	uint64_t link_both; /* in both directions together */
	uint64_t remote_read, remote_write;
	uint64_t vram;
	uint64_t instructions; /* of threads, a second */
	/* ns */
	uint64_t launch_ns;      /* of a kernel, a copy, a set, a prefetch */
	uint64_t fault_batch_ns; /* up to SIM_FAULT_BATCH faults */
	uint64_t fault_ns;       /* beyond the batch and the transfer, a block */
	uint64_t eviction_ns;    /* beyond the transfer, a block */
} sim_profile_t;
extern sim_profile_t sim_profile;

/*
 * Reads EMUV_SIM_PROFILE's value: a name of one that is built in, or a path.  False:
 * `why` says what is wrong, with the line.
 */
bool sim_profile_load(const char *choice, char *why, size_t room);
/* Writes the profile as a JSON object's members. */
typedef void sim_profile_tell_t(const char *key, uint64_t value, void *argument);
void sim_profile_each(sim_profile_tell_t *tell, void *argument);

#endif
