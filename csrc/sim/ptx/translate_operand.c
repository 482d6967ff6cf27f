/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Operands as C: what ptx.h promises to the rows of isa.def.
 *
 * Registers keep the type they were declared with; an instruction of another type sees
 * their bits (PTX ISA 9.4).
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "translate.h"


/* The unsigned type of C that has the bits of the type. */
static const char *bits_c(ptx_type_t type)
{
	switch (ptx_type_bytes(type)) {
	case 1: return "uint8_t";
	case 2: return "uint16_t";
	case 4: return "uint32_t";
	case 8: return "uint64_t";
	default: return "unsigned __int128";
	}
}

static const char *to_bits(ptx_emit_t *emit, const char *text, ptx_type_t from)
{
	if (from == PTX_F32)
		return ptx_text(emit, "emuv_bits_f32(%s)", text);
	if (from == PTX_F64)
		return ptx_text(emit, "emuv_bits_f64(%s)", text);
	return text;
}

static const char *from_bits(ptx_emit_t *emit, const char *text, ptx_type_t as)
{
	if (as == PTX_PRED)
		return ptx_text(emit, "((%s) != 0)", text);
	if (as == PTX_F32)
		return ptx_text(emit, "emuv_f32_bits((uint32_t)(%s))", text);
	if (as == PTX_F64)
		return ptx_text(emit, "emuv_f64_bits((uint64_t)(%s))", text);
	return ptx_text(emit, "(%s)(%s)", ptx_type_c(as), text);
}

/* A value of one type as one of another: by its bits, of which C extends the sign of s types. */
static const char *convert(ptx_emit_t *emit, const char *text, ptx_type_t from, ptx_type_t as)
{
	if (strcmp(ptx_type_c(from), ptx_type_c(as)) == 0)
		return text;
	return from_bits(emit, to_bits(emit, text, from), as);
}

static const char *immediate(ptx_emit_t *emit, const ptx_operand_t *operand, ptx_type_t as)
{
	ptx_constant_t constant = { operand->real, operand->single, operand->bits };
	uint64_t bits = ptx_constant_as(constant, as);

	switch (as) {
	case PTX_PRED:
		return bits ? "true" : "false";
	case PTX_F32:
		return ptx_text(emit, "emuv_f32_bits(0x%08xu)", (uint32_t)bits);
	case PTX_F64:
		return ptx_text(emit, "emuv_f64_bits(0x%016llxull)", (unsigned long long)bits);
	case PTX_B128: /* a negative number has its sign all the way */
		return ptx_text(emit, "(unsigned __int128)(__int128)(int64_t)0x%llxull",
				   (unsigned long long)bits);
	default:
		break;
	}
	if (ptx_type_bytes(as) < 8)
		bits &= ((uint64_t)1 << 8 * ptx_type_bytes(as)) - 1;
	return ptx_text(emit, "((%s)0x%llx%s)", ptx_type_c(as), (unsigned long long)bits,
			   ptx_type_bytes(as) == 8 ? "ull" : "u");
}

/* The address of a variable or function, and the type it is of. */
static const char *symbol(ptx_emit_t *emit, const ptx_operand_t *operand)
{
	const ptx_variable_t *variable = operand->variable;
	unsigned long long place, offset = (unsigned long long)operand->offset;

	if (operand->function) {
		if (operand->function->entry)
			ptx_failed(emit, PTX_UNSUPPORTED,
				   "PTX line %u: the address of the kernel \"%.60s\" is taken: "
				   "kernels do not launch kernels here", emit->instruction->line,
				   operand->function->name);
		return ptx_text(emit, "0x%llxull",
				   (unsigned long long)PTX_FUNCTION_ADDRESS(operand->function->index));
	}
	if (!variable) {
		ptx_refuse(emit, "an operand without a meaning");
		return "0";
	}
	place = emit->place[variable->number];
	switch (variable->space) {
	case PTX_SPACE_GLOBAL:
	case PTX_SPACE_CONST:
		return ptx_text(emit, "(emuv_launch->variables[%u] + 0x%llxull)", variable->index,
				   offset);
	case PTX_SPACE_LOCAL:
		return ptx_text(emit, "(frame + 0x%llxull)", place + offset);
	case PTX_SPACE_SHARED:
		return ptx_text(emit, "0x%llxull", place + offset);
	case PTX_SPACE_PARAM:
		if (emit->placed[variable->number] && emit->function->entry)
			return ptx_text(emit, "0x%llxull",
					   (unsigned long long)variable->offset + offset);
		if (emit->placed[variable->number])
			return variable->open
				       ? ptx_text(emit, "(open%u + 0x%llxull)", variable->number,
						     offset)
				       : ptx_text(emit, "(frame + 0x%llxull)", place + offset);
		break;
	default:
		break;
	}
	ptx_refuse(emit, "the address of an argument");
	return "0";
}

const char *ptx_read(ptx_emit_t *emit, const ptx_operand_t *operand, ptx_type_t as)
{
	const char *text;
	ptx_type_t type;

	switch (operand->kind) {
	case PTX_OPERAND_REGISTER:
		type = operand->reg->type;
		text = ptx_text(emit, "r%u", operand->reg->index);
		if (operand->negated && type == PTX_PRED)
			text = ptx_text(emit, "!%s", text);
		text = convert(emit, text, type, as);
		if (operand->negated && type != PTX_PRED)
			text = ptx_text(emit, "((%s)-%s)", ptx_type_c(as), text);
		return text;
	case PTX_OPERAND_IMMEDIATE:
		return immediate(emit, operand, as);
	case PTX_OPERAND_SPECIAL:
		text = ptx_special(emit, operand->name, &type);
		text = ptx_text(emit, "((%s)%s)", ptx_type_c(type), text);
		text = convert(emit, text, type, as);
		return operand->negated ? ptx_text(emit, "!%s", text) : text;
	case PTX_OPERAND_SYMBOL:
		return convert(emit, symbol(emit, operand), PTX_U64, as);
	default:
		ptx_refuse(emit, "an operand of the wrong kind");
		return ptx_text(emit, "(%s)0", ptx_type_c(as));
	}
}

void ptx_write(ptx_emit_t *emit, const ptx_operand_t *destination, ptx_type_t as,
	       const char *format, ...)
{
	char *text;
	va_list list;
	int length;

	va_start(list, format);
	length = vsnprintf(NULL, 0, format, list);
	va_end(list);
	text = ptx_arena_take(emit->scratch, (size_t)length + 3);
	if (!text) {
		ptx_failed(emit, PTX_NO_MEMORY, "no memory to translate PTX");
		return;
	}
	va_start(list, format);
	text[0] = '(';
	vsnprintf(text + 1, (size_t)length + 1, format, list);
	va_end(list);
	text[length + 1] = ')';
	if (destination->kind == PTX_OPERAND_SINK) {
		ptx_out(emit, "(void)%s;\n", text);
	} else if (destination->kind == PTX_OPERAND_REGISTER) {
		ptx_type_t type = destination->reg->type;
		const char *value = convert(emit, text, as, type);

		/* A negated predicate as a destination holds the complement. */
		if (destination->negated && type == PTX_PRED)
			value = ptx_text(emit, "!%s", value);
		ptx_out(emit, "r%u = %s;\n", destination->reg->index, value);
	} else {
		ptx_refuse(emit, "a destination that is no register");
	}
}

/* [item + offset], the item being a register or a number. */
static const char *plain_address(ptx_emit_t *emit, const ptx_operand_t *item, int64_t offset,
				 ptx_space_t space)
{
	unsigned long long by = (unsigned long long)offset;
	const ptx_register_t *base = item->reg;
	const char *text;

	if (item->kind == PTX_OPERAND_IMMEDIATE)
		return ptx_text(emit, "0x%llxull", (unsigned long long)item->bits + by);
	text = ptx_text(emit, "(%s)r%u", bits_c(base->type), base->index);
	if (base->type == PTX_F32 || base->type == PTX_F64)
		text = to_bits(emit, ptx_text(emit, "r%u", base->index), base->type);
	/* A 32-bit address wraps at 32 bits. */
	if (ptx_type_bytes(base->type) == 4 && space == PTX_SPACE_SHARED)
		return ptx_text(emit, "(uint64_t)(uint32_t)(%s + 0x%xu)", text, (uint32_t)by);
	return by ? ptx_text(emit, "((uint64_t)(%s) + 0x%llxull)", text, by)
		  : ptx_text(emit, "((uint64_t)(%s))", text);
}

static bool parameter_of(const ptx_variable_t *list, const ptx_variable_t *variable,
			 unsigned int *number)
{
	for (; list; list = list->next, (*number)++)
		if (list == variable)
			return true;
	return false;
}

/* .param of a function or of a call: a pointer to a byte of its array. */
static const char *param_pointer(ptx_emit_t *emit, const ptx_operand_t *item, int64_t offset)
{
	const ptx_variable_t *variable = item->variable;
	unsigned int number = 0;

	if (item->kind != PTX_OPERAND_SYMBOL) /* the address of a copy in local memory */
		return ptx_text(emit, "((uint8_t *)EMUV_AT(%s, 1, EMUV_READ))",
				   plain_address(emit, item, offset, PTX_SPACE_PARAM));
	if (!variable || variable->space != PTX_SPACE_PARAM) {
		ptx_refuse(emit, "an address that is no parameter's");
		return "0";
	}
	offset += item->offset;
	if (emit->placed[variable->number])
		return variable->open ? ptx_text(emit, "((uint8_t *)(open%u + %lld))",
						    variable->number, (long long)offset)
				      : ptx_text(emit, "((uint8_t *)(frame + %llu + %lld))",
						    (unsigned long long)emit->place[variable->number],
						    (long long)offset);
	if (offset < 0 || (uint64_t)offset >= variable->bytes + !variable->bytes) {
		ptx_refuse(emit, "an offset beyond the parameter's %zu bytes", variable->bytes);
		return "0";
	}
	if (parameter_of(emit->function->results, variable, &number) ||
	    parameter_of(emit->function->parameters, variable, &number))
		return ptx_text(emit, "(p%u + %lld)", number, (long long)offset);
	return ptx_text(emit, "(v%u + %lld)", variable->number, (long long)offset);
}

static const char *address_of(ptx_emit_t *emit, const ptx_operand_t *operand, ptx_space_t space,
			      bool *pointer)
{
	const ptx_operand_t *item = operand->item;
	ptx_operand_t moved;

	*pointer = false;
	if (operand->kind != PTX_OPERAND_ADDRESS || operand->items != 1) {
		ptx_refuse(emit, "an address expected");
		return "0";
	}
	/* ld.param of a kernel's parameter (those are `placed`); all else is an array of C. */
	if (space == PTX_SPACE_PARAM &&
	    !(emit->function->entry &&
	      (item->kind != PTX_OPERAND_SYMBOL ||
	       (item->variable && emit->placed[item->variable->number])))) {
		*pointer = true;
		return param_pointer(emit, item, operand->offset);
	}
	if (item->kind != PTX_OPERAND_SYMBOL)
		return plain_address(emit, item, operand->offset, space);
	moved = *item;
	moved.offset += operand->offset;
	/* A variable of .shared or .param by a generic access: its offset is no address. */
	if (item->variable && space == PTX_SPACE_GENERIC &&
	    item->variable->space == PTX_SPACE_SHARED)
		return ptx_text(emit, "((uint64_t)emuv_shared + %s)", symbol(emit, &moved));
	if (item->variable && space == PTX_SPACE_GENERIC &&
	    item->variable->space == PTX_SPACE_PARAM && emit->function->entry)
		return ptx_text(emit, "(param_window + %s)", symbol(emit, &moved));
	if (item->variable && space != PTX_SPACE_GENERIC && space != item->variable->space) {
		ptx_refuse(emit, "\"%.60s\" is in another state space", item->name);
		return "0";
	}
	return symbol(emit, &moved);
}

const char *ptx_address(ptx_emit_t *emit, const ptx_operand_t *operand, ptx_space_t space,
			bool *pointer)
{
	const char *text = address_of(emit, operand, space, pointer);

	if (operand->kind != PTX_OPERAND_ADDRESS || !operand->reg)
		return text;
	if (*pointer) {
		ptx_refuse(emit, "an element of a parameter, by a register");
		return text;
	}
	return ptx_text(emit, "(%s + (uint64_t)r%u * %llu)", text, operand->reg->index,
			(unsigned long long)operand->bits);
}

const char *ptx_temporary(ptx_emit_t *emit)
{
	return ptx_text(emit, "t%u", emit->temporaries++);
}
