/* SPDX-License-Identifier: GPL-2.0-only */
#include "message.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static atomic_int message_count;
static atomic_int message_quiet;

static void emit(const char *kind, const char *format, va_list arguments)
{
	int saved = errno;
	char line[1024];
	int n = atomic_fetch_add(&message_count, 1);

	if (n > EMUV_MESSAGE_CAP)
		return;
	if (n == EMUV_MESSAGE_CAP) {
		snprintf(line, sizeof line, "emuv: (no further messages from this process)\n");
	} else {
		size_t at = (size_t)snprintf(line, sizeof line, "emuv: %s", kind);
		vsnprintf(line + at, sizeof line - at - 1, format, arguments);
		strcat(line, "\n");
	}
	/* stderr may be closed or a broken pipe; that is the program's affair. */
	if (write(STDERR_FILENO, line, strlen(line)) < 0)
		(void)0;
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
