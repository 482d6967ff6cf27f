/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What kernels say: vprintf and __assertfail.
 *
 * A thread's text is formatted when it prints and kept with its run, in the order of
 * blocks, of each block as it came; when the run is over, it goes behind what earlier
 * runs left, and with the next synchronisation to the process's standard output, by
 * stdio, as CUDA does it.  Of one run CU_LIMIT_PRINTF_FIFO_SIZE bytes are kept: the
 * oldest are lost, as on a card.
 *
 * The arguments lie one behind another in the thread's memory, each aligned to its size:
 * int and what is narrower 4 bytes, the rest 8.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "internal.h"

#define FIFO_LIMIT 1 /* CU_LIMIT_PRINTF_FIFO_SIZE */
#define MOST_ARGUMENTS 64
#define MOST_WIDTH 4096

typedef struct piece {
	struct piece *next;
	uint64_t block;
	size_t bytes;
	char text[];
} piece_t;

struct sim_print {
	pthread_mutex_t lock;
	piece_t *first, **end;
	size_t count;
};

static pthread_mutex_t print_lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows, and of making a sim_print */
static piece_t *said, **said_end = &said;

/* ---- formatting ---- */

typedef struct {
	emuv_thread_t *thread;
	uint64_t arguments;
	uint64_t at; /* bytes of them that were read */
	FILE *out;
	int count;
} printer_t;

static bool argument(printer_t *printer, size_t bytes, void *to)
{
	uint64_t room;
	const char *from;

	printer->at = (printer->at + bytes - 1) / bytes * bytes;
	from = sim_kernel_bytes(printer->thread, printer->arguments + printer->at, bytes, &room);
	printer->at += bytes;
	memset(to, 0, bytes);
	if (!from || printer->count++ >= MOST_ARGUMENTS)
		return false;
	memcpy(to, from, bytes);
	return true;
}

static void print_text(printer_t *printer, const char *directive, uint64_t address)
{
	uint64_t room;
	const char *text = address ? sim_kernel_bytes(printer->thread, address, 1, &room) : NULL;
	char *copy = text ? strndup(text, room)
			  : strdup(address ? "(not in device memory)" : "(null)");

	if (copy)
		fprintf(printer->out, directive, copy);
	free(copy);
}

static int width(printer_t *printer, const char **format)
{
	int value = 0;

	if (**format == '*') {
		(*format)++;
		argument(printer, sizeof(value), &value);
	} else {
		while (**format >= '0' && **format <= '9' && value < MOST_WIDTH)
			value = value * 10 + *(*format)++ - '0';
	}
	return value > MOST_WIDTH ? MOST_WIDTH : value < -MOST_WIDTH ? -MOST_WIDTH : value;
}

/* One directive, whose % has been read; what C does not know is printed as it is. */
static const char *directive(printer_t *printer, const char *format)
{
	char flags[8] = "", text[48];
	const char *start = format;
	int wide = 0, precision = -1;
	bool is_long = false;
	size_t used = 0;
	uint64_t word;
	uint32_t half;
	double real;

	while (*format && strchr("-+ #0", *format) && used < sizeof(flags) - 1)
		flags[used++] = *format++;
	flags[used] = '\0';
	wide = width(printer, &format);
	if (*format == '.') {
		format++;
		precision = width(printer, &format);
	}
	for (; *format && strchr("hlLqjzt", *format); format++)
		is_long |= *format != 'h';
	used = (size_t)snprintf(text, sizeof(text), "%%%s", flags);
	if (wide)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%d", wide);
	if (precision >= 0)
		used += (size_t)snprintf(text + used, sizeof(text) - used, ".%d", precision);
	switch (*format) {
	case 'd':
	case 'i':
	case 'u':
	case 'o':
	case 'x':
	case 'X':
		snprintf(text + used, sizeof(text) - used, "%s%c", is_long ? "ll" : "", *format);
		if (is_long && argument(printer, sizeof(word), &word))
			fprintf(printer->out, text, (unsigned long long)word);
		else if (!is_long && argument(printer, sizeof(half), &half))
			fprintf(printer->out, text, half);
		return format + 1;
	case 'c':
		snprintf(text + used, sizeof(text) - used, "c");
		if (argument(printer, sizeof(half), &half))
			fprintf(printer->out, text, (int)half);
		return format + 1;
	case 'e':
	case 'E':
	case 'f':
	case 'F':
	case 'g':
	case 'G':
	case 'a':
	case 'A':
		snprintf(text + used, sizeof(text) - used, "%c", *format);
		if (argument(printer, sizeof(real), &real))
			fprintf(printer->out, text, real);
		return format + 1;
	case 'p':
		snprintf(text + used, sizeof(text) - used, "p");
		if (argument(printer, sizeof(word), &word))
			fprintf(printer->out, text, (void *)(uintptr_t)word);
		return format + 1;
	case 's':
		snprintf(text + used, sizeof(text) - used, "s");
		if (argument(printer, sizeof(word), &word))
			print_text(printer, text, word);
		return format + 1;
	case '%':
		fputc('%', printer->out);
		return format + 1;
	default:
		fputc('%', printer->out);
		return start;
	}
}

static struct sim_print *print_of(sim_run_t *run)
{
	struct sim_print *print;

	pthread_mutex_lock(&print_lock);
	print = run->print;
	if (!print) {
		print = calloc(1, sizeof(*print));
		if (print) {
			pthread_mutex_init(&print->lock, NULL);
			print->end = &print->first;
			run->print = print;
		}
	}
	pthread_mutex_unlock(&print_lock);
	return print;
}

/* Takes the piece over. */
static void keep(emuv_thread_t *thread, piece_t *piece)
{
	struct sim_print *print = print_of(sim_core_of(thread)->run);

	if (!print) {
		free(piece);
		return;
	}
	piece->next = NULL;
	piece->block = sim_seat_of(thread)->number;
	pthread_mutex_lock(&print->lock);
	*print->end = piece;
	print->end = &piece->next;
	print->count++;
	pthread_mutex_unlock(&print->lock);
}

int32_t sim_print(emuv_thread_t *thread, uint64_t address, uint64_t arguments)
{
	printer_t printer = { .thread = thread, .arguments = arguments };
	uint64_t room, left;
	const char *format = address ? sim_kernel_bytes(thread, address, 1, &room) : NULL;
	char *text = NULL, *copy;
	piece_t *piece;
	size_t bytes;

	if (!format)
		return -1;
	/* A copy: the kernel, or another one, may write where it is. */
	copy = strndup(format, room);
	printer.out = copy ? open_memstream(&text, &bytes) : NULL;
	if (!printer.out) {
		free(copy);
		return -2;
	}
	for (const char *at = copy; *at;) {
		left = strcspn(at, "%");
		fwrite(at, 1, left, printer.out);
		at += left;
		if (*at == '%')
			at = directive(&printer, at + 1);
	}
	free(copy);
	if (fclose(printer.out) != 0) {
		free(text);
		return -2;
	}
	piece = malloc(sizeof(*piece) + bytes);
	if (piece) {
		memcpy(piece->text, text, bytes);
		piece->bytes = bytes;
		keep(thread, piece);
	}
	free(text);
	return printer.count;
}

/* ---- output ---- */

_Thread_local bool sim_print_due;

static int by_block(const void *a, const void *b)
{
	const piece_t *const *left = a, *const *right = b;

	return ((*left)->block > (*right)->block) - ((*left)->block < (*right)->block);
}

void sim_print_end(sim_run_t *run)
{
	struct sim_print *print = run->print;
	size_t bytes = 0, count = 0, first = 0;
	piece_t **pieces;

	if (!print)
		return;
	pieces = malloc((print->count + 1) * sizeof(*pieces));
	for (piece_t *piece = print->first, *next; piece; piece = next) {
		next = piece->next;
		if (!pieces) {
			free(piece);
			continue;
		}
		pieces[count++] = piece;
		bytes += piece->bytes;
	}
	/* glibc's qsort is a merge sort where there is memory: what is equal keeps its order. */
	if (pieces)
		qsort(pieces, count, sizeof(*pieces), by_block);
	for (; first < count && bytes > run->what->context->limits[FIFO_LIMIT]; first++) {
		bytes -= pieces[first]->bytes;
		free(pieces[first]);
	}
	pthread_mutex_lock(&print_lock);
	for (; first < count; first++) {
		pieces[first]->next = NULL;
		*said_end = pieces[first];
		said_end = &pieces[first]->next;
	}
	pthread_mutex_unlock(&print_lock);
	free(pieces);
	pthread_mutex_destroy(&print->lock);
	free(print);
}

void sim_print_flush(void)
{
	piece_t *pieces;

	sim_print_due = false;
	if (!__atomic_load_n(&said, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&print_lock);
	pieces = said;
	said = NULL;
	said_end = &said;
	pthread_mutex_unlock(&print_lock);
	for (piece_t *next; pieces; pieces = next) {
		next = pieces->next;
		fwrite(pieces->text, 1, pieces->bytes, stdout);
		free(pieces);
	}
	fflush(stdout);
}

/* ---- assert ---- */

static void text_at(emuv_thread_t *thread, uint64_t address, char *to, size_t bytes)
{
	uint64_t room;
	const char *text = address ? sim_kernel_bytes(thread, address, 1, &room) : NULL;

	snprintf(to, bytes, "%.*s", text ? (int)(room < bytes ? room : bytes) : 1, text ? text : "?");
}

void sim_assert_fail(emuv_thread_t *thread, uint64_t message, uint64_t file, uint32_t line,
		     uint64_t function)
{
	const uint32_t *block = thread->block->index, *index = thread->index;
	sim_core_t *core = sim_core_of(thread);
	char text[160], where[120], name[120];

	text_at(thread, message, text, sizeof(text));
	text_at(thread, file, where, sizeof(where));
	text_at(thread, function, name, sizeof(name));
	if (sim_run_ends(core->run, EMUV_TRAP_ASSERT))
		sim_say("%s:%u: %s: block: [%u,%u,%u], thread: [%u,%u,%u] Assertion `%s` failed.",
			where, line, name, block[0], block[1], block[2], index[0], index[1],
			index[2], text);
	sim_core_leave(core, CORE_LEFT);
}
