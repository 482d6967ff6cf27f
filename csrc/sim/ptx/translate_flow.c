/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Control flow as C (PTX ISA 9.7.12): bra, brx.idx, call, ret, exit.
 *
 * A function returns true when the thread has ended inside of it; its caller then
 * returns at once, too.  Arguments and results are byte arrays of the caller's.
 */
#include <string.h>

#include "translate.h"

bool ptx_is_flow(const ptx_instruction_t *instruction)
{
	static const char *const all[] = { "bra", "brx", "call", "ret", "exit" };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (strcmp(all[i], instruction->opcode) == 0)
			return true;
	return false;
}

/* Leaves the function; `ended`: the thread too. */
static void leave(ptx_emit_t *emit, bool ended)
{
	const ptx_function_t *function = emit->function;
	unsigned int number = 0, reg = 0;

	if (function->entry) {
		ptx_out(emit, emit->steps ? "return EMUV_STEP_DONE;\n" : "return;\n");
		return;
	}
	/* The registers of results and parameters are a function's first. */
	for (const ptx_variable_t *one = function->results; one && !ended; one = one->next, number++)
		if (one->space == PTX_SPACE_NONE && strcmp(one->name, "_") != 0)
			ptx_out(emit, "__builtin_memcpy(p%u, &r%u, %zu);\n", number, reg++, one->bytes);
	ptx_out(emit, "thread->local_next = saved;\nreturn %s;\n", ended ? "true" : "false");
}

void ptx_return(ptx_emit_t *emit)
{
	leave(emit, false);
	ptx_out(emit, "}\n");
}

/* ---- branches ---- */

static void jump(ptx_emit_t *emit, const ptx_operand_t *target, unsigned int at)
{
	const struct ptx_label *label =
		target->kind == PTX_OPERAND_LABEL && !target->table
			? ptx_flow_label(emit->flow, target->name)
			: NULL;

	if (!label) {
		ptx_refuse(emit, "a label expected");
		return;
	}
	/* A way back is a loop, which can be stopped, and in which others may come along. */
	if (emit->yields && emit->yields[at] & PTX_YIELD_TAKEN)
		ptx_out(emit, "emuv_launch->engine->yield(thread);\n");
	else if (label->at <= at)
		ptx_out(emit, "if (__builtin_expect(*emuv_launch->stop, 0)) "
			      "emuv_launch->engine->yield(thread);\n");
	ptx_out(emit, "goto L%u;\n", label->number);
}

static void branch_indexed(ptx_emit_t *emit, const ptx_instruction_t *instruction, unsigned int at)
{
	const ptx_table_t *table = instruction->operands == 2 ? instruction->operand[1].table : NULL;

	if (!table || table->prototype) {
		ptx_refuse(emit, "brx.idx wants an index and a list of labels");
		return;
	}
	ptx_out(emit, "switch (%s) {\n", ptx_read(emit, &instruction->operand[0], PTX_U32));
	for (unsigned int i = 0; i < table->targets; i++) {
		ptx_out(emit, "case %uu: ", i);
		jump(emit, &table->target[i], at);
	}
	ptx_out(emit, "default: emuv_launch->engine->trap(thread, EMUV_TRAP_INSTRUCTION, 0);\n}\n");
}

/* ---- calls ---- */

static unsigned int length(const ptx_variable_t *list)
{
	unsigned int count = 0;

	for (; list; list = list->next)
		count++;
	return count;
}

/*
 * The argument as the C name of a byte array: a .param variable is one; a register or a
 * number is put into one.  NULL: it does not fit the formal.
 */
static const char *argument(ptx_emit_t *emit, const ptx_operand_t *actual,
			    const ptx_variable_t *formal, bool result, size_t *bytes)
{
	const ptx_variable_t *variable = actual->variable;
	const char *name;

	if (actual->kind == PTX_OPERAND_SYMBOL && variable && variable->space == PTX_SPACE_PARAM &&
	    !actual->offset && !emit->placed[variable->number]) {
		ptx_operand_t address = { .kind = PTX_OPERAND_ADDRESS, .item = (ptx_operand_t *)actual,
					  .items = 1 };
		bool pointer;

		*bytes = variable->bytes;
		if (variable->bytes < formal->bytes || variable->open != (formal->open && variable->open))
			return NULL;
		return ptx_address(emit, &address, PTX_SPACE_PARAM, &pointer);
	}
	if (formal->bytes > 16 || formal->open || formal->bytes != ptx_type_bytes(formal->type))
		return NULL;
	*bytes = formal->bytes;
	name = ptx_temporary(emit);
	ptx_out(emit, "uint8_t %s[%zu] __attribute__((aligned(16)));\n", name,
		formal->bytes + PTX_SLACK_BYTES);
	if (!result)
		ptx_out(emit, "{ %s x = %s; __builtin_memcpy(%s, &x, sizeof(x)); }\n",
			ptx_type_c(formal->type), ptx_read(emit, actual, formal->type), name);
	return name;
}

/* What follows the call for a result that goes to a register. */
static void fetch_result(ptx_emit_t *emit, const ptx_operand_t *actual,
			 const ptx_variable_t *formal, const char *name)
{
	if (actual->kind != PTX_OPERAND_REGISTER)
		return;
	ptx_out(emit, "{ %s x; __builtin_memcpy(&x, %s, sizeof(x));\n", ptx_type_c(formal->type), name);
	ptx_write(emit, actual, formal->type, "x");
	ptx_out(emit, "}\n");
}

#define MOST_ARGUMENTS 128

static void call_one(ptx_emit_t *emit, const ptx_function_t *function, const char *const *name,
		     const size_t *bytes, unsigned int count)
{
	unsigned int at = 0;

	ptx_out(emit, "if (f%u(thread", function->index);
	for (const ptx_variable_t *one = function->results; one && at < count; one = one->next)
		ptx_out(emit, ", %s", name[at++]);
	for (const ptx_variable_t *one = function->parameters; one && at < count; one = one->next) {
		ptx_out(emit, ", %s", name[at]);
		if (one->open)
			ptx_out(emit, ", %zu", bytes[at]);
		at++;
	}
	ptx_out(emit, ")) {\n");
	leave(emit, true);
	ptx_out(emit, "}\n");
}

static void call(ptx_emit_t *emit, const ptx_instruction_t *instruction)
{
	static const ptx_operand_t none = { .kind = PTX_OPERAND_LIST };
	const ptx_operand_t *results, *arguments;
	const ptx_operand_t *target = ptx_call_target(instruction, &results, &arguments);
	const ptx_table_t *table = ptx_call_table(instruction);
	const ptx_variable_t *formal_results = NULL, *formals = NULL, *one;
	const ptx_function_t *function = target ? target->function : NULL;
	const char *name[MOST_ARGUMENTS];
	size_t bytes[MOST_ARGUMENTS];
	unsigned int count = 0;

	results = results ? results : &none;
	arguments = arguments ? arguments : &none;
	if (!function && table && table->targets)
		function = table->target[0].function;
	if (function) {
		formal_results = function->results;
		formals = function->parameters;
	} else if (table) {
		formal_results = table->results;
		formals = table->parameters;
	}
	if (!target || (!function && !table) || (function && function->entry) ||
	    (!target->function && target->kind != PTX_OPERAND_REGISTER)) {
		ptx_refuse(emit, "a function, or a register and its prototype, expected");
		return;
	}
	if (function && !formal_results) /* of another module, where it is declared otherwise */
		results = &none;
	if (results->items != length(formal_results) || arguments->items != length(formals) ||
	    results->items + arguments->items > MOST_ARGUMENTS) {
		ptx_refuse(emit, "not as many arguments as the function has");
		return;
	}
	one = formal_results;
	for (unsigned int i = 0; i < results->items; i++, one = one->next)
		name[count] = argument(emit, &results->item[i], one, true, &bytes[count]), count++;
	one = formals;
	for (unsigned int i = 0; i < arguments->items; i++, one = one->next)
		name[count] = argument(emit, &arguments->item[i], one, false, &bytes[count]), count++;
	for (unsigned int i = 0; i < count; i++)
		if (!name[i]) {
			ptx_refuse(emit, "an argument does not fit its parameter");
			return;
		}
	if (target->function) {
		call_one(emit, function, name, bytes, count);
	} else {
		const char *address = ptx_read(emit, target, PTX_U64);

		ptx_out(emit, "switch (%s) {\n", address);
		for (unsigned int i = 0; i < emit->module->function_count; i++) {
			if (!emit->reached[i].reached || !ptx_may_call(emit, instruction, emit->all[i]) ||
			    !ptx_signature_fits(emit->all[i], formal_results, formals))
				continue;
			ptx_out(emit, "case 0x%llxull:\n", (unsigned long long)PTX_FUNCTION_ADDRESS(i));
			call_one(emit, emit->all[i], name, bytes, count);
			ptx_out(emit, "break;\n");
		}
		ptx_out(emit, "default: emuv_launch->engine->trap(thread, EMUV_TRAP_FUNCTION, %s);\n}\n",
			address);
	}
	one = formal_results;
	for (unsigned int i = 0; i < results->items; i++, one = one->next)
		fetch_result(emit, &results->item[i], one, name[i]);
}

void ptx_flow_emit(ptx_emit_t *emit, const ptx_instruction_t *instruction, unsigned int at)
{
	const char *opcode = instruction->opcode;
	bool indexed = strcmp(opcode, "brx") == 0;

	for (unsigned int i = 0; i < instruction->modifiers; i++)
		if (strcmp(instruction->modifier[i], "uni") != 0 &&
		    !(indexed && i == 0 && strcmp(instruction->modifier[i], "idx") == 0)) {
			ptx_refuse(emit, "an unknown modifier");
			return;
		}
	if (strcmp(opcode, "call") == 0) {
		call(emit, instruction);
	} else if (indexed) {
		branch_indexed(emit, instruction, at);
	} else if (strcmp(opcode, "bra") == 0) {
		if (instruction->operands == 1)
			jump(emit, &instruction->operand[0], at);
		else
			ptx_refuse(emit, "a label expected");
	} else {
		if (instruction->operands)
			ptx_refuse(emit, "no operand expected");
		leave(emit, strcmp(opcode, "exit") == 0);
	}
}

/* ---- functions ---- */

void ptx_signature(ptx_emit_t *emit, const ptx_function_t *function)
{
	unsigned int number = 0;

	ptx_out(emit, "static bool f%u(emuv_thread_t *const thread", function->index);
	for (const ptx_variable_t *one = function->results; one; one = one->next)
		ptx_out(emit, ", uint8_t *const p%u", number++);
	for (const ptx_variable_t *one = function->parameters; one; one = one->next) {
		ptx_out(emit, ", uint8_t *const p%u", number);
		if (one->open)
			ptx_out(emit, ", const size_t n%u", number);
		number++;
	}
	ptx_out(emit, ")");
}

static bool shape_is(const ptx_function_t *function, const char *shape)
{
	/* "4:88": results, then parameters, each by its bytes */
	const ptx_variable_t *one = function->results;

	if (!shape) /* one that has no rule here */
		return false;
	for (; *shape != ':'; shape++, one = one->next)
		if (!one || one->bytes != (size_t)(*shape - '0'))
			return false;
	if (one)
		return false;
	one = function->parameters;
	for (shape++; *shape; shape++, one = one->next)
		if (!one || one->bytes != (size_t)(*shape - '0'))
			return false;
	return !one;
}

/* What the engine provides, under a declaration that must be the one CUDA's headers have. */
void ptx_builtin_emit(ptx_emit_t *emit, const ptx_function_t *function)
{
	static const struct {
		const char *shape, *text;
	} all[] = {
		[PTX_PRINT] = { "4:88", "int32_t x = thread->launch->engine->print(thread, "
					"*(const uint64_t *)p1, *(const uint64_t *)p2);\n"
					"__builtin_memcpy(p0, &x, 4);\n" },
		[PTX_ASSERT] = { ":88488", "thread->launch->engine->assert_fail(thread, "
					   "*(const uint64_t *)p0, *(const uint64_t *)p1, "
					   "*(const uint32_t *)p2, *(const uint64_t *)p3);\n" },
		[PTX_MALLOC] = { "8:8", "uint64_t x = thread->launch->engine->allocate(thread, "
					"*(const uint64_t *)p1);\n__builtin_memcpy(p0, &x, 8);\n" },
		[PTX_FREE] = { ":8", "thread->launch->engine->release(thread, "
				     "*(const uint64_t *)p0);\n" },
		/* A handle that is not 0: the one grid that there is. */
		[PTX_GRID_HANDLE] = { "8:4", "uint64_t x = 1;\n__builtin_memcpy(p0, &x, 8);\n" },
		[PTX_GRID_SYNC] = { "4:84", "uint32_t x = 0;\n"
					    "thread->launch->engine->grid_sync(thread);\n"
					    "__builtin_memcpy(p0, &x, 4);\n" },
	};
	ptx_builtin_t builtin = ptx_builtin(function->name);

	if (builtin == PTX_OWN || !shape_is(function, all[builtin].shape)) {
		ptx_failed(emit, PTX_UNSUPPORTED,
			   "the extern function \"%.100s\" is not provided with this signature",
			   function->name);
		return;
	}
	ptx_signature(emit, function);
	ptx_out(emit, "\n{\n%sreturn false;\n}\n", all[builtin].text);
}
