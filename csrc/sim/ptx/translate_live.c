/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which registers are alive at an instruction: written before it, read behind it.
 *
 * A register too many costs time, one too few a wrong result: what is not known to
 * write its first operand is taken to read it.
 */
#include <stdlib.h>
#include <string.h>

#include "translate.h"

/* Rows of bits beyond this are not made: 32 MiB. */
#define MOST_BITS ((size_t)1 << 28)

static int by_text(const void *a, const void *b)
{
	return strcmp(a, *(const char *const *)b);
}

/* Does it write its first operand, and read nothing of it? */
static bool writes_first(const ptx_instruction_t *one)
{
	static const char *const all[] = {
		"abs", "activemask", "add", "addc", "and", "atom", "bfe", "bfi", "bfind", "bmsk", "brev",
		"clz", "cnot", "copysign", "cos", "cvt", "cvta", "div", "dp2a", "dp4a", "ex2", "fma",
		"fns", "isspacep", "ld", "ldu", "lg2", "lop3", "mad", "mad24", "madc", "match", "max",
		"min", "mov", "mul", "mul24", "neg", "not", "or", "popc", "prmt", "rcp", "redux", "rem",
		"rsqrt", "sad", "selp", "set", "setp", "shf", "shfl", "shl", "shr", "sin", "slct", "sqrt",
		"sub", "subc", "szext", "tanh", "testp", "vote", "xor",
	};

	return bsearch(one->opcode, all, sizeof(all) / sizeof(*all), sizeof(*all), by_text) != NULL;
}

static void mark(uint64_t *row, const ptx_operand_t *operand, bool alive)
{
	if (operand->reg) {
		uint64_t bit = (uint64_t)1 << operand->reg->index % 64;

		if (alive)
			row[operand->reg->index / 64] |= bit;
		else
			row[operand->reg->index / 64] &= ~bit;
	}
	for (unsigned int i = 0; i < operand->items; i++)
		mark(row, &operand->item[i], alive);
}

/* Registers of an address are read, wherever it stands. */
static bool is_destination(const ptx_operand_t *operand)
{
	return operand->kind == PTX_OPERAND_REGISTER || operand->kind == PTX_OPERAND_VECTOR ||
	       operand->kind == PTX_OPERAND_PAIR;
}

/* From what is alive behind the instruction to what is alive in front of it. */
static void step_back(uint64_t *row, const ptx_instruction_t *one)
{
	bool first = one->operands && is_destination(&one->operand[0]) && writes_first(one);

	if (first && !one->guard)
		mark(row, &one->operand[0], false);
	for (unsigned int i = first ? 1 : 0; i < one->operands; i++)
		mark(row, &one->operand[i], true);
	if (one->guard)
		row[one->guard->index / 64] |= (uint64_t)1 << one->guard->index % 64;
}

static void block_back(const ptx_flow_t *flow, const ptx_block_t *block, uint64_t *row, uint64_t *at,
		       unsigned int wanted, unsigned int words)
{
	for (unsigned int i = block->count; i-- > 0;) {
		const ptx_instruction_t *one = flow->instruction[block->first + i];

		if (one->opcode)
			step_back(row, one);
		/* In front of it: what it reads is read after all. */
		if (at && block->first + i == wanted)
			memcpy(at, row, words * sizeof(*row));
	}
}

static void alive_behind(const ptx_live_t *live, const ptx_flow_t *flow, const ptx_block_t *block,
			 uint64_t *row)
{
	memset(row, 0, live->words * sizeof(*row));
	for (unsigned int i = 0; i < block->nexts; i++)
		if (block->next[i] < flow->blocks)
			for (unsigned int w = 0; w < live->words; w++)
				row[w] |= live->in[(size_t)block->next[i] * live->words + w];
}

bool ptx_live_find(ptx_emit_t *emit, const ptx_function_t *function, const ptx_flow_t *flow,
		   ptx_live_t *live)
{
	uint64_t *row;
	bool changed = true;

	live->words = function->register_count / 64 + 1;
	if ((size_t)live->words * 64 * (flow->blocks + 1) > MOST_BITS)
		return false;
	live->in = ptx_keep(emit, (size_t)live->words * (flow->blocks + 1) * sizeof(*live->in));
	live->row = row = ptx_keep(emit, live->words * sizeof(*row));
	if (!live->in || !row)
		return false;
	while (changed) {
		changed = false;
		emit->work += (uint64_t)live->words * flow->blocks + flow->instructions;
		if (emit->work > PTX_MOST_WORK)
			return false;
		for (unsigned int i = flow->blocks; i-- > 0;) {
			uint64_t *in = live->in + (size_t)i * live->words;

			alive_behind(live, flow, &flow->block[i], row);
			block_back(flow, &flow->block[i], row, NULL, 0, 0);
			if (memcmp(in, row, live->words * sizeof(*row)) != 0) {
				memcpy(in, row, live->words * sizeof(*row));
				changed = true;
			}
		}
	}
	return true;
}

void ptx_live_at(const ptx_live_t *live, const ptx_flow_t *flow, unsigned int block, unsigned int at,
		 uint64_t *alive)
{
	alive_behind(live, flow, &flow->block[block], live->row);
	block_back(flow, &flow->block[block], live->row, alive, at, live->words);
}
