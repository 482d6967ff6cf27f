/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The translator's own: what is known of an entry and all it reaches, and the text
 * that is being written.
 *
 * Names in the text: r<index> a register of its function, v<number> a .param array,
 * f<index> a function, L<n> a label, p<n> a parameter, t<n> a temporary.
 */
#ifndef EMUV_PTX_TRANSLATE_H
#define EMUV_PTX_TRANSLATE_H

#include "parse.h"

/* Behind every .param array, so that no access at an offset inside runs over its end. */
#define PTX_SLACK_BYTES 32
/* Steps of analysis: when they are used up, the answer is the one that is always right. */
#define PTX_MOST_WORK ((uint64_t)1 << 26)
#define PTX_MOST_TARGETS ((uint64_t)1 << 21) /* of all indirect calls */
#define PTX_MAX_TEXT_BYTES ((size_t)256 << 20)

/* A function that the entry reaches, the entry among them. */
typedef struct {
	const ptx_function_t *function;
	bool reached;
	bool address_taken; /* somewhere in the module */
	bool tells;             /* has a value that another thread made: translate_waits.c */
	unsigned char *yields;  /* by instruction: PTX_YIELD_*; NULL: nowhere */
	unsigned int called_from; /* the function that was found to call it last, plus 1 */
	bool waits;             /* for what another thread does, without a barrier */
	bool copies_parameters; /* an entry with cvta.param */
	bool allocates;         /* alloca */
	unsigned int traits;    /* of its own instructions */
	size_t frame_bytes, frame_align;
	/* calls */
	unsigned int *callee;
	unsigned int callees, callee_room;
} ptx_reached_t;

/* A basic block of the function at hand. */
typedef struct {
	unsigned int first, count; /* instructions */
	unsigned int *next, *before;
	unsigned int nexts, befores;
	unsigned int join; /* the block that all ways from here come to first */
} ptx_block_t;
#define PTX_NO_BLOCK (~0u)

/* The control flow of one function. */
typedef struct {
	const ptx_instruction_t **instruction;
	unsigned int instructions;
	ptx_block_t *block; /* in the order of the text; one more: the end */
	unsigned int blocks;
	struct ptx_label {
		const char *name;
		unsigned int at, number; /* index of the instruction */
	} *label; /* by address of the name */
	unsigned int labels;
} ptx_flow_t;

/* Registers alive in front of each block, as rows of bits: translate_live.c. */
typedef struct {
	unsigned int words; /* of a row */
	uint64_t *in;       /* a row a block */
	uint64_t *row;
} ptx_live_t;

/* A kernel in steps, from barrier to barrier: translate_steps.c. */
typedef struct {
	struct {
		unsigned int at;  /* index of the instruction */
		uint64_t *alive;  /* registers */
	} *step;
	unsigned int count, words;
	uint64_t *kept;     /* registers, of any step */
	bool results;       /* not barriers alone */
	size_t frame_bytes; /* of a thread, aligned */
} ptx_steps_t;

struct ptx_emit {
	const ptx_module_t *module;
	const ptx_function_t *entry;
	ptx_reached_t *reached;      /* by index of the function */
	const ptx_function_t **all;  /* by index */
	unsigned int *to_look_at, to_look_at_count; /* functions reached, not looked at */
	unsigned int *order, order_count;           /* functions reached, callees first */
	uint64_t targets;
	uint64_t work;               /* steps of analysis done: see PTX_MOST_WORK */
	uint64_t *place;             /* by number of the variable: offset in its window or frame */
	bool *placed;
	size_t shared_bytes, shared_align;
	size_t local_bytes;
	bool recursive, synchronises, uses_shared;
	unsigned int traits; /* of all that is reached */
	ptx_arena_t *arena;   /* lives as long as the translation */
	ptx_arena_t *scratch; /* of one instruction */
	char *text;
	size_t used, room;
	ptx_status_t status;
	char *why;
	/* at hand */
	const ptx_function_t *function;
	const ptx_instruction_t *instruction;
	ptx_flow_t *flow;
	const unsigned char *yields; /* of the function, by instruction */
	const ptx_steps_t *steps;    /* of the entry; NULL: it takes fibers, or waits for nothing */
	unsigned int temporaries;
};

/* ---- translate.c ---- */
void *ptx_keep(ptx_emit_t *emit, size_t bytes);  /* of the arena; NULL: failed */
/* Why it failed, first come: later ones say nothing. */
void ptx_failed(ptx_emit_t *emit, ptx_status_t status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* ---- translate_reach.c ---- */
/* Finds what the entry reaches and gives variables their places. */
void ptx_reach(ptx_emit_t *emit);
/* Do results and parameters of the function have these sizes? */
bool ptx_signature_fits(const ptx_function_t *function, const ptx_variable_t *results,
			const ptx_variable_t *parameters);
const ptx_table_t *ptx_call_table(const ptx_instruction_t *call);
const ptx_operand_t *ptx_call_target(const ptx_instruction_t *call, const ptx_operand_t **results,
				     const ptx_operand_t **arguments);
/* May the indirect call go there? */
bool ptx_may_call(const ptx_emit_t *emit, const ptx_instruction_t *call,
		  const ptx_function_t *function);
typedef enum {
	PTX_OWN, PTX_PRINT, PTX_ASSERT, PTX_MALLOC, PTX_FREE, PTX_GRID_HANDLE, PTX_GRID_SYNC,
} ptx_builtin_t;
/* What the engine provides under an extern's name; PTX_OWN: nothing. */
ptx_builtin_t ptx_builtin(const char *name);

/* ---- translate_graph.c ---- */
bool ptx_flow_build(ptx_emit_t *emit, const ptx_function_t *function, ptx_flow_t *flow);
const struct ptx_label *ptx_flow_label(const ptx_flow_t *flow, const char *name);

/* ---- translate_waits.c ---- */
enum { PTX_YIELD_TAKEN = 1, PTX_YIELD_FALLEN = 2, PTX_YIELD_BEFORE = 4 };
/* Where lanes wait for each other.  Sets emit->synchronises and reached->yields. */
void ptx_find_waits(ptx_emit_t *emit);

/* ---- translate_flow.c ---- */
/* bra, brx, call, ret, exit: true when it was one. */
bool ptx_is_flow(const ptx_instruction_t *instruction);
void ptx_flow_emit(ptx_emit_t *emit, const ptx_instruction_t *instruction, unsigned int at);
/* The end of a .func's body. */
void ptx_return(ptx_emit_t *emit);
void ptx_signature(ptx_emit_t *emit, const ptx_function_t *function);
void ptx_builtin_emit(ptx_emit_t *emit, const ptx_function_t *function);

/* ---- translate_live.c ---- */
bool ptx_live_find(ptx_emit_t *emit, const ptx_function_t *function, const ptx_flow_t *flow,
		   ptx_live_t *live);
/* Those alive in front of instruction `at` of the block. */
void ptx_live_at(const ptx_live_t *live, const ptx_flow_t *flow, unsigned int block, unsigned int at,
		 uint64_t *alive);

/* ---- translate_steps.c ---- */
/* Sets emit->steps where the entry can be done in steps. */
bool ptx_steps_find(ptx_emit_t *emit, const ptx_flow_t *flow);
void ptx_steps_declare(ptx_emit_t *emit);
void ptx_steps_resume(ptx_emit_t *emit);
/* True: the instruction is where a step ends. */
bool ptx_steps_emit(ptx_emit_t *emit, unsigned int at);
void ptx_steps_run(ptx_emit_t *emit);

/* ---- translate_special.c ---- */
/* A C expression of a special register and its type; NULL: there is none of that name. */
const char *ptx_special(ptx_emit_t *emit, const char *name, ptx_type_t *type);

#endif
