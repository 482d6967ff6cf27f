/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The attributes of cuLaunchKernelEx.
 *
 * Hints are read and have no effect; what would change what the program computes or
 * waits for, and is not simulated, is refused.
 */
#include "internal.h"
#include "launch.h"

/* CUlaunchAttribute: its value is a union of 64 bytes. */
struct CUlaunchAttribute_st {
	int id;
	char pad[4];
	union {
		char bytes[64];
		int number;
		struct {
			unsigned int x, y, z;
		} cluster;
	} value;
};

enum {
	IGNORE = 0, ACCESS_POLICY_WINDOW = 1, COOPERATIVE = 2, SYNCHRONIZATION_POLICY = 3,
	CLUSTER_DIMENSION = 4, CLUSTER_SCHEDULING = 5, PROGRAMMATIC_STREAM_SERIALIZATION = 6,
	PROGRAMMATIC_EVENT = 7, PRIORITY = 8, MEM_SYNC_DOMAIN_MAP = 9, MEM_SYNC_DOMAIN = 10,
	PREFERRED_CLUSTER_DIMENSION = 11, LAUNCH_COMPLETION_EVENT = 12,
	DEVICE_UPDATABLE_KERNEL_NODE = 13, PREFERRED_SHARED_MEMORY_CARVEOUT = 14,
	NVLINK_UTIL_CENTRIC_SCHEDULING = 16,
};

CUresult sim_launch_attributes(const CUlaunchConfig *config, sim_launch_t *launch)
{
	for (unsigned int i = 0; i < config->numAttrs; i++) {
		const CUlaunchAttribute *one = &config->attrs[i];

		switch (one->id) {
		case IGNORE:
		case ACCESS_POLICY_WINDOW:
		case SYNCHRONIZATION_POLICY:
		case CLUSTER_SCHEDULING:
		/* The next kernel may begin early: it need not. */
		case PROGRAMMATIC_STREAM_SERIALIZATION:
		case PRIORITY:
		case MEM_SYNC_DOMAIN_MAP:
		case MEM_SYNC_DOMAIN:
		case PREFERRED_SHARED_MEMORY_CARVEOUT:
		case NVLINK_UTIL_CENTRIC_SCHEDULING:
			break;
		case COOPERATIVE:
			launch->cooperative = one->value.number != 0;
			break;
		case CLUSTER_DIMENSION:
		case PREFERRED_CLUSTER_DIMENSION:
			if (one->value.cluster.x == 1 && one->value.cluster.y == 1 &&
			    one->value.cluster.z == 1)
				break;
			return sim_fail(CUDA_ERROR_INVALID_CLUSTER_SIZE,
					"cuLaunchKernelEx: clusters of %u x %u x %u blocks; a device of "
					"compute capability %d.%d has none", one->value.cluster.x,
					one->value.cluster.y, one->value.cluster.z, SIM_CC_MAJOR,
					SIM_CC_MINOR);
		case PROGRAMMATIC_EVENT:
		case LAUNCH_COMPLETION_EVENT:
		case DEVICE_UPDATABLE_KERNEL_NODE:
			return sim_fail(CUDA_ERROR_NOT_SUPPORTED,
					"cuLaunchKernelEx: attribute %d is not simulated", one->id);
		default:
			return sim_fail(CUDA_ERROR_INVALID_VALUE,
					"cuLaunchKernelEx: there is no attribute %d", one->id);
		}
	}
	return CUDA_SUCCESS;
}
