/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Declarations: registers, variables with their initial values, parameters.
 *
 * Sizes come from a stranger: each is checked before it is multiplied.
 */
#include <stdlib.h>
#include <string.h>

#include "parse.h"

#define MAX_DIMENSIONS 8

/* What comes in front of the names. */
typedef struct {
	ptx_space_t space;
	ptx_type_t type;
	unsigned int vector;
	size_t align; /* 0: as the type is */
	bool managed, opaque;
	size_t dimension[MAX_DIMENSIONS];
	unsigned int dimensions;
} declaration_t;

static const struct {
	const char *name;
	ptx_space_t space;
} spaces[] = {
	{ ".global", PTX_SPACE_GLOBAL }, { ".shared", PTX_SPACE_SHARED },
	{ ".local", PTX_SPACE_LOCAL },	 { ".const", PTX_SPACE_CONST },
	{ ".param", PTX_SPACE_PARAM },	 { ".reg", PTX_SPACE_NONE },
	{ ".tex", PTX_SPACE_GLOBAL },
};

static ptx_type_t type_here(const ptx_parser_t *parser)
{
	char name[16];

	if (parser->token.kind != PTX_TOKEN_DOT || parser->token.length > sizeof(name))
		return PTX_NONE;
	memcpy(name, parser->token.text + 1, parser->token.length - 1);
	name[parser->token.length - 1] = '\0';
	return ptx_type_named(name);
}

static void alignment(ptx_parser_t *parser, size_t *align)
{
	uint64_t value = ptx_parse_integer(parser);

	if (!value || value > 1 << 20 || value & (value - 1))
		ptx_bad(parser, "an alignment is a power of two");
	*align = value;
}

/* The token is behind .ptr: of what the parameter points to, nothing is kept. */
static void pointer(ptx_parser_t *parser)
{
	static const char *const words[] = { ".global", ".shared", ".local", ".const", ".generic",
					     ".param" };
	size_t ignored;

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (ptx_accept(parser, words[i]))
			break;
	if (ptx_accept(parser, ".align"))
		alignment(parser, &ignored);
}

static void attribute(ptx_parser_t *parser, declaration_t *what)
{
	ptx_expect(parser, "(");
	do {
		if (ptx_accept(parser, ".managed"))
			what->managed = true;
		else if (ptx_accept(parser, ".unified"))
			ptx_skip_group(parser); /* (id, id): names it for several GPUs */
		else
			ptx_bad(parser, "an unknown attribute");
	} while (ptx_accept(parser, ","));
	ptx_expect(parser, ")");
}

/* The token is the state space; ends at the first name. */
static void declare(ptx_parser_t *parser, declaration_t *what)
{
	size_t i;

	memset(what, 0, sizeof(*what));
	what->vector = 1;
	for (i = 0; i < sizeof(spaces) / sizeof(*spaces); i++)
		if (ptx_is(parser, spaces[i].name))
			break;
	/* .const[3], .shared::cta: no more than the space. */
	if (i == sizeof(spaces) / sizeof(*spaces))
		ptx_bad(parser, "a state space expected");
	what->space = spaces[i].space;
	ptx_next(parser);
	if (what->space == PTX_SPACE_CONST && ptx_is(parser, "["))
		ptx_skip_group(parser);
	while (parser->token.kind == PTX_TOKEN_DOT) {
		if (type_here(parser)) {
			what->type = type_here(parser);
			ptx_next(parser);
		} else if (ptx_is(parser, ".v2") || ptx_is(parser, ".v4") || ptx_is(parser, ".v8")) {
			what->vector = (unsigned int)(parser->token.text[2] - '0');
			ptx_next(parser);
		} else if (ptx_accept(parser, ".align")) {
			alignment(parser, &what->align);
		} else if (ptx_accept(parser, ".ptr")) {
			pointer(parser);
		} else if (ptx_accept(parser, ".attribute")) {
			attribute(parser, what);
		} else if (ptx_accept(parser, ".texref") || ptx_accept(parser, ".samplerref") ||
			   ptx_accept(parser, ".surfref")) {
			what->type = PTX_B64;
			what->opaque = true;
		} else {
			ptx_bad(parser, "a type expected");
		}
	}
	if (!what->type)
		ptx_bad(parser, "a type expected");
}

/* ---- registers ---- */

void ptx_parse_registers(ptx_parser_t *parser)
{
	declaration_t what;

	declare(parser, &what);
	do {
		const char *text = ptx_take_name(parser);
		ptx_name_t *name;

		if (ptx_accept(parser, "<")) {
			size_t length = strlen(text);
			uint64_t count;
			char *key = ptx_copy(parser, text, length + 1);

			if (parser->token.kind != PTX_TOKEN_NUMBER)
				ptx_bad(parser, "the number of registers expected");
			/* A number alone: ">" is what ends it. */
			count = strtoull(parser->token.text, NULL, 0);
			ptx_next(parser);
			ptx_expect(parser, ">");
			if (what.vector > 1)
				ptx_bad(parser, "a range of vectors");
			key[length] = '<';
			name = ptx_name_add(parser, key, PTX_NAME_RANGE);
			name->type = what.type;
			name->count = count < UINT32_MAX ? (unsigned int)count : UINT32_MAX;
			continue;
		}
		name = ptx_name_add(parser, text,
				    what.vector > 1 ? PTX_NAME_VECTOR : PTX_NAME_REGISTER);
		name->count = what.vector;
		name->reg = ptx_register_new(parser, text, what.type);
		for (unsigned int i = 1; i < what.vector; i++)
			ptx_register_new(parser, text, what.type);
	} while (ptx_accept(parser, ","));
	ptx_expect(parser, ";");
}

/* ---- initial values ---- */

static void place(ptx_parser_t *parser, ptx_variable_t *variable, size_t offset, uint64_t bits,
		  size_t bytes)
{
	if (offset > variable->bytes || bytes > variable->bytes - offset)
		ptx_bad(parser, "more initial values than elements");
	memcpy(variable->initial + offset, &bits, bytes < 8 ? bytes : 8);
}

/* name, name + 4, generic(name) + 4, mask(name): the address is known when a module is loaded. */
static void address_value(ptx_parser_t *parser, ptx_variable_t *variable, size_t offset,
			  size_t bytes)
{
	ptx_relocation_t *made = ptx_take(parser, sizeof(*made));
	const ptx_name_t *name;
	bool inside = false;

	made->bytes = (unsigned int)bytes;
	made->offset = offset;
	if (ptx_is(parser, "generic") && *ptx_peek(parser).text == '(') {
		made->generic = inside = true;
		ptx_next(parser);
		ptx_next(parser);
	}
	made->symbol = ptx_take_name(parser);
	name = ptx_name_find(parser, made->symbol);
	if (name && name->kind == PTX_NAME_VARIABLE &&
	    (name->variable->space == PTX_SPACE_GLOBAL || name->variable->space == PTX_SPACE_CONST))
		made->variable = name->variable;
	else if (name && name->kind == PTX_NAME_FUNCTION && !name->function->entry)
		made->function = name->function;
	else
		ptx_bad(parser, "\"%.60s\" has no address that is known before a launch",
			made->symbol);
	if (inside)
		ptx_expect(parser, ")");
	while (ptx_is(parser, "+") || ptx_is(parser, "-"))
		made->addend += (int64_t)ptx_parse_integer(parser);
	place(parser, variable, offset, 0, bytes);
	made->next = variable->relocations;
	variable->relocations = made;
}

static void masked_value(ptx_parser_t *parser, ptx_variable_t *variable, size_t offset,
			 size_t bytes)
{
	uint64_t mask = ptx_parse_integer(parser);

	/* 0xff, 0xff00, …: one byte of the address, for an element of one byte. */
	ptx_expect(parser, "(");
	address_value(parser, variable, offset, bytes);
	ptx_expect(parser, ")");
	for (unsigned int shift = 0; shift < 64; shift += 8)
		if (mask == (uint64_t)0xff << shift) {
			variable->relocations->shift = shift;
			return;
		}
	ptx_bad(parser, "a mask is one byte's");
}

static size_t row_bytes(const declaration_t *what, unsigned int depth)
{
	size_t bytes = (size_t)ptx_type_bytes(what->type) * what->vector;

	for (unsigned int i = depth; i < what->dimensions; i++)
		bytes *= what->dimension[i];
	return bytes;
}

/* The token is behind "=". */
static void initialise(ptx_parser_t *parser, const declaration_t *what, ptx_variable_t *variable)
{
	size_t at = 0, depth = 0, element = ptx_type_bytes(what->type);

	if (variable->open) { /* as many as there are values */
		ptx_parser_t ahead = *parser;
		size_t values = 1;

		while (ahead.token.kind != PTX_TOKEN_END && !ptx_is(&ahead, ";")) {
			values += ptx_is(&ahead, ",");
			ptx_next(&ahead);
		}
		if (variable->bytes > PTX_MAX_INITIAL_BYTES / values)
			ptx_bad(parser, "an initial value is too large");
		variable->bytes *= values;
		variable->open = false;
	}
	if (variable->bytes > PTX_MAX_INITIAL_BYTES - parser->initial_bytes)
		ptx_bad(parser, "an initial value is too large");
	parser->initial_bytes += variable->bytes;
	variable->initial = ptx_take(parser, variable->bytes + 1);
	do {
		if (ptx_accept(parser, "{")) {
			depth++;
		} else if (ptx_is(parser, "}")) {
			/* What an inner brace leaves out is zero. */
			size_t row = depth > 1 ? row_bytes(what, (unsigned int)depth - 1) : 0;

			if (!depth--)
				ptx_bad(parser, "} without {");
			if (row)
				at = (at + row - 1) / row * row;
			ptx_next(parser);
		} else if (ptx_accept(parser, ",")) {
			continue;
		} else if (ptx_is(parser, "mask") && *ptx_peek(parser).text == '(') {
			ptx_bad(parser, "mask() wants a number in front");
		} else if (parser->token.kind == PTX_TOKEN_NAME && !ptx_is(parser, "WARP_SZ")) {
			address_value(parser, variable, at, element);
			at += element;
		} else if (parser->token.kind == PTX_TOKEN_NUMBER && *ptx_peek(parser).text == '(') {
			masked_value(parser, variable, at, element);
			at += element;
		} else {
			ptx_constant_t constant = ptx_parse_constant(parser);

			place(parser, variable, at, ptx_constant_as(constant, what->type), element);
			at += element;
		}
	} while (depth);
}

/* ---- variables ---- */

/* The token is a name: goes behind it and its dimensions. */
static void declare_name(ptx_parser_t *parser, declaration_t *what, ptx_variable_t *variable)
{
	size_t bytes = (size_t)ptx_type_bytes(what->type) * what->vector;

	variable->name = ptx_take_name(parser);
	variable->space = what->space;
	variable->type = what->type;
	variable->managed = what->managed;
	variable->align = what->align ? what->align : bytes;
	what->dimensions = 0;
	while (ptx_accept(parser, "[")) {
		uint64_t count = 0;

		if (what->dimensions == MAX_DIMENSIONS)
			ptx_bad(parser, "more than eight dimensions");
		if (ptx_is(parser, "]"))
			variable->open = true;
		else
			count = ptx_parse_integer(parser);
		if (count && bytes > PTX_MAX_VARIABLE_BYTES / count)
			ptx_bad(parser, "a variable is too large");
		if (!variable->open || what->dimensions)
			bytes *= count;
		what->dimension[what->dimensions++] = count;
		ptx_expect(parser, "]");
	}
	variable->bytes = bytes;
}

/* A second declaration of a module's variable: extern and definition are one. */
static ptx_variable_t *again(ptx_parser_t *parser, ptx_variable_t *old, const ptx_variable_t *new)
{
	if (old->linkage != PTX_LINK_EXTERN && new->linkage != PTX_LINK_EXTERN)
		ptx_bad(parser, "\"%.60s\" is declared twice", new->name);
	if (old->space != new->space)
		ptx_bad(parser, "\"%.60s\" is declared in two state spaces", new->name);
	if (old->linkage == PTX_LINK_EXTERN) {
		ptx_variable_t *next = old->next;

		*old = *new;
		old->next = next;
	}
	return old;
}

static ptx_variable_t *enter(ptx_parser_t *parser, const ptx_variable_t *declared)
{
	ptx_name_t *name = parser->scope ? NULL : ptx_name_find(parser, declared->name);
	ptx_variable_t *variable;

	if (name && name->kind == PTX_NAME_VARIABLE)
		return again(parser, name->variable, declared);
	variable = ptx_take(parser, sizeof(*variable));
	*variable = *declared;
	name = ptx_name_add(parser, variable->name, PTX_NAME_VARIABLE);
	name->variable = variable;
	if (parser->scope && variable->space != PTX_SPACE_GLOBAL &&
	    variable->space != PTX_SPACE_CONST) {
		*parser->variable_end = variable;
		parser->variable_end = &variable->next;
	} else {
		*parser->module_variable_end = variable;
		parser->module_variable_end = &variable->next;
	}
	return variable;
}

void ptx_parse_variables(ptx_parser_t *parser, ptx_linkage_t linkage)
{
	declaration_t what;

	declare(parser, &what);
	do {
		ptx_variable_t declared = { .linkage = linkage }, *variable;

		declare_name(parser, &what, &declared);
		if (declared.open && linkage != PTX_LINK_EXTERN && !ptx_is(parser, "="))
			ptx_bad(parser, "\"%.60s\" has no size", declared.name);
		variable = enter(parser, &declared);
		if (ptx_accept(parser, "=")) {
			if (what.opaque)
				ptx_skip_group(parser);
			else if (what.space != PTX_SPACE_GLOBAL && what.space != PTX_SPACE_CONST)
				ptx_bad(parser, "only .global and .const have initial values");
			else
				initialise(parser, &what, variable);
		}
	} while (ptx_accept(parser, ","));
	ptx_expect(parser, ";");
}

/* ---- parameters ---- */

ptx_variable_t *ptx_parse_parameters(ptx_parser_t *parser, bool entry)
{
	ptx_variable_t *first = NULL, **end = &first;
	size_t offset = 0;

	ptx_expect(parser, "(");
	while (!ptx_is(parser, ")")) {
		ptx_variable_t *variable = ptx_take(parser, sizeof(*variable));
		declaration_t what;

		declare(parser, &what);
		if (what.space != PTX_SPACE_PARAM && (entry || what.space != PTX_SPACE_NONE))
			ptx_bad(parser, "a parameter is .param%s", entry ? "" : " or .reg");
		declare_name(parser, &what, variable);
		if (variable->open && entry)
			ptx_bad(parser, "a parameter without a size");
		/* [] of a function stands for arguments in any number: at most so many bytes. */
		if (variable->open)
			variable->bytes = 0;
		if (variable->align > 1)
			offset = (offset + variable->align - 1) / variable->align * variable->align;
		if (variable->bytes > PTX_MAX_PARAMETER_BYTES ||
		    offset + variable->bytes > PTX_MAX_PARAMETER_BYTES)
			ptx_bad(parser, "parameters take more than %d bytes",
				PTX_MAX_PARAMETER_BYTES);
		variable->offset = offset;
		offset += variable->bytes;
		*end = variable;
		end = &variable->next;
		if (!ptx_accept(parser, ","))
			break;
	}
	ptx_expect(parser, ")");
	return first;
}
