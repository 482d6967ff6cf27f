/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Do lanes wait for each other without saying so?
 *
 * An instruction *tells* when its result is what another thread did: a volatile load,
 * an atomic operation.  A branch *turns* when it decides whether itself is come to
 * again: it is reached from one of its ways before all ways join (it depends on itself,
 * in the words of control dependence).  Lanes wait where a branch turns on what is told
 * within the turn: `while (!flag);`, a lock, a retried compare-and-swap.  There they
 * must run at once, a fiber each, and give way whenever they go round.  A loop that
 * counts with atomics and goes by its own index does not wait.
 *
 * Volatile accesses to shared memory are also how old kernels pass values between the
 * lanes of a warp that run in step: lanes give way at each.
 *
 * In doubt, they wait: that is slower, and right.
 */
#include <string.h>

#include "translate.h"

/* Larger functions are not looked at this closely. */
#define MOST_BLOCKS 20000

static bool writes_memory(const ptx_instruction_t *one)
{
	return strcmp(one->opcode, "red") == 0 || strcmp(one->opcode, "st") == 0;
}

static bool is_call(const ptx_instruction_t *one)
{
	return one->opcode && strcmp(one->opcode, "call") == 0;
}

/* A call is as good as what it may call. */
static bool tells(ptx_emit_t *emit, const ptx_instruction_t *one)
{
	const ptx_operand_t *results, *arguments, *target;

	if (!one->opcode)
		return false;
	if (!is_call(one))
		return ptx_isa_traits(one) & PTX_TRAIT_SPIN && !writes_memory(one);
	target = ptx_call_target(one, &results, &arguments);
	if (target && target->function)
		return emit->reached[target->function->index].tells;
	emit->work += emit->order_count;
	for (unsigned int i = 0; i < emit->order_count; i++)
		if (emit->reached[emit->order[i]].tells &&
		    ptx_may_call(emit, one, emit->all[emit->order[i]]))
			return true;
	return false;
}

/* ---- what depends on what is told ---- */

typedef struct {
	ptx_emit_t *emit;
	const ptx_flow_t *flow;
	bool *told;            /* registers, by index */
	bool told_local, told_param, told_carry; /* … and memory of the thread's own */
	bool *turn;            /* blocks of the turn at hand */
	bool *side;            /* blocks of a branch at hand */
	unsigned int *stack;
	bool changed;
} look_t;

static bool reads_told(const look_t *look, const ptx_operand_t *operand)
{
	if (operand->reg && look->told[operand->reg->index])
		return true;
	for (unsigned int i = 0; i < operand->items; i++)
		if (reads_told(look, &operand->item[i]))
			return true;
	return false;
}

static void tell(look_t *look, const ptx_operand_t *operand)
{
	if (operand->kind == PTX_OPERAND_REGISTER && !look->told[operand->reg->index]) {
		look->told[operand->reg->index] = true;
		look->changed = true;
	}
	for (unsigned int i = 0; i < operand->items && operand->kind != PTX_OPERAND_ADDRESS; i++)
		tell(look, &operand->item[i]);
}

static void set(look_t *look, bool *flag)
{
	look->changed |= !*flag;
	*flag = true;
}

static bool in_space(const ptx_instruction_t *one, const char *space)
{
	return ptx_has(one, space);
}

static bool generic(const ptx_instruction_t *one)
{
	static const char *const spaces[] = { "global", "shared", "shared::cta", "shared::cluster",
					      "local", "const", "param", "param::entry",
					      "param::func" };

	for (size_t i = 0; i < sizeof(spaces) / sizeof(*spaces); i++)
		if (ptx_has(one, spaces[i]))
			return false;
	return true;
}

/* One instruction of the turn; `told`: it is done or not by what is told. */
static void pass(look_t *look, const ptx_instruction_t *one, bool told)
{
	bool load = strcmp(one->opcode, "ld") == 0, store = strcmp(one->opcode, "st") == 0;

	told |= one->guard && look->told[one->guard->index];
	told |= tells(look->emit, one);
	for (unsigned int i = writes_memory(one) || is_call(one) ? 0 : 1; i < one->operands; i++)
		told |= reads_told(look, &one->operand[i]);
	if (load && (in_space(one, "local") || generic(one)))
		told |= look->told_local;
	if (load && (in_space(one, "param") || in_space(one, "param::func")))
		told |= look->told_param;
	if (strcmp(one->opcode, "addc") == 0 || strcmp(one->opcode, "subc") == 0 ||
	    strcmp(one->opcode, "madc") == 0)
		told |= look->told_carry;
	if (!told)
		return;
	if (is_call(one)) { /* by its results, or through pointers to the caller's variables */
		set(look, &look->told_local);
		set(look, &look->told_param);
	}
	if (store && (in_space(one, "local") || generic(one)))
		set(look, &look->told_local);
	if (store && (in_space(one, "param") || in_space(one, "param::func")))
		set(look, &look->told_param);
	if (ptx_has(one, "cc"))
		set(look, &look->told_carry);
	if (one->operands && !writes_memory(one))
		tell(look, &one->operand[0]);
}

/* Marks what is reached from `from` before `join`; true when `wanted` is among it. */
static bool reach(look_t *look, unsigned int from, unsigned int join, unsigned int wanted, bool *marks)
{
	unsigned int depth = 0;
	bool found = false;

	if (from == join || from == look->flow->blocks)
		return false;
	if (marks[from])
		return marks[wanted];
	marks[from] = true;
	look->stack[depth++] = from;
	while (depth) {
		const ptx_block_t *block = &look->flow->block[look->stack[--depth]];

		for (unsigned int i = 0; i < block->nexts; i++) {
			unsigned int to = block->next[i];

			look->emit->work++;
			if (to == join || to == look->flow->blocks || marks[to])
				continue;
			marks[to] = true;
			look->stack[depth++] = to;
		}
	}
	found = marks[wanted];
	return found;
}

static bool reach_all(look_t *look, unsigned int branch, bool *marks)
{
	const ptx_block_t *block = &look->flow->block[branch];
	bool found = false;

	memset(marks, 0, look->flow->blocks + 1);
	look->emit->work += look->flow->blocks / 16;
	for (unsigned int i = 0; i < block->nexts; i++)
		found |= reach(look, block->next[i], block->join, branch, marks);
	return found;
}

/* What the end of a block decides by; NULL: it does not decide. */
static const ptx_instruction_t *decision(const ptx_flow_t *flow, unsigned int index)
{
	const ptx_block_t *block = &flow->block[index];
	const ptx_instruction_t *last = flow->instruction[block->first + block->count - 1];

	if (block->nexts < 2 || !last->opcode)
		return NULL;
	return last;
}

static bool decides_by_told(const look_t *look, const ptx_instruction_t *last)
{
	if (last->guard && look->told[last->guard->index])
		return true;
	return strcmp(last->opcode, "brx") == 0 && reads_told(look, &last->operand[0]);
}

/* The branch turns: does it by what is told in the turn? */
static bool turns_on_told(look_t *look, unsigned int branch)
{
	const ptx_flow_t *flow = look->flow;
	bool *told = look->side; /* blocks that are come to or not by what is told */
	bool *by_told = look->turn + flow->blocks + 1;

	memset(look->told, 0, look->emit->function->register_count + 1);
	look->told_local = look->told_param = look->told_carry = false;
	memset(by_told, 0, flow->blocks + 1);
	do {
		look->changed = false;
		if (look->emit->work > PTX_MOST_WORK)
			return true;
		for (unsigned int i = 0; i < flow->blocks; i++) {
			const ptx_block_t *block = &flow->block[i];
			const ptx_instruction_t *last = decision(flow, i);

			if (!look->turn[i])
				continue;
			look->emit->work += block->count;
			for (unsigned int j = 0; j < block->count; j++)
				if (flow->instruction[block->first + j]->opcode)
					pass(look, flow->instruction[block->first + j], by_told[i]);
			if (!last || !(by_told[i] || decides_by_told(look, last)))
				continue;
			if (i == branch)
				return true;
			reach_all(look, i, told);
			for (unsigned int k = 0; k < flow->blocks; k++)
				if (told[k] && !by_told[k])
					by_told[k] = look->changed = true;
		}
	} while (look->changed);
	return false;
}

static bool any_tells(look_t *look)
{
	for (unsigned int i = 0; i < look->flow->blocks; i++) {
		const ptx_block_t *block = &look->flow->block[i];

		look->emit->work += look->turn[i] ? block->count : 0;
		for (unsigned int j = 0; look->turn[i] && j < block->count; j++)
			if (tells(look->emit, look->flow->instruction[block->first + j]))
				return true;
	}
	return false;
}

/* Which of its ways lead round again? */
static unsigned char ways_round(look_t *look, unsigned int branch)
{
	const ptx_block_t *block = &look->flow->block[branch];
	unsigned char yields = 0;

	for (unsigned int i = 0; i < block->nexts; i++) {
		memset(look->side, 0, look->flow->blocks + 1);
		if (reach(look, block->next[i], block->join, branch, look->side))
			yields |= block->next[i] == branch + 1 && i + 1 == block->nexts
					  ? PTX_YIELD_FALLEN
					  : PTX_YIELD_TAKEN;
	}
	return yields;
}

/* In doubt: wherever it goes back. */
static bool yield_always(const ptx_flow_t *flow, unsigned char *yields)
{
	for (unsigned int i = 0; i < flow->instructions; i++)
		if (flow->instruction[i]->opcode && ptx_is_flow(flow->instruction[i]))
			yields[i] |= PTX_YIELD_TAKEN;
	return true;
}

static bool find_in(ptx_emit_t *emit, const ptx_function_t *function, const ptx_flow_t *flow)
{
	ptx_reached_t *reached = &emit->reached[function->index];
	unsigned int count = flow->blocks;
	look_t look = { .emit = emit, .flow = flow };
	bool waits = false;

	look.told = ptx_keep(emit, function->register_count + 1);
	look.turn = ptx_keep(emit, 2 * (count + 1));
	look.side = ptx_keep(emit, count + 1);
	look.stack = ptx_keep(emit, (count + 1) * sizeof(*look.stack));
	if (!look.told || !look.turn || !look.side || !look.stack)
		return false;
	emit->function = function;
	for (unsigned int i = 0; i < count; i++) {
		const ptx_instruction_t *last = decision(flow, i);
		bool endless = flow->block[i].join == PTX_NO_BLOCK;

		if (count > MOST_BLOCKS || emit->work > PTX_MOST_WORK)
			return yield_always(flow, reached->yields);
		/* A loop without an end is a turn of all that it comes to. */
		if ((!last && !endless) || !reach_all(&look, i, look.turn) || !any_tells(&look))
			continue;
		if (endless || turns_on_told(&look, i)) {
			reached->yields[flow->block[i].first + flow->block[i].count - 1] |=
				endless ? PTX_YIELD_BEFORE : ways_round(&look, i);
			waits = true;
		}
	}
	return waits;
}

/* A volatile access to what may be shared memory. */
static bool in_step(const ptx_emit_t *emit, const ptx_instruction_t *one)
{
	return one->opcode && ptx_has(one, "volatile") &&
	       (in_space(one, "shared") || in_space(one, "shared::cta") ||
		(generic(one) && emit->uses_shared));
}

static bool in_steps(ptx_emit_t *emit, const ptx_function_t *function, const ptx_flow_t *flow)
{
	unsigned char *yields = emit->reached[function->index].yields;
	bool found = false;

	for (unsigned int i = 0; i < flow->instructions; i++)
		if (in_step(emit, flow->instruction[i])) {
			yields[i] |= PTX_YIELD_BEFORE;
			found = true;
		}
	return found;
}

/* Which functions tell, by themselves or by what they call.  Callees come first. */
static void find_telling(ptx_emit_t *emit)
{
	bool again = true;

	while (again) {
		again = false;
		for (unsigned int i = 0; i < emit->order_count; i++) {
			ptx_reached_t *reached = &emit->reached[emit->order[i]];
			bool found = reached->traits & PTX_TRAIT_SPIN;

			if (reached->tells)
				continue;
			for (unsigned int j = 0; j < reached->callees && !found; j++)
				found = emit->reached[reached->callee[j]].tells;
			reached->tells = found;
			again |= found && emit->recursive;
		}
		emit->work += emit->order_count;
		if (again && emit->work > PTX_MOST_WORK) { /* circles within circles */
			for (unsigned int i = 0; i < emit->order_count; i++)
				emit->reached[emit->order[i]].tells = true;
			return;
		}
	}
}

void ptx_find_waits(ptx_emit_t *emit)
{
	emit->synchronises = emit->traits & (PTX_TRAIT_SYNC | PTX_TRAIT_GRID);
	find_telling(emit);
	for (unsigned int i = 0; i < emit->module->function_count; i++) {
		ptx_reached_t *reached = &emit->reached[i];
		ptx_flow_t flow;

		if (!reached->reached || !reached->tells)
			continue;
		if (!ptx_flow_build(emit, emit->all[i], &flow))
			return;
		reached->yields = ptx_keep(emit, flow.instructions + 1);
		if (!reached->yields)
			return;
		/* Calling itself is a loop that is not looked into. */
		reached->waits = find_in(emit, emit->all[i], &flow) || emit->recursive;
		reached->waits |= in_steps(emit, emit->all[i], &flow);
		emit->synchronises |= reached->waits;
	}
}
