/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Basic blocks, and the order in which they must come.
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
	bool falls = true, leaves = false;

	if (ends_block(last)) {
		falls = last->guard != NULL;
		leaves = strcmp(last->opcode, "ret") == 0 || strcmp(last->opcode, "exit") == 0;
		if (strcmp(last->opcode, "brx") == 0 && last->operands == 2)
			table = last->operand[1].table;
	}
	block->next = ptx_keep(emit, ((table ? table->targets : 1) + 2) * sizeof(*block->next));
	if (!block->next)
		return false;
	if (ends_block(last) && strcmp(last->opcode, "bra") == 0 && last->operands)
		add_next(flow, block, &last->operand[0]);
	for (unsigned int i = 0; table && i < table->targets; i++)
		add_next(flow, block, &table->target[i]);
	/* Block number `blocks` is the end: what returns, or falls off, goes there. */
	if (leaves)
		block->next[block->nexts++] = flow->blocks;
	if (falls)
		block->next[block->nexts++] = index + 1;
	return true;
}

/* Who comes before each block: their lists, one after another. */
static bool find_before(ptx_emit_t *emit, ptx_flow_t *flow)
{
	unsigned int edges = 0, *at;

	for (unsigned int i = 0; i < flow->blocks; i++)
		edges += flow->block[i].nexts;
	at = ptx_keep(emit, (edges + 1) * sizeof(*at));
	if (!at)
		return false;
	for (unsigned int i = 0; i < flow->blocks; i++)
		for (unsigned int j = 0; j < flow->block[i].nexts; j++)
			flow->block[flow->block[i].next[j]].befores++;
	for (unsigned int i = 0; i <= flow->blocks; i++) {
		flow->block[i].before = at;
		at += flow->block[i].befores;
		flow->block[i].befores = 0;
	}
	for (unsigned int i = 0; i < flow->blocks; i++)
		for (unsigned int j = 0; j < flow->block[i].nexts; j++) {
			ptx_block_t *to = &flow->block[flow->block[i].next[j]];

			to->before[to->befores++] = i;
		}
	return true;
}

/*
 * What each block must come to, whichever way it takes: its immediate postdominator
 * (Cooper, Harvey, Kennedy).  A block that never comes to the end has none.
 */
static bool find_joins(ptx_emit_t *emit, ptx_flow_t *flow)
{
	unsigned int end = flow->blocks, depth = 0, count = 0;
	unsigned int *stack = ptx_keep(emit, (end + 1) * sizeof(*stack));
	unsigned int *done = ptx_keep(emit, (end + 1) * sizeof(*done)); /* how far each is */
	unsigned int *order = ptx_keep(emit, (end + 1) * sizeof(*order));
	unsigned int *number = ptx_keep(emit, (end + 1) * sizeof(*number)); /* 0: not reached */
	uint64_t work = 0;
	bool changed = true;

	if (!stack || !done || !order || !number)
		return false;
	/* Numbers from the end backwards: in postorder. */
	stack[depth++] = end;
	done[end] = 1;
	while (depth) {
		unsigned int at = stack[depth - 1], from;

		if (done[at] <= flow->block[at].befores) {
			from = flow->block[at].before[done[at]++ - 1];
			if (!done[from]) {
				done[from] = 1;
				stack[depth++] = from;
			}
			continue;
		}
		order[count++] = at;
		number[at] = count;
		depth--;
	}
	for (unsigned int i = 0; i <= end; i++)
		flow->block[i].join = PTX_NO_BLOCK;
	flow->block[end].join = end;
	while (changed) {
		changed = false;
		if (work > PTX_MOST_WORK / 16) { /* a maze: nobody knows where ways join */
			for (unsigned int i = 0; i < end; i++)
				flow->block[i].join = PTX_NO_BLOCK;
			break;
		}
		for (unsigned int i = count - 1; i-- > 0;) {
			ptx_block_t *block = &flow->block[order[i]];
			unsigned int join = PTX_NO_BLOCK;

			for (unsigned int j = 0; j < block->nexts; j++) {
				unsigned int a = block->next[j], b = join;

				if (flow->block[a].join == PTX_NO_BLOCK)
					continue;
				for (; b != PTX_NO_BLOCK && a != b; work++) {
					if (number[a] < number[b])
						a = flow->block[a].join;
					else
						b = flow->block[b].join;
				}
				join = a;
			}
			if (block->join != join) {
				block->join = join;
				changed = true;
			}
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
	return find_before(emit, flow) && find_joins(emit, flow);
}
