/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The whitelist, for the files that read it: isa.c finds the row of an instruction and
 * emits what a row says in its own words; isa_*.c emit what takes more than an expression.
 *
 * A row of isa.def
 *   ISA(opcode, pattern, operands, code, section)   an expression
 *   ISA_BY(opcode, pattern, function, section)      isa_<function>() emits it
 *   ISA_FLOW(opcode, section)                       translate.c's
 *   ISA_NOT(opcode, section)                        known, and not simulated
 *
 * Pattern: the modifiers, by elements with a space between.  An element is its
 * alternatives, "rn|rz"; "?" behind it: may be missing, and what follows the "?" then
 * stands for it; "t:" in front: its name.  Each modifier of an instruction must be taken
 * by an element, each element takes one at most; the first modifier goes to the first
 * element that has it.  Types keep their order; the rest may stand anywhere, as for
 * NVIDIA's assembler.
 *
 * Operands: "t t t", the types: first what is written ("-": nothing), then what is read:
 * the name of an element, "w" (twice as wide as t), or a type's own name.
 *
 * Code: an expression of the first type.  $1 … the operands read; $t the modifier that
 * the element t took, $T the C type of that name, $W that of w; @name is emuv_name.
 * Around operands and result come emuv_ftz_, _sat_ and _relu_ where the instruction has
 * those modifiers and the type is a floating one.
 */
#ifndef EMUV_PTX_ISA_H
#define EMUV_PTX_ISA_H

#include "ptx.h"

typedef struct isa_match isa_match_t;
typedef struct {
	const char *opcode, *pattern, *operands, *code, *section;
	bool (*emit)(ptx_emit_t *emit, const isa_match_t *match);
	bool flow, refused;
} isa_row_t;

#define ISA_ELEMENTS 12
struct isa_match {
	const isa_row_t *row;
	const ptx_instruction_t *instruction;
	const char *text[26]; /* of the element named 'a' + i; "": none */
	size_t length[26];    /* text is a piece of the row's pattern, without an end */
};

/* "" for an element that is missing and has no default. */
void isa_text(const isa_match_t *match, char element, char text[32]);
bool isa_is(const isa_match_t *match, char element, const char *text);
bool isa_absent(const isa_match_t *match, char element);
ptx_type_t isa_type(const isa_match_t *match, char element);

/* Refuses with the instruction's name and `why` behind it. */
bool isa_refuse(ptx_emit_t *emit, const isa_match_t *match, const char *why);
/* False, and refused: not as many operands. */
bool isa_operands(ptx_emit_t *emit, const isa_match_t *match, unsigned int least, unsigned int most);
/* The operand as a value, .ftz seen to.  NULL, and refused: no value. */
const char *isa_read(ptx_emit_t *emit, const isa_match_t *match, unsigned int operand, ptx_type_t as);
bool isa_is_value(const ptx_operand_t *operand);
bool isa_is_float(ptx_type_t type);

#define ISA_EMITTERS(X)                                                                       \
	X(setp) X(set) X(mov) X(mov_vector) X(lop3) X(carry)                                                \
	X(ld) X(st) X(atom) X(red) X(cp_async) X(hint) X(policy) X(isspacep) X(mbarrier)                                        \
	X(shfl) X(vote) X(match) X(elect) X(activemask) X(barrier)                 \
	X(statement)
#define X(name) bool isa_##name(ptx_emit_t *emit, const isa_match_t *match);
ISA_EMITTERS(X)
#undef X

#endif
