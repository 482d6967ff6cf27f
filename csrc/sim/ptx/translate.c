/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An entry and all it reaches, as one C text.
 *
 * The text depends on the module's text alone: functions, variables, labels and
 * registers are numbered in the order in which they stand there.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "translate.h"

/* ---- memory and messages ---- */

void ptx_failed(ptx_emit_t *emit, ptx_status_t status, const char *format, ...)
{
	va_list list;

	if (emit->status != PTX_OK)
		return;
	emit->status = status;
	va_start(list, format);
	vsnprintf(emit->why, PTX_WHY_BYTES, format, list);
	va_end(list);
}

void *ptx_keep(ptx_emit_t *emit, size_t bytes)
{
	void *taken = ptx_arena_take(emit->arena, bytes);

	if (!taken)
		ptx_failed(emit, PTX_NO_MEMORY, "no memory to translate PTX");
	return taken;
}

const char *ptx_text(ptx_emit_t *emit, const char *format, ...)
{
	static char nothing[] = "0";
	va_list list;
	char *text;
	int length;

	va_start(list, format);
	length = vsnprintf(NULL, 0, format, list);
	va_end(list);
	text = length < 0 ? NULL : ptx_arena_take(emit->scratch, (size_t)length + 1);
	if (!text) {
		ptx_failed(emit, PTX_NO_MEMORY, "no memory to translate PTX");
		return nothing;
	}
	va_start(list, format);
	vsnprintf(text, (size_t)length + 1, format, list);
	va_end(list);
	return text;
}

void ptx_out(ptx_emit_t *emit, const char *format, ...)
{
	va_list list;
	int length;

	for (;;) {
		size_t room = emit->room - emit->used;
		char *more;

		if (emit->status != PTX_OK)
			return;
		va_start(list, format);
		length = vsnprintf(room ? emit->text + emit->used : NULL, room, format, list);
		va_end(list);
		if (length >= 0 && (size_t)length < room) {
			emit->used += (size_t)length;
			return;
		}
		room = (emit->used + (size_t)length + 4096) * 2;
		more = length < 0 || room > PTX_MAX_TEXT_BYTES ? NULL : realloc(emit->text, room);
		if (!more) {
			ptx_failed(emit, PTX_NO_MEMORY, "no memory for the translation of \"%.60s\"",
				   emit->entry->name);
			return;
		}
		emit->text = more;
		emit->room = room;
	}
}

bool ptx_refuse(ptx_emit_t *emit, const char *format, ...)
{
	char name[120], reason[100];
	va_list list;

	va_start(list, format);
	vsnprintf(reason, sizeof(reason), format, list);
	va_end(list);
	if (emit->instruction)
		ptx_instruction_name(emit->instruction, name, sizeof(name));
	else
		snprintf(name, sizeof(name), "%s", emit->function->name);
	ptx_failed(emit, PTX_UNSUPPORTED, "PTX line %u: %s: %s",
		   emit->instruction ? emit->instruction->line : emit->function->line, name, reason);
	return false;
}

/* ---- a function ---- */

static void declare_registers(ptx_emit_t *emit, const ptx_function_t *function)
{
	for (unsigned int i = 0; i < function->register_count; i++)
		ptx_out(emit, "%s r%u = 0;\n", ptx_type_c(function->registers[i]->type), i);
}

static void declare_arrays(ptx_emit_t *emit, const ptx_function_t *function)
{
	for (const ptx_variable_t *one = function->variables; one; one = one->next)
		if (one->space == PTX_SPACE_PARAM)
			ptx_out(emit, "uint8_t v%u[%zu] __attribute__((aligned(%zu)));\n", one->number,
				one->bytes + PTX_SLACK_BYTES, one->align > 16 ? one->align : 16);
}

/* Local memory, and in it the parameters whose address is taken. */
static void declare_frame(ptx_emit_t *emit, const ptx_function_t *function)
{
	const ptx_reached_t *reached = &emit->reached[function->index];
	size_t bytes = reached->frame_bytes;
	unsigned int number = 0;

	/* Recursion ends when local memory does: each call takes of it. */
	if (emit->recursive && !function->entry)
		bytes += 64;
	if (!function->entry)
		ptx_out(emit, "const uint64_t saved = thread->local_next;\n");
	if (bytes && !(function->entry && emit->steps))
		ptx_out(emit, "const uint64_t frame = emuv_alloca(thread, %zu, %zu);\n", bytes,
			reached->frame_align);
	if (function->entry) {
		const ptx_variable_t *last = function->parameters;
		size_t all;

		while (last && last->next)
			last = last->next;
		all = last ? last->offset + last->bytes : 0;
		if (reached->copies_parameters && all) {
			ptx_out(emit, "const uint64_t param_window = frame + %zu;\n",
				reached->frame_bytes - all);
			ptx_out(emit, "%s__builtin_memcpy((void *)param_window, parameters, %zu);\n",
				emit->steps ? "if (!step) " : "", all);
		} else {
			ptx_out(emit, "const uint64_t param_window __attribute__((unused)) = 0;\n");
		}
		return;
	}
	ptx_out(emit, "const uint64_t param_window __attribute__((unused)) = 0;\n");
	for (const ptx_variable_t *one = function->results; one; one = one->next)
		number++;
	for (const ptx_variable_t *one = function->parameters; one; one = one->next, number++) {
		if (one->space != PTX_SPACE_PARAM || !emit->placed[one->number])
			continue;
		if (one->open)
			ptx_out(emit,
				"const uint64_t open%u = emuv_alloca(thread, n%u, %zu);\n"
				"__builtin_memcpy((void *)open%u, p%u, n%u);\n",
				one->number, number, one->align, one->number, number, number);
		else
			ptx_out(emit, "__builtin_memcpy((void *)(frame + %llu), p%u, %zu);\n",
				(unsigned long long)emit->place[one->number], number, one->bytes);
	}
}

/* Parameters that are registers: they are the function's first, results before them. */
static void fetch_parameters(ptx_emit_t *emit, const ptx_function_t *function)
{
	unsigned int number = 0, reg = 0;

	for (const ptx_variable_t *one = function->results; one; one = one->next, number++)
		reg += one->space == PTX_SPACE_NONE && strcmp(one->name, "_") != 0;
	for (const ptx_variable_t *one = function->parameters; one; one = one->next, number++)
		if (one->space == PTX_SPACE_NONE && strcmp(one->name, "_") != 0)
			ptx_out(emit, "__builtin_memcpy(&r%u, p%u, %u);\n", reg++, number,
				ptx_type_bytes(one->type));
}

static unsigned int instructions_of(const ptx_flow_t *flow, const ptx_block_t *block)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < block->count; i++)
		count += flow->instruction[block->first + i]->opcode != NULL;
	return count;
}

static void emit_instruction(ptx_emit_t *emit, unsigned int at)
{
	const ptx_instruction_t *one = emit->flow->instruction[at];

	emit->instruction = one;
	if (emit->yields && emit->yields[at] & PTX_YIELD_BEFORE)
		ptx_out(emit, "emuv_launch->engine->yield(thread);\n");
	if (one->guard)
		ptx_out(emit, "if (%sr%u) ", one->guard_negated ? "!" : "", one->guard->index);
	ptx_out(emit, "{\n");
	if (emit->function->entry && emit->steps && ptx_steps_emit(emit, at))
		;
	else if (ptx_is_flow(one))
		ptx_flow_emit(emit, one, at);
	else if (!ptx_isa_emit(emit, one))
		ptx_refuse(emit, "not simulated");
	ptx_out(emit, "}\n");
	if (emit->yields && emit->yields[at] & PTX_YIELD_FALLEN)
		ptx_out(emit, "emuv_launch->engine->yield(thread);\n");
	ptx_arena_reset(emit->scratch);
	emit->temporaries = 0;
}

static void emit_body(ptx_emit_t *emit, const ptx_function_t *function)
{
	ptx_flow_t flow;

	emit->function = function;
	emit->instruction = NULL;
	if (!ptx_flow_build(emit, function, &flow))
		return;
	emit->flow = &flow;
	emit->yields = emit->reached[function->index].yields;
	ptx_out(emit, "{\nEMUV_LOCALS;\n");
	if (!function->entry)
		ptx_out(emit, "const uint8_t *const parameters __attribute__((unused)) = 0;\n"
			      "const uint32_t tid_x __attribute__((unused)) = thread->index[0];\n"
			      "const uint32_t tid_y __attribute__((unused)) = thread->index[1];\n"
			      "const uint32_t tid_z __attribute__((unused)) = thread->index[2];\n"
			      "const uint32_t tid_linear __attribute__((unused)) = thread->linear;\n");
	declare_frame(emit, function);
	declare_registers(emit, function);
	declare_arrays(emit, function);
	if (!function->entry)
		fetch_parameters(emit, function);
	else if (emit->steps)
		ptx_steps_resume(emit);
	for (unsigned int i = 0; i < flow.blocks && emit->status == PTX_OK; i++) {
		const ptx_block_t *block = &flow.block[i];
		unsigned int count = instructions_of(&flow, block);

		for (unsigned int j = 0; j < block->count; j++) {
			const ptx_instruction_t *one = flow.instruction[block->first + j];

			if (one->label)
				ptx_out(emit, "L%u:;\n", ptx_flow_label(&flow, one->label)->number);
			if (count && one->opcode) {
				ptx_out(emit, "EMUV_COUNT(%u);\n", count);
				count = 0;
			}
			if (one->opcode)
				emit_instruction(emit, block->first + j);
		}
	}
	emit->instruction = NULL;
	ptx_return(emit); /* what falls off the end */
}

static void emit_function(ptx_emit_t *emit, const ptx_function_t *function)
{
	if (!function->defined) {
		ptx_builtin_emit(emit, function);
		return;
	}
	ptx_signature(emit, function);
	ptx_out(emit, "\n");
	emit_body(emit, function);
}

/* ---- the entry ---- */

static const char body_head[] =
	"static inline __attribute__((always_inline)) %s body(emuv_thread_t *const thread, "
	"const uint8_t *const parameters, const uint32_t tid_x, const uint32_t tid_y, "
	"const uint32_t tid_z, const uint32_t tid_linear%s)\n";
static const char run_thread[] =
	"static void run(emuv_thread_t *thread)\n{\n"
	"body(thread, thread->launch->parameters, thread->index[0], thread->index[1], "
	"thread->index[2], thread->linear);\n}\n";
static const char run_block[] =
	"static void run(emuv_thread_t *thread)\n{\n"
	"const emuv_launch_t *const launch = thread->launch;\n"
	"const uint32_t nx = launch->block[0], ny = launch->block[1], nz = launch->block[2];\n"
	"const uint64_t local = thread->local_next;\n"
	"uint32_t linear = 0;\n"
	"for (uint32_t z = 0; z < nz; z++)\n"
	"for (uint32_t y = 0; y < ny; y++)\n"
	"for (uint32_t x = 0; x < nx; x++, linear++) {\n"
	"thread->index[0] = x;\nthread->index[1] = y;\nthread->index[2] = z;\n"
	"thread->linear = linear;\nthread->local_next = local;\n"
	"body(thread, launch->parameters, x, y, z, linear);\n}\n"
	"thread->local_next = local;\n}\n";

static void emit_entry(ptx_emit_t *emit)
{
	unsigned int flags = 0;

	if (emit->steps) {
		ptx_steps_declare(emit);
		ptx_out(emit, body_head, "uint16_t",
			", struct kept *const kept, emuv_lane_t *const lane, const uint64_t frame, "
			"const uint16_t step");
	} else {
		ptx_out(emit, body_head, "void", "");
	}
	emit_body(emit, emit->entry);
	if (emit->steps)
		ptx_steps_run(emit);
	else
		ptx_out(emit, "%s", emit->synchronises ? run_thread : run_block);
	if (emit->synchronises)
		flags |= 1;
	if (emit->traits & PTX_TRAIT_GRID)
		flags |= 2;
	if (emit->traits & PTX_TRAIT_CROSS)
		flags |= 4;
	ptx_out(emit,
		"__attribute__((visibility(\"default\"))) const emuv_kernel_t emuv_kernel = "
		"{ EMUV_KERNEL_VERSION, %s%s%s0, EMUV_TRACK, %zu, %s, %s };\n",
		flags & 1 ? "EMUV_KERNEL_SYNC | " : "", flags & 2 ? "EMUV_KERNEL_GRID | " : "",
		flags & 4 ? "EMUV_KERNEL_CROSS | " : "", emit->steps ? emit->steps->frame_bytes : 0,
		flags & 1 ? "NULL" : "run",
		flags & 1 ? "run" : "NULL");
}

static bool prepare(ptx_emit_t *emit)
{
	unsigned int count = emit->module->function_count;

	emit->reached = ptx_keep(emit, (count + 1) * sizeof(*emit->reached));
	emit->all = ptx_keep(emit, (count + 1) * sizeof(*emit->all));
	emit->place = ptx_keep(emit, (emit->module->number_count + 1) * sizeof(*emit->place));
	emit->placed = ptx_keep(emit, emit->module->number_count + 1);
	if (emit->status != PTX_OK)
		return false;
	for (const ptx_function_t *one = emit->module->functions; one; one = one->next) {
		emit->all[one->index] = one;
		emit->reached[one->index].function = one;
	}
	return true;
}

static void translate(ptx_emit_t *emit)
{
	unsigned int count = emit->module->function_count;
	ptx_flow_t flow;

	if (!prepare(emit))
		return;
	emit->function = emit->entry;
	if (emit->entry->cluster_blocks > 1) {
		ptx_failed(emit, PTX_UNSUPPORTED, "\"%.100s\" wants clusters of %u blocks: not simulated",
			   emit->entry->name, emit->entry->cluster_blocks);
		return;
	}
	ptx_reach(emit);
	for (unsigned int i = 0; i < count; i++)
		if (emit->reached[i].reached)
			emit->traits |= emit->reached[i].traits;
	if (emit->status == PTX_OK)
		ptx_find_waits(emit);
	if (emit->status == PTX_OK && emit->synchronises &&
	    ptx_flow_build(emit, emit->entry, &flow) && ptx_steps_find(emit, &flow))
		emit->synchronises = false;
	for (unsigned int i = 0; i < count && emit->status == PTX_OK; i++)
		if (emit->reached[i].reached && !emit->all[i]->entry) {
			ptx_signature(emit, emit->all[i]);
			ptx_out(emit, ";\n");
		}
	for (unsigned int i = 0; i < count && emit->status == PTX_OK; i++)
		if (emit->reached[i].reached && !emit->all[i]->entry)
			emit_function(emit, emit->all[i]);
	if (emit->status == PTX_OK)
		emit_entry(emit);
}

/* What a compiler for a card might take: the registers that live at once are fewer. */
static unsigned int plausible_registers(const ptx_function_t *entry)
{
	unsigned int words = 0;

	for (unsigned int i = 0; i < entry->register_count; i++)
		words += (ptx_type_bytes(entry->registers[i]->type) + 3) / 4;
	words = 8 + words / 4;
	return words < 255 ? words : 255;
}

ptx_status_t ptx_translate(const ptx_module_t *module, const ptx_function_t *entry,
			   ptx_code_t *code, char why[PTX_WHY_BYTES])
{
	ptx_emit_t emit = { .module = module, .entry = entry, .why = why };

	memset(code, 0, sizeof(*code));
	why[0] = '\0';
	emit.arena = ptx_arena_new();
	emit.scratch = ptx_arena_new();
	if (!emit.arena || !emit.scratch)
		ptx_failed(&emit, PTX_NO_MEMORY, "no memory to translate PTX");
	else if (!entry->entry || !entry->defined)
		ptx_failed(&emit, PTX_UNRESOLVED, "the kernel \"%.100s\" is declared, not defined",
			   entry->name);
	else
		translate(&emit);
	ptx_arena_drop(emit.arena);
	ptx_arena_drop(emit.scratch);
	if (emit.status != PTX_OK) {
		free(emit.text);
		return emit.status;
	}
	code->c_text = emit.text;
	code->shared_bytes = emit.shared_bytes;
	code->local_bytes = emit.local_bytes;
	code->recursive = emit.recursive;
	code->registers = plausible_registers(entry);
	code->synchronises = emit.synchronises;
	code->grid_synchronises = emit.traits & PTX_TRAIT_GRID;
	code->cross_block = emit.traits & PTX_TRAIT_CROSS;
	return PTX_OK;
}

void ptx_code_drop(ptx_code_t *code)
{
	free(code->c_text);
	code->c_text = NULL;
}
