/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Names in scope: of the module, of the function, of the braces within it.
 *
 * One hash table holds them all; of several with the same text the innermost counts.
 * The registers of a range (%r<100>) are made when they are first used, so that a
 * range costs nothing however large it says it is.
 */
#include <stdlib.h>
#include <string.h>

#include "parse.h"

static unsigned int hash(const char *text)
{
	unsigned int value = 2166136261u;

	while (*text)
		value = (value ^ (unsigned char)*text++) * 16777619u;
	return value ^ value >> 15;
}

ptx_name_t *ptx_name_find(const ptx_parser_t *parser, const char *text)
{
	ptx_name_t *best = NULL;

	if (!parser->bucket_count)
		return NULL;
	for (ptx_name_t *name = parser->buckets[hash(text) & (parser->bucket_count - 1)]; name;
	     name = name->chain)
		if ((!best || name->scope > best->scope) && strcmp(name->text, text) == 0)
			best = name;
	return best;
}

static void grow(ptx_parser_t *parser)
{
	unsigned int count = parser->bucket_count ? parser->bucket_count * 4 : 256;
	ptx_name_t **buckets = calloc(count, sizeof(*buckets));

	if (!buckets)
		ptx_give_up(parser, PTX_NO_MEMORY, "no memory for the PTX");
	for (unsigned int i = 0; i < parser->bucket_count; i++)
		while (parser->buckets[i]) {
			ptx_name_t *name = parser->buckets[i];
			ptx_name_t **to = &buckets[hash(name->text) & (count - 1)];

			parser->buckets[i] = name->chain;
			name->chain = *to;
			*to = name;
		}
	free(parser->buckets);
	parser->buckets = buckets;
	parser->bucket_count = count;
}

static ptx_name_t *add_in(ptx_parser_t *parser, unsigned int scope, const char *text,
			  ptx_name_kind_t kind)
{
	ptx_name_t *name = ptx_take(parser, sizeof(*name)), **bucket;

	if (parser->name_count >= parser->bucket_count)
		grow(parser);
	bucket = &parser->buckets[hash(text) & (parser->bucket_count - 1)];
	name->text = text;
	name->kind = kind;
	name->scope = scope;
	name->chain = *bucket;
	*bucket = name;
	name->below = parser->names[scope];
	parser->names[scope] = name;
	parser->name_count++;
	return name;
}

ptx_name_t *ptx_name_add(ptx_parser_t *parser, const char *text, ptx_name_kind_t kind)
{
	const ptx_name_t *old = ptx_name_find(parser, text);

	if (old && old->scope == parser->scope)
		ptx_bad(parser, "\"%.60s\" is declared twice", text);
	return add_in(parser, parser->scope, text, kind);
}

void ptx_scope_open(ptx_parser_t *parser)
{
	if (parser->scope == PTX_SCOPES)
		ptx_bad(parser, "braces are nested too deep");
	parser->scope++;
	parser->names[parser->scope] = NULL;
	parser->pending[parser->scope] = NULL;
}

static void resolve(ptx_parser_t *parser, ptx_pending_t *pending)
{
	unsigned int scope = parser->scope;

	while (pending) {
		ptx_pending_t *next = pending->next;
		ptx_operand_t *operand = pending->operand;
		const ptx_name_t *name = ptx_name_find(parser, operand->name);

		if (name && name->kind == PTX_NAME_LABEL && name->scope == scope) {
			operand->name = name->text;
		} else if (name && name->kind == PTX_NAME_TABLE && name->scope == scope) {
			operand->table = name->table;
		} else if (scope > 1) {
			pending->next = parser->pending[scope - 1];
			parser->pending[scope - 1] = pending;
		} else {
			ptx_give_up(parser, PTX_BAD_SYNTAX, "PTX line %u: unknown name \"%.100s\"",
				    pending->line, operand->name);
		}
		pending = next;
	}
}

void ptx_scope_close(ptx_parser_t *parser)
{
	ptx_name_t *name = parser->names[parser->scope];

	resolve(parser, parser->pending[parser->scope]);
	for (; name; name = name->below) {
		ptx_name_t **at = &parser->buckets[hash(name->text) & (parser->bucket_count - 1)];

		while (*at != name)
			at = &(*at)->chain;
		*at = name->chain;
		parser->name_count--;
	}
	parser->scope--;
}

ptx_register_t *ptx_register_new(ptx_parser_t *parser, const char *name, ptx_type_t type)
{
	ptx_function_t *function = parser->function;
	ptx_register_t *made = ptx_take(parser, sizeof(*made));

	if (function->register_count == parser->register_room) {
		unsigned int room = parser->register_room ? parser->register_room * 2 : 64;
		ptx_register_t **more = ptx_take(parser, room * sizeof(ptx_register_t *));

		if (function->register_count)
			memcpy(more, function->registers,
			       function->register_count * sizeof(ptx_register_t *));
		function->registers = more;
		parser->register_room = room;
	}
	made->name = name;
	made->type = type;
	made->index = function->register_count;
	function->registers[function->register_count++] = made;
	return made;
}

/* The innermost range that the name is one of: its end is a number, written plainly. */
static ptx_name_t *range_of(const ptx_parser_t *parser, const char *text, size_t length)
{
	size_t at = length;
	ptx_name_t *best = NULL;
	char key[256];

	while (at > 1 && length - at < 9 && text[at - 1] >= '0' && text[at - 1] <= '9') {
		unsigned long number = strtoul(text + --at, NULL, 10);
		ptx_name_t *name;

		if (text[at] == '0' && at + 1 < length)
			continue;
		memcpy(key, text, at);
		memcpy(key + at, "<", 2);
		name = ptx_name_find(parser, key);
		if (name && number < name->count && (!best || name->scope > best->scope))
			best = name;
	}
	return best;
}

ptx_name_t *ptx_name_of_register(ptx_parser_t *parser, const char *text)
{
	ptx_name_t *exact = ptx_name_find(parser, text), *range;
	size_t length = strlen(text);

	/* No range has a name this long; and none can be inside an exact name's scope. */
	if (length >= 250 || (exact && exact->scope == parser->scope))
		range = NULL;
	else
		range = range_of(parser, text, length);
	if (range && (!exact || range->scope > exact->scope)) {
		exact = add_in(parser, range->scope, text, PTX_NAME_REGISTER);
		exact->reg = ptx_register_new(parser, text, range->type);
	}
	return exact && (exact->kind == PTX_NAME_REGISTER || exact->kind == PTX_NAME_VECTOR)
		       ? exact
		       : NULL;
}

void ptx_label_wanted(ptx_parser_t *parser, ptx_operand_t *operand)
{
	ptx_pending_t *pending = ptx_take(parser, sizeof(*pending));

	pending->operand = operand;
	pending->line = parser->token.line;
	pending->next = parser->pending[parser->scope];
	parser->pending[parser->scope] = pending;
}
