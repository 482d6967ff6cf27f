/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Operands of instructions.
 *
 * A name is, in this order: what is declared in scope (register, variable, function),
 * a special register (%tid.x), a label that may come later.
 */
#include <string.h>

#include "parse.h"

#define MAX_ITEMS 256
#define MAX_DEPTH 16

static void operand(ptx_parser_t *parser, const char *opcode, ptx_operand_t *to);

/* The token is the first item's; ends behind `close`. */
static void items(ptx_parser_t *parser, const char *opcode, ptx_operand_t *to, const char *close)
{
	unsigned int room = 4;

	if (++parser->depth > MAX_DEPTH)
		ptx_bad(parser, "an operand is nested too deep");
	to->item = ptx_take(parser, room * sizeof(*to->item));
	while (!ptx_is(parser, close)) {
		if (to->items == MAX_ITEMS)
			ptx_bad(parser, "too many operands");
		if (to->items == room) {
			ptx_operand_t *more = ptx_take(parser, 4 * room * sizeof(*more));

			/* Labels are looked up when the scope ends: by where they are. */
			for (unsigned int i = 0; i < room; i++)
				if (to->item[i].kind == PTX_OPERAND_LABEL)
					ptx_bad(parser, "a label cannot stand here");
			memcpy(more, to->item, room * sizeof(*more));
			to->item = more;
			room *= 4;
		}
		operand(parser, opcode, &to->item[to->items++]);
		if (!ptx_accept(parser, ","))
			break;
	}
	ptx_expect(parser, close);
	parser->depth--;
}

static int component_of(const ptx_parser_t *parser)
{
	static const char xyzw[] = "xyzw", rgba[] = "rgba";
	const char *at;

	if (parser->token.kind != PTX_TOKEN_DOT || parser->token.length != 2)
		return -1;
	at = strchr(xyzw, parser->token.text[1]);
	if (at)
		return (int)(at - xyzw);
	at = strchr(rgba, parser->token.text[1]);
	return at ? (int)(at - rgba) : -1;
}

static void register_operand(ptx_parser_t *parser, const ptx_name_t *name, ptx_operand_t *to)
{
	int component = component_of(parser);
	ptx_register_t **all = parser->function->registers + name->reg->index;

	to->kind = PTX_OPERAND_REGISTER;
	to->reg = name->reg;
	to->name = name->text;
	if (name->kind == PTX_NAME_REGISTER)
		return;
	if (component >= (int)name->count)
		ptx_bad(parser, "\"%.60s\" has %u components", name->text, name->count);
	if (component >= 0) {
		to->reg = all[component];
		ptx_next(parser);
		return;
	}
	to->kind = PTX_OPERAND_VECTOR;
	to->items = name->count;
	to->item = ptx_take(parser, name->count * sizeof(*to->item));
	for (unsigned int i = 0; i < name->count; i++) {
		to->item[i].kind = PTX_OPERAND_REGISTER;
		to->item[i].reg = all[i];
		to->item[i].name = name->text;
	}
}

/* %tid.x, %clock, %tid: a vector of four.  The token is behind the name. */
static void special(ptx_parser_t *parser, const char *text, ptx_operand_t *to)
{
	static const char *const vectors[] = { "tid", "ntid", "ctaid", "nctaid", "clusterid",
					       "nclusterid", "cluster_ctaid", "cluster_nctaid" };
	int component = component_of(parser);
	size_t length = strlen(text);

	to->kind = PTX_OPERAND_SPECIAL;
	to->name = text;
	if (ptx_special_exists(text))
		return;
	for (size_t i = 0; i < sizeof(vectors) / sizeof(*vectors); i++) {
		char *name;

		if (strcmp(vectors[i], text) != 0)
			continue;
		if (component < 0) {
			to->kind = PTX_OPERAND_VECTOR;
			to->items = 4;
			to->item = ptx_take(parser, 4 * sizeof(*to->item));
		} else {
			ptx_next(parser);
		}
		for (int part = component < 0 ? 0 : component; part <= (component < 0 ? 3 : component);
		     part++) {
			name = ptx_take(parser, length + 3);
			memcpy(name, text, length);
			name[length] = '.';
			name[length + 1] = "xyzw"[part];
			if (component < 0) {
				to->item[part].kind = PTX_OPERAND_SPECIAL;
				to->item[part].name = name;
			} else {
				to->name = name;
			}
		}
		return;
	}
	ptx_give_up(parser, PTX_BAD_SYNTAX, "PTX line %u: unknown name \"%%%.100s\"",
		    parser->token.line, text);
}

static int64_t offset_here(ptx_parser_t *parser)
{
	int64_t sum = 0;

	while (ptx_is(parser, "+") || ptx_is(parser, "-"))
		sum = (int64_t)((uint64_t)sum + ptx_parse_integer(parser));
	return sum;
}

static void symbol(const ptx_name_t *name, ptx_operand_t *to)
{
	to->kind = PTX_OPERAND_SYMBOL;
	to->name = name->text;
	if (name->kind == PTX_NAME_FUNCTION)
		to->function = name->function;
	else
		to->variable = name->variable;
}

/* a[3], a[%r1]: an element of an array, by its number.  The token is behind "[". */
static void element(ptx_parser_t *parser, const char *opcode, ptx_operand_t *to)
{
	ptx_operand_t *base = ptx_take(parser, sizeof(*base));
	const ptx_name_t *index = NULL;
	unsigned int bytes;

	if (!to->variable)
		ptx_bad(parser, "\"%.60s\" is no array", to->name);
	bytes = ptx_type_bytes(to->variable->type);
	if (parser->token.kind == PTX_TOKEN_NAME && !ptx_is(parser, "WARP_SZ")) {
		index = ptx_name_of_register(parser, ptx_take_name(parser));
		if (!index || index->kind != PTX_NAME_REGISTER)
			ptx_bad(parser, "a register or a number expected");
	} else {
		to->offset += (int64_t)(ptx_parse_integer(parser) * bytes);
	}
	ptx_expect(parser, "]");
	if (!index && (strcmp(opcode, "mov") == 0 || strcmp(opcode, "cvta") == 0))
		return;
	*base = *to;
	base->offset = 0;
	*to = (ptx_operand_t){ .kind = PTX_OPERAND_ADDRESS, .item = base, .items = 1,
			       .offset = to->offset };
	if (index) {
		to->reg = index->reg;
		to->bits = bytes;
	}
}

static void named(ptx_parser_t *parser, const char *opcode, ptx_operand_t *to)
{
	const char *text = ptx_take_name(parser);
	ptx_name_t *name = ptx_name_of_register(parser, text);

	if (name) {
		register_operand(parser, name, to);
		return;
	}
	if (strcmp(text, "_") == 0) {
		to->kind = PTX_OPERAND_SINK;
		return;
	}
	name = ptx_name_find(parser, text);
	if (name && (name->kind == PTX_NAME_VARIABLE || name->kind == PTX_NAME_FUNCTION)) {
		symbol(name, to);
		to->offset = offset_here(parser);
		if (ptx_accept(parser, "["))
			element(parser, opcode, to);
		return;
	}
	if (*text == '%') {
		special(parser, text + 1, to);
		return;
	}
	to->kind = PTX_OPERAND_LABEL;
	to->name = text;
	if (name && name->scope == parser->scope && name->kind == PTX_NAME_LABEL)
		to->name = name->text;
	else if (name && name->scope == parser->scope && name->kind == PTX_NAME_TABLE)
		to->table = name->table;
	else
		ptx_label_wanted(parser, to);
}

/* The token is behind "[". */
static void address(ptx_parser_t *parser, ptx_operand_t *to)
{
	ptx_operand_t *base;

	to->kind = PTX_OPERAND_ADDRESS;
	to->item = ptx_take(parser, 2 * sizeof(*to->item));
	to->items = 1;
	base = &to->item[0];
	if (parser->token.kind == PTX_TOKEN_NAME && !ptx_is(parser, "WARP_SZ")) {
		const char *text = ptx_take_name(parser);
		ptx_name_t *name = ptx_name_of_register(parser, text);

		if (name) {
			register_operand(parser, name, base);
		} else {
			name = ptx_name_find(parser, text);
			if (!name || name->kind == PTX_NAME_LABEL || name->kind == PTX_NAME_TABLE)
				ptx_give_up(parser, PTX_BAD_SYNTAX,
					    "PTX line %u: unknown name \"%.100s\"",
					    parser->token.line, text);
			symbol(name, base);
		}
		to->offset = offset_here(parser);
	} else {
		ptx_constant_t constant = ptx_parse_constant(parser);

		if (constant.real)
			ptx_bad(parser, "an address is no real number");
		base->kind = PTX_OPERAND_IMMEDIATE;
		base->bits = constant.bits;
	}
	if (ptx_accept(parser, ",")) { /* coordinates of a texture or tensor */
		to->items = 2;
		to->item[1].kind = PTX_OPERAND_LIST;
		items(parser, "", &to->item[1], "]");
		return;
	}
	ptx_expect(parser, "]");
}

static void single(ptx_parser_t *parser, const char *opcode, ptx_operand_t *to)
{
	ptx_token_t next;

	if (parser->token.kind == PTX_TOKEN_NAME && !ptx_is(parser, "WARP_SZ")) {
		named(parser, opcode, to);
		return;
	}
	if (ptx_accept(parser, "[")) {
		address(parser, to);
		return;
	}
	if (ptx_accept(parser, "{")) {
		to->kind = PTX_OPERAND_VECTOR;
		items(parser, opcode, to, "}");
		return;
	}
	if (ptx_is(parser, "(") && strcmp(opcode, "call") == 0) {
		ptx_next(parser);
		to->kind = PTX_OPERAND_LIST;
		items(parser, opcode, to, ")");
		return;
	}
	if (ptx_is(parser, "!") || ptx_is(parser, "-")) {
		next = ptx_peek(parser);
		if (next.kind == PTX_TOKEN_NAME) {
			ptx_next(parser);
			named(parser, opcode, to);
			if (to->kind != PTX_OPERAND_REGISTER && to->kind != PTX_OPERAND_SPECIAL)
				ptx_bad(parser, "a register expected");
			to->negated = true;
			return;
		}
	}
	if (ptx_at_constant(parser)) {
		ptx_constant_t constant = ptx_parse_constant(parser);

		to->kind = PTX_OPERAND_IMMEDIATE;
		to->bits = constant.bits;
		to->real = constant.real;
		to->single = constant.single;
		return;
	}
	ptx_bad(parser, "an operand expected");
}

static void operand(ptx_parser_t *parser, const char *opcode, ptx_operand_t *to)
{
	single(parser, opcode, to);
	if (ptx_accept(parser, "|")) {
		ptx_operand_t *both = ptx_take(parser, 2 * sizeof(*both));

		if (to->kind == PTX_OPERAND_LABEL)
			ptx_bad(parser, "a label cannot stand here");
		both[0] = *to;
		single(parser, opcode, &both[1]);
		memset(to, 0, sizeof(*to));
		to->kind = PTX_OPERAND_PAIR;
		to->item = both;
		to->items = 2;
	}
}

void ptx_parse_operand(ptx_parser_t *parser, const char *opcode, ptx_operand_t *to)
{
	parser->depth = 0;
	operand(parser, opcode, to);
}
