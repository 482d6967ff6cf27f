/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Constants and constant expressions (PTX ISA 4.5): 64-bit integers, signed unless
 * marked U, with C's operators; floats in decimal or by their bits.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parse.h"

#define MAX_DEPTH 100

typedef struct {
	ptx_constant_t constant;
	bool is_unsigned;
} value_t;

static value_t expression(ptx_parser_t *parser, int level);

static double real_of(value_t value)
{
	double real;
	float single;

	if (!value.constant.real)
		return value.is_unsigned ? (double)value.constant.bits
					 : (double)(int64_t)value.constant.bits;
	if (value.constant.single) {
		uint32_t bits = (uint32_t)value.constant.bits;

		memcpy(&single, &bits, sizeof(single));
		return single;
	}
	memcpy(&real, &value.constant.bits, sizeof(real));
	return real;
}

static value_t of_real(double real)
{
	value_t value = { { .real = true }, false };

	memcpy(&value.constant.bits, &real, sizeof(real));
	return value;
}

static value_t of_integer(uint64_t bits, bool is_unsigned)
{
	return (value_t){ { .bits = bits }, is_unsigned };
}

static value_t number(ptx_parser_t *parser)
{
	const ptx_token_t *token = &parser->token;
	size_t length = token->length;
	bool is_unsigned = false;
	char text[128], *end;
	value_t value;

	if (length >= sizeof(text))
		ptx_bad(parser, "a number too long");
	memcpy(text, token->text, length);
	text[length] = '\0';
	if (text[0] == '0' && (text[1] == 'f' || text[1] == 'F')) {
		value = (value_t){ { true, true, strtoull(text + 2, &end, 16) }, false };
		if (length != 10 || *end)
			ptx_bad(parser, "0f wants eight hexadecimal digits");
	} else if (text[0] == '0' && (text[1] == 'd' || text[1] == 'D')) {
		value = (value_t){ { true, false, strtoull(text + 2, &end, 16) }, false };
		if (length != 18 || *end)
			ptx_bad(parser, "0d wants sixteen hexadecimal digits");
	} else if (text[1] != 'x' && text[1] != 'X' && strpbrk(text, ".eE")) {
		value = of_real(strtod(text, &end));
		if (*end)
			ptx_bad(parser, "not a number");
	} else {
		if (length > 1 && text[length - 1] == 'U') {
			is_unsigned = true;
			text[--length] = '\0';
		}
		if (text[0] == '0' && (text[1] == 'b' || text[1] == 'B'))
			value = of_integer(strtoull(text + 2, &end, 2), is_unsigned);
		else
			value = of_integer(strtoull(text, &end, 0), is_unsigned);
		if (*end)
			ptx_bad(parser, "not a number");
		/* What does not fit a signed number is unsigned. */
		value.is_unsigned |= value.constant.bits >> 63;
	}
	ptx_next(parser);
	return value;
}

static value_t unary(ptx_parser_t *parser)
{
	value_t value;

	if (ptx_accept(parser, "-")) {
		value = expression(parser, 100);
		if (!value.constant.real)
			return of_integer(0 - value.constant.bits, value.is_unsigned);
		/* The sign alone, so that a NaN keeps its bits. */
		value.constant.bits ^= (uint64_t)1 << (value.constant.single ? 31 : 63);
		return value;
	}
	if (ptx_accept(parser, "+"))
		return expression(parser, 100);
	if (ptx_accept(parser, "~")) {
		value = expression(parser, 100);
		return of_integer(~value.constant.bits, value.is_unsigned);
	}
	if (ptx_accept(parser, "!")) {
		value = expression(parser, 100);
		return of_integer(real_of(value) == 0, false);
	}
	if (ptx_accept(parser, "(")) {
		/* A cast, (.s64) or (.u64), or a group. */
		if (ptx_is(parser, ".s64") || ptx_is(parser, ".u64")) {
			bool is_unsigned = ptx_is(parser, ".u64");

			ptx_next(parser);
			ptx_expect(parser, ")");
			value = expression(parser, 100);
			if (value.constant.real)
				ptx_bad(parser, "a cast of a real number");
			return of_integer(value.constant.bits, is_unsigned);
		}
		value = expression(parser, 0);
		ptx_expect(parser, ")");
		return value;
	}
	if (ptx_accept(parser, "WARP_SZ"))
		return of_integer(32, false);
	if (parser->token.kind == PTX_TOKEN_NUMBER)
		return number(parser);
	ptx_bad(parser, "a constant expected");
}

enum {
	OR_ELSE, AND_ALSO, BIT_OR, BIT_XOR, BIT_AND, EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER,
	GREATER_EQUAL, SHIFT_LEFT, SHIFT_RIGHT, ADD, SUBTRACT, MULTIPLY, DIVIDE, REMAINDER,
};
static const struct {
	const char *text;
	int level, operation;
} operators[] = {
	/* Two characters first: they are two tokens, side by side. */
	{ "||", 2, OR_ELSE },	{ "&&", 3, AND_ALSO },	 { "==", 7, EQUAL },
	{ "!=", 7, NOT_EQUAL }, { "<=", 8, LESS_EQUAL }, { ">=", 8, GREATER_EQUAL },
	{ "<<", 9, SHIFT_LEFT }, { ">>", 9, SHIFT_RIGHT }, { "|", 4, BIT_OR },
	{ "^", 5, BIT_XOR },	{ "&", 6, BIT_AND },	 { "<", 8, LESS },
	{ ">", 8, GREATER },	{ "+", 10, ADD },	 { "-", 10, SUBTRACT },
	{ "*", 11, MULTIPLY },	{ "/", 11, DIVIDE },	 { "%", 11, REMAINDER },
};

static value_t combine_real(ptx_parser_t *parser, int operation, value_t left, value_t right)
{
	double a = real_of(left), b = real_of(right);

	switch (operation) {
	case ADD: return of_real(a + b);
	case SUBTRACT: return of_real(a - b);
	case MULTIPLY: return of_real(a * b);
	case DIVIDE: return of_real(a / b);
	case EQUAL: return of_integer(a == b, false);
	case NOT_EQUAL: return of_integer(a != b, false);
	case LESS: return of_integer(a < b, false);
	case LESS_EQUAL: return of_integer(a <= b, false);
	case GREATER: return of_integer(a > b, false);
	case GREATER_EQUAL: return of_integer(a >= b, false);
	default: ptx_bad(parser, "this operator takes no real numbers");
	}
}

static value_t combine(ptx_parser_t *parser, int operation, value_t left, value_t right)
{
	uint64_t a = left.constant.bits, b = right.constant.bits;
	bool u = left.is_unsigned || right.is_unsigned;

	if (operation == OR_ELSE || operation == AND_ALSO) {
		bool x = real_of(left) != 0, y = real_of(right) != 0;

		return of_integer(operation == OR_ELSE ? x || y : x && y, false);
	}
	if (left.constant.real || right.constant.real)
		return combine_real(parser, operation, left, right);
	switch (operation) {
	case BIT_OR: return of_integer(a | b, u);
	case BIT_XOR: return of_integer(a ^ b, u);
	case BIT_AND: return of_integer(a & b, u);
	case EQUAL: return of_integer(a == b, false);
	case NOT_EQUAL: return of_integer(a != b, false);
	case LESS: return of_integer(u ? a < b : (int64_t)a < (int64_t)b, false);
	case LESS_EQUAL: return of_integer(u ? a <= b : (int64_t)a <= (int64_t)b, false);
	case GREATER: return of_integer(u ? a > b : (int64_t)a > (int64_t)b, false);
	case GREATER_EQUAL: return of_integer(u ? a >= b : (int64_t)a >= (int64_t)b, false);
	case SHIFT_LEFT: return of_integer(b < 64 ? a << b : 0, left.is_unsigned);
	case SHIFT_RIGHT:
		if (left.is_unsigned)
			return of_integer(b < 64 ? a >> b : 0, true);
		return of_integer((uint64_t)((int64_t)a >> (b < 63 ? b : 63)), false);
	case ADD: return of_integer(a + b, u);
	case SUBTRACT: return of_integer(a - b, u);
	case MULTIPLY: return of_integer(a * b, u);
	}
	if (!b)
		ptx_bad(parser, "a division by zero");
	if (u)
		return of_integer(operation == DIVIDE ? a / b : a % b, true);
	if (b == UINT64_MAX) /* by -1, which C may trap on */
		return of_integer(operation == DIVIDE ? 0 - a : 0, false);
	return of_integer((uint64_t)(operation == DIVIDE ? (int64_t)a / (int64_t)b
							 : (int64_t)a % (int64_t)b), false);
}

static value_t expression(ptx_parser_t *parser, int level)
{
	value_t value;

	if (++parser->depth > MAX_DEPTH)
		ptx_bad(parser, "an expression is nested too deep");
	value = unary(parser);
	for (;;) {
		size_t i, length;

		for (i = 0; i < sizeof(operators) / sizeof(*operators); i++)
			if (strncmp(parser->token.text, operators[i].text,
				    strlen(operators[i].text)) == 0)
				break;
		if (i == sizeof(operators) / sizeof(*operators) || operators[i].level <= level)
			break;
		for (length = strlen(operators[i].text); length; length--)
			ptx_next(parser);
		value = combine(parser, operators[i].operation, value,
				expression(parser, operators[i].level));
	}
	/* c ? a : b */
	if (level < 1 && ptx_accept(parser, "?")) {
		value_t yes = expression(parser, 0), no;

		ptx_expect(parser, ":");
		no = expression(parser, 0);
		value = real_of(value) != 0 ? yes : no;
	}
	parser->depth--;
	return value;
}

ptx_constant_t ptx_parse_constant(ptx_parser_t *parser)
{
	return expression(parser, 0).constant;
}

uint64_t ptx_parse_integer(ptx_parser_t *parser)
{
	ptx_constant_t constant = ptx_parse_constant(parser);

	if (constant.real)
		ptx_bad(parser, "an integer expected");
	return constant.bits;
}

bool ptx_at_constant(const ptx_parser_t *parser)
{
	return parser->token.kind == PTX_TOKEN_NUMBER || ptx_is(parser, "-") ||
	       ptx_is(parser, "+") || ptx_is(parser, "~") || ptx_is(parser, "!") ||
	       ptx_is(parser, "(") || ptx_is(parser, "WARP_SZ");
}

/* IEEE half of a double, to nearest even, with no _Float16: clang 14 has none on x86-64. */
static uint16_t half_of(double real)
{
	uint16_t sign = signbit(real) ? 0x8000 : 0;
	double size = fabs(real);
	int exponent;

	if (isnan(real))
		return sign | 0x7e00;
	if (size >= 65520)
		return sign | 0x7c00;
	if (size < 0x1p-14)
		return (uint16_t)(sign | (unsigned int)rint(size * 0x1p24));
	/* A mantissa that rounds up to 2048 carries into the exponent, as it should. */
	exponent = ilogb(size);
	return (uint16_t)(sign | (((unsigned int)(exponent + 14) << 10) +
				  (unsigned int)rint(scalbn(size, 10 - exponent))));
}

uint64_t ptx_constant_as(ptx_constant_t constant, ptx_type_t type)
{
	value_t value = { constant, false };
	float single;
	double real;
	uint32_t word;
	uint64_t bits;

	switch (type) {
	case PTX_F16:
		return constant.real ? half_of(real_of(value)) : constant.bits;
	case PTX_F32:
		if (constant.real && constant.single)
			return constant.bits;
		single = (float)real_of(value);
		memcpy(&word, &single, sizeof(word));
		return word;
	case PTX_F64:
		if (constant.real && !constant.single)
			return constant.bits;
		real = real_of(value);
		memcpy(&bits, &real, sizeof(bits));
		return bits;
	default:
		/* The bits; of a double where the type is as wide, else of a float. */
		if (constant.real && !constant.single && ptx_type_bytes(type) <= 4) {
			single = (float)real_of(value);
			memcpy(&word, &single, sizeof(word));
			return word;
		}
		return constant.bits;
	}
}
