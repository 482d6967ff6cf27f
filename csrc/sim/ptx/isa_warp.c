/* SPDX-License-Identifier: GPL-2.0-only */
/* Warp operations and barriers: which lanes, which values; the engine does the rest. */
#include <stdio.h>

#include "isa.h"

#define ISA_MASK 128

/* The lanes that take part: the operand of .sync forms; else those that are here. */
static bool isa_mask(ptx_emit_t *emit, const isa_match_t *match, unsigned int operand, char mask[ISA_MASK])
{
	const char *given;

	if (isa_absent(match, 'y')) {
		snprintf(mask, ISA_MASK, "EMUV_ACTIVE(%uu)", match->instruction->line);
		return true;
	}
	given = isa_read(emit, match, operand, PTX_B32);
	if (!given)
		return false;
	if (snprintf(mask, ISA_MASK, "%s", given) >= ISA_MASK)
		return isa_refuse(emit, match, "with operands this long");
	return true;
}

/* d or d|p: where they go.  `second` is NULL without a pair. */
static bool isa_pair(ptx_emit_t *emit, const isa_match_t *match, const ptx_operand_t **first,
		     const ptx_operand_t **second)
{
	const ptx_operand_t *to = &match->instruction->operand[0];
	bool pair = to->kind == PTX_OPERAND_PAIR && to->items == 2;

	*first = pair ? &to->item[0] : to;
	*second = pair ? &to->item[1] : NULL;
	if (!pair && to->kind != PTX_OPERAND_REGISTER && to->kind != PTX_OPERAND_SINK)
		return isa_refuse(emit, match, "with this destination");
	return true;
}

/* shfl d[|p], a, b, c[, mask] */
bool isa_shfl(ptx_emit_t *emit, const isa_match_t *match)
{
	unsigned int count = isa_absent(match, 'y') ? 4 : 5;
	const char *in = ptx_temporary(emit), *from = ptx_temporary(emit), *a, *b, *c;
	const ptx_operand_t *to, *p;
	char mode[32], mask[ISA_MASK];

	if (!isa_operands(emit, match, count, count) || !isa_pair(emit, match, &to, &p))
		return false;
	if (!(a = isa_read(emit, match, 1, PTX_B32)) || !(b = isa_read(emit, match, 2, PTX_B32)) ||
	    !(c = isa_read(emit, match, 3, PTX_B32)) || !isa_mask(emit, match, 4, mask))
		return false;
	isa_text(match, 'm', mode);
	ptx_out(emit, "{ bool %s; const uint32_t %s = emuv_shfl_%s(EMUV_LANE, %s, %s, &%s);\n", in, from, mode,
		b, c, in);
	ptx_write(emit, to, PTX_B32, "(uint32_t)EMUV_WARP(EMUV_WARP_SHUFFLE, %s, %s, %s)", mask, a, from);
	if (p)
		ptx_write(emit, p, PTX_PRED, "%s", in);
	ptx_out(emit, "}\n");
	return true;
}

/* vote d, p[, mask] */
bool isa_vote(ptx_emit_t *emit, const isa_match_t *match)
{
	unsigned int count = isa_absent(match, 'y') ? 2 : 3;
	bool ballot = isa_is(match, 'o', "ballot");
	const char *p, *operation = ballot			? "BALLOT"
				    : isa_is(match, 'o', "all") ? "ALL"
				    : isa_is(match, 'o', "any") ? "ANY"
								: "UNI";
	char mask[ISA_MASK];

	if (!isa_operands(emit, match, count, count))
		return false;
	if (!(p = isa_read(emit, match, 1, PTX_PRED)) || !isa_mask(emit, match, 2, mask))
		return false;
	ptx_write(emit, &match->instruction->operand[0], ballot ? PTX_B32 : PTX_PRED,
		  "%sEMUV_WARP(EMUV_WARP_%s, %s, %s, 0)%s", ballot ? "(uint32_t)" : "", operation, mask, p,
		  ballot ? "" : " != 0");
	return true;
}

/* match d[|p], a, mask */
bool isa_match(ptx_emit_t *emit, const isa_match_t *match)
{
	bool all = isa_is(match, 'o', "all");
	const char *lanes = ptx_temporary(emit), *a, *mask;
	const ptx_operand_t *to, *p;

	if (!isa_operands(emit, match, 3, 3) || !isa_pair(emit, match, &to, &p))
		return false;
	if (p && !all)
		return isa_refuse(emit, match, "with this destination");
	if (!(a = isa_read(emit, match, 1, isa_type(match, 't'))) || !(mask = isa_read(emit, match, 2, PTX_B32)))
		return false;
	ptx_out(emit, "{ const uint32_t %s = (uint32_t)EMUV_WARP(EMUV_WARP_MATCH_%s, %s, %s, 0);\n", lanes,
		all ? "ALL" : "ANY", mask, a);
	ptx_write(emit, to, PTX_B32, "%s", lanes);
	if (p)
		ptx_write(emit, p, PTX_PRED, "%s != 0", lanes);
	ptx_out(emit, "}\n");
	return true;
}

/* elect d|p, mask */
bool isa_elect(ptx_emit_t *emit, const isa_match_t *match)
{
	const char *lane = ptx_temporary(emit), *mask;
	const ptx_operand_t *to, *p;

	if (!isa_operands(emit, match, 2, 2) || !isa_pair(emit, match, &to, &p))
		return false;
	if (!p)
		return isa_refuse(emit, match, "with this destination");
	if (!(mask = isa_read(emit, match, 1, PTX_B32)))
		return false;
	ptx_out(emit, "{ const uint32_t %s = (uint32_t)EMUV_WARP(EMUV_WARP_ELECT, %s, 0, 0);\n", lane, mask);
	ptx_write(emit, to, PTX_B32, "%s", lane);
	ptx_write(emit, p, PTX_PRED, "%s == EMUV_LANE", lane);
	ptx_out(emit, "}\n");
	return true;
}

bool isa_activemask(ptx_emit_t *emit, const isa_match_t *match)
{
	if (!isa_operands(emit, match, 1, 1))
		return false;
	ptx_write(emit, &match->instruction->operand[0], PTX_B32, "EMUV_ACTIVE(%uu)", match->instruction->line);
	return true;
}

/* sync a[, threads]; arrive a, threads; red d, a[, threads], p */
bool isa_barrier(ptx_emit_t *emit, const isa_match_t *match)
{
	unsigned int count = match->instruction->operands;
	bool red = !isa_is(match, 'o', "sync") && !isa_is(match, 'o', "arrive"), popc = isa_is(match, 'o', "popc");
	unsigned int first = red ? 1 : 0, least = red ? 3 : isa_is(match, 'o', "arrive") ? 2 : 1;
	const char *id, *threads = "0", *p = "0", *operation;

	if (!isa_operands(emit, match, least, red ? 4 : 2))
		return false;
	if (!(id = isa_read(emit, match, first, PTX_U32)))
		return false;
	if (count - first - (red ? 1 : 0) == 2 && !(threads = isa_read(emit, match, first + 1, PTX_U32)))
		return false;
	if (red && !(p = isa_read(emit, match, count - 1, PTX_PRED)))
		return false;
	operation = popc			      ? "POPC"
		    : isa_is(match, 'o', "and")	      ? "AND"
		    : isa_is(match, 'o', "or")	      ? "OR"
		    : isa_is(match, 'o', "arrive") ? "ARRIVE"
						      : "SYNC";
	if (!red)
		ptx_out(emit, "(void)EMUV_BARRIER(EMUV_BARRIER_%s, %s, %s, 0);\n", operation, id, threads);
	else
		ptx_write(emit, &match->instruction->operand[0], popc ? PTX_U32 : PTX_PRED,
			  "EMUV_BARRIER(EMUV_BARRIER_%s, %s, %s, %s)%s", operation, id, threads, p,
			  popc ? "" : " != 0");
	return true;
}
