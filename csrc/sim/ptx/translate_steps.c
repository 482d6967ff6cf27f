/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Kernels that wait without stacks.
 *
 * A thread of such a kernel runs until it has to wait, puts the registers that are
 * alive there into a record of its own, and returns the place's number; when those it
 * waits for have come, it is called again with that number and goes on.  Between two
 * barriers a block is a loop over its threads: no stack is made or changed, and what a
 * thread keeps is a few words side by side.
 *
 * An operation of the warp is written out twice: in front of the return, where
 * EMUV_WARP notes what the lane gives and wants, and behind it, where EMUV_WARP is the
 * result.  The registers are kept before, so that both find the same operands.
 *
 * This is done where all waiting is in the entry itself, for barrier 0 of the whole
 * block or for lanes of the warp, and little is alive there.  All else takes fibers.
 */
#include <string.h>

#include "translate.h"

/* The records of a block of 1024 threads lie on the engine's stack of 1 MiB. */
#define MOST_RECORD_BYTES 400
#define MOST_STEPS 1000

typedef enum {
	NO_STEP,
	STEP_BLOCK,  /* waits for barrier 0 and gets nothing */
	STEP_RESULT, /* waits for its warp, or for barrier 0 that counts */
	STEP_NOT,    /* waits in a way that steps do not have */
} step_kind_t;

static bool only(const ptx_instruction_t *one, const char *const *words, unsigned int count)
{
	for (unsigned int i = 0; i < one->modifiers; i++) {
		bool found = false;

		for (unsigned int j = 0; j < count && !found; j++)
			found = strcmp(one->modifier[i], words[j]) == 0;
		if (!found)
			return false;
	}
	return true;
}

static bool is_zero(const ptx_operand_t *operand)
{
	return operand->kind == PTX_OPERAND_IMMEDIATE && !operand->real && operand->bits == 0;
}

static step_kind_t barrier_kind(const ptx_instruction_t *one)
{
	static const char *const sync[] = { "sync", "cta", "aligned" };
	static const char *const red[] = { "red", "cta", "aligned", "popc", "and", "or", "u32", "pred" };

	if (ptx_has(one, "warp"))
		return STEP_RESULT;
	if (one->operands == 1 && only(one, sync, 3) && is_zero(&one->operand[0]))
		return STEP_BLOCK;
	if (one->operands == 3 && only(one, red, 8) && is_zero(&one->operand[1]))
		return STEP_RESULT;
	return STEP_NOT;
}

static step_kind_t kind_of(const ptx_instruction_t *one)
{
	if (!one->opcode || !(ptx_isa_traits(one) & PTX_TRAIT_SYNC))
		return NO_STEP;
	if (strcmp(one->opcode, "bar") == 0 || strcmp(one->opcode, "barrier") == 0)
		return barrier_kind(one);
	/* Before .sync they ask who is there, and then meet: twice in one instruction. */
	if (strcmp(one->opcode, "activemask") == 0 || ptx_has(one, "sync"))
		return STEP_RESULT;
	return STEP_NOT;
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
			} else if (kind_of(one) != NO_STEP) {
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

	if (emit->traits & PTX_TRAIT_GRID || own->allocates)
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
		if (kind_of(one) == STEP_NOT)
			return false;
		*steps += kind_of(one) != NO_STEP;
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

			if (kind_of(flow->instruction[at]) == NO_STEP)
				continue;
			steps->results |= kind_of(flow->instruction[at]) == STEP_RESULT;
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
	/* Each thread's frame at once, one after another. */
	steps->frame_bytes = emit->reached[emit->entry->index].frame_bytes;
	if (steps->frame_bytes) {
		size_t align = emit->reached[emit->entry->index].frame_align;

		steps->frame_bytes = (steps->frame_bytes + align - 1) & ~(align - 1);
	}
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

/* The instruction, with what EMUV_WARP and EMUV_BARRIER are to mean in it. */
static void emit_as(ptx_emit_t *emit, const ptx_instruction_t *one, const char *warp,
		    const char *barrier)
{
	ptx_out(emit,
		"#undef EMUV_WARP\n#undef EMUV_BARRIER\n"
		"#define EMUV_WARP(o, m, v, s) %s\n"
		"#define EMUV_BARRIER(o, i, t, p) %s\n{\n",
		warp, barrier);
	if (!ptx_isa_emit(emit, one))
		ptx_refuse(emit, "not simulated");
	ptx_out(emit, "}\n");
}

bool ptx_steps_emit(ptx_emit_t *emit, unsigned int at)
{
	const ptx_instruction_t *one = emit->flow->instruction[at];
	const ptx_steps_t *steps = emit->steps;
	bool result = kind_of(one) == STEP_RESULT;

	for (unsigned int i = 0; i < steps->count; i++) {
		if (steps->step[i].at != at)
			continue;
		each_alive(emit, steps->step[i].alive, "keep");
		if (result)
			emit_as(emit, one, "EMUV_OFFER(o, m, v, s)", "EMUV_OFFER_BLOCK(o, p)");
		else if (steps->results)
			ptx_out(emit, "EMUV_OFFER_BLOCK(EMUV_BARRIER_SYNC, 0);\n");
		ptx_out(emit, "return %u;\nS%u:;\n", i + 1, i + 1);
		if (result)
			emit_as(emit, one, "lane->result", "lane->result");
		return true;
	}
	return false;
}

/* ---- a block ---- */

static const char head[] =
	"static void run(emuv_thread_t *thread)\n{\n"
	"const emuv_launch_t *const launch = thread->launch;\n"
	"const uint32_t nx = launch->block[0], ny = launch->block[1], nz = launch->block[2];\n"
	"const uint64_t frames = (thread->local_next + 63) & ~63ull;\n"
	"const uint64_t local = frames + %zuull * nx * ny * nz;\n"
	"struct kept kept[nx * ny * nz];\n";

/* Only barriers: all threads, from each to the next. */
static const char barriers[] =
	"uint16_t step[nx * ny * nz];\n"
	"uint32_t left;\n"
	"__builtin_memset(step, 0, sizeof(step));\n"
	"do {\n"
	"uint32_t linear = 0;\n"
	"left = 0;\n"
	"for (uint32_t z = 0; z < nz; z++)\n"
	"for (uint32_t y = 0; y < ny; y++)\n"
	"for (uint32_t x = 0; x < nx; x++, linear++) {\n"
	"if (step[linear] == EMUV_STEP_DONE)\ncontinue;\n"
	"thread->index[0] = x;\nthread->index[1] = y;\nthread->index[2] = z;\n"
	"thread->linear = linear;\nthread->local_next = local;\n"
	"step[linear] = body(thread, launch->parameters, x, y, z, linear, &kept[linear], 0, "
	"frames + %zuull * linear, step[linear]);\n"
	"left += step[linear] != EMUV_STEP_DONE;\n"
	"}\n"
	"} while (left);\n"
	"thread->local_next = thread->local_start;\n}\n";

/* Warps, each as far as it comes by itself; then the barrier. */
static const char meetings[] =
	"emuv_lane_t all[nx * ny * nz];\n"
	"uint32_t alive[32], ready[32], waiting[32] = { 0 };\n"
	"const uint32_t warps = emuv_steps_begin(launch, all, alive);\n"
	"__builtin_memcpy(ready, alive, sizeof(ready));\n"
	"for (;;) {\n"
	"uint32_t left = 0, parked = 0;\n"
	"for (uint32_t w = 0; w < warps; w++) {\n"
	"uint32_t go = ready[w];\n"
	"while (go) {\n"
	"EMUV_EACH_LANE(number, go) {\n"
	"const uint32_t linear = 32 * w + number;\n"
	"emuv_lane_t *const lane = &all[linear];\n"
	"thread->index[0] = lane->x;\nthread->index[1] = lane->y;\nthread->index[2] = lane->z;\n"
	"thread->linear = linear;\nthread->local_next = local;\n"
	"lane->step = body(thread, launch->parameters, lane->x, lane->y, lane->z, linear, "
	"&kept[linear], lane, frames + %zuull * linear, lane->step);\n"
	"if (lane->step == EMUV_STEP_DONE)\nalive[w] &= ~(1u << number);\n"
	"else if (lane->operation & EMUV_LANE_BLOCK)\nparked++;\n"
	"else\nwaiting[w] |= 1u << number;\n"
	"}\n"
	"go = waiting[w] ? emuv_steps_meet(thread, &all[32 * w], alive[w], waiting[w]) : 0;\n"
	"waiting[w] &= ~go;\n"
	"}\n"
	"left += (uint32_t)__builtin_popcount(alive[w]);\n"
	"}\n"
	"if (!left)\nbreak;\n"
	"if (parked != left)\n"
	"launch->engine->trap(thread, EMUV_TRAP_DEADLOCK, parked | (uint64_t)(left - parked) << 32);\n"
	"emuv_steps_release(all, alive, warps);\n"
	"__builtin_memcpy(ready, alive, sizeof(ready));\n"
	"}\n"
	"thread->local_next = thread->local_start;\n}\n";

void ptx_steps_run(ptx_emit_t *emit)
{
	ptx_out(emit, head, emit->steps->frame_bytes);
	if (emit->steps->results)
		ptx_out(emit, meetings, emit->steps->frame_bytes);
	else
		ptx_out(emit, barriers, emit->steps->frame_bytes);
}
