/* SPDX-License-Identifier: GPL-2.0-only */
#define _GNU_SOURCE
#include "message.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "one_line.h"

static atomic_int message_count;
static atomic_int message_quiet;

/*
 * Writes without harming the host: a stderr that nobody reads is not worth its
 * SIGPIPE, one that is full is not worth waiting for, and write(2) is no place for
 * a cancelled thread to end while emuV has something to undo.
 */
static void write_line(const char *line, size_t bytes)
{
	const struct timespec none = { 0, 0 };
	struct pollfd ready = { .fd = STDERR_FILENO, .events = POLLOUT };
	sigset_t pipe_signal, pending, former;
	bool was_pending;
	int cancel;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	sigemptyset(&pipe_signal);
	sigaddset(&pipe_signal, SIGPIPE);
	sigpending(&pending);
	was_pending = sigismember(&pending, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe_signal, &former);
	if (poll(&ready, 1, 0) == 1 && ready.revents & POLLOUT &&
	    write(STDERR_FILENO, line, bytes) < 0 && errno == EPIPE && !was_pending)
		/* Ours, and to be gone before it can be delivered. */
		sigtimedwait(&pipe_signal, NULL, &none);
	pthread_sigmask(SIG_SETMASK, &former, NULL);
	pthread_setcancelstate(cancel, NULL);
}

static void emit(const char *kind, const char *format, va_list arguments)
{
	int saved = errno;
	char line[512];
	int n = atomic_fetch_add(&message_count, 1);
	size_t at;

	if (n > EMUV_MESSAGE_CAP)
		return;
	if (n == EMUV_MESSAGE_CAP) {
		snprintf(line, sizeof line, "emuv: (no further messages from this process)\n");
	} else {
		at = (size_t)snprintf(line, sizeof line, "emuv: %s", kind);
		vsnprintf(line + at, sizeof line - at - 1, format, arguments);
		emuv_one_line(line, strlen(line));
		strcat(line, "\n");
	}
	write_line(line, strlen(line));
	errno = saved;
}

void emuv_say(const char *format, ...)
{
	va_list arguments;

	if (atomic_load(&message_quiet))
		return;
	va_start(arguments, format);
	emit("", format, arguments);
	va_end(arguments);
}

void emuv_error(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	emit("error: ", format, arguments);
	va_end(arguments);
}

void emuv_hint(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	emit("hint: ", format, arguments);
	va_end(arguments);
}

void emuv_message_quiet(int quiet)
{
	atomic_store(&message_quiet, quiet);
}

const char *emuv_size_text(unsigned long long bytes, char text[32])
{
	if (bytes == ~0ULL)
		snprintf(text, 32, "unlimited");
	else if (bytes && bytes % (1ULL << 20) == 0)
		snprintf(text, 32, "%llu MiB", bytes >> 20);
	else if (bytes >= (1ULL << 20))
		snprintf(text, 32, "%.1f MiB", (double)bytes / (1 << 20));
	else
		snprintf(text, 32, "%llu byte%s", bytes, bytes == 1 ? "" : "s");
	return text;
}
