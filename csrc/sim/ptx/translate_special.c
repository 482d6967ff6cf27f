/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Special registers (PTX ISA 10).  What is not here is refused by name.
 *
 * A launch is one cluster a block: %cluster_* say so.
 */
#include <string.h>

#include "translate.h"

static const struct {
	const char *name;
	ptx_type_t type;
	const char *text;
} specials[] = {
	{ "tid.x", PTX_U32, "tid_x" },
	{ "tid.y", PTX_U32, "tid_y" },
	{ "tid.z", PTX_U32, "tid_z" },
	{ "tid.w", PTX_U32, "0" },
	{ "ntid.x", PTX_U32, "emuv_launch->block[0]" },
	{ "ntid.y", PTX_U32, "emuv_launch->block[1]" },
	{ "ntid.z", PTX_U32, "emuv_launch->block[2]" },
	{ "ntid.w", PTX_U32, "0" },
	{ "ctaid.x", PTX_U32, "thread->block->index[0]" },
	{ "ctaid.y", PTX_U32, "thread->block->index[1]" },
	{ "ctaid.z", PTX_U32, "thread->block->index[2]" },
	{ "ctaid.w", PTX_U32, "0" },
	{ "nctaid.x", PTX_U32, "emuv_launch->grid[0]" },
	{ "nctaid.y", PTX_U32, "emuv_launch->grid[1]" },
	{ "nctaid.z", PTX_U32, "emuv_launch->grid[2]" },
	{ "nctaid.w", PTX_U32, "0" },
	{ "laneid", PTX_U32, "(tid_linear & 31)" },
	{ "warpid", PTX_U32, "(tid_linear >> 5)" },
	{ "nwarpid", PTX_U32,
	  "((emuv_launch->block[0] * emuv_launch->block[1] * emuv_launch->block[2] + 31) >> 5)" },
	{ "smid", PTX_U32, "thread->block->processor" },
	{ "nsmid", PTX_U32, "emuv_launch->processors" },
	{ "gridid", PTX_U64, "emuv_launch->grid_id" },
	{ "lanemask_eq", PTX_U32, "(1u << (tid_linear & 31))" },
	{ "lanemask_lt", PTX_U32, "((1u << (tid_linear & 31)) - 1)" },
	{ "lanemask_le", PTX_U32, "((2u << (tid_linear & 31)) - 1)" },
	{ "lanemask_ge", PTX_U32, "(~0u << (tid_linear & 31))" },
	{ "lanemask_gt", PTX_U32, "(~1u << (tid_linear & 31))" },
	/* A clock of 1 GHz: what it counts is time. */
	{ "clock", PTX_U32, "((uint32_t)emuv_launch->engine->nanoseconds(thread))" },
	{ "clock_hi", PTX_U32, "((uint32_t)(emuv_launch->engine->nanoseconds(thread) >> 32))" },
	{ "clock64", PTX_U64, "emuv_launch->engine->nanoseconds(thread)" },
	{ "globaltimer", PTX_U64, "emuv_launch->engine->nanoseconds(thread)" },
	{ "globaltimer_lo", PTX_U32, "((uint32_t)emuv_launch->engine->nanoseconds(thread))" },
	{ "globaltimer_hi", PTX_U32, "((uint32_t)(emuv_launch->engine->nanoseconds(thread) >> 32))" },
	{ "dynamic_smem_size", PTX_U32, "emuv_launch->dynamic_shared" },
	{ "total_smem_size", PTX_U32, "emuv_launch->shared_bytes" },
	{ "aggr_smem_size", PTX_U32, "emuv_launch->shared_bytes" },
	{ "current_graph_exec", PTX_U64, "((uint64_t)0)" },
	{ "is_explicit_cluster", PTX_PRED, "false" },
	{ "clusterid.x", PTX_U32, "thread->block->index[0]" },
	{ "clusterid.y", PTX_U32, "thread->block->index[1]" },
	{ "clusterid.z", PTX_U32, "thread->block->index[2]" },
	{ "clusterid.w", PTX_U32, "0" },
	{ "nclusterid.x", PTX_U32, "emuv_launch->grid[0]" },
	{ "nclusterid.y", PTX_U32, "emuv_launch->grid[1]" },
	{ "nclusterid.z", PTX_U32, "emuv_launch->grid[2]" },
	{ "nclusterid.w", PTX_U32, "0" },
	{ "cluster_ctaid.x", PTX_U32, "0" },
	{ "cluster_ctaid.y", PTX_U32, "0" },
	{ "cluster_ctaid.z", PTX_U32, "0" },
	{ "cluster_ctaid.w", PTX_U32, "0" },
	{ "cluster_nctaid.x", PTX_U32, "1" },
	{ "cluster_nctaid.y", PTX_U32, "1" },
	{ "cluster_nctaid.z", PTX_U32, "1" },
	{ "cluster_nctaid.w", PTX_U32, "0" },
	{ "cluster_ctarank", PTX_U32, "0" },
	{ "cluster_nctarank", PTX_U32, "1" },
};

bool ptx_special_exists(const char *name)
{
	/* What there is besides, for profilers and for the compiler itself. */
	static const char *const others[] = { "pm", "reserved_smem_offset_", "envreg" };

	for (size_t i = 0; i < sizeof(specials) / sizeof(*specials); i++)
		if (strcmp(specials[i].name, name) == 0)
			return true;
	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
		if (strncmp(others[i], name, strlen(others[i])) == 0)
			return true;
	return false;
}

const char *ptx_special(ptx_emit_t *emit, const char *name, ptx_type_t *type)
{
	for (size_t i = 0; i < sizeof(specials) / sizeof(*specials); i++)
		if (strcmp(specials[i].name, name) == 0) {
			*type = specials[i].type;
			return specials[i].text;
		}
	if (strncmp(name, "envreg", 6) == 0 && name[6] >= '0' && name[6] <= '9') {
		*type = PTX_B32;
		return "0";
	}
	ptx_failed(emit, PTX_UNSUPPORTED,
		   "PTX line %u: the special register %%%.60s is not simulated",
		   emit->instruction->line, name);
	*type = PTX_U32;
	return "0";
}
