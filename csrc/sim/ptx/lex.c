/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tokens of PTX text, and how the parser gives up.
 *
 * The text ends with a NUL, and no step goes past it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "parse.h"

static bool digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '$';
}

static bool word(char c)
{
	return letter(c) || digit(c);
}

static const char *skip_space(const char *at, unsigned int *line)
{
	for (;;) {
		if (*at == '\n') {
			(*line)++;
			at++;
			/* A line of the C preprocessor: # 1 "file.cu" */
			if (*at == '#')
				at += strcspn(at, "\n");
		} else if (*at == ' ' || (*at >= '\t' && *at <= '\r')) {
			at++;
		} else if (at[0] == '/' && at[1] == '/') {
			at += strcspn(at, "\n");
		} else if (at[0] == '/' && at[1] == '*') {
			for (at += 2; *at && !(at[0] == '*' && at[1] == '/'); at++)
				*line += *at == '\n';
			at += *at ? 2 : 0;
		} else {
			return at;
		}
	}
}

static const char *scan_word(const char *at)
{
	while (word(*at))
		at++;
	return at;
}

/* 12 0x1f 017 0b1 5U 0f3F800000 1.5 1.0e-5: what they mean is looked at later. */
static const char *scan_number(const char *at)
{
	bool hex = at[0] == '0' && (at[1] == 'x' || at[1] == 'X' || at[1] == 'f' || at[1] == 'F' ||
				    at[1] == 'd' || at[1] == 'D');

	for (;; at++) {
		if (word(*at))
			continue;
		if (!hex && *at == '.' && (digit(at[1]) || !letter(at[1])))
			continue;
		if (!hex && (*at == '+' || *at == '-') && (at[-1] == 'e' || at[-1] == 'E') &&
		    digit(at[1]))
			continue;
		return at;
	}
}

void ptx_next(ptx_parser_t *parser)
{
	const char *at = skip_space(parser->at, &parser->line);
	ptx_token_t *token = &parser->token;

	token->text = at;
	token->line = parser->line;
	if (!*at) {
		token->kind = PTX_TOKEN_END;
	} else if (letter(*at) || (*at == '%' && letter(at[1]))) {
		token->kind = PTX_TOKEN_NAME;
		at = scan_word(at + 1);
	} else if (*at == '%' && digit(at[1])) {
		token->kind = PTX_TOKEN_NAME;
		at = scan_word(at + 1);
	} else if (*at == '.' && word(at[1])) {
		token->kind = PTX_TOKEN_DOT;
		at = scan_word(at + 1);
		while (at[0] == ':' && at[1] == ':' && word(at[2]))
			at = scan_word(at + 2);
	} else if (digit(*at)) {
		token->kind = PTX_TOKEN_NUMBER;
		at = scan_number(at);
	} else if (*at == '"') {
		token->kind = PTX_TOKEN_STRING;
		for (at++; *at && *at != '"' && *at != '\n'; at++)
			if (*at == '\\' && at[1] && at[1] != '\n')
				at++;
		at += *at == '"';
	} else {
		token->kind = PTX_TOKEN_SIGN;
		at++;
	}
	token->length = (size_t)(at - token->text);
	parser->at = at;
}

ptx_token_t ptx_peek(const ptx_parser_t *parser)
{
	ptx_parser_t ahead;

	/* Only these are looked at. */
	ahead.at = parser->at;
	ahead.line = parser->line;
	ptx_next(&ahead);
	return ahead.token;
}

bool ptx_is(const ptx_parser_t *parser, const char *text)
{
	const ptx_token_t *token = &parser->token;

	return strncmp(token->text, text, token->length) == 0 && !text[token->length] &&
	       token->length;
}

bool ptx_accept(ptx_parser_t *parser, const char *text)
{
	if (!ptx_is(parser, text))
		return false;
	ptx_next(parser);
	return true;
}

void ptx_expect(ptx_parser_t *parser, const char *text)
{
	if (!ptx_accept(parser, text))
		ptx_bad(parser, "\"%s\" expected", text);
}

void ptx_give_up(ptx_parser_t *parser, ptx_status_t status, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vsnprintf(parser->why, PTX_WHY_BYTES, format, list);
	va_end(list);
	/* One line, of printable characters: the text is a stranger's. */
	for (char *at = parser->why; *at; at++)
		if ((unsigned char)*at < ' ' || *at == 127)
			*at = '?';
	parser->status = status;
	longjmp(parser->failed, 1);
}

void ptx_bad(ptx_parser_t *parser, const char *format, ...)
{
	const ptx_token_t *token = &parser->token;
	int length = token->length < 60 ? (int)token->length : 60;
	char what[160];
	va_list list;

	va_start(list, format);
	vsnprintf(what, sizeof(what), format, list);
	va_end(list);
	if (token->kind == PTX_TOKEN_END)
		ptx_give_up(parser, PTX_BAD_SYNTAX, "PTX line %u: %s, at the end of the text",
			    token->line, what);
	ptx_give_up(parser, PTX_BAD_SYNTAX, "PTX line %u: %s, at \"%.*s\"", token->line, what,
		    length, token->text);
}

void *ptx_take(ptx_parser_t *parser, size_t bytes)
{
	void *taken = ptx_arena_take(parser->arena, bytes);

	if (!taken)
		ptx_give_up(parser, PTX_NO_MEMORY, "no memory for the PTX");
	return taken;
}

char *ptx_copy(ptx_parser_t *parser, const char *text, size_t length)
{
	return memcpy(ptx_take(parser, length + 1), text, length);
}

const char *ptx_take_name(ptx_parser_t *parser)
{
	const char *name;

	if (parser->token.kind != PTX_TOKEN_NAME)
		ptx_bad(parser, "a name expected");
	name = ptx_copy(parser, parser->token.text, parser->token.length);
	ptx_next(parser);
	return name;
}

void ptx_skip_group(ptx_parser_t *parser)
{
	unsigned int depth = 0, line = parser->token.line;

	do {
		if (parser->token.kind == PTX_TOKEN_END)
			ptx_give_up(parser, PTX_BAD_SYNTAX,
				    "PTX line %u: what is opened here is not closed", line);
		if (ptx_is(parser, "{") || ptx_is(parser, "(") || ptx_is(parser, "["))
			depth++;
		else if (ptx_is(parser, "}") || ptx_is(parser, ")") || ptx_is(parser, "]"))
			depth--;
		ptx_next(parser);
	} while (depth);
}
