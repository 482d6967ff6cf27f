/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a message quotes may hold anything: a line break would make two messages of
 * it, an escape would command the terminal.  Bytes above 127 are left, as UTF-8.
 */
#ifndef EMUV_ONE_LINE_H
#define EMUV_ONE_LINE_H

#include <stddef.h>

/* Control characters of the first `bytes` of `text` become question marks. */
static inline void emuv_one_line(char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		if ((unsigned char)text[i] < 32 || text[i] == 127)
			text[i] = '?';
}

#endif
