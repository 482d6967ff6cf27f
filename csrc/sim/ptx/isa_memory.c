/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory: ld, st, atom, red, cp.async, hints.  One address test for the whole of a
 * vector; then plain typed accesses.
 */
#include <stdio.h>
#include <string.h>

#include "isa.h"
#include "translate.h"

#define ISA_PLACE 512

typedef struct {
	const char *name;
	ptx_space_t space;
} isa_space_t;

static ptx_space_t isa_space(const isa_match_t *match)
{
	static const isa_space_t spaces[] = {
		{"generic", PTX_SPACE_GENERIC},       {"global", PTX_SPACE_GLOBAL},
		{"local", PTX_SPACE_LOCAL},           {"shared", PTX_SPACE_SHARED},
		{"shared::cta", PTX_SPACE_SHARED},    {"shared::cluster", PTX_SPACE_SHARED},
		{"param", PTX_SPACE_PARAM},           {"param::entry", PTX_SPACE_PARAM},
		{"param::func", PTX_SPACE_PARAM},
	};

	for (size_t i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++)
		if (isa_is(match, 'p', spaces[i].name))
			return spaces[i].space;
	return PTX_SPACE_CONST;
}

/* Is the parameter there, by what the text says of it? */
static bool isa_inside(const ptx_operand_t *address, unsigned int bytes)
{
	const ptx_variable_t *variable =
		address->items && address->item[0].kind == PTX_OPERAND_SYMBOL ? address->item[0].variable : NULL;
	int64_t offset = variable ? address->item[0].offset + address->offset : 0;

	return variable && offset >= 0 && (uint64_t)offset <= variable->bytes &&
	       bytes <= variable->bytes - (uint64_t)offset;
}

/* A C expression for where the bytes of an ADDRESS operand are.  False: refused. */
static bool isa_place(ptx_emit_t *emit, const isa_match_t *match, unsigned int operand,
		      ptx_space_t space, unsigned int bytes, const char *rights, char place[ISA_PLACE])
{
	const ptx_instruction_t *instruction = match->instruction;
	const ptx_operand_t *address = &instruction->operand[operand];
	const char *expression, *format;
	ptx_operand_t start;
	bool pointer = false;

	if (operand >= instruction->operands || address->kind != PTX_OPERAND_ADDRESS)
		return isa_refuse(emit, match, "with these operands");
	/*
	 * A small constant is added to the pointer, behind the cut to 32 bits: what wraps with
	 * it is far outside of the window in either way, and the compiler makes it part of the
	 * access instead of keeping a pointer for each constant.
	 */
	start = *address;
	if (space == PTX_SPACE_SHARED && !address->reg && address->offset > 0 &&
	    address->offset < 1 << 20 && address->items == 1 &&
	    address->item[0].kind == PTX_OPERAND_REGISTER)
		start.offset = 0;
	expression = ptx_address(emit, &start, space, &pointer);
	if (!expression)
		return false;
	if (pointer)
		format = "(%s)";
	else if (space == PTX_SPACE_SHARED)
		format = "EMUV_SHARED(%s)";
	else if (space == PTX_SPACE_PARAM && isa_inside(address, bytes))
		format = "(parameters + %s)";
	else if (space == PTX_SPACE_PARAM)
		format = "EMUV_PARAMETER(%s, %u)";
	else
		format = "EMUV_AT(%s, %u, %s)";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	if (start.offset != address->offset) {
		if (snprintf(place, ISA_PLACE, "(EMUV_SHARED(%s) + %lld)", expression,
			     (long long)address->offset) >= ISA_PLACE)
			return isa_refuse(emit, match, "with an address this long");
	} else if (snprintf(place, ISA_PLACE, format, expression, bytes, rights) >= ISA_PLACE)
		return isa_refuse(emit, match, "with an address this long");
#pragma GCC diagnostic pop
	return true;
}

static unsigned int isa_lanes(const isa_match_t *match)
{
	return isa_is(match, 'v', "v2") ? 2 : isa_is(match, 'v', "v4") ? 4 : isa_is(match, 'v', "v8") ? 8 : 1;
}

/* A vector of the right length, or one operand. */
static const ptx_operand_t *isa_lane(ptx_emit_t *emit, const isa_match_t *match,
				     const ptx_operand_t *operand, unsigned int lanes, unsigned int i)
{
	if (lanes == 1)
		return operand;
	if (operand->kind != PTX_OPERAND_VECTOR || operand->items != lanes) {
		isa_refuse(emit, match, "with this vector");
		return NULL;
	}
	return &operand->item[i];
}

/* How C reads and writes one element at pointer p: plain, volatile or atomic. */
static const char *isa_order(const isa_match_t *match)
{
	return isa_is(match, 'm', "relaxed")   ? "__ATOMIC_RELAXED"
	       : isa_is(match, 'm', "acquire") ? "__ATOMIC_ACQUIRE"
	       : isa_is(match, 'm', "release") ? "__ATOMIC_RELEASE"
					       : NULL;
}

static const char *isa_memory_type(ptx_type_t type)
{
	return type == PTX_B128 ? "emuv_u128" : ptx_type_c(type);
}

/*
 * What the ISA says of sizes, spaces and hints together: more than 16 bytes, and eight
 * elements, in .global and generic only; hints where there is a cache; L2 eviction for 32 bytes.
 */
static bool isa_legal(ptx_emit_t *emit, const isa_match_t *match, ptx_space_t space, unsigned int lanes,
		      ptx_type_t type)
{
	const ptx_instruction_t *instruction = match->instruction;
	unsigned int each = ptx_type_bytes(type), bytes = lanes * each;

	bool cards = space == PTX_SPACE_GLOBAL || space == PTX_SPACE_GENERIC;

	if (bytes > 16 && (!cards || bytes > 32 || each < 4 || each > 8))
		return isa_refuse(emit, match, "");
	if (lanes == 8 && !cards)
		return isa_refuse(emit, match, "");
	for (unsigned int i = 0; i < instruction->modifiers; i++) {
		const char *modifier = instruction->modifier[i];
		bool cached = strncmp(modifier, "L1::", 4) == 0 || strncmp(modifier, "L2::", 4) == 0;

		if (cached && !cards)
			return isa_refuse(emit, match, "");
		if (strncmp(modifier, "L2::evict", 9) == 0 && bytes != 32)
			return isa_refuse(emit, match, "");
	}
	return true;
}

bool isa_ld(ptx_emit_t *emit, const isa_match_t *match)
{
	const ptx_instruction_t *instruction = match->instruction;
	ptx_type_t type = isa_type(match, 't');
	unsigned int lanes = isa_lanes(match), count = isa_is(match, 'h', "L2::cache_hint") ? 3 : 2;
	unsigned int bytes = lanes * ptx_type_bytes(type);
	const char *order = isa_order(match), *c = isa_memory_type(type), *from = ptx_temporary(emit);
	char place[ISA_PLACE];

	if (!isa_operands(emit, match, count, count))
		return false;
	if (!isa_legal(emit, match, isa_space(match), lanes, type))
		return false;
	if (order && type == PTX_B128)
		return isa_refuse(emit, match, "");
	if (!isa_place(emit, match, 1, isa_space(match), bytes, "EMUV_READ", place))
		return false;
	ptx_out(emit, "{ const %s%s *const %s = (const void *)%s;\n",
		isa_is(match, 'm', "volatile") ? "volatile " : "", c, from, place);
	for (unsigned int i = 0; i < lanes; i++) {
		const ptx_operand_t *to = isa_lane(emit, match, &instruction->operand[0], lanes, i);

		if (!to)
			return false;
		if (order)
			ptx_write(emit, to, type, "EMUV_LOAD(%s, %s + %u, %s)", c, from, i, order);
		else
			ptx_write(emit, to, type, "%s[%u]", from, i);
	}
	ptx_out(emit, "}\n");
	return true;
}

bool isa_st(ptx_emit_t *emit, const isa_match_t *match)
{
	const ptx_instruction_t *instruction = match->instruction;
	ptx_type_t type = isa_type(match, 't');
	unsigned int lanes = isa_lanes(match), count = isa_is(match, 'h', "L2::cache_hint") ? 3 : 2;
	unsigned int bytes = lanes * ptx_type_bytes(type);
	ptx_space_t space = isa_space(match);
	const char *order = isa_order(match), *c = isa_memory_type(type), *to = ptx_temporary(emit);
	char place[ISA_PLACE];

	if (!isa_operands(emit, match, count, count))
		return false;
	if (!isa_legal(emit, match, space, lanes, type))
		return false;
	if (order && type == PTX_B128)
		return isa_refuse(emit, match, "");
	if (!isa_place(emit, match, 0, space, bytes, "EMUV_WRITE", place))
		return false;
	ptx_out(emit, "{ %s%s *const %s = (void *)%s;\n",
		isa_is(match, 'm', "volatile") ? "volatile " : "", c, to, place);
	for (unsigned int i = 0; i < lanes; i++) {
		const ptx_operand_t *from = isa_lane(emit, match, &instruction->operand[1], lanes, i);
		const char *value;

		if (!from)
			return false;
		if (!isa_is_value(from))
			return isa_refuse(emit, match, "with these operands");
		value = ptx_read(emit, from, type);
		if (!value)
			return false;
		if (order)
			ptx_out(emit, "EMUV_STORE(%s, %s + %u, %s, %s);\n", c, to, i, value, order);
		else
			ptx_out(emit, "%s[%u] = %s;\n", to, i, value);
	}
	ptx_out(emit, "}\n");
	return true;
}

/* ---- atom, red ---- */

/* Operations that the machine has as one instruction. */
static const char *isa_fetch(const isa_match_t *match, ptx_type_t type)
{
	static const char *const names[] = {"add", "and", "or", "xor", "exch"};

	if (isa_is_float(type) || type == PTX_B128)
		return NULL;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (isa_is(match, 'o', names[i]))
			return names[i];
	return NULL;
}

/* The new value, as C, of emuv_old and `value` (and `other`, of cas). */
static bool isa_next(const isa_match_t *match, ptx_type_t type, ptx_space_t space, const char *at,
		     const char *value, const char *other, char next[ISA_PLACE])
{
	char op[32];

	isa_text(match, 'o', op);
	if (type == PTX_F32 && space == PTX_SPACE_GENERIC)
		return snprintf(next, ISA_PLACE, "emuv_atom_add_f32(emuv_old, %s, !EMUV_IS_SHARED(%s))", value,
				at) < ISA_PLACE;
	if (type == PTX_F32)
		return snprintf(next, ISA_PLACE, "emuv_atom_add_f32(emuv_old, %s, %d)", value,
				space == PTX_SPACE_GLOBAL) < ISA_PLACE;
	if (isa_is_float(type))
		return snprintf(next, ISA_PLACE, "emuv_%s_%s%s(emuv_old, %s)", op,
				type == PTX_F64 ? "rn_" : "", ptx_type_name(type), value) < ISA_PLACE;
	return snprintf(next, ISA_PLACE, "EMUV_OP_%s(emuv_old, %s, %s)", op, value, other) < ISA_PLACE;
}

/* One element at `at`[i]; `result` NULL: red. */
static bool isa_rmw_one(ptx_emit_t *emit, const isa_match_t *match, const ptx_operand_t *result,
			const ptx_operand_t *operand, const ptx_operand_t *swap, const char *at,
			unsigned int i)
{
	ptx_type_t type = isa_type(match, 't');
	ptx_space_t space = isa_space(match);
	const char *c = isa_memory_type(type), *value, *other = "0", *fetch = isa_fetch(match, type);
	const char *order = isa_is(match, 'm', "relaxed") ? "__ATOMIC_RELAXED" : "__ATOMIC_SEQ_CST";
	unsigned int bytes = ptx_type_bytes(type);
	char next[ISA_PLACE], call[2 * ISA_PLACE];

	if (!isa_is_value(operand) || (swap && !isa_is_value(swap)))
		return isa_refuse(emit, match, "with these operands");
	value = ptx_read(emit, operand, type);
	if (swap)
		other = ptx_read(emit, swap, type);
	if (!value || !other)
		return false;
	if (!isa_next(match, type, space, at, value, other, next))
		return isa_refuse(emit, match, "with operands this long");
	/* One thread of the machine runs the block: shared memory needs no atomic operation. */
	if (space == PTX_SPACE_SHARED)
		snprintf(call, sizeof(call), "EMUV_RMW_ALONE(%s, (%s *)%s + %u, %s)", c, c, at, i, next);
	else if (type == PTX_B128)
		snprintf(call, sizeof(call), "EMUV_RMW_WIDE(%s, %s)", at, next);
	else if (fetch)
		snprintf(call, sizeof(call), "EMUV_FETCH_%s((%s *)%s + %u, %s, %s)", fetch, c, at, i, value,
			 order);
	else
		snprintf(call, sizeof(call), "EMUV_RMW(%s, uint%u_t, (uint%u_t *)%s + %u, %s, %s)", c,
			 8 * bytes, 8 * bytes, at, i, next, order);
	if (result)
		ptx_write(emit, result, type, "%s", call);
	else
		ptx_out(emit, "(void)%s;\n", call);
	return true;
}

static bool isa_rmw(ptx_emit_t *emit, const isa_match_t *match, const ptx_operand_t *result,
		    unsigned int first)
{
	const ptx_instruction_t *instruction = match->instruction;
	bool cas = isa_is(match, 'o', "cas");
	unsigned int lanes = isa_lanes(match), count = first + 2 + cas + !isa_absent(match, 'h');
	const char *at = ptx_temporary(emit);
	char place[ISA_PLACE];

	if (!isa_operands(emit, match, count, count))
		return false;
	if (isa_space(match) == PTX_SPACE_SHARED && !isa_absent(match, 'h')) /* there is no cache there */
		return isa_refuse(emit, match, "");
	if (!isa_place(emit, match, first, isa_space(match), lanes * ptx_type_bytes(isa_type(match, 't')),
		       "EMUV_READ | EMUV_WRITE | EMUV_ATOMIC", place))
		return false;
	ptx_out(emit, "{ void *const %s = %s;\n", at, place);
	for (unsigned int i = 0; i < lanes; i++) {
		const ptx_operand_t *value = isa_lane(emit, match, &instruction->operand[first + 1], lanes, i);
		const ptx_operand_t *to = result ? isa_lane(emit, match, result, lanes, i) : NULL;

		if (!value || (result && !to))
			return false;
		if (!isa_rmw_one(emit, match, to, value, cas ? &instruction->operand[first + 2] : NULL, at, i))
			return false;
	}
	ptx_out(emit, "}\n");
	return true;
}

bool isa_atom(ptx_emit_t *emit, const isa_match_t *match)
{
	return isa_rmw(emit, match, &match->instruction->operand[0], 1);
}

bool isa_red(ptx_emit_t *emit, const isa_match_t *match)
{
	return isa_rmw(emit, match, NULL, 0);
}

/* ---- the rest ---- */

/* [to], [from], bytes{, bytes read | predicate}{, policy}: done at once. */
bool isa_cp_async(ptx_emit_t *emit, const isa_match_t *match)
{
	const ptx_instruction_t *instruction = match->instruction;
	const ptx_operand_t *size = &instruction->operand[2], *some = &instruction->operand[3];
	unsigned int most = 4 + !isa_absent(match, 'h');
	bool partial = instruction->operands == most, pointer = false;
	const char *from, *read;
	char to[ISA_PLACE], bytes[16];

	if (!isa_operands(emit, match, most - 1, most))
		return false;
	if (size->kind != PTX_OPERAND_IMMEDIATE || (size->bits != 4 && size->bits != 8 && size->bits != 16))
		return isa_refuse(emit, match, "with this size");
	if (instruction->operand[1].kind != PTX_OPERAND_ADDRESS || (partial && !isa_is_value(some)))
		return isa_refuse(emit, match, "with these operands");
	if (!isa_place(emit, match, 0, PTX_SPACE_SHARED, (unsigned int)size->bits, "EMUV_WRITE", to))
		return false;
	from = ptx_address(emit, &instruction->operand[1], PTX_SPACE_GLOBAL, &pointer);
	if (!from || pointer)
		return false;
	snprintf(bytes, sizeof(bytes), "%uu", (unsigned int)size->bits);
	if (!partial) {
		ptx_out(emit, "EMUV_COPY_ASYNC(%s, %s, %s, %s);\n", to, from, bytes, bytes);
		return true;
	}
	if (some->kind == PTX_OPERAND_REGISTER && some->reg->type == PTX_PRED) {
		read = ptx_read(emit, some, PTX_PRED); /* ignore-src */
		ptx_out(emit, "EMUV_COPY_ASYNC(%s, %s, %s, %s ? 0u : %s);\n", to, from, bytes, read, bytes);
		return true;
	}
	read = ptx_read(emit, some, PTX_U32);
	ptx_out(emit, "EMUV_COPY_ASYNC(%s, %s, %s, %s);\n", to, from, bytes, read);
	return true;
}

/* A hint for caches that are not there.  What is discarded may keep its value. */
bool isa_hint(ptx_emit_t *emit, const isa_match_t *match)
{
	unsigned int most = strcmp(match->row->opcode, "prefetch") && strcmp(match->row->opcode, "prefetchu") ? 2 : 1;

	if (!isa_operands(emit, match, most, most))
		return false;
	if (match->instruction->operand[0].kind != PTX_OPERAND_ADDRESS)
		return isa_refuse(emit, match, "with these operands");
	return true;
}

bool isa_policy(ptx_emit_t *emit, const isa_match_t *match)
{
	if (!isa_operands(emit, match, 1, 4))
		return false;
	ptx_write(emit, &match->instruction->operand[0], PTX_B64, "(uint64_t)0");
	return true;
}

/*
 * isspacep.global, .const: in the simulator both are memory of the same kind, told apart
 * by the module's constants.
 */
bool isa_isspacep(ptx_emit_t *emit, const isa_match_t *match)
{
	const char *is = ptx_temporary(emit), *at = ptx_temporary(emit), *address;

	if (!isa_operands(emit, match, 2, 2) || !(address = isa_read(emit, match, 1, PTX_U64)))
		return false;
	ptx_out(emit, "{ const uint64_t %s = %s;\nbool %s = false;\n", at, address, is);
	for (const ptx_variable_t *v = emit->module->variables; v; v = v->next)
		if (v->space == PTX_SPACE_CONST)
			ptx_out(emit, "%s |= %s - emuv_launch->variables[%u] < %lluu;\n", is, at, v->index,
				(unsigned long long)v->bytes);
	if (isa_is(match, 'p', "const"))
		ptx_write(emit, &match->instruction->operand[0], PTX_PRED, "%s", is);
	else
		ptx_write(emit, &match->instruction->operand[0], PTX_PRED,
			  "!%s && EMUV_IS_GLOBAL(%s) && !EMUV_IS_PARAM(%s)", is, at, at);
	ptx_out(emit, "}\n");
	return true;
}

/* ---- mbarrier: 9.7.13.15 ---- */

/*
 * init [a], count; inval [a]; arrive d, [a]{, count}; test_wait p, [a], state{, time}.
 * Transaction counts belong to bulk copies, which are not simulated.
 */
bool isa_mbarrier(ptx_emit_t *emit, const isa_match_t *match)
{
	const ptx_instruction_t *instruction = match->instruction;
	unsigned int count = instruction->operands;
	bool init = isa_is(match, 'o', "init"), inval = isa_is(match, 'o', "inval");
	bool copies = isa_is(match, 'o', "mbarrier"), drop = isa_is(match, 'o', "arrive_drop");
	bool test = isa_is(match, 'o', "test_wait") || isa_is(match, 'o', "try_wait");
	unsigned int at = init || inval || copies ? 0 : 1, most = init ? 2 : inval || copies ? 1 : test ? 4 : 3;
	const char *value = "1";
	char place[ISA_PLACE];

	if (!isa_operands(emit, match, init || !test ? at + 1 + init : 3, most))
		return false;
	if (!isa_place(emit, match, at,
		       ptx_has(instruction, "shared") || ptx_has(instruction, "shared::cta") ||
				       ptx_has(instruction, "shared::cluster")
			       ? PTX_SPACE_SHARED
			       : PTX_SPACE_GENERIC,
		       8, "EMUV_READ | EMUV_WRITE", place))
		return false;
	if (count > at + 1 && !(value = isa_read(emit, match, at + 1,
						 test && isa_absent(match, 'y') ? PTX_B64 : PTX_B32)))
		return false;
	if (init)
		ptx_out(emit, "*(uint64_t *)%s = EMUV_MBARRIER(%s, %s, 0);\n", place, value, value);
	else if (inval)
		ptx_out(emit, "*(uint64_t *)%s = 0;\n", place);
	else if (copies && !isa_absent(match, 'y'))
		ptx_out(emit, "(void)emuv_mbarrier_arrive(%s, 1, false);\n", place);
	else if (test)
		ptx_write(emit, &instruction->operand[0], PTX_PRED, "emuv_mbarrier_%s(thread, %s, %s)",
			  isa_absent(match, 'y') ? "test" : "parity", place, value);
	else if (!copies) /* what is copied at once adds an arrival and takes it */
		ptx_write(emit, &instruction->operand[0], PTX_B64, "emuv_mbarrier_arrive(%s, %s, %s)", place,
			  value, drop ? "true" : "false");
	return true;
}
