/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What takes more than an expression among the instructions of one thread: comparisons
 * with their predicates, mov and its vectors, lop3 with a predicate, the carry flag.
 */
#include <stdio.h>
#include <string.h>

#include "isa.h"

#define ISA_CONDITION 1024

/* ---- setp, set ---- */

static bool isa_is_half(ptx_type_t type)
{
	return type == PTX_F16 || type == PTX_BF16 || type == PTX_F16X2 || type == PTX_BF16X2;
}

static bool isa_is_packed(ptx_type_t type)
{
	return type == PTX_F16X2 || type == PTX_BF16X2;
}

/* The comparison of half `part` (0, but for packed types) of two operands, as a bool. */
static bool isa_compare(ptx_emit_t *emit, const isa_match_t *match, const char *a, const char *b,
			unsigned int part, char text[ISA_CONDITION])
{
	ptx_type_t type = isa_type(match, 't');
	char operation[32];
	int used;

	isa_text(match, 'c', operation);
	if (isa_is_half(type)) {
		const char *wide = type == PTX_F16 || type == PTX_F16X2 ? "f16" : "bf16";

		used = snprintf(text, ISA_CONDITION,
				"emuv_cmp_%s(emuv_wide_%s((uint16_t)(%s >> %u)), emuv_wide_%s((uint16_t)(%s >> %u)))",
				operation, wide, a, 16 * part, wide, b, 16 * part);
	} else {
		used = snprintf(text, ISA_CONDITION, "emuv_cmp_%s(%s, %s)", operation, a, b);
	}
	if (used >= ISA_CONDITION)
		return isa_refuse(emit, match, "with operands this long");
	return true;
}

/* `name`, and the predicate of .and, .or, .xor with it. */
static bool isa_joined(ptx_emit_t *emit, const isa_match_t *match, const char *join,
		       const char *name, char text[ISA_CONDITION])
{
	char operation[32];
	int used;

	isa_text(match, 'k', operation);
	if (join)
		used = snprintf(text, ISA_CONDITION, "emuv_bool_%s(%s, %s)", operation, name, join);
	else
		used = snprintf(text, ISA_CONDITION, "%s", name);
	if (used >= ISA_CONDITION)
		return isa_refuse(emit, match, "with operands this long");
	return true;
}

/*
 * p = (a cmp b) op c, q = !(a cmp b) op c; of packed types p is from the low halves and
 * q from the high ones.  All is read before anything is written.
 */
bool isa_setp(ptx_emit_t *emit, const isa_match_t *match)
{
	const ptx_instruction_t *instruction = match->instruction;
	const ptx_operand_t *to = &instruction->operand[0];
	ptx_type_t type = isa_type(match, 't');
	unsigned int count = isa_absent(match, 'k') ? 3 : 4;
	const char *a, *b, *join = NULL, *temporary[2];
	char text[ISA_CONDITION], joined[ISA_CONDITION];
	bool pair = to->kind == PTX_OPERAND_PAIR;

	if (!isa_operands(emit, match, count, count))
		return false;
	if ((!pair && to->kind != PTX_OPERAND_REGISTER) || (pair && to->items != 2) ||
	    (isa_is_half(type) && isa_is_packed(type) != pair))
		return isa_refuse(emit, match, "with this destination");
	a = isa_read(emit, match, 1, type);
	b = a ? isa_read(emit, match, 2, type) : NULL;
	if (!b || (count == 4 && !(join = isa_read(emit, match, 3, PTX_PRED))))
		return false;
	if (!isa_compare(emit, match, a, b, 0, text))
		return false;
	if (!pair) {
		if (!isa_joined(emit, match, join, text, joined))
			return false;
		ptx_write(emit, to, PTX_PRED, "%s", joined);
		return true;
	}
	temporary[0] = ptx_temporary(emit);
	temporary[1] = ptx_temporary(emit);
	ptx_out(emit, "{ const bool %s = %s;\n", temporary[0], text);
	if (isa_is_packed(type)) {
		if (!isa_compare(emit, match, a, b, 1, text))
			return false;
		ptx_out(emit, "const bool %s = %s;\n", temporary[1], text);
	} else {
		ptx_out(emit, "const bool %s = !%s;\n", temporary[1], temporary[0]);
	}
	if (join) {
		const char *kept = ptx_temporary(emit);

		ptx_out(emit, "const bool %s = %s;\n", kept, join);
		join = kept;
	}
	for (unsigned int i = 0; i < 2; i++) {
		if (!isa_joined(emit, match, join, temporary[i], joined))
			return false;
		ptx_write(emit, &to->item[i], PTX_PRED, "%s", joined);
	}
	ptx_out(emit, "}\n");
	return true;
}

/* What set writes for true. */
static const char *isa_true(ptx_type_t type)
{
	switch (type) {
	case PTX_F32: return "1.0f";
	case PTX_F16: case PTX_F16X2: return "0x3c00u";
	case PTX_BF16: case PTX_BF16X2: return "0x3f80u";
	case PTX_U16: return "0xffffu";
	case PTX_S16: case PTX_S32: return "-1";
	default: return "0xffffffffu";
	}
}

bool isa_set(ptx_emit_t *emit, const isa_match_t *match)
{
	const ptx_instruction_t *instruction = match->instruction;
	ptx_type_t type = isa_type(match, 't'), to = isa_type(match, 's');
	unsigned int count = isa_absent(match, 'k') ? 3 : 4, halves = isa_is_packed(type) ? 2 : 1;
	const char *a, *b, *join = NULL;
	char text[ISA_CONDITION], joined[2][ISA_CONDITION];

	if (!isa_operands(emit, match, count, count))
		return false;
	/* Two halves fill a pair of halves, or of 16-bit masks in 32 bits. */
	if (halves == 2 && ptx_type_bytes(to) != 4)
		return isa_refuse(emit, match, "");
	if (halves == 1 && isa_is_packed(to))
		return isa_refuse(emit, match, "");
	a = isa_read(emit, match, 1, type);
	b = a ? isa_read(emit, match, 2, type) : NULL;
	if (!b || (count == 4 && !(join = isa_read(emit, match, 3, PTX_PRED))))
		return false;
	for (unsigned int i = 0; i < halves; i++)
		if (!isa_compare(emit, match, a, b, i, text) ||
		    !isa_joined(emit, match, join, text, joined[i]))
			return false;
	if (halves == 1)
		ptx_write(emit, &instruction->operand[0], to, "%s ? %s : 0", joined[0], isa_true(to));
	else
		ptx_write(emit, &instruction->operand[0], to,
			  "(%s ? (uint32_t)%s << 16 : 0) | (%s ? (uint32_t)%s : 0)", joined[1],
			  isa_is_packed(to) ? isa_true(to) : "0xffffu", joined[0],
			  isa_is_packed(to) ? isa_true(to) : "0xffffu");
	return true;
}

/* ---- mov ---- */

static ptx_type_t isa_untyped(unsigned int bytes)
{
	return bytes == 1 ? PTX_B8 : bytes == 2 ? PTX_B16 : bytes == 4 ? PTX_B32 : bytes == 8 ? PTX_B64 : PTX_NONE;
}

/* The type of each part of a `type` that falls into `parts`; PTX_NONE: there is none. */
static ptx_type_t isa_part(ptx_type_t type, unsigned int parts)
{
	unsigned int bytes = ptx_type_bytes(type);

	if (type == PTX_PRED || (parts != 2 && parts != 4) || bytes % parts)
		return PTX_NONE;
	return isa_untyped(bytes / parts);
}

static bool isa_pack(ptx_emit_t *emit, const isa_match_t *match, ptx_type_t type)
{
	const ptx_operand_t *from = &match->instruction->operand[1];
	ptx_type_t part = isa_part(type, from->items);
	const char *c = type == PTX_B128 ? "unsigned __int128" : "uint64_t", *sum = ptx_temporary(emit);

	if (part == PTX_NONE)
		return isa_refuse(emit, match, "with this vector");
	ptx_out(emit, "{ %s %s = 0;\n", c, sum);
	for (unsigned int i = 0; i < from->items; i++) {
		const char *value;

		if (!isa_is_value(&from->item[i]))
			return isa_refuse(emit, match, "with this vector");
		value = ptx_read(emit, &from->item[i], part);
		if (!value)
			return false;
		ptx_out(emit, "%s |= (%s)%s << %u;\n", sum, c, value, 8 * ptx_type_bytes(part) * i);
	}
	ptx_write(emit, &match->instruction->operand[0],
		  type == PTX_B128 ? type : isa_untyped(ptx_type_bytes(type)), "(%s)%s",
		  ptx_type_c(type == PTX_B128 ? type : isa_untyped(ptx_type_bytes(type))), sum);
	ptx_out(emit, "}\n");
	return true;
}

static bool isa_unpack(ptx_emit_t *emit, const isa_match_t *match, ptx_type_t type)
{
	const ptx_operand_t *to = &match->instruction->operand[0];
	ptx_type_t part = isa_part(type, to->items);
	ptx_type_t whole = type == PTX_B128 ? type : isa_untyped(ptx_type_bytes(type));
	const char *value, *all = ptx_temporary(emit);

	if (part == PTX_NONE)
		return isa_refuse(emit, match, "with this vector");
	value = isa_read(emit, match, 1, whole);
	if (!value)
		return false;
	ptx_out(emit, "{ const %s %s = %s;\n", ptx_type_c(whole), all, value);
	for (unsigned int i = 0; i < to->items; i++)
		ptx_write(emit, &to->item[i], part, "(%s)(%s >> %u)", ptx_type_c(part), all,
			  8 * ptx_type_bytes(part) * i);
	ptx_out(emit, "}\n");
	return true;
}

bool isa_mov(ptx_emit_t *emit, const isa_match_t *match)
{
	const ptx_instruction_t *instruction = match->instruction;
	ptx_type_t type = isa_type(match, 't');
	const char *value;

	if (!isa_operands(emit, match, 2, 2))
		return false;
	if (instruction->operand[1].kind == PTX_OPERAND_VECTOR)
		return isa_pack(emit, match, type);
	if (instruction->operand[0].kind == PTX_OPERAND_VECTOR)
		return isa_unpack(emit, match, type);
	if (instruction->operand[0].kind != PTX_OPERAND_REGISTER &&
	    instruction->operand[0].kind != PTX_OPERAND_SINK)
		return isa_refuse(emit, match, "with this destination");
	value = isa_read(emit, match, 1, type);
	if (!value)
		return false;
	ptx_write(emit, &instruction->operand[0], type, "%s", value);
	return true;
}

bool isa_mov_vector(ptx_emit_t *emit, const isa_match_t *match)
{
	const ptx_operand_t *to = &match->instruction->operand[0];
	const ptx_operand_t *from = &match->instruction->operand[1];
	ptx_type_t type = isa_type(match, 't');
	unsigned int count = isa_is(match, 'v', "v2") ? 2 : 4;
	const char *name[4];

	if (!isa_operands(emit, match, 2, 2))
		return false;
	if (to->kind != PTX_OPERAND_VECTOR || from->kind != PTX_OPERAND_VECTOR ||
	    to->items != count || from->items != count)
		return isa_refuse(emit, match, "with these operands");
	/* All are read before one is written. */
	for (unsigned int i = 0; i < count; i++) {
		if (!isa_is_value(&from->item[i]))
			return isa_refuse(emit, match, "with these operands");
		name[i] = ptx_temporary(emit);
		ptx_out(emit, "const %s %s = %s;\n", ptx_type_c(type), name[i],
			ptx_read(emit, &from->item[i], type));
	}
	for (unsigned int i = 0; i < count; i++)
		ptx_write(emit, &to->item[i], type, "%s", name[i]);
	return true;
}

/* ---- lop3, d[|p], a, b, c, table[, q] ---- */

bool isa_lop3(ptx_emit_t *emit, const isa_match_t *match)
{
	const ptx_instruction_t *instruction = match->instruction;
	const ptx_operand_t *to = &instruction->operand[0];
	bool join = !isa_absent(match, 'k');
	const char *read[4], *q, *value;

	if (!isa_operands(emit, match, join ? 6 : 5, join ? 6 : 5))
		return false;
	if (join != (to->kind == PTX_OPERAND_PAIR) || (join && to->items != 2))
		return isa_refuse(emit, match, "with this destination");
	if (instruction->operand[4].kind != PTX_OPERAND_IMMEDIATE || instruction->operand[4].bits > 255)
		return isa_refuse(emit, match, "with this table");
	for (unsigned int i = 0; i < 4; i++)
		if (!(read[i] = isa_read(emit, match, i + 1, PTX_B32)))
			return false;
	if (!join) {
		ptx_write(emit, to, PTX_B32, "emuv_lop3(%s, %s, %s, %s)", read[0], read[1], read[2], read[3]);
		return true;
	}
	q = isa_read(emit, match, 5, PTX_PRED);
	if (!q)
		return false;
	value = ptx_temporary(emit);
	ptx_out(emit, "{ const uint32_t %s = emuv_lop3(%s, %s, %s, %s);\n", value, read[0], read[1], read[2],
		read[3]);
	ptx_write(emit, &to->item[1], PTX_PRED, "%s != 0 %s %s", value, isa_is(match, 'k', "or") ? "||" : "&&", q);
	ptx_write(emit, &to->item[0], PTX_B32, "%s", value);
	ptx_out(emit, "}\n");
	return true;
}

/* ---- 9.7.2: the carry flag ---- */

/* add addc sub subc mad madc: the last two add the part of a product that is asked for. */
bool isa_carry(ptx_emit_t *emit, const isa_match_t *match)
{
	const ptx_instruction_t *instruction = match->instruction;
	const char *opcode = instruction->opcode;
	ptx_type_t type = isa_type(match, 't');
	unsigned int bits = 8 * ptx_type_bytes(type), count = opcode[0] == 'm' ? 4 : 3;
	bool in = opcode[strlen(opcode) - 1] == 'c', out = ptx_has(instruction, "cc");
	const char *read[3] = {NULL}, *first = ptx_temporary(emit);

	if (!isa_operands(emit, match, count, count))
		return false;
	for (unsigned int i = 1; i < count; i++)
		if (!(read[i - 1] = isa_read(emit, match, i, type)))
			return false;
	if (count == 3)
		ptx_out(emit, "{ const %s %s = %s;\n", ptx_type_c(type), first, read[0]);
	else if (isa_is(match, 'h', "lo"))
		ptx_out(emit, "{ const %s %s = %s * %s;\n", ptx_type_c(type), first, read[0], read[1]);
	else
		ptx_out(emit, "{ const %s %s = emuv_mulhi_%s(%s, %s);\n", ptx_type_c(type), first,
			ptx_type_name(type), read[0], read[1]);
	ptx_write(emit, &instruction->operand[0], type, "(%s)emuv_%s_%u(%s, %s, %s, %s)", ptx_type_c(type),
		  opcode[0] == 's' ? "sbb" : "adc", bits, first, read[count - 2], in ? "emuv_carry" : "0",
		  out ? "&emuv_carry" : "NULL");
	ptx_out(emit, "}\n");
	return true;
}
