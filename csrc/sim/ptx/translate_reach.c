/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What an entry reaches: functions by calls, variables by use; and where variables lie.
 *
 * An indirect call reaches every function of the module whose address is taken, in
 * code or in an initial value, and whose signature fits the call's prototype.
 */
#include <stdlib.h>
#include <string.h>

#include "translate.h"

ptx_builtin_t ptx_builtin(const char *name)
{
	static const struct {
		const char *name;
		ptx_builtin_t builtin;
	} all[] = { { "vprintf", PTX_PRINT },
		    { "__assertfail", PTX_ASSERT },
		    { "malloc", PTX_MALLOC },
		    { "free", PTX_FREE },
		    /* of libcudadevrt: the grid group of cooperative groups */
		    { "cudaCGGetIntrinsicHandle", PTX_GRID_HANDLE },
		    { "cudaCGSynchronize", PTX_GRID_SYNC } };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (strcmp(all[i].name, name) == 0)
			return all[i].builtin;
	return PTX_OWN;
}

/* ---- calls ---- */

/* call [(results),] target [, (arguments)] [, table] */
const ptx_operand_t *ptx_call_target(const ptx_instruction_t *call, const ptx_operand_t **results,
				     const ptx_operand_t **arguments)
{
	unsigned int at = 0;

	*results = *arguments = NULL;
	if (at < call->operands && call->operand[at].kind == PTX_OPERAND_LIST)
		*results = &call->operand[at++];
	if (at >= call->operands)
		return NULL;
	if (at + 1 < call->operands && call->operand[at + 1].kind == PTX_OPERAND_LIST)
		*arguments = &call->operand[at + 1];
	return &call->operand[at];
}

const ptx_table_t *ptx_call_table(const ptx_instruction_t *call)
{
	const ptx_operand_t *last = call->operands ? &call->operand[call->operands - 1] : NULL;

	return last && last->kind == PTX_OPERAND_LABEL ? last->table : NULL;
}

static bool sizes_fit(const ptx_variable_t *a, const ptx_variable_t *b)
{
	for (; a && b; a = a->next, b = b->next)
		if (a->bytes != b->bytes && !(a->open && b->open))
			return false;
	return !a && !b;
}

bool ptx_signature_fits(const ptx_function_t *function, const ptx_variable_t *results,
			const ptx_variable_t *parameters)
{
	return sizes_fit(function->results, results) && sizes_fit(function->parameters, parameters);
}

bool ptx_may_call(const ptx_emit_t *emit, const ptx_instruction_t *call,
		  const ptx_function_t *function)
{
	const ptx_table_t *table = ptx_call_table(call);

	if (!table || function->entry)
		return false;
	if (table->prototype)
		return emit->reached[function->index].address_taken &&
		       ptx_signature_fits(function, table->results, table->parameters);
	for (unsigned int i = 0; i < table->targets; i++)
		if (table->target[i].function == function)
			return true;
	return false;
}

static bool indirect(const ptx_instruction_t *instruction)
{
	const ptx_operand_t *results, *arguments, *target;

	if (!instruction->opcode || strcmp(instruction->opcode, "call") != 0)
		return false;
	target = ptx_call_target(instruction, &results, &arguments);
	return target && target->kind == PTX_OPERAND_REGISTER;
}

/* ---- what refers to what ---- */

static void each_symbol(const ptx_operand_t *operand, bool address,
			void (*visit)(void *argument, const ptx_operand_t *symbol, bool address),
			void *argument)
{
	if (operand->kind == PTX_OPERAND_SYMBOL)
		visit(argument, operand, address);
	for (unsigned int i = 0; i < operand->items; i++)
		each_symbol(&operand->item[i], address && operand->kind != PTX_OPERAND_ADDRESS, visit,
			    argument);
}

typedef struct {
	ptx_emit_t *emit;
	const ptx_function_t *function;
	bool call;
} visit_t;

static void note_address(void *argument, const ptx_operand_t *symbol, bool address)
{
	visit_t *at = argument;

	(void)address;
	if (symbol->function)
		at->emit->reached[symbol->function->index].address_taken = true;
}

/* Over the whole module: the same for every entry of it. */
static void find_addresses(ptx_emit_t *emit)
{
	visit_t at = { .emit = emit };

	for (const ptx_function_t *function = emit->module->functions; function;
	     function = function->next)
		for (const ptx_instruction_t *one = function->body; one; one = one->next) {
			if (one->opcode && strcmp(one->opcode, "call") == 0)
				continue;
			for (unsigned int i = 0; i < one->operands; i++)
				each_symbol(&one->operand[i], true, note_address, &at);
		}
	for (const ptx_variable_t *variable = emit->module->variables; variable;
	     variable = variable->next)
		for (const ptx_relocation_t *one = variable->relocations; one; one = one->next)
			if (one->function)
				emit->reached[one->function->index].address_taken = true;
}

static uint64_t round_up(uint64_t value, uint64_t align)
{
	return align > 1 ? (value + align - 1) & ~(align - 1) : value;
}

static void place_shared(ptx_emit_t *emit, const ptx_variable_t *variable)
{
	if (emit->placed[variable->number] || variable->open)
		return;
	emit->placed[variable->number] = true;
	if (variable->bytes > (1u << 30) || emit->shared_bytes > (1u << 30)) {
		ptx_failed(emit, PTX_BAD_SYNTAX, "\"%.60s\" takes more shared memory than there is",
			   variable->name);
		return;
	}
	emit->place[variable->number] = round_up(emit->shared_bytes, variable->align);
	emit->shared_bytes = emit->place[variable->number] + variable->bytes;
}

static void place_in_frame(ptx_emit_t *emit, ptx_reached_t *reached, const ptx_variable_t *variable)
{
	if (emit->placed[variable->number])
		return;
	emit->placed[variable->number] = true;
	if (variable->open) /* as large as its caller says: a piece of its own */
		return;
	emit->place[variable->number] = round_up(reached->frame_bytes, variable->align);
	reached->frame_bytes = emit->place[variable->number] + variable->bytes;
	if (variable->align > reached->frame_align)
		reached->frame_align = variable->align;
	if (reached->frame_bytes > (1u << 30))
		ptx_failed(emit, PTX_BAD_SYNTAX, "\"%.60s\" takes more local memory than there is",
			   variable->name);
}

static bool is_formal(const ptx_function_t *function, const ptx_variable_t *variable)
{
	for (const ptx_variable_t *one = function->parameters; one; one = one->next)
		if (one == variable)
			return true;
	return false;
}

static void note_variable(void *argument, const ptx_operand_t *symbol, bool address)
{
	visit_t *at = argument;
	const ptx_variable_t *variable = symbol->variable;

	if (!variable)
		return;
	at->emit->uses_shared |= variable->space == PTX_SPACE_SHARED;
	if (variable->space == PTX_SPACE_SHARED)
		place_shared(at->emit, variable);
	/* A parameter whose address is taken is copied to local memory (5.1.6.2). */
	else if (variable->space == PTX_SPACE_PARAM && address && !at->call &&
		 !at->function->entry && is_formal(at->function, variable))
		place_in_frame(at->emit, &at->emit->reached[at->function->index], variable);
}

static void reach_function(ptx_emit_t *emit, ptx_reached_t *from, const ptx_function_t *function)
{
	ptx_reached_t *to = &emit->reached[function->index];

	if (from && to->called_from != from->function->index + 1) {
		to->called_from = from->function->index + 1;
		if (from->callees == from->callee_room) {
			unsigned int room = from->callee_room ? from->callee_room * 2 : 8;
			unsigned int *more = ptx_keep(emit, room * sizeof(*more));

			if (!more)
				return;
			if (from->callees)
				memcpy(more, from->callee, from->callees * sizeof(*more));
			from->callee = more;
			from->callee_room = room;
		}
		from->callee[from->callees++] = function->index;
	}
	if (to->reached)
		return;
	to->reached = true;
	emit->to_look_at[emit->to_look_at_count++] = function->index;
}

static void look_at(ptx_emit_t *emit, ptx_reached_t *reached)
{
	const ptx_function_t *function = reached->function;
	visit_t at = { emit, function, false };

	reached->frame_align = 16;
	if (!function->defined && ptx_builtin(function->name) == PTX_GRID_SYNC)
		reached->traits |= PTX_TRAIT_SYNC | PTX_TRAIT_GRID;
	for (const ptx_variable_t *variable = function->variables; variable;
	     variable = variable->next)
		if (variable->space == PTX_SPACE_LOCAL)
			place_in_frame(emit, reached, variable);
	if (function->entry)
		for (const ptx_variable_t *one = function->parameters; one; one = one->next)
			emit->placed[one->number] = true;
	for (const ptx_instruction_t *one = function->body; one; one = one->next) {
		const ptx_operand_t *results, *arguments, *target;

		if (!one->opcode)
			continue;
		reached->traits |= ptx_isa_traits(one);
		reached->copies_parameters |= strcmp(one->opcode, "cvta") == 0 && ptx_has(one, "param");
		reached->copies_parameters |= strcmp(one->opcode, "cvta") == 0 &&
					      ptx_has(one, "param::entry");
		reached->allocates |= strcmp(one->opcode, "alloca") == 0;
		at.call = strcmp(one->opcode, "call") == 0;
		for (unsigned int i = 0; i < one->operands; i++)
			each_symbol(&one->operand[i], true, note_variable, &at);
		if (!at.call)
			continue;
		target = ptx_call_target(one, &results, &arguments);
		if (indirect(one)) {
			emit->work += emit->module->function_count;
			for (const ptx_function_t *to = emit->module->functions; to; to = to->next)
				if (ptx_may_call(emit, one, to)) {
					reach_function(emit, reached, to);
					emit->targets++;
				}
			if (emit->work > PTX_MOST_WORK || emit->targets > PTX_MOST_TARGETS) {
				ptx_failed(emit, PTX_UNSUPPORTED,
					   "too many indirect calls of too many functions");
				return;
			}
		} else if (target && target->function) {
			reach_function(emit, reached, target->function);
		}
	}
	if (function->entry && reached->copies_parameters) {
		const ptx_variable_t *last = function->parameters;

		while (last && last->next)
			last = last->next;
		reached->frame_bytes = round_up(reached->frame_bytes, 64);
		reached->frame_bytes += last ? last->offset + last->bytes : 0;
	}
}

/* ---- how deep calls go ---- */

typedef struct {
	unsigned int function, next; /* the callee to look at next */
} step_t;

/* Bytes of the deepest chain of frames; recursion has no such number. */
static void measure(ptx_emit_t *emit)
{
	unsigned int count = emit->module->function_count, depth = 0;
	enum { NEW, OPEN, DONE } *state = ptx_keep(emit, count * sizeof(*state));
	size_t *bytes = ptx_keep(emit, count * sizeof(*bytes));
	step_t *stack = ptx_keep(emit, (count + 1) * sizeof(*stack));

	if (!state || !bytes || !stack)
		return;
	stack[depth++] = (step_t){ emit->entry->index, 0 };
	state[emit->entry->index] = OPEN;
	while (depth) {
		step_t *step = &stack[depth - 1];
		ptx_reached_t *reached = &emit->reached[step->function];

		if (step->next < reached->callees) {
			unsigned int callee = reached->callee[step->next++];

			if (state[callee] == OPEN)
				emit->recursive = true;
			if (state[callee] != NEW)
				continue;
			state[callee] = OPEN;
			stack[depth++] = (step_t){ callee, 0 };
			continue;
		}
		for (unsigned int i = 0; i < reached->callees; i++)
			if (bytes[reached->callee[i]] > bytes[step->function])
				bytes[step->function] = bytes[reached->callee[i]];
		if (reached->frame_bytes)
			bytes[step->function] +=
				round_up(reached->frame_bytes, 16) + reached->frame_align;
		state[step->function] = DONE;
		emit->order[emit->order_count++] = step->function;
		depth--;
		if (reached->allocates)
			emit->recursive = true; /* as good as: no bound is known */
	}
	/* 0 would say that there is no bound. */
	emit->local_bytes = emit->recursive ? 0 : bytes[emit->entry->index] + 16;
}

void ptx_reach(ptx_emit_t *emit)
{
	unsigned int count = emit->module->function_count;

	emit->to_look_at = ptx_keep(emit, (count + 1) * sizeof(*emit->to_look_at));
	emit->order = ptx_keep(emit, (count + 1) * sizeof(*emit->order));
	if (!emit->to_look_at || !emit->order)
		return;
	find_addresses(emit);
	reach_function(emit, NULL, emit->entry);
	while (emit->to_look_at_count && emit->status == PTX_OK)
		look_at(emit, &emit->reached[emit->to_look_at[--emit->to_look_at_count]]);
	if (emit->status != PTX_OK)
		return;
	/* Dynamic shared memory: behind the static one (abi.h); the launch rounds up too. */
	const size_t behind = round_up(emit->shared_bytes, PTX_DYNAMIC_ALIGN);

	for (const ptx_variable_t *one = emit->module->variables; one; one = one->next)
		if (one->space == PTX_SPACE_SHARED && one->open)
			emit->place[one->number] = behind;
	for (unsigned int i = 0; i < emit->module->function_count; i++)
		for (const ptx_variable_t *one = emit->all[i]->variables; one; one = one->next)
			if (one->space == PTX_SPACE_SHARED && one->open)
				emit->place[one->number] = behind;
	measure(emit);
}
