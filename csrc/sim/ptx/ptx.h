/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * PTX text to C: the program in memory, and what its parts ask of each other.
 *
 *   text --ptx_parse--> ptx_module_t --ptx_link--> one ptx_module_t
 *        --ptx_translate(entry)--> C text, for the engine of csrc/sim/kernel
 *
 * Nothing here knows the driver: no sim.h, no lock, no CUDA handle.  Text is a
 * stranger's: whatever it holds, the answer is a module or a message.
 *
 *   lex.c parse*.c  text to module            (meaning of no instruction)
 *   link.c          several modules to one
 *   translate.c …   functions, control flow, calls, parameters; operands as C
 *   isa.def isa*.c  the whitelist: each instruction with its modifiers, what C it
 *                   becomes, and the section of the PTX ISA that says so
 *   prelude.h       C text in front of every generated file: what the rows of isa.def call
 *
 * Generated code
 *   emuv_kernel_prelude is the text in front of every generated file: abi.h and the
 *   prelude.  In every generated function `thread` (an emuv_thread_t *) is in scope, and
 *   its body starts with the prelude's EMUV_LOCALS: what instructions need of the launch
 *   (arena, table, window of shared memory, parameters, carry flag), as const locals
 *   whose names start with emuv_.
 *
 * Memory: a module owns an arena; all that hangs from it goes with ptx_module_drop.
 */
#ifndef EMUV_PTX_H
#define EMUV_PTX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PTX_VERSION_MAX 95 /* .version 9.5: refuse what is newer */
#define PTX_MODIFIERS 16
#define PTX_OPERANDS 8
#define PTX_WHY_BYTES 256

/* ---- types and spaces ---- */

typedef enum {
	PTX_NONE, PTX_PRED,
	PTX_B8, PTX_U8, PTX_S8,
	PTX_B16, PTX_U16, PTX_S16, PTX_F16, PTX_BF16,
	PTX_B32, PTX_U32, PTX_S32, PTX_F32, PTX_F16X2, PTX_BF16X2, PTX_U16X2, PTX_S16X2,
	PTX_B64, PTX_U64, PTX_S64, PTX_F64,
	PTX_B128,
	PTX_TYPES,
} ptx_type_t;
/* By the name behind the dot ("u32"); PTX_NONE: no type of that name. */
ptx_type_t ptx_type_named(const char *name);
const char *ptx_type_name(ptx_type_t type);
unsigned int ptx_type_bytes(ptx_type_t type); /* 1 for .pred */
/*
 * How C holds a register or a value of the type: bool, uint8_t … uint64_t for b and u,
 * int8_t … int64_t for s, float, double, unsigned __int128; f16, bf16 as uint16_t and
 * the packed ones as uint32_t: their bits.
 */
const char *ptx_type_c(ptx_type_t type);

typedef enum {
	PTX_SPACE_NONE, /* registers */
	PTX_SPACE_GENERIC, PTX_SPACE_GLOBAL, PTX_SPACE_SHARED, PTX_SPACE_LOCAL,
	PTX_SPACE_CONST, PTX_SPACE_PARAM,
} ptx_space_t;

/* ---- declarations ---- */

typedef struct ptx_register {
	const char *name; /* as written */
	ptx_type_t type;
	unsigned int index; /* in its function */
} ptx_register_t;

/* Where an initial value is the address of something. */
typedef struct ptx_relocation {
	struct ptx_relocation *next;
	size_t offset;       /* in the variable */
	const char *symbol;
	struct ptx_variable *variable; /* what ptx_link found of that name: one of the two */
	struct ptx_function *function;
	int64_t addend;
	unsigned int bytes, shift; /* mask(): which bits of the address */
	bool generic;
} ptx_relocation_t;

typedef enum { PTX_LINK_NONE, PTX_LINK_EXTERN, PTX_LINK_VISIBLE, PTX_LINK_WEAK, PTX_LINK_COMMON } ptx_linkage_t;

/* A variable of the module, of a function (.shared, .local), or a parameter. */
typedef struct ptx_variable {
	struct ptx_variable *next;
	const char *name;
	ptx_space_t space;
	ptx_linkage_t linkage;
	ptx_type_t type;
	size_t bytes, align;
	size_t offset;  /* of a parameter of an entry: in the parameter buffer */
	bool open;      /* [] without a size: extern .shared */
	bool managed;
	unsigned char *initial; /* `bytes` of them; NULL: zeros */
	ptx_relocation_t *relocations;
	unsigned int index; /* of a .global or .const: its place in emuv_launch_t.variables */
	unsigned int number; /* among all variables of the module, those of functions included */
	struct ptx_variable *means; /* of a module: what ptx_link found that it stands for */
} ptx_variable_t;

typedef struct ptx_function ptx_function_t;

/* ---- operands and instructions ---- */

typedef enum {
	PTX_OPERAND_REGISTER,  /* reg; of a vector, %v.x is one of its registers and %v a VECTOR */
	PTX_OPERAND_IMMEDIATE, /* bits; `real`: bits are those of a double, or of a float when `single` */
	PTX_OPERAND_SYMBOL,    /* a variable or function by name, plus offset: its address */
	/*
	 * [item[0] + offset]; item[0]: register, symbol or immediate; a[%r1] has the index in
	 * `reg` and the bytes of an element in `bits`.  A texture's coordinates: item[1].
	 */
	PTX_OPERAND_ADDRESS,
	PTX_OPERAND_SPECIAL,   /* %tid.x …: `name` without % */
	PTX_OPERAND_VECTOR,    /* {item, …} */
	PTX_OPERAND_PAIR,      /* item[0]|item[1] */
	PTX_OPERAND_LIST,      /* (item, …) of a call */
	PTX_OPERAND_LABEL,     /* `name`: the pointer is the label's; or `table` */
	PTX_OPERAND_SINK,      /* _ */
} ptx_operand_kind_t;

typedef struct ptx_operand {
	ptx_operand_kind_t kind;
	bool negated;      /* !p, or a minus in front of a register */
	bool real, single;
	ptx_register_t *reg;
	const char *name;
	ptx_variable_t *variable; /* of a SYMBOL; NULL: function, or unknown */
	ptx_function_t *function; /* of a SYMBOL */
	const struct ptx_table *table; /* of a LABEL: .branchtargets, .calltargets, .callprototype */
	uint64_t bits;
	int64_t offset;
	struct ptx_operand *item;
	unsigned int items;
} ptx_operand_t;

typedef struct ptx_instruction {
	struct ptx_instruction *next;
	const char *label;       /* set: a label and nothing else (opcode is NULL) */
	const char *opcode;      /* "ld" */
	const char *modifier[PTX_MODIFIERS]; /* "global", "v4", "f32", "L2::128B": without the dot */
	unsigned int modifiers;
	ptx_operand_t operand[PTX_OPERANDS];
	unsigned int operands;
	ptx_register_t *guard;   /* @p */
	bool guard_negated;
	unsigned int line;
} ptx_instruction_t;

/* What a label in front of .branchtargets, .calltargets or .callprototype names. */
typedef struct ptx_table {
	struct ptx_table *next;
	const char *name;
	bool prototype;            /* .callprototype: */
	ptx_variable_t *parameters, *results;
	ptx_operand_t *target;     /* else: LABELs, or SYMBOLs that are functions */
	unsigned int targets;
} ptx_table_t;

/* "ld.global.v4.f32": how a message names it. */
void ptx_instruction_name(const ptx_instruction_t *instruction, char *text, size_t bytes);
bool ptx_has(const ptx_instruction_t *instruction, const char *modifier);

struct ptx_module;
struct ptx_function {
	ptx_function_t *next;
	const char *name;
	bool entry, defined;
	ptx_linkage_t linkage;
	ptx_variable_t *parameters, *results;
	ptx_variable_t *variables;  /* .shared, .local and .param of the body, all scopes */
	ptx_register_t **registers;
	unsigned int register_count;
	ptx_instruction_t *body;
	unsigned int max_threads, required_threads; /* .maxntid, .reqntid; 0: none */
	unsigned int min_blocks;
	unsigned int cluster_blocks; /* .reqnctapercluster; 0: none */
	ptx_function_t *alias; /* what it is another name of */
	ptx_function_t *means; /* what ptx_link found that it stands for */
	bool no_return;
	ptx_table_t *tables;
	unsigned int index; /* in its module: what its address is made of */
	unsigned int line;
};

typedef struct ptx_module {
	int version, target;      /* 94; 80 for sm_80 */
	unsigned int address_bits; /* 64, or 32: refused */
	ptx_function_t *functions;
	ptx_variable_t *variables; /* .global, .const and module-scope .shared */
	unsigned int variable_count; /* with an index */
	unsigned int function_count;
	unsigned int number_count; /* of variables with a number */
	struct ptx_arena *arena;
} ptx_module_t;

typedef enum {
	PTX_OK,
	PTX_BAD_SYNTAX,   /* CUDA_ERROR_INVALID_PTX */
	PTX_BAD_VERSION,  /* CUDA_ERROR_UNSUPPORTED_PTX_VERSION */
	PTX_UNSUPPORTED,  /* CUDA_ERROR_NOT_SUPPORTED: legal, and not simulated */
	PTX_UNRESOLVED,   /* an extern that nothing defines; CUDA_ERROR_INVALID_PTX at load/link */
	PTX_NO_MEMORY,
} ptx_status_t;

/* `text` ends with NUL.  On failure `why` has one line: "PTX line 12: …". */
ptx_status_t ptx_parse(const char *text, ptx_module_t **module, char why[PTX_WHY_BYTES]);
/*
 * Makes one of several, or of one: only what was linked can be translated.  Takes them
 * over, also when it fails.
 */
ptx_status_t ptx_link(ptx_module_t **modules, unsigned int count, ptx_module_t **linked,
		      char why[PTX_WHY_BYTES]);
void ptx_module_drop(ptx_module_t *module);
ptx_function_t *ptx_function_named(const ptx_module_t *module, const char *name);
ptx_variable_t *ptx_variable_named(const ptx_module_t *module, const char *name);

/* ---- translation ---- */

/* What the address of a function is in a kernel's memory: the same in every entry of a module. */
#define PTX_FUNCTION_ADDRESS(index) (0x00f0000000000000ull + 16 * ((uint64_t)(index) + 1))

#define PTX_DYNAMIC_ALIGN 16

typedef struct {
	char *c_text;          /* malloc'd, ends with NUL; without abi.h and prelude.h in front */
	size_t shared_bytes;   /* static shared memory; dynamic follows at PTX_DYNAMIC_ALIGN */
	size_t local_bytes;    /* most that one thread's frames take */
	bool recursive;        /* no bound is known: it calls itself, or uses alloca */
	unsigned int registers; /* a plausible count, for cuFuncGetAttribute */
	bool synchronises;     /* barriers, warp operations, or lanes that wait for each other */
	bool grid_synchronises;
	bool cross_block;      /* atomics or volatile global memory: blocks may depend on each other */
} ptx_code_t;

/*
 * C for one entry and all it reaches.  PTX_UNSUPPORTED: `why` names the instruction.
 * The text is the same for the same input: it is what the cache's key is made from.
 */
ptx_status_t ptx_translate(const ptx_module_t *module, const ptx_function_t *entry,
			   ptx_code_t *code, char why[PTX_WHY_BYTES]);
void ptx_code_drop(ptx_code_t *code);

/* ---- between translate.c (operands, flow) and isa.c (instructions) ---- */

/*
 * What is in scope where the C of an instruction stands:
 *   thread        emuv_thread_t *const
 *   parameters    const uint8_t *const: the parameter buffer (a copy, perhaps); NULL in a .func
 *   param_window  uint64_t: the address in the arena of a copy of the parameters, for
 *                 cvta.param and cvta.to.param; 0 where the entry has no such instruction
 *   and what the prelude's EMUV_LOCALS declares, which opens every function's body.
 * The prelude also defines EMUV_COUNT(n): thread->instructions += n with EMUV_TRACK 1,
 * else nothing; translate.c puts one at each basic block.  An instruction's text stands
 * in `{ }`, its guard around it.
 */
typedef struct ptx_emit ptx_emit_t;

/* translate.c, for isa.c.  Strings last until the instruction is done. */
void ptx_out(ptx_emit_t *emit, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A C expression of type ptx_type_c(as): the operand read as `as`. */
const char *ptx_read(ptx_emit_t *emit, const ptx_operand_t *operand, ptx_type_t as);
/*
 * Writes `destination = expression;`, the expression being of type ptx_type_c(as).  A
 * register wider than `as` is filled by sign for s types and by zeros for the others.
 * A SINK takes the expression's effects and drops its value.
 */
void ptx_write(ptx_emit_t *emit, const ptx_operand_t *destination, ptx_type_t as,
	       const char *format, ...) __attribute__((format(printf, 4, 5)));
/*
 * The address of an ADDRESS operand (register, symbol or number, plus offset), as a
 * uint64_t expression.  In .global, .const, generic: an address in the arena.  In
 * .shared: an offset in the block's window.  In .local: an address in the arena.  In
 * .param of an entry: an offset in the parameter buffer; `pointer` is then false.  For
 * .param of a call or of a function, `pointer` is true: a C pointer into a byte array.
 */
const char *ptx_address(ptx_emit_t *emit, const ptx_operand_t *operand, ptx_space_t space,
			bool *pointer);
/* Text that lasts until the instruction is done.  Never NULL. */
const char *ptx_text(ptx_emit_t *emit, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A C name that nothing else has, for a temporary. */
const char *ptx_temporary(ptx_emit_t *emit);
/* Refuses the instruction being emitted: keeps the message for ptx_translate's `why`. */
bool ptx_refuse(ptx_emit_t *emit, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* isa.c, for translate.c. */
enum {
	PTX_TRAIT_SYNC = 1,      /* another thread of the block must come along: a fiber each */
	PTX_TRAIT_GRID = 2,      /* all blocks must come along */
	PTX_TRAIT_SPIN = 4,      /* in a loop it may be waiting for another lane: volatile, atomic */
	PTX_TRAIT_CROSS = 8,     /* blocks may depend on each other through it */
	PTX_TRAIT_FLOW = 16,     /* bra, brx, call, ret, exit: translate.c's own business */
};
/* abi.h and prelude*.h as text, with EMUV_GENERATED defined: prelude.S. */
extern const char emuv_kernel_prelude[];
/* False: no such opcode in any PTX ISA (a syntax error of the text). */
bool ptx_isa_knows(const char *opcode);
unsigned int ptx_isa_traits(const ptx_instruction_t *instruction);
/* C for one instruction, guard excluded.  False: not on the whitelist; ptx_refuse was called. */
bool ptx_isa_emit(ptx_emit_t *emit, const ptx_instruction_t *instruction);

#endif
