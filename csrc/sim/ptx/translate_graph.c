/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Basic blocks, loops, and who waits for whom in them.
 *
 * Everything walks with stacks of its own: a text may nest as deep as it likes.
 */
#include <stdlib.h>
#include <string.h>

#include "translate.h"

/* ---- blocks ---- */

static int by_name(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t)((const struct ptx_label *)a)->name;
	uintptr_t y = (uintptr_t)((const struct ptx_label *)b)->name;

	return (x > y) - (x < y);
}

const struct ptx_label *ptx_flow_label(const ptx_flow_t *flow, const char *name)
{
	struct ptx_label key = { .name = name };

	return flow->labels ? bsearch(&key, flow->label, flow->labels, sizeof(key), by_name) : NULL;
}

/* The block that starts at the label; the labels were numbered in the order of blocks. */
static unsigned int block_at(const ptx_flow_t *flow, unsigned int instruction)
{
	unsigned int low = 0, high = flow->blocks;

	while (high - low > 1) {
		unsigned int middle = low + (high - low) / 2;

		if (flow->block[middle].first <= instruction)
			low = middle;
		else
			high = middle;
	}
	return low;
}

static bool ends_block(const ptx_instruction_t *one)
{
	return one->opcode && ptx_is_flow(one) && strcmp(one->opcode, "call") != 0;
}

static void add_next(const ptx_flow_t *flow, ptx_block_t *block, const ptx_operand_t *target)
{
	const struct ptx_label *label =
		target->kind == PTX_OPERAND_LABEL ? ptx_flow_label(flow, target->name) : NULL;

	if (label)
		block->next[block->nexts++] = block_at(flow, label->at);
}

static bool connect(ptx_emit_t *emit, ptx_flow_t *flow, unsigned int index)
{
	ptx_block_t *block = &flow->block[index];
	const ptx_instruction_t *last = flow->instruction[block->first + block->count - 1];
	const ptx_table_t *table = NULL;
	bool falls = true;

	if (ends_block(last)) {
		falls = last->guard != NULL;
		if (strcmp(last->opcode, "brx") == 0 && last->operands == 2)
			table = last->operand[1].table;
	}
	block->next = ptx_keep(emit, ((table ? table->targets : 1) + 1) * sizeof(*block->next));
	if (!block->next)
		return false;
	if (ends_block(last) && strcmp(last->opcode, "bra") == 0 && last->operands)
		add_next(flow, block, &last->operand[0]);
	for (unsigned int i = 0; table && i < table->targets; i++)
		add_next(flow, block, &table->target[i]);
	if (falls && index + 1 < flow->blocks)
		block->next[block->nexts++] = index + 1;
	return true;
}

/* Strongly connected components, by Tarjan; those of more than themselves are loops. */
static bool find_loops(ptx_emit_t *emit, ptx_flow_t *flow)
{
	unsigned int count = flow->blocks, depth = 0, held = 0, found = 0, components = 0;
	struct {
		unsigned int number, low, next;
		bool held;
	} *node = ptx_keep(emit, (count + 1) * sizeof(*node));
	unsigned int *stack = ptx_keep(emit, (count + 1) * sizeof(*stack));
	unsigned int *open = ptx_keep(emit, (count + 1) * sizeof(*open));

	if (!node || !stack || !open)
		return false;
	for (unsigned int root = 0; root < count; root++) {
		if (node[root].number)
			continue;
		stack[depth++] = root;
		while (depth) {
			unsigned int at = stack[depth - 1], size = 0, member;
			ptx_block_t *block = &flow->block[at];

			if (!node[at].number) {
				node[at].number = node[at].low = ++found;
				node[at].held = true;
				open[held++] = at;
			}
			if (node[at].next < block->nexts) {
				unsigned int to = block->next[node[at].next++];

				block->loops |= to == at;
				if (!node[to].number)
					stack[depth++] = to;
				else if (node[to].held && node[to].number < node[at].low)
					node[at].low = node[to].number;
				continue;
			}
			depth--;
			if (depth && node[at].low < node[stack[depth - 1]].low)
				node[stack[depth - 1]].low = node[at].low;
			if (node[at].low != node[at].number)
				continue;
			do {
				member = open[--held];
				node[member].held = false;
				flow->block[member].component = components;
				size++;
			} while (member != at);
			for (unsigned int i = 0; size > 1 && i < size; i++)
				flow->block[open[held + i]].loops = true;
			components++;
		}
	}
	return true;
}

bool ptx_flow_build(ptx_emit_t *emit, const ptx_function_t *function, ptx_flow_t *flow)
{
	unsigned int count = 0, labels = 0;

	memset(flow, 0, sizeof(*flow));
	for (const ptx_instruction_t *one = function->body; one; one = one->next) {
		count++;
		labels += one->label != NULL;
	}
	flow->instruction = ptx_keep(emit, (count + 1) * sizeof(*flow->instruction));
	flow->label = ptx_keep(emit, (labels + 1) * sizeof(*flow->label));
	flow->block = ptx_keep(emit, (count + 1) * sizeof(*flow->block));
	if (!flow->instruction || !flow->label || !flow->block)
		return false;
	for (const ptx_instruction_t *one = function->body; one; one = one->next) {
		unsigned int at = flow->instructions;
		const ptx_instruction_t *before = at ? flow->instruction[at - 1] : NULL;

		if (one->label) {
			flow->label[flow->labels] =
				(struct ptx_label){ one->label, at, flow->labels };
			flow->labels++;
		}
		if (!before || (one->label && !before->label) || ends_block(before))
			flow->block[flow->blocks++].first = at;
		flow->block[flow->blocks - 1].count++;
		flow->instruction[flow->instructions++] = one;
	}
	qsort(flow->label, flow->labels, sizeof(*flow->label), by_name);
	for (unsigned int i = 0; i < flow->blocks; i++)
		if (!connect(emit, flow, i))
			return false;
	return find_loops(emit, flow);
}

/* ---- waiting ---- */

/* Is there a value in it that tells what another thread did? */
static bool tells(const ptx_instruction_t *one)
{
	return ptx_isa_traits(one) & PTX_TRAIT_SPIN && strcmp(one->opcode, "red") != 0 &&
	       strcmp(one->opcode, "st") != 0 && one->operands &&
	       one->operand[0].kind != PTX_OPERAND_SINK &&
	       one->operand[0].kind != PTX_OPERAND_ADDRESS;
}

static bool waits(ptx_emit_t *emit, const ptx_function_t *function, const ptx_flow_t *flow)
{
	bool everywhere = emit->reached[function->index].in_loop;

	for (unsigned int i = 0; i < flow->blocks; i++) {
		const ptx_block_t *block = &flow->block[i];

		for (unsigned int j = 0; j < block->count && (everywhere || block->loops); j++) {
			const ptx_instruction_t *one = flow->instruction[block->first + j];

			if (one->opcode && tells(one))
				return true;
		}
	}
	return false;
}

/* Functions called from loops, and what those call. */
static bool spread(ptx_emit_t *emit, const ptx_function_t *function, const ptx_flow_t *flow)
{
	ptx_reached_t *reached = &emit->reached[function->index];
	bool changed = false, loops = false;

	for (unsigned int i = 0; i < flow->blocks; i++)
		loops |= flow->block[i].loops;
	if (!loops && !reached->in_loop)
		return false;
	/* Not which call is in the loop: one that is not does no harm. */
	for (unsigned int i = 0; i < reached->callees; i++) {
		ptx_reached_t *callee = &emit->reached[reached->callee[i]];

		changed |= !callee->in_loop;
		callee->in_loop = true;
	}
	return changed;
}

void ptx_find_waits(ptx_emit_t *emit)
{
	unsigned int count = emit->module->function_count, traits = 0;
	ptx_flow_t *flow = ptx_keep(emit, (count + 1) * sizeof(*flow));
	bool again = true;

	if (!flow)
		return;
	for (unsigned int i = 0; i < count; i++) {
		if (!emit->reached[i].reached)
			continue;
		traits |= emit->reached[i].traits;
		emit->reached[i].in_loop |= emit->recursive;
		if (!ptx_flow_build(emit, emit->all[i], &flow[i]))
			return;
	}
	if (traits & (PTX_TRAIT_SYNC | PTX_TRAIT_GRID))
		emit->synchronises = true;
	while (again) {
		again = false;
		for (unsigned int i = 0; i < count; i++)
			if (emit->reached[i].reached)
				again |= spread(emit, emit->all[i], &flow[i]);
	}
	for (unsigned int i = 0; i < count; i++) {
		if (!emit->reached[i].reached)
			continue;
		emit->reached[i].waits = waits(emit, emit->all[i], &flow[i]);
		emit->synchronises |= emit->reached[i].waits;
	}
}
