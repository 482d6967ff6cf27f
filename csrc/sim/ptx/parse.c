/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * PTX text to a module: the directives of module scope, functions' heads.
 *
 * An extern and its definition, a prototype and its function are one object; a name
 * that is declared and never defined stays PTX_LINK_EXTERN (or `defined` false), for
 * ptx_link to look for.
 */
#include <stdlib.h>
#include <string.h>

#include "parse.h"

static void version(ptx_parser_t *parser)
{
	char *end;
	double number = strtod(parser->token.text, &end);

	if (parser->token.kind != PTX_TOKEN_NUMBER ||
	    end != parser->token.text + parser->token.length || number < 1 || number > 99)
		ptx_bad(parser, ".version wants a number");
	parser->module->version = (int)(number * 10 + 0.5);
	if (parser->module->version > PTX_VERSION_MAX)
		ptx_give_up(parser, PTX_BAD_VERSION, "PTX line %u: .version %.*s, the newest known is %d.%d",
			    parser->token.line, (int)parser->token.length, parser->token.text,
			    PTX_VERSION_MAX / 10, PTX_VERSION_MAX % 10);
	ptx_next(parser);
}

static void target(ptx_parser_t *parser)
{
	do {
		const char *name = ptx_take_name(parser);

		if (strncmp(name, "sm_", 3) == 0)
			parser->module->target = (int)strtoul(name + 3, NULL, 10);
	} while (ptx_accept(parser, ","));
	if (parser->module->target <= 0)
		ptx_bad(parser, ".target wants sm_ and a number");
}

static unsigned int dimensions(ptx_parser_t *parser, unsigned int limit)
{
	uint64_t product = 1;
	int count = 0;

	do {
		uint64_t value = ptx_parse_integer(parser);

		product *= value < limit ? value : limit;
		product = product < limit ? product : limit;
	} while (++count < 3 && ptx_accept(parser, ","));
	return (unsigned int)product;
}

/* What stands between a function's parameters and its body: limits and promises. */
static void promises(ptx_parser_t *parser, ptx_function_t *function)
{
	static const char *const one_number[] = { ".maxnreg", ".maxnctapersm", ".maxclusterrank",
						  ".abi_preserve", ".abi_preserve_control" };
	static const char *const bare[] = { ".explicitcluster", ".blocksareclusters" };

	while (parser->token.kind == PTX_TOKEN_DOT) {
		bool known = false;

		if (ptx_accept(parser, ".maxntid")) {
			function->max_threads = dimensions(parser, 1024);
			continue;
		}
		if (ptx_accept(parser, ".reqntid")) {
			function->required_threads = dimensions(parser, 1024);
			continue;
		}
		if (ptx_accept(parser, ".minnctapersm")) {
			function->min_blocks = (unsigned int)ptx_parse_integer(parser);
			continue;
		}
		if (ptx_accept(parser, ".reqnctapercluster")) {
			function->cluster_blocks = dimensions(parser, 1024);
			continue;
		}
		if (ptx_accept(parser, ".noreturn")) {
			function->no_return = true;
			continue;
		}
		if (ptx_accept(parser, ".pragma")) {
			ptx_next(parser);
			ptx_expect(parser, ";");
			continue;
		}
		for (size_t i = 0; i < sizeof(one_number) / sizeof(*one_number) && !known; i++)
			if (ptx_accept(parser, one_number[i])) {
				ptx_parse_integer(parser);
				known = true;
			}
		for (size_t i = 0; i < sizeof(bare) / sizeof(*bare) && !known; i++)
			known = ptx_accept(parser, bare[i]);
		if (!known)
			ptx_bad(parser, "an unknown directive");
	}
}

static ptx_function_t *function_of(ptx_parser_t *parser, const char *text, bool entry)
{
	ptx_name_t *name = ptx_name_find(parser, text);
	ptx_function_t *function;

	if (name && name->kind == PTX_NAME_FUNCTION) {
		if (name->function->entry != entry)
			ptx_bad(parser, "\"%.60s\" is declared twice", text);
		return name->function;
	}
	name = ptx_name_add(parser, text, PTX_NAME_FUNCTION);
	name->function = function = ptx_take(parser, sizeof(*function));
	function->name = text;
	function->entry = entry;
	function->line = parser->token.line;
	function->index = parser->module->function_count++;
	*parser->function_end = function;
	parser->function_end = &function->next;
	return function;
}

static size_t total_bytes(const ptx_variable_t *variable)
{
	size_t bytes = 0;

	for (; variable; variable = variable->next)
		bytes += variable->bytes;
	return bytes;
}

/* The token is .entry or .func. */
static void function(ptx_parser_t *parser, ptx_linkage_t linkage)
{
	bool entry = ptx_is(parser, ".entry");
	ptx_variable_t *results = NULL, *parameters = NULL;
	ptx_function_t *made, promised = { 0 };

	ptx_next(parser);
	if (!entry) {
		promises(parser, &promised);
		if (ptx_is(parser, "("))
			results = ptx_parse_parameters(parser, false);
	}
	made = function_of(parser, ptx_take_name(parser), entry);
	if (ptx_is(parser, "("))
		parameters = ptx_parse_parameters(parser, entry);
	promises(parser, made);
	made->no_return |= promised.no_return;
	/* A definition says what it is; what declared it before may have said more. */
	if (linkage != PTX_LINK_NONE && (!made->defined || linkage != PTX_LINK_EXTERN))
		made->linkage = linkage;
	if (ptx_is(parser, "{")) {
		if (made->defined)
			ptx_bad(parser, "\"%.60s\" is defined twice", made->name);
		made->defined = true;
		made->results = results;
		made->parameters = parameters;
		made->line = parser->token.line;
		ptx_parse_body(parser, made);
		return;
	}
	if (!made->defined) {
		made->results = results;
		made->parameters = parameters;
	} else if (total_bytes(made->parameters) != total_bytes(parameters)) {
		ptx_bad(parser, "\"%.60s\" is declared with other parameters", made->name);
	}
	ptx_expect(parser, ";");
}

/* .file 1 "name.cu" [, time, size] */
static void file(ptx_parser_t *parser)
{
	ptx_parse_integer(parser);
	if (parser->token.kind != PTX_TOKEN_STRING)
		ptx_bad(parser, "a file's name expected");
	ptx_next(parser);
	while (ptx_accept(parser, ","))
		ptx_parse_integer(parser);
}

static void alias(ptx_parser_t *parser)
{
	const char *text = ptx_take_name(parser);
	ptx_name_t *name = ptx_name_find(parser, text), *of;
	const char *other;

	ptx_expect(parser, ",");
	other = ptx_take_name(parser);
	of = ptx_name_find(parser, other);
	if (!name || name->kind != PTX_NAME_FUNCTION || name->function->defined || !of ||
	    of->kind != PTX_NAME_FUNCTION || name == of)
		ptx_bad(parser, "an alias is a declared function's, of a function");
	name->function->alias = of->function;
	ptx_expect(parser, ";");
}

static ptx_linkage_t linkage_here(ptx_parser_t *parser)
{
	static const struct {
		const char *name;
		ptx_linkage_t linkage;
	} all[] = { { ".extern", PTX_LINK_EXTERN }, { ".visible", PTX_LINK_VISIBLE },
		    { ".weak", PTX_LINK_WEAK },	    { ".common", PTX_LINK_COMMON } };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (ptx_accept(parser, all[i].name))
			return all[i].linkage;
	return PTX_LINK_NONE;
}

static void directive(ptx_parser_t *parser)
{
	ptx_linkage_t linkage;

	if (ptx_accept(parser, ".version")) {
		version(parser);
	} else if (ptx_accept(parser, ".target")) {
		target(parser);
	} else if (ptx_accept(parser, ".address_size")) {
		uint64_t bits = ptx_parse_integer(parser);

		if (bits != 64 && bits != 32)
			ptx_bad(parser, ".address_size is 64");
		if (bits == 32)
			ptx_give_up(parser, PTX_UNSUPPORTED,
				    "PTX of 32-bit addresses runs on no current GPU");
		parser->module->address_bits = 64;
	} else if (ptx_accept(parser, ".file")) {
		file(parser);
	} else if (ptx_accept(parser, ".pragma")) {
		while (parser->token.kind == PTX_TOKEN_STRING || ptx_is(parser, ","))
			ptx_next(parser);
		ptx_expect(parser, ";");
	} else if (ptx_accept(parser, ".section")) {
		/* Debug information: any size, and nothing here reads it. */
		while (parser->token.kind == PTX_TOKEN_DOT || parser->token.kind == PTX_TOKEN_NAME)
			ptx_next(parser);
		if (!ptx_is(parser, "{"))
			ptx_bad(parser, "{ expected");
		ptx_skip_group(parser);
	} else if (ptx_accept(parser, ".alias")) {
		alias(parser);
	} else {
		linkage = linkage_here(parser);
		if (ptx_is(parser, ".entry") || ptx_is(parser, ".func"))
			function(parser, linkage);
		else if (parser->token.kind == PTX_TOKEN_DOT)
			ptx_parse_variables(parser, linkage);
		else
			ptx_bad(parser, "a directive expected");
	}
}

static void parse(ptx_parser_t *parser)
{
	ptx_next(parser);
	if (!ptx_is(parser, ".version"))
		ptx_bad(parser, "the text does not begin with .version");
	while (parser->token.kind != PTX_TOKEN_END) {
		if (ptx_accept(parser, "@")) { /* @@DWARF: a line of debug information */
			ptx_expect(parser, "@");
			parser->at += strcspn(parser->at, "\n");
			ptx_next(parser);
		} else if (!ptx_accept(parser, ";")) {
			directive(parser);
		}
	}
	if (!parser->module->target)
		ptx_bad(parser, ".target is missing");
}

void ptx_module_drop(ptx_module_t *module)
{
	if (module)
		ptx_arena_drop(module->arena);
}

ptx_status_t ptx_parse(const char *text, ptx_module_t **module, char why[PTX_WHY_BYTES])
{
	ptx_arena_t *arena = ptx_arena_new();
	ptx_parser_t *parser = arena ? ptx_arena_take(arena, sizeof(*parser)) : NULL;
	ptx_status_t status = PTX_NO_MEMORY;

	why[0] = '\0';
	*module = NULL;
	if (parser)
		parser->module = ptx_arena_take(arena, sizeof(*parser->module));
	if (!parser || !parser->module) {
		ptx_arena_drop(arena);
		return status;
	}
	parser->arena = parser->module->arena = arena;
	parser->module->address_bits = 64;
	parser->at = text;
	parser->line = 1;
	parser->why = why;
	parser->module_variable_end = &parser->module->variables;
	parser->function_end = &parser->module->functions;
	if (setjmp(parser->failed) == 0)
		parse(parser);
	status = parser->status;
	free(parser->buckets);
	if (status == PTX_OK)
		*module = parser->module;
	else
		ptx_arena_drop(arena);
	return status;
}

ptx_function_t *ptx_function_named(const ptx_module_t *module, const char *name)
{
	for (ptx_function_t *function = module->functions; function; function = function->next)
		if (strcmp(function->name, name) == 0)
			return function;
	return NULL;
}

ptx_variable_t *ptx_variable_named(const ptx_module_t *module, const char *name)
{
	for (ptx_variable_t *variable = module->variables; variable; variable = variable->next)
		if (strcmp(variable->name, name) == 0)
			return variable;
	return NULL;
}
