/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Finds the row of isa.def that an instruction matches, and emits rows that are one
 * expression.  What no row matches is refused by name: nothing is ever left out.
 */
#include <stdio.h>
#include <string.h>

#include "isa.h"

static const isa_row_t isa_rows[] = {
#define ISA(opcode, pattern, operands, code, section) \
	{opcode, pattern, operands, code, section, NULL, false, false},
#define ISA_BY(opcode, pattern, function, section) \
	{opcode, pattern, NULL, NULL, section, isa_##function, false, false},
#define ISA_CODE_BY(opcode, pattern, operands, code, function, section) \
	{opcode, pattern, operands, code, section, isa_##function, false, false},
#define ISA_FLOW(opcode, section) {opcode, "", NULL, NULL, section, NULL, true, false},
#define ISA_NOT(opcode, section) {opcode, "", NULL, NULL, section, NULL, false, true},
#include "isa.def"
#undef ISA
#undef ISA_BY
#undef ISA_CODE_BY
#undef ISA_FLOW
#undef ISA_NOT
};
#define ISA_ROWS (sizeof(isa_rows) / sizeof(isa_rows[0]))

/* ---- matching ---- */

typedef struct {
	char name; /* 0: none */
	bool optional, taken, type;
	const char *choices, *end; /* end: behind the last choice */
	const char *instead, *instead_end;
} isa_element_t;

/* Is it a type?  Its first choice says so. */
static bool isa_names_type(const isa_element_t *e)
{
	size_t length = strcspn(e->choices, "|? ");
	char first[16];

	if (length >= sizeof(first))
		return false;
	memcpy(first, e->choices, length);
	first[length] = 0;
	return ptx_type_named(first) != PTX_NONE;
}

static unsigned int isa_elements(const char *pattern, isa_element_t elements[ISA_ELEMENTS])
{
	unsigned int count = 0;

	while (*pattern && count < ISA_ELEMENTS) {
		isa_element_t *e = &elements[count++];
		const char *end = pattern + strcspn(pattern, " ");
		const char *mark = memchr(pattern, '?', (size_t)(end - pattern));

		*e = (isa_element_t){.optional = mark != NULL, .instead = "", .instead_end = ""};
		if (pattern[0] >= 'a' && pattern[0] <= 'z' && pattern[1] == ':') {
			e->name = pattern[0];
			pattern += 2;
		}
		e->choices = pattern;
		e->end = mark ? mark : end;
		if (mark) {
			e->instead = mark + 1;
			e->instead_end = end;
		}
		e->type = isa_names_type(e);
		pattern = end + (*end == ' ');
	}
	return count;
}

/* The choice that is `modifier`, or NULL. */
static const char *isa_choice(const isa_element_t *e, const char *modifier)
{
	size_t length = strlen(modifier);

	for (const char *at = e->choices; at < e->end;) {
		const char *bar = memchr(at, '|', (size_t)(e->end - at));
		size_t here = (size_t)((bar ? bar : e->end) - at);

		if (here == length && memcmp(at, modifier, length) == 0)
			return at;
		at += here + 1;
	}
	return NULL;
}

static void isa_take(isa_match_t *match, const isa_element_t *e, const char *text, size_t length)
{
	if (e->name) {
		match->text[e->name - 'a'] = text;
		match->length[e->name - 'a'] = length;
	}
}

static bool isa_matches(const isa_row_t *row, const ptx_instruction_t *instruction, isa_match_t *match)
{
	isa_element_t elements[ISA_ELEMENTS];
	unsigned int count = isa_elements(row->pattern, elements), e, types = 0;

	memset(match, 0, sizeof(*match));
	match->row = row;
	match->instruction = instruction;
	for (unsigned int m = 0; m < instruction->modifiers; m++) {
		const char *choice = NULL;

		for (e = 0; e < count && !choice; e++)
			if (!elements[e].taken)
				choice = isa_choice(&elements[e], instruction->modifier[m]);
		/* Types stand in the order of the pattern. */
		if (!choice || (elements[e - 1].type && e < types))
			return false;
		if (elements[e - 1].type)
			types = e;
		elements[e - 1].taken = true;
		isa_take(match, &elements[e - 1], choice, strlen(instruction->modifier[m]));
	}
	for (e = 0; e < count; e++) {
		if (elements[e].taken)
			continue;
		if (!elements[e].optional)
			return false;
		isa_take(match, &elements[e], elements[e].instead,
			 (size_t)(elements[e].instead_end - elements[e].instead));
	}
	return true;
}

static unsigned int isa_count(const char *operands)
{
	unsigned int count = *operands && *operands != '-';

	for (const char *at = operands; *at; at++)
		count += *at == ' ';
	return count;
}

/* Rows of one opcode may differ in the number of their operands alone. */
static const isa_row_t *isa_find(const ptx_instruction_t *instruction, isa_match_t *match)
{
	const isa_row_t *wrong_count = NULL;
	isa_match_t other;

	for (size_t i = 0; i < ISA_ROWS; i++) {
		const isa_row_t *row = &isa_rows[i];

		if (strcmp(row->opcode, instruction->opcode) != 0 || row->flow || row->refused)
			continue;
		if (!isa_matches(row, instruction, &other))
			continue;
		*match = other;
		if (!row->operands || isa_count(row->operands) == instruction->operands)
			return row;
		wrong_count = row;
	}
	return wrong_count;
}

/* ---- what emitters ask ---- */

void isa_text(const isa_match_t *match, char element, char text[32])
{
	size_t length = match->length[element - 'a'];

	if (length > 31)
		length = 31;
	if (length)
		memcpy(text, match->text[element - 'a'], length);
	text[length] = 0;
}

bool isa_is(const isa_match_t *match, char element, const char *text)
{
	size_t length = match->length[element - 'a'];

	return strlen(text) == length && (!length || memcmp(match->text[element - 'a'], text, length) == 0);
}

bool isa_absent(const isa_match_t *match, char element)
{
	return match->length[element - 'a'] == 0;
}

ptx_type_t isa_type(const isa_match_t *match, char element)
{
	char text[32];

	isa_text(match, element, text);
	return ptx_type_named(text);
}

bool isa_refuse(ptx_emit_t *emit, const isa_match_t *match, const char *why)
{
	(void)match; /* ptx_refuse names it */
	return ptx_refuse(emit, "not simulated%s%s", *why ? " " : "", why);
}

bool isa_operands(ptx_emit_t *emit, const isa_match_t *match, unsigned int least, unsigned int most)
{
	unsigned int count = match->instruction->operands;

	if (count >= least && count <= most)
		return true;
	isa_refuse(emit, match, "with this number of operands");
	return false;
}

bool isa_is_value(const ptx_operand_t *operand)
{
	return operand->kind == PTX_OPERAND_REGISTER || operand->kind == PTX_OPERAND_IMMEDIATE ||
	       operand->kind == PTX_OPERAND_SYMBOL || operand->kind == PTX_OPERAND_SPECIAL;
}

/* .ftz is about f32, and about half types in their own arithmetic, not in cvt. */
static bool isa_flushes(const ptx_instruction_t *instruction, ptx_type_t type)
{
	if (!ptx_has(instruction, "ftz") || !isa_is_float(type) || type == PTX_F64)
		return false;
	return type == PTX_F32 || strcmp(instruction->opcode, "cvt") != 0;
}

bool isa_is_float(ptx_type_t type)
{
	return type == PTX_F32 || type == PTX_F64 || type == PTX_F16 || type == PTX_BF16 ||
	       type == PTX_F16X2 || type == PTX_BF16X2;
}

const char *isa_read(ptx_emit_t *emit, const isa_match_t *match, unsigned int operand, ptx_type_t as)
{
	const ptx_instruction_t *instruction = match->instruction;
	const char *plain;

	if (operand >= instruction->operands || !isa_is_value(&instruction->operand[operand])) {
		isa_refuse(emit, match, "with these operands");
		return NULL;
	}
	plain = ptx_read(emit, &instruction->operand[operand], as);
	if (!plain || !isa_flushes(instruction, as))
		return plain;
	return ptx_text(emit, "emuv_ftz_%s(%s)", ptx_type_name(as), plain);
}

/* ---- expressions ---- */

static ptx_type_t isa_wider(ptx_type_t type)
{
	switch (type) {
	case PTX_U16: return PTX_U32;
	case PTX_S16: return PTX_S32;
	case PTX_U32: return PTX_U64;
	case PTX_S32: return PTX_S64;
	default: return PTX_NONE;
	}
}

/* The type that a word of `operands` names; *at moves behind it. */
static ptx_type_t isa_operand_type(const isa_match_t *match, const char **at)
{
	size_t length = strcspn(*at, " ");
	const char *word = *at;
	char name[16];

	*at += length + (word[length] == ' ');
	if (length == 1 && *word == '-')
		return PTX_NONE;
	if (length == 1)
		return *word == 'w' ? isa_wider(isa_type(match, 't')) : isa_type(match, *word);
	if (length >= sizeof(name))
		return PTX_NONE;
	memcpy(name, word, length);
	name[length] = 0;
	return ptx_type_named(name);
}

typedef struct {
	char text[4096];
	size_t used;
	bool full;
} isa_string_t;

static void isa_append(isa_string_t *string, const char *text, size_t length)
{
	if (length >= sizeof(string->text) - string->used) {
		string->full = true;
		return;
	}
	memcpy(string->text + string->used, text, length);
	string->used += length;
	string->text[string->used] = 0;
}

/* One $ of a row's code. */
static void isa_expand_one(isa_string_t *out, const isa_match_t *match, char what,
			   const char *const read[PTX_OPERANDS])
{
	char text[32];
	const char *is;

	if (what >= '1' && what <= '8') {
		is = read[what - '1'] ? read[what - '1'] : "";
	} else if (what == 'W') {
		is = ptx_type_c(isa_wider(isa_type(match, 't')));
	} else if (what >= 'A' && what <= 'Z') {
		is = ptx_type_c(isa_type(match, (char)(what - 'A' + 'a')));
	} else {
		isa_text(match, what, text);
		is = text;
	}
	isa_append(out, is, strlen(is));
}

static void isa_expand(isa_string_t *out, const isa_match_t *match,
		       const char *const read[PTX_OPERANDS])
{
	out->used = 0;
	out->full = false;
	out->text[0] = 0;
	for (const char *at = match->row->code; *at; at++) {
		if (*at == '$' && at[1])
			isa_expand_one(out, match, *++at, read);
		else if (*at == '@')
			isa_append(out, "emuv_", 5);
		else
			isa_append(out, at, 1);
	}
}

/* Reads the operands of the row and writes its code out.  The first type comes back in *to. */
static bool isa_build(ptx_emit_t *emit, const isa_match_t *match, isa_string_t *out, ptx_type_t *to)
{
	const char *types = match->row->operands, *read[PTX_OPERANDS] = {NULL};
	unsigned int first = *types == '-' ? 0 : 1;

	if (!isa_operands(emit, match, isa_count(types), isa_count(types)))
		return false;
	*to = isa_operand_type(match, &types);
	for (unsigned int i = first; i < match->instruction->operands; i++) {
		read[i - first] = isa_read(emit, match, i, isa_operand_type(match, &types));
		if (!read[i - first])
			return false;
	}
	isa_expand(out, match, read);
	if (out->full)
		return isa_refuse(emit, match, "with operands this long");
	return true;
}

/* A row whose code is a statement: nothing is written. */
bool isa_statement(ptx_emit_t *emit, const isa_match_t *match)
{
	isa_string_t out;
	ptx_type_t to;

	if (!isa_build(emit, match, &out, &to))
		return false;
	ptx_out(emit, "%s;\n", out.text);
	return true;
}

static bool isa_expression(ptx_emit_t *emit, const isa_match_t *match)
{
	const ptx_instruction_t *instruction = match->instruction;
	bool ftz, sat, relu;
	isa_string_t out;
	ptx_type_t to;
	const char *name;

	if (!isa_build(emit, match, &out, &to))
		return false;
	if (instruction->operand[0].kind != PTX_OPERAND_REGISTER &&
	    instruction->operand[0].kind != PTX_OPERAND_SINK)
		return isa_refuse(emit, match, "with this destination");
	ftz = isa_flushes(instruction, to);
	sat = ptx_has(instruction, "sat") && isa_is_float(to);
	relu = ptx_has(instruction, "relu") && isa_is_float(to);
	name = ptx_type_name(to);
	ptx_write(emit, &instruction->operand[0], to, "(%s)%s%s(%s%s(%s%s(%s)))", ptx_type_c(to),
		  sat ? "emuv_sat_" : "", sat ? name : "", relu ? "emuv_relu_" : "", relu ? name : "",
		  ftz ? "emuv_ftz_" : "", ftz ? name : "", out.text);
	return true;
}

/* ---- translate.c's questions ---- */

bool ptx_isa_knows(const char *opcode)
{
	for (size_t i = 0; i < ISA_ROWS; i++)
		if (strcmp(isa_rows[i].opcode, opcode) == 0)
			return true;
	return false;
}

unsigned int ptx_isa_traits(const ptx_instruction_t *instruction)
{
	static const struct {
		const char *opcode;
		unsigned int traits;
	} opcodes[] = {
		{"bar", PTX_TRAIT_SYNC},     {"barrier", PTX_TRAIT_SYNC}, {"shfl", PTX_TRAIT_SYNC},
		{"vote", PTX_TRAIT_SYNC},    {"match", PTX_TRAIT_SYNC},   {"activemask", PTX_TRAIT_SYNC},
		{"redux", PTX_TRAIT_SYNC},   {"elect", PTX_TRAIT_SYNC},     {"mbarrier", PTX_TRAIT_SYNC},   {"nanosleep", PTX_TRAIT_SPIN},
		{"atom", PTX_TRAIT_SPIN | PTX_TRAIT_CROSS},
	};
	static const char *const strong[] = {"volatile", "relaxed", "acquire", "release", "mmio"};
	const char *opcode = instruction->opcode;
	unsigned int traits = 0;

	for (size_t i = 0; i < ISA_ROWS; i++)
		if (isa_rows[i].flow && strcmp(isa_rows[i].opcode, opcode) == 0)
			return PTX_TRAIT_FLOW;
	for (size_t i = 0; i < sizeof(opcodes) / sizeof(opcodes[0]); i++)
		if (strcmp(opcodes[i].opcode, opcode) == 0)
			traits = opcodes[i].traits;
	if (strcmp(opcode, "ld") == 0 || strcmp(opcode, "st") == 0)
		for (size_t i = 0; i < sizeof(strong) / sizeof(strong[0]); i++)
			if (ptx_has(instruction, strong[i]))
				traits = PTX_TRAIT_CROSS | (opcode[0] == 'l' ? PTX_TRAIT_SPIN : 0);
	/* What only the block sees joins no blocks. */
	if (ptx_has(instruction, "shared") || ptx_has(instruction, "shared::cta") ||
	    ptx_has(instruction, "shared::cluster") || ptx_has(instruction, "local"))
		traits &= ~(unsigned int)PTX_TRAIT_CROSS;
	return traits;
}

bool ptx_isa_emit(ptx_emit_t *emit, const ptx_instruction_t *instruction)
{
	isa_match_t match = {.instruction = instruction};
	const isa_row_t *row = isa_find(instruction, &match);

	if (!row)
		return isa_refuse(emit, &match, "");
	return row->emit ? row->emit(emit, &match) : isa_expression(emit, &match);
}
