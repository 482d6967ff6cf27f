/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Bodies of functions: declarations, labels, tables, instructions, and what is only
 * for debuggers and profilers.
 */
#include <string.h>

#include "parse.h"

static ptx_instruction_t *append(ptx_parser_t *parser)
{
	ptx_instruction_t *made = ptx_take(parser, sizeof(*made));

	made->line = parser->token.line;
	*parser->end = made;
	parser->end = &made->next;
	return made;
}

/* .loc 1 2 3 [, function_name name [+ n], inlined_at 1 2 3]: ends with no semicolon. */
static void location(ptx_parser_t *parser)
{
	while (parser->token.kind == PTX_TOKEN_NUMBER)
		ptx_next(parser);
	while (ptx_accept(parser, ",")) {
		if (ptx_accept(parser, "function_name")) {
			ptx_next(parser);
			if (ptx_accept(parser, "+"))
				ptx_next(parser);
		} else if (ptx_accept(parser, "inlined_at")) {
			while (parser->token.kind == PTX_TOKEN_NUMBER)
				ptx_next(parser);
		} else {
			ptx_bad(parser, "function_name or inlined_at expected");
		}
	}
}

static void pragma(ptx_parser_t *parser)
{
	do {
		if (parser->token.kind != PTX_TOKEN_STRING)
			ptx_bad(parser, "a pragma is a string");
		ptx_next(parser);
	} while (ptx_accept(parser, ","));
	ptx_expect(parser, ";");
}

/* The token is behind "label:". */
static void table(ptx_parser_t *parser, const char *label)
{
	ptx_table_t *made = ptx_take(parser, sizeof(*made));
	unsigned int room = 0;

	made->name = label;
	*parser->table_end = made;
	parser->table_end = &made->next;
	ptx_name_add(parser, label, PTX_NAME_TABLE)->table = made;
	if (ptx_accept(parser, ".callprototype")) {
		made->prototype = true;
		if (ptx_is(parser, "("))
			made->results = ptx_parse_parameters(parser, false);
		ptx_take_name(parser);
		if (ptx_is(parser, "("))
			made->parameters = ptx_parse_parameters(parser, false);
		/* .noreturn, .abi_preserve 8: promises */
		while (parser->token.kind == PTX_TOKEN_DOT) {
			ptx_next(parser);
			if (parser->token.kind == PTX_TOKEN_NUMBER)
				ptx_next(parser);
		}
	} else {
		ptx_token_t start;
		const char *at;
		unsigned int line;

		ptx_next(parser);
		/* Counted first: operands that wait for a label do not move. */
		start = parser->token;
		at = parser->at;
		line = parser->line;
		for (room = 1; parser->token.kind != PTX_TOKEN_END && !ptx_is(parser, ";");
		     ptx_next(parser))
			room += ptx_is(parser, ",");
		parser->token = start;
		parser->at = at;
		parser->line = line;
		made->target = ptx_take(parser, room * sizeof(*made->target));
		do {
			ptx_operand_t *target = &made->target[made->targets++];

			ptx_parse_operand(parser, "", target);
			if (target->kind != PTX_OPERAND_LABEL &&
			    (target->kind != PTX_OPERAND_SYMBOL || !target->function))
				ptx_bad(parser, "a label or a function expected");
		} while (ptx_accept(parser, ","));
	}
	ptx_expect(parser, ";");
}

static void modifiers(ptx_parser_t *parser, ptx_instruction_t *made)
{
	while (parser->token.kind == PTX_TOKEN_DOT) {
		if (made->modifiers == PTX_MODIFIERS)
			ptx_bad(parser, "too many modifiers");
		made->modifier[made->modifiers++] =
			ptx_copy(parser, parser->token.text + 1, parser->token.length - 1);
		ptx_next(parser);
	}
}

static void instruction(ptx_parser_t *parser)
{
	ptx_instruction_t *made = append(parser);

	if (ptx_accept(parser, "@")) {
		const ptx_name_t *name;
		const char *text;

		made->guard_negated = ptx_accept(parser, "!");
		text = ptx_take_name(parser);
		name = ptx_name_of_register(parser, text);
		if (!name || name->kind != PTX_NAME_REGISTER || name->reg->type != PTX_PRED)
			ptx_bad(parser, "\"%.60s\" is no predicate", text);
		made->guard = name->reg;
	}
	made->opcode = ptx_take_name(parser);
	if (!ptx_isa_knows(made->opcode))
		ptx_give_up(parser, PTX_BAD_SYNTAX, "PTX line %u: unknown instruction \"%.60s\"",
			    made->line, made->opcode);
	modifiers(parser, made);
	if (ptx_accept(parser, ";"))
		return;
	do {
		if (made->operands == PTX_OPERANDS)
			ptx_give_up(parser, PTX_UNSUPPORTED,
				    "PTX line %u: an instruction with more than %d operands",
				    made->line, PTX_OPERANDS);
		ptx_parse_operand(parser, made->opcode, &made->operand[made->operands++]);
	} while (ptx_accept(parser, ","));
	ptx_expect(parser, ";");
}

static void label(ptx_parser_t *parser)
{
	const char *name = ptx_take_name(parser);
	ptx_instruction_t *made;

	ptx_expect(parser, ":");
	if (ptx_is(parser, ".branchtargets") || ptx_is(parser, ".calltargets") ||
	    ptx_is(parser, ".callprototype")) {
		table(parser, name);
		return;
	}
	ptx_name_add(parser, name, PTX_NAME_LABEL);
	made = append(parser);
	made->label = name;
}

static void statement(ptx_parser_t *parser)
{
	if (ptx_is(parser, ".reg"))
		ptx_parse_registers(parser);
	else if (ptx_accept(parser, ".loc"))
		location(parser);
	else if (ptx_accept(parser, ".pragma"))
		pragma(parser);
	else if (parser->token.kind == PTX_TOKEN_DOT)
		ptx_parse_variables(parser, PTX_LINK_NONE);
	else if (ptx_is(parser, "@"))
		instruction(parser);
	else if (parser->token.kind == PTX_TOKEN_NAME && *ptx_peek(parser).text == ':')
		label(parser);
	else if (!ptx_accept(parser, ";"))
		instruction(parser);
}

/* Parameters are in the scope around the body's. */
static void enter_parameters(ptx_parser_t *parser, ptx_variable_t *variable)
{
	for (; variable; variable = variable->next) {
		if (strcmp(variable->name, "_") == 0)
			continue;
		if (variable->space == PTX_SPACE_NONE)
			ptx_name_add(parser, variable->name, PTX_NAME_REGISTER)->reg =
				ptx_register_new(parser, variable->name, variable->type);
		else
			ptx_name_add(parser, variable->name, PTX_NAME_VARIABLE)->variable =
				variable;
	}
}

void ptx_parse_body(ptx_parser_t *parser, ptx_function_t *function)
{
	unsigned int outer, line = parser->token.line;

	parser->function = function;
	parser->register_room = 0;
	parser->end = &function->body;
	parser->table_end = &function->tables;
	parser->variable_end = &function->variables;
	ptx_scope_open(parser);
	outer = parser->scope;
	enter_parameters(parser, function->results);
	enter_parameters(parser, function->parameters);
	ptx_next(parser);
	while (parser->scope > outer || !ptx_is(parser, "}")) {
		if (parser->token.kind == PTX_TOKEN_END)
			ptx_give_up(parser, PTX_BAD_SYNTAX, "PTX line %u: the body has no end", line);
		if (ptx_accept(parser, "{")) {
			ptx_scope_open(parser);
		} else if (ptx_is(parser, "}")) {
			ptx_scope_close(parser);
			ptx_next(parser);
		} else {
			statement(parser);
		}
	}
	ptx_scope_close(parser);
	ptx_next(parser);
	parser->function = NULL;
}
