/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Kernels that wait without stacks.
 *
 * A thread of such a kernel runs until it comes to a barrier, puts the registers that
 * are alive there into a record of its own, and returns the barrier's number; when all
 * threads of the block have, each is called again with it and goes on behind it.  A
 * block is then a loop over its threads between each two barriers: no stack is made or
 * changed, and what a thread keeps is a few words side by side.
 *
 * This is done where all waiting is for barrier 0 of the whole block, in the entry
 * itself, and little is alive there.  Everything else takes fibers.
 */
#include <string.h>

#include "translate.h"

/* The records of a block of 1024 threads lie on the engine's stack of 1 MiB. */
#define MOST_RECORD_BYTES 400
#define MOST_STEPS 1000

static bool waits_for_block(const ptx_instruction_t *one)
{
	if (!one->opcode || (strcmp(one->opcode, "bar") != 0 && strcmp(one->opcode, "barrier") != 0))
		return false;
	for (unsigned int i = 0; i < one->modifiers; i++)
		if (strcmp(one->modifier[i], "sync") != 0 && strcmp(one->modifier[i], "cta") != 0 &&
		    strcmp(one->modifier[i], "aligned") != 0)
			return false;
	return ptx_has(one, "sync") && one->operands == 1 &&
	       one->operand[0].kind == PTX_OPERAND_IMMEDIATE && !one->operand[0].real &&
	       one->operand[0].bits == 0;
}

static bool is_param_access(const ptx_emit_t *emit, const ptx_instruction_t *one)
{
	for (unsigned int i = 0; i < one->operands; i++) {
		const ptx_operand_t *address = &one->operand[i];

		if (address->kind == PTX_OPERAND_ADDRESS && address->item[0].variable &&
		    address->item[0].variable->space == PTX_SPACE_PARAM &&
		    !emit->placed[address->item[0].variable->number])
			return true;
	}
	return false;
}

/*
 * Arrays of arguments are not kept: from the first store to the call, and from there to
 * the last load, there must be nothing but instructions of one block.
 */
static bool calls_are_closed(const ptx_emit_t *emit, const ptx_flow_t *flow)
{
	for (unsigned int i = 0; i < flow->blocks; i++) {
		bool open = false, returned = false;

		for (unsigned int j = 0; j < flow->block[i].count; j++) {
			const ptx_instruction_t *one = flow->instruction[flow->block[i].first + j];

			if (!one->opcode)
				continue;
			if (strcmp(one->opcode, "call") == 0) {
				open = false;
				returned = true;
			} else if (strcmp(one->opcode, "ld") == 0 && is_param_access(emit, one)) {
				if (!returned)
					return false;
			} else if (is_param_access(emit, one)) {
				open = true;
			} else if (waits_for_block(one)) {
				if (open)
					return false;
				returned = false;
			}
		}
		if (open)
			return false;
	}
	return true;
}

/* May the entry be done in steps?  Counts them. */
static bool fits(const ptx_emit_t *emit, const ptx_flow_t *flow, unsigned int *steps)
{
	const ptx_reached_t *own = &emit->reached[emit->entry->index];

	if (emit->traits & PTX_TRAIT_GRID || own->frame_bytes || own->allocates)
		return false;
	for (unsigned int i = 0; i < emit->module->function_count; i++) {
		const ptx_reached_t *reached = &emit->reached[i];

		if (!reached->reached)
			continue;
		if (reached->waits || (reached != own && reached->traits & PTX_TRAIT_SYNC))
			return false;
	}
	*steps = 0;
	for (unsigned int i = 0; i < flow->instructions; i++) {
		const ptx_instruction_t *one = flow->instruction[i];

		if (!one->opcode)
			continue;
		if (waits_for_block(one))
			(*steps)++;
		else if (ptx_isa_traits(one) & PTX_TRAIT_SYNC)
			return false;
		/* The carry is a register of its own that nobody keeps. */
		if (ptx_has(one, "cc"))
			return false;
	}
	return *steps && *steps <= MOST_STEPS && calls_are_closed(emit, flow);
}

bool ptx_steps_find(ptx_emit_t *emit, const ptx_flow_t *flow)
{
	ptx_live_t live;
	ptx_steps_t *steps;
	unsigned int count, found = 0;
	size_t bytes = 0;

	if (!fits(emit, flow, &count) || !ptx_live_find(emit, emit->entry, flow, &live))
		return false;
	steps = ptx_keep(emit, sizeof(*steps));
	if (!steps)
		return false;
	steps->step = ptx_keep(emit, count * sizeof(*steps->step));
	steps->kept = ptx_keep(emit, live.words * sizeof(*steps->kept));
	if (!steps->step || !steps->kept)
		return false;
	steps->words = live.words;
	for (unsigned int i = 0; i < flow->blocks; i++)
		for (unsigned int j = 0; j < flow->block[i].count; j++) {
			unsigned int at = flow->block[i].first + j;
			uint64_t *alive;

			if (!waits_for_block(flow->instruction[at]))
				continue;
			alive = ptx_keep(emit, live.words * sizeof(*alive));
			if (!alive)
				return false;
			ptx_live_at(&live, flow, i, at, alive);
			for (unsigned int w = 0; w < live.words; w++)
				steps->kept[w] |= alive[w];
			steps->step[found].at = at;
			steps->step[found++].alive = alive;
		}
	steps->count = found;
	for (unsigned int i = 0; i < emit->entry->register_count; i++)
		if (steps->kept[i / 64] >> i % 64 & 1)
			bytes += ptx_type_bytes(emit->entry->registers[i]->type);
	if (bytes > MOST_RECORD_BYTES)
		return false;
	emit->steps = steps;
	return true;
}

/* struct kept: wide ones first, so that nothing is wasted between them. */
void ptx_steps_declare(ptx_emit_t *emit)
{
	ptx_out(emit, "struct kept {\n");
	for (unsigned int bytes = 16; bytes; bytes /= 2)
		for (unsigned int i = 0; i < emit->entry->register_count; i++) {
			ptx_type_t type = emit->entry->registers[i]->type;

			if (emit->steps->kept[i / 64] >> i % 64 & 1 && ptx_type_bytes(type) == bytes)
				ptx_out(emit, "%s r%u;\n", ptx_type_c(type), i);
		}
	ptx_out(emit, "};\n");
}

static void each_alive(ptx_emit_t *emit, const uint64_t *alive, const char *format)
{
	for (unsigned int i = 0; i < emit->entry->register_count; i++)
		if (alive[i / 64] >> i % 64 & 1) {
			const char *reg = ptx_text(emit, "r%u", i);
			const char *kept = ptx_text(emit, "kept->r%u", i);

			ptx_out(emit, "%s = %s;\n", *format == 'k' ? kept : reg, *format == 'k' ? reg : kept);
		}
}

/* At the start of the body: to where the thread was. */
void ptx_steps_resume(ptx_emit_t *emit)
{
	ptx_out(emit, "switch (step) {\n");
	for (unsigned int i = 0; i < emit->steps->count; i++) {
		ptx_out(emit, "case %u:\n", i + 1);
		each_alive(emit, emit->steps->step[i].alive, "restore");
		ptx_out(emit, "goto S%u;\n", i + 1);
		ptx_arena_reset(emit->scratch);
	}
	ptx_out(emit, "}\n");
}

bool ptx_steps_emit(ptx_emit_t *emit, unsigned int at)
{
	const ptx_steps_t *steps = emit->steps;

	for (unsigned int i = 0; i < steps->count; i++)
		if (steps->step[i].at == at) {
			each_alive(emit, steps->step[i].alive, "keep");
			ptx_out(emit, "return %u;\nS%u:;\n", i + 1, i + 1);
			return true;
		}
	return false;
}

/* A block: all of its threads, from each barrier to the next. */
void ptx_steps_run(ptx_emit_t *emit)
{
	ptx_out(emit,
		"static void run(emuv_thread_t *thread)\n{\n"
		"const emuv_launch_t *const launch = thread->launch;\n"
		"const uint32_t nx = launch->block[0], ny = launch->block[1], nz = launch->block[2];\n"
		"const uint64_t local = thread->local_next;\n"
		"struct kept kept[nx * ny * nz];\n"
		"uint16_t step[nx * ny * nz];\n"
		"uint32_t left;\n"
		"__builtin_memset(step, 0, sizeof(step));\n"
		"do {\n"
		"uint32_t linear = 0;\n"
		"left = 0;\n"
		"for (uint32_t z = 0; z < nz; z++)\n"
		"for (uint32_t y = 0; y < ny; y++)\n"
		"for (uint32_t x = 0; x < nx; x++, linear++) {\n"
		"if (step[linear] == STEP_DONE)\ncontinue;\n"
		"thread->index[0] = x;\nthread->index[1] = y;\nthread->index[2] = z;\n"
		"thread->linear = linear;\nthread->local_next = local;\n"
		"step[linear] = body(thread, launch->parameters, x, y, z, linear, &kept[linear], "
		"step[linear]);\n"
		"left += step[linear] != STEP_DONE;\n"
		"}\n"
		"} while (left);\n"
		"thread->local_next = local;\n}\n");
}
