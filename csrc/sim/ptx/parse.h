/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parser's own: tokens, names in scope, and how it gives up.
 *
 * Everything that a parse makes lies in the module's arena, so giving up is one
 * longjmp to ptx_parse, which drops the module: no function here returns an error.
 */
#ifndef EMUV_PTX_PARSE_H
#define EMUV_PTX_PARSE_H

#include <setjmp.h>

#include "ptx.h"

#define PTX_SCOPES 64 /* braces within braces */
#define PTX_MAX_VARIABLE_BYTES ((size_t)1 << 40)
/* Of all initial values of a module: they are kept in memory. */
#define PTX_MAX_INITIAL_BYTES ((size_t)1 << 28)
#define PTX_MAX_PARAMETER_BYTES 32764

/* ---- arena.c ---- */
typedef struct ptx_arena ptx_arena_t;
ptx_arena_t *ptx_arena_new(void);
void ptx_arena_drop(ptx_arena_t *arena);
/* Zeroed, aligned to 16.  NULL: no memory. */
void *ptx_arena_take(ptx_arena_t *arena, size_t bytes);
/* Gives everything back at once, but for what serves the next round. */
void ptx_arena_reset(ptx_arena_t *arena);
/* What the other holds lives on in this one. */
void ptx_arena_join(ptx_arena_t *arena, ptx_arena_t *other);

/* ---- lex.c ---- */
typedef enum {
	PTX_TOKEN_END,
	PTX_TOKEN_NAME,   /* letters, digits, _ $, and % in front */
	PTX_TOKEN_DOT,    /* .name, with :: in it */
	PTX_TOKEN_NUMBER,
	PTX_TOKEN_STRING, /* with its quotes */
	PTX_TOKEN_SIGN,   /* one character */
} ptx_token_kind_t;
typedef struct {
	ptx_token_kind_t kind;
	const char *text;
	size_t length;
	unsigned int line;
} ptx_token_t;

/* ---- names ---- */
typedef enum {
	PTX_NAME_REGISTER, PTX_NAME_VECTOR,
	PTX_NAME_RANGE, /* its text ends with "<", which is in no other name */
	PTX_NAME_VARIABLE, PTX_NAME_FUNCTION,
	PTX_NAME_LABEL, PTX_NAME_TABLE,
} ptx_name_kind_t;
typedef struct ptx_name {
	struct ptx_name *chain; /* of its bucket */
	struct ptx_name *below; /* of its scope */
	const char *text;
	unsigned int scope; /* 0: the module's */
	ptx_name_kind_t kind;
	union {
		ptx_register_t *reg; /* the first of a vector's */
		ptx_variable_t *variable;
		ptx_function_t *function;
		ptx_table_t *table;
	};
	ptx_type_t type;    /* of a RANGE */
	unsigned int count; /* of a RANGE; registers of a VECTOR */
} ptx_name_t;

/* A label that was used before it was seen. */
typedef struct ptx_pending {
	struct ptx_pending *next;
	ptx_operand_t *operand;
	unsigned int line;
} ptx_pending_t;

typedef struct {
	ptx_module_t *module;
	ptx_arena_t *arena;
	const char *at;
	unsigned int line;
	ptx_token_t token;
	jmp_buf failed;
	ptx_status_t status;
	char *why;
	ptx_name_t **buckets;
	unsigned int bucket_count, name_count;
	unsigned int scope;
	ptx_name_t *names[PTX_SCOPES + 1];       /* by scope */
	ptx_pending_t *pending[PTX_SCOPES + 1];
	ptx_function_t *function; /* whose body it is */
	unsigned int register_room;
	ptx_instruction_t **end;  /* of the body */
	ptx_table_t **table_end;
	ptx_variable_t **variable_end, **module_variable_end;
	ptx_function_t **function_end;
	size_t initial_bytes;
	unsigned int depth;       /* of recursion, wherever it happens */
} ptx_parser_t;

/* ---- lex.c ---- */
void ptx_next(ptx_parser_t *parser);
bool ptx_is(const ptx_parser_t *parser, const char *text);
/* The token is `text`: goes past it. */
bool ptx_accept(ptx_parser_t *parser, const char *text);
void ptx_expect(ptx_parser_t *parser, const char *text);
/* "PTX line 7: what, at token" */
void ptx_bad(ptx_parser_t *parser, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));
void ptx_give_up(ptx_parser_t *parser, ptx_status_t status, const char *format, ...)
	__attribute__((format(printf, 3, 4), noreturn));
void *ptx_take(ptx_parser_t *parser, size_t bytes);
char *ptx_copy(ptx_parser_t *parser, const char *text, size_t length);
/* A copy of the token, which must be a name; goes past it. */
const char *ptx_take_name(ptx_parser_t *parser);
/* What follows the token, without going there. */
ptx_token_t ptx_peek(const ptx_parser_t *parser);
/* The token opens a group ( { [: goes behind its end. */
void ptx_skip_group(ptx_parser_t *parser);

/* ---- names.c ---- */
ptx_name_t *ptx_name_find(const ptx_parser_t *parser, const char *text);
ptx_name_t *ptx_name_add(ptx_parser_t *parser, const char *text, ptx_name_kind_t kind);
void ptx_scope_open(ptx_parser_t *parser);
/* Labels that nothing in the scope resolves go to the scope around it. */
void ptx_scope_close(ptx_parser_t *parser);
/* A new register of the function. */
ptx_register_t *ptx_register_new(ptx_parser_t *parser, const char *name, ptx_type_t type);
/* NULL: not a register; of a range, it is made now. */
ptx_name_t *ptx_name_of_register(ptx_parser_t *parser, const char *text);
void ptx_label_wanted(ptx_parser_t *parser, ptx_operand_t *operand);

/* ---- parse_constant.c ---- */
typedef struct {
	bool real, single;
	uint64_t bits; /* of a double where real, of a float where single too */
} ptx_constant_t;
ptx_constant_t ptx_parse_constant(ptx_parser_t *parser);
uint64_t ptx_parse_integer(ptx_parser_t *parser);
bool ptx_at_constant(const ptx_parser_t *parser);
/* The constant's bits as an object of the type holds them. */
uint64_t ptx_constant_as(ptx_constant_t constant, ptx_type_t type);

/* ---- parse_variable.c ---- */
/* The token is the state space; ends behind the semicolon. */
void ptx_parse_registers(ptx_parser_t *parser);
void ptx_parse_variables(ptx_parser_t *parser, ptx_linkage_t linkage);
/* The token is "("; ends behind ")".  `named` false: a prototype's, whose names mean nothing. */
ptx_variable_t *ptx_parse_parameters(ptx_parser_t *parser, bool entry);

/* ---- parse_body.c, parse_operand.c ---- */
/* The token is "{". */
void ptx_parse_body(ptx_parser_t *parser, ptx_function_t *function);
void ptx_parse_operand(ptx_parser_t *parser, const char *opcode, ptx_operand_t *operand);

/* ---- translate_special.c ---- */
/* Is there a special register of that name (without %), simulated or not? */
bool ptx_special_exists(const char *name);

#endif
