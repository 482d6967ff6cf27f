/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Several modules to one: which declaration means which definition.
 *
 * - .extern finds a .visible, .weak or .common of the same name; of two .visible ones
 *   the second is an error; .visible beats .common beats .weak, the first of equals.
 * - What has no linkage is its module's own: two modules may use the same name.
 * - A name that nothing defines is an error where something uses it, unless the engine
 *   provides it (vprintf, __assertfail, malloc, free).
 *
 * What a declaration stands for is noted in its `means`; then every operand and
 * initial value is made to point there, and the declarations are left out.  The
 * modules' arenas live on in the first one's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "translate.h"

/* A name that modules share. */
typedef struct shared {
	struct shared *chain;
	const char *name;
	ptx_variable_t *variable;
	ptx_function_t *function;
} shared_t;

typedef struct {
	ptx_arena_t *arena;
	shared_t **buckets;
	unsigned int bucket_count;
	ptx_status_t status;
	char *why;
} linker_t;

static void fail(linker_t *linker, ptx_status_t status, const char *format, const char *name)
{
	if (linker->status != PTX_OK)
		return;
	linker->status = status;
	snprintf(linker->why, PTX_WHY_BYTES, format, name);
}

static shared_t *shared_named(linker_t *linker, const char *name, bool make)
{
	unsigned int hash = 2166136261u;
	shared_t **at, *made;

	for (const char *byte = name; *byte; byte++)
		hash = (hash ^ (unsigned char)*byte) * 16777619u;
	at = &linker->buckets[(hash ^ hash >> 15) & (linker->bucket_count - 1)];
	for (shared_t *one = *at; one; one = one->chain)
		if (strcmp(one->name, name) == 0)
			return one;
	if (!make)
		return NULL;
	made = ptx_arena_take(linker->arena, sizeof(*made));
	if (!made) {
		fail(linker, PTX_NO_MEMORY, "%s", "no memory to link PTX");
		return NULL;
	}
	made->name = name;
	made->chain = *at;
	*at = made;
	return made;
}

/* Of two definitions of a name: does the new one win? */
static bool wins(linker_t *linker, ptx_linkage_t old, ptx_linkage_t new, const char *name)
{
	static const int rank[] = { [PTX_LINK_EXTERN] = 0, [PTX_LINK_WEAK] = 1,
				    [PTX_LINK_COMMON] = 2, [PTX_LINK_VISIBLE] = 3,
				    [PTX_LINK_NONE] = 3 };

	if (rank[old] == 3 && rank[new] == 3)
		fail(linker, PTX_BAD_SYNTAX, "\"%.150s\" is defined in two of the inputs", name);
	return rank[new] > rank[old];
}

static void publish_variable(linker_t *linker, ptx_variable_t *variable)
{
	shared_t *shared;

	if (variable->linkage == PTX_LINK_NONE || variable->linkage == PTX_LINK_EXTERN)
		return;
	shared = shared_named(linker, variable->name, true);
	if (!shared)
		return;
	if (shared->function) {
		fail(linker, PTX_BAD_SYNTAX, "\"%.150s\" is a function and a variable",
		     variable->name);
		return;
	}
	if (shared->variable && variable->linkage == PTX_LINK_COMMON &&
	    shared->variable->linkage == PTX_LINK_COMMON) {
		/* The larger one's size. */
		if (variable->bytes > shared->variable->bytes)
			shared->variable = variable;
	} else if (!shared->variable ||
		   wins(linker, shared->variable->linkage, variable->linkage, variable->name)) {
		shared->variable = variable;
	}
}

static void publish_function(linker_t *linker, ptx_function_t *function)
{
	shared_t *shared;

	/* Kernels are the module's face, whatever their linkage. */
	if ((!function->defined && !function->alias) ||
	    (function->linkage == PTX_LINK_NONE && !function->entry))
		return;
	shared = shared_named(linker, function->name, true);
	if (!shared)
		return;
	if (shared->variable) {
		fail(linker, PTX_BAD_SYNTAX, "\"%.150s\" is a function and a variable",
		     function->name);
		return;
	}
	if (!shared->function ||
	    wins(linker, shared->function->linkage, function->linkage, function->name))
		shared->function = function;
}

/* What declarations, and definitions that lost, stand for: themselves, or what won. */
static void settle(linker_t *linker, ptx_module_t *module)
{
	for (ptx_variable_t *one = module->variables; one; one = one->next) {
		shared_t *shared = one->linkage == PTX_LINK_NONE
					   ? NULL
					   : shared_named(linker, one->name, false);

		one->means = shared && shared->variable ? shared->variable : one;
		if (one->means != one && one->means->space != one->space)
			fail(linker, PTX_BAD_SYNTAX, "\"%.150s\" is in two state spaces", one->name);
	}
	for (ptx_function_t *one = module->functions; one; one = one->next) {
		shared_t *shared = one->defined && one->linkage == PTX_LINK_NONE && !one->entry
					   ? NULL
					   : shared_named(linker, one->name, false);

		one->means = shared && shared->function ? shared->function : one;
		/* Other linkers let callers of a function without results believe in one. */
		if (one->means != one &&
		    (one->means->entry != one->entry ||
		     !ptx_signature_fits(one->means, one->means->results ? one->results : NULL,
					 one->parameters)))
			fail(linker, PTX_BAD_SYNTAX, "\"%.150s\" is declared with other parameters",
			     one->name);
	}
}

/* ---- references ---- */

static ptx_function_t *function_meant(linker_t *linker, ptx_function_t *function)
{
	/* An alias of an alias … goes no further than there are functions. */
	for (unsigned int i = 0; i < 64 && function->means != function; i++)
		function = function->means;
	for (unsigned int i = 0; i < 64 && function->alias; i++)
		function = function->alias->means;
	if (!function->defined && ptx_builtin(function->name) == PTX_OWN)
		fail(linker, PTX_UNRESOLVED, "unresolved extern function \"%.150s\"", function->name);
	return function;
}

static ptx_variable_t *variable_meant(linker_t *linker, ptx_variable_t *variable)
{
	if (!variable->means) /* a function's own */
		return variable;
	variable = variable->means;
	if (variable->linkage == PTX_LINK_EXTERN &&
	    (variable->space != PTX_SPACE_SHARED || !variable->open))
		fail(linker, PTX_UNRESOLVED, "unresolved extern variable \"%.150s\"", variable->name);
	return variable;
}

static void redirect(linker_t *linker, ptx_operand_t *operand)
{
	if (operand->kind == PTX_OPERAND_SYMBOL && operand->function)
		operand->function = function_meant(linker, operand->function);
	if (operand->kind == PTX_OPERAND_SYMBOL && operand->variable)
		operand->variable = variable_meant(linker, operand->variable);
	for (unsigned int i = 0; i < operand->items; i++)
		redirect(linker, &operand->item[i]);
}

static void redirect_function(linker_t *linker, ptx_function_t *function)
{
	for (ptx_instruction_t *one = function->body; one; one = one->next)
		for (unsigned int i = 0; i < one->operands; i++)
			redirect(linker, &one->operand[i]);
	for (ptx_table_t *one = function->tables; one; one = one->next)
		for (unsigned int i = 0; i < one->targets; i++)
			redirect(linker, &one->target[i]);
}

static void redirect_variable(linker_t *linker, ptx_variable_t *variable)
{
	for (ptx_relocation_t *one = variable->relocations; one; one = one->next) {
		if (one->variable)
			one->variable = variable_meant(linker, one->variable);
		if (one->function)
			one->function = function_meant(linker, one->function);
	}
}

/* ---- the result ---- */

static void number_list(ptx_module_t *module, ptx_variable_t *list)
{
	for (; list; list = list->next)
		list->number = module->number_count++;
}

/* Leaves out what stands for something else, and numbers the rest. */
static void finish(ptx_module_t **modules, unsigned int count)
{
	ptx_module_t *whole = modules[0];
	ptx_variable_t *variables = NULL, **variable_end = &variables;
	ptx_function_t *functions = NULL, **function_end = &functions;

	for (unsigned int i = 0; i < count; i++) {
		for (ptx_variable_t *one = modules[i]->variables; one; one = one->next)
			if (one->means == one && (one->linkage != PTX_LINK_EXTERN ||
						  one->space == PTX_SPACE_SHARED)) {
				*variable_end = one;
				variable_end = &one->next;
			}
		*variable_end = NULL;
		for (ptx_function_t *one = modules[i]->functions; one; one = one->next)
			if (one->means == one) {
				*function_end = one;
				function_end = &one->next;
			}
		*function_end = NULL;
		if (modules[i]->version > whole->version)
			whole->version = modules[i]->version;
		if (modules[i]->target > whole->target)
			whole->target = modules[i]->target;
		if (i)
			ptx_arena_join(whole->arena, modules[i]->arena);
	}
	whole->variables = variables;
	whole->functions = functions;
	whole->number_count = whole->variable_count = whole->function_count = 0;
	number_list(whole, variables);
	for (ptx_variable_t *one = variables; one; one = one->next)
		if (one->space == PTX_SPACE_GLOBAL || one->space == PTX_SPACE_CONST)
			one->index = whole->variable_count++;
	for (ptx_function_t *one = functions; one; one = one->next) {
		one->index = whole->function_count++;
		number_list(whole, one->results);
		number_list(whole, one->parameters);
		number_list(whole, one->variables);
	}
}

static void link_all(linker_t *linker, ptx_module_t **modules, unsigned int count)
{
	size_t names = 0;

	for (unsigned int i = 0; i < count; i++) {
		for (ptx_variable_t *one = modules[i]->variables; one; one = one->next)
			names++;
		names += modules[i]->function_count;
	}
	for (linker->bucket_count = 64; linker->bucket_count < names && linker->bucket_count < 1u << 24;)
		linker->bucket_count *= 2;
	linker->buckets = calloc(linker->bucket_count, sizeof(shared_t *));
	if (!linker->buckets) {
		fail(linker, PTX_NO_MEMORY, "%s", "no memory to link PTX");
		return;
	}
	for (unsigned int i = 0; i < count; i++) {
		for (ptx_variable_t *one = modules[i]->variables; one; one = one->next)
			publish_variable(linker, one);
		for (ptx_function_t *one = modules[i]->functions; one; one = one->next)
			publish_function(linker, one);
	}
	for (unsigned int i = 0; i < count; i++)
		settle(linker, modules[i]);
	for (unsigned int i = 0; i < count && linker->status == PTX_OK; i++) {
		for (ptx_variable_t *one = modules[i]->variables; one; one = one->next)
			redirect_variable(linker, one);
		for (ptx_function_t *one = modules[i]->functions; one; one = one->next)
			redirect_function(linker, one);
	}
	if (linker->status == PTX_OK)
		finish(modules, count);
}

ptx_status_t ptx_link(ptx_module_t **modules, unsigned int count, ptx_module_t **linked,
		      char why[PTX_WHY_BYTES])
{
	linker_t linker = { .why = why };

	why[0] = '\0';
	if (!count) {
		*linked = NULL;
		snprintf(why, PTX_WHY_BYTES, "nothing to link");
		return PTX_BAD_SYNTAX;
	}
	linker.arena = modules[0]->arena;
	link_all(&linker, modules, count);
	free(linker.buckets);
	if (linker.status == PTX_OK) {
		*linked = modules[0];
		return PTX_OK;
	}
	for (unsigned int i = 0; i < count; i++)
		ptx_module_drop(modules[i]);
	*linked = NULL;
	return linker.status;
}
