/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * PTX text, as far as names go: .version, .target, entries with their parameters,
 * module variables with their sizes and initial numbers.  Bodies are skipped.
 *
 * The text is a stranger's: every step looks at the NUL that ends it, sizes are
 * checked before they are multiplied, and what is not understood is an error.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"

#define MAX_VARIABLE_BYTES ((size_t)1 << 40)
/* An initialiser is kept in memory while the image lives. */
#define MAX_INITIAL_BYTES ((size_t)1 << 28)
#define MAX_DIMENSIONS 8

typedef struct {
	sim_image_t *image;
	const char *at;    /* behind the token */
	const char *token; /* "": the end */
	size_t length;
	char *why;
} scan_t;

static bool word_char(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%' || c == '.';
}

static void next(scan_t *scan)
{
	const char *at = scan->at;

	for (;;) {
		at += strspn(at, " \t\r\n\f\v");
		if (at[0] == '/' && at[1] == '/') {
			at += strcspn(at, "\n");
		} else if (at[0] == '/' && at[1] == '*') {
			const char *end = strstr(at + 2, "*/");

			at = end ? end + 2 : at + strlen(at);
		} else {
			break;
		}
	}
	scan->token = at;
	if (*at == '"') {
		for (at++; *at && *at != '"'; at++)
			if (*at == '\\' && at[1])
				at++;
		if (*at)
			at++;
	} else if (word_char(*at)) {
		while (word_char(*at))
			at++;
	} else if (*at) {
		at++;
	}
	scan->length = (size_t)(at - scan->token);
	scan->at = at;
}

static bool is(const scan_t *scan, const char *text)
{
	return scan->length == strlen(text) && memcmp(scan->token, text, scan->length) == 0;
}

static bool at_name(const scan_t *scan)
{
	return scan->length && word_char(*scan->token) && *scan->token != '.' &&
	       !isdigit((unsigned char)*scan->token);
}

static CUresult bad(scan_t *scan, const char *what)
{
	int line = 1;

	for (const char *at = (const char *)scan->image->data; at < scan->token; at++)
		line += *at == '\n';
	snprintf(scan->why, SIM_WHY_BYTES, "PTX line %d: %s%s%.40s", line, what,
		 scan->length ? ", at " : "", scan->length ? scan->token : "");
	/* One line: what follows the token is no part of the message. */
	scan->why[strcspn(scan->why, "\r\n")] = '\0';
	return CUDA_ERROR_INVALID_PTX;
}

/* The token is `open`; skips to behind its partner. */
static bool skip_group(scan_t *scan, const char *open, const char *close)
{
	unsigned int depth = 0;

	do {
		if (!scan->length)
			return false;
		if (is(scan, open))
			depth++;
		else if (is(scan, close))
			depth--;
		next(scan);
	} while (depth);
	return true;
}

static bool number(const scan_t *scan, unsigned long long *value)
{
	char *end;

	if (!scan->length || !isdigit((unsigned char)*scan->token))
		return false;
	*value = strtoull(scan->token, &end, 0);
	/* A trailing U is PTX's mark of an unsigned number. */
	return end == scan->token + scan->length ||
	       (end == scan->token + scan->length - 1 && *end == 'U');
}

static unsigned int type_bytes(const scan_t *scan)
{
	static const struct {
		const char *name;
		unsigned int bytes;
	} types[] = {
		{ ".b8", 1 },	{ ".u8", 1 },	 { ".s8", 1 },	  { ".b16", 2 },   { ".u16", 2 },
		{ ".s16", 2 },	{ ".f16", 2 },	 { ".bf16", 2 },  { ".b32", 4 },   { ".u32", 4 },
		{ ".s32", 4 },	{ ".f32", 4 },	 { ".f16x2", 4 }, { ".bf16x2", 4 },{ ".b64", 8 },
		{ ".u64", 8 },	{ ".s64", 8 },	 { ".f64", 8 },	  { ".b128", 16 },
		/* Opaque handles. */
		{ ".texref", 8 }, { ".samplerref", 8 }, { ".surfref", 8 }, { ".pred", 1 },
	};

	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
		if (is(scan, types[i].name))
			return types[i].bytes;
	return 0;
}

/* What a declaration is, up to the end of its name and dimensions. */
typedef struct {
	const char *name;
	size_t length;
	unsigned int element, vector;
	size_t bytes, align;
	size_t dimensions[MAX_DIMENSIONS]; /* 0 for [] */
	unsigned int dimension_count;
	bool managed, open; /* open: [] takes its size from the initialiser */
} declaration_t;

/* The token is behind the state space. */
static CUresult declare(scan_t *scan, declaration_t *is_)
{
	unsigned long long value;
	bool pointer = false; /* behind .ptr, .align is about what it points to */

	for (; scan->length && *scan->token == '.'; next(scan)) {
		if (is(scan, ".ptr"))
			pointer = true;
		if (type_bytes(scan)) {
			is_->element = type_bytes(scan);
		} else if (is(scan, ".v2") || is(scan, ".v4") || is(scan, ".v8")) {
			is_->vector = (unsigned int)(scan->token[2] - '0');
		} else if (is(scan, ".align")) {
			next(scan);
			if (!number(scan, &value) || !value || value > 1 << 20 ||
			    value & (value - 1))
				return bad(scan, "an alignment is a power of two");
			if (!pointer)
				is_->align = value;
		} else if (is(scan, ".attribute")) {
			/* .attribute(.managed, …) */
			next(scan);
			if (!is(scan, "("))
				return bad(scan, "( expected");
			for (; scan->length && !is(scan, ")"); next(scan))
				is_->managed |= is(scan, ".managed");
			if (!scan->length)
				return bad(scan, ") expected");
		}
		/* .global behind .ptr, .unified and the like say nothing about size. */
	}
	if (!is_->element)
		return bad(scan, "a type is missing");
	return CUDA_SUCCESS;
}

static CUresult declare_name(scan_t *scan, declaration_t *is_)
{
	unsigned long long value;

	if (!at_name(scan))
		return bad(scan, "a name is missing");
	is_->name = scan->token;
	is_->length = scan->length;
	is_->bytes = (size_t)is_->element * is_->vector;
	is_->open = false;
	is_->dimension_count = 0;
	if (is_->align < is_->bytes)
		is_->align = is_->align ? is_->align : is_->bytes;
	for (next(scan); is(scan, "["); next(scan)) {
		size_t *dimension = &is_->dimensions[is_->dimension_count];

		if (is_->dimension_count++ == MAX_DIMENSIONS)
			return bad(scan, "more than eight dimensions");
		*dimension = 0;
		next(scan);
		if (is(scan, "]")) {
			is_->open = true;
			continue;
		}
		if (!number(scan, &value))
			return bad(scan, "a dimension is a number");
		if (value && is_->bytes > MAX_VARIABLE_BYTES / value)
			return bad(scan, "a variable is too large");
		is_->bytes *= value;
		*dimension = value;
		next(scan);
		if (!is(scan, "]"))
			return bad(scan, "] expected");
	}
	return CUDA_SUCCESS;
}

/* One number of an initialiser, as the element's bytes. */
static CUresult initial_value(scan_t *scan, const declaration_t *what, unsigned char *to)
{
	bool negative = is(scan, "-");
	unsigned long long bits = 0;
	const char *text;
	char *end;

	if (negative || is(scan, "+"))
		next(scan);
	text = scan->token;
	if (!scan->length)
		return bad(scan, "an initialiser ends early");
	if (text[0] == '0' && (text[1] == 'f' || text[1] == 'F' || text[1] == 'd' || text[1] == 'D')) {
		bits = strtoull(text + 2, &end, 16);
	} else if (isdigit((unsigned char)*text) && memchr(text, '.', scan->length)) {
		double real = strtod(text, &end);

		real = negative ? -real : real;
		negative = false;
		if (what->element == 4) {
			float single = (float)real;

			memcpy(&bits, &single, sizeof(single));
		} else {
			memcpy(&bits, &real, sizeof(real));
		}
	} else if (isdigit((unsigned char)*text)) {
		bits = strtoull(text, &end, 0);
	} else {
		/*
		 * An address: name, name+n, generic(name), mask(name).  Nothing reads it
		 * before there are kernels; it stays zero.
		 */
		for (next(scan); is(scan, "("); next(scan))
			while (scan->length && !is(scan, ")"))
				next(scan);
		while (is(scan, "+") || is(scan, "-")) {
			next(scan);
			next(scan);
		}
		return CUDA_SUCCESS;
	}
	if (negative)
		bits = 0 - bits;
	memcpy(to, &bits, what->element < 8 ? what->element : 8);
	next(scan);
	return CUDA_SUCCESS;
}

/* Bytes of one element of the array that `depth` braces lead into. */
static size_t stride(const declaration_t *what, size_t depth)
{
	size_t bytes = (size_t)what->element * what->vector;

	for (size_t i = depth; i < what->dimension_count; i++)
		bytes *= what->dimensions[i];
	return bytes;
}

/* The token is behind "=". */
static CUresult initialise(scan_t *scan, const declaration_t *what, sim_variable_t *variable)
{
	size_t at = 0, depth = 0;

	if (what->open) { /* count first */
		scan_t ahead = *scan;
		size_t values = 0;

		while (ahead.length && !is(&ahead, ";")) {
			values += is(&ahead, ",");
			next(&ahead);
		}
		if (variable->bytes > MAX_INITIAL_BYTES / (values + 1))
			return bad(scan, "an initialiser is too large");
		variable->bytes *= values + 1;
	}
	if (variable->bytes > MAX_INITIAL_BYTES)
		return bad(scan, "an initialiser is too large");
	variable->initial = calloc(1, variable->bytes ? variable->bytes : 1);
	if (!variable->initial)
		return CUDA_ERROR_OUT_OF_MEMORY;
	do {
		if (is(scan, "{")) {
			depth++;
			next(scan);
		} else if (is(scan, "}")) {
			/* What an inner brace leaves out is zero. */
			size_t row = depth > 1 ? stride(what, depth - 1) : 0;

			if (!depth--)
				return bad(scan, "} without {");
			if (row)
				at = (at + row - 1) / row * row;
			next(scan);
		} else if (is(scan, ",")) {
			next(scan);
		} else {
			unsigned char sink[16];
			bool fits = at + what->element <= variable->bytes;
			CUresult result =
				initial_value(scan, what, fits ? variable->initial + at : sink);

			if (result != CUDA_SUCCESS)
				return result;
			if (!fits)
				return bad(scan, "more initial values than elements");
			at += what->element;
		}
	} while (depth);
	return CUDA_SUCCESS;
}

/* The token is behind .global or .const. */
static CUresult variables(scan_t *scan, bool constant, bool external)
{
	declaration_t what = { .vector = 1 };
	CUresult result = declare(scan, &what);

	while (result == CUDA_SUCCESS) {
		sim_variable_t *variable;

		result = declare_name(scan, &what);
		if (result != CUDA_SUCCESS)
			return result;
		if (!external) {
			variable = sim_image_add_variable(scan->image, what.name, what.length);
			if (!variable)
				return CUDA_ERROR_OUT_OF_MEMORY;
			variable->bytes = what.bytes;
			variable->align = what.align;
			variable->constant = constant;
			variable->managed = what.managed;
			if (is(scan, "=")) {
				next(scan);
				result = initialise(scan, &what, variable);
				if (result != CUDA_SUCCESS)
					return result;
			}
		}
		if (is(scan, ";")) {
			next(scan);
			return CUDA_SUCCESS;
		}
		if (!is(scan, ","))
			return bad(scan, "; expected");
		next(scan);
	}
	return result;
}

static CUresult parameters(scan_t *scan, sim_entry_t *entry)
{
	size_t offset = 0;

	next(scan);
	while (!is(scan, ")")) {
		declaration_t what = { .vector = 1 };
		sim_parameter_t *more;
		CUresult result;

		if (!is(scan, ".param"))
			return bad(scan, ".param expected");
		next(scan);
		result = declare(scan, &what);
		if (result == CUDA_SUCCESS)
			result = declare_name(scan, &what);
		if (result != CUDA_SUCCESS)
			return result;
		more = realloc(entry->parameters, (entry->parameter_count + 1) * sizeof(*more));
		if (!more)
			return CUDA_ERROR_OUT_OF_MEMORY;
		entry->parameters = more;
		if (what.align > 1)
			offset = (offset + what.align - 1) / what.align * what.align;
		if (offset + what.bytes > 32764)
			return bad(scan, "parameters take more than 32764 bytes");
		more[entry->parameter_count++] =
			(sim_parameter_t){ (unsigned int)offset, (unsigned int)what.bytes };
		offset += what.bytes;
		if (is(scan, ","))
			next(scan);
		else if (!is(scan, ")"))
			return bad(scan, ") expected");
	}
	next(scan);
	return CUDA_SUCCESS;
}

/* The token is behind .entry. */
static CUresult entry(scan_t *scan)
{
	CUresult result = CUDA_SUCCESS;
	unsigned long long threads, value;
	sim_entry_t *made;

	if (!at_name(scan))
		return bad(scan, "an entry has no name");
	/* A declaration and a definition are one entry. */
	made = NULL;
	for (unsigned int i = 0; i < scan->image->entry_count; i++)
		if (strlen(scan->image->entries[i].name) == scan->length &&
		    memcmp(scan->image->entries[i].name, scan->token, scan->length) == 0)
			made = &scan->image->entries[i];
	if (!made)
		made = sim_image_add_entry(scan->image, scan->token, scan->length);
	if (!made)
		return CUDA_ERROR_OUT_OF_MEMORY;
	free(made->parameters);
	made->parameters = NULL;
	made->parameter_count = 0;
	next(scan);
	if (is(scan, "("))
		result = parameters(scan, made);
	while (result == CUDA_SUCCESS && scan->length && !is(scan, "{") && !is(scan, ";")) {
		bool maximum = is(scan, ".maxntid"), required = is(scan, ".reqntid");

		next(scan);
		if (!maximum && !required)
			continue;
		for (threads = 1; number(scan, &value); next(scan)) {
			threads *= value <= 1024 ? value : 1024;
			if (threads > 1024)
				threads = 1024;
			next(scan);
			if (!is(scan, ","))
				break;
		}
		made->max_threads = (unsigned int)threads;
	}
	if (result != CUDA_SUCCESS)
		return result;
	if (is(scan, ";")) {
		next(scan);
		return CUDA_SUCCESS;
	}
	return skip_group(scan, "{", "}") ? CUDA_SUCCESS : bad(scan, "an entry has no end");
}

CUresult sim_ptx_scan(sim_image_t *image, char why[SIM_WHY_BYTES])
{
	scan_t scan = { .image = image, .at = (const char *)image->data, .why = why };
	CUresult result = CUDA_SUCCESS;
	bool external = false;

	next(&scan);
	if (!is(&scan, ".version"))
		return bad(&scan, "the text does not begin with .version");
	while (result == CUDA_SUCCESS && scan.length) {
		if (is(&scan, ".version")) {
			char *end;

			next(&scan);
			image->ptx_version = (int)(strtod(scan.token, &end) * 10 + 0.5);
			if (!scan.length || end != scan.token + scan.length)
				return bad(&scan, ".version wants a number");
			next(&scan);
		} else if (is(&scan, ".target")) {
			next(&scan);
			if (scan.length > 3 && strncmp(scan.token, "sm_", 3) == 0)
				image->target = atoi(scan.token + 3);
			next(&scan);
		} else if (is(&scan, ".entry")) {
			next(&scan);
			result = entry(&scan);
			external = false;
		} else if (is(&scan, ".global") || is(&scan, ".const")) {
			bool constant = is(&scan, ".const");

			next(&scan);
			result = variables(&scan, constant, external);
			external = false;
		} else if (is(&scan, "{")) {
			if (!skip_group(&scan, "{", "}"))
				result = bad(&scan, "{ without }");
			external = false;
		} else if (is(&scan, "(")) { /* parameters of a .func */
			if (!skip_group(&scan, "(", ")"))
				result = bad(&scan, "( without )");
		} else {
			if (is(&scan, ".extern"))
				external = true;
			else if (is(&scan, ";"))
				external = false;
			else if (is(&scan, "}"))
				return bad(&scan, "} without {");
			next(&scan);
		}
	}
	if (result == CUDA_SUCCESS && !image->target)
		return bad(&scan, ".target is missing");
	return result;
}
