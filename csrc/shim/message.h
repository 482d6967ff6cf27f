/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Lines on stderr, prefixed "emuv: ".  Written with one write(2) from a stack
 * buffer: no stdio, no allocation, errno kept.  At most EMUV_MESSAGE_CAP lines a
 * process, so that a program in an error loop is not buried.
 */
#ifndef EMUV_MESSAGE_H
#define EMUV_MESSAGE_H

#define EMUV_MESSAGE_CAP 64

/* Informational: silent after emuv_message_quiet(1). */
void emuv_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* "emuv: error: …"; never silent. */
void emuv_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* "emuv: hint: …"; follows an error. */
void emuv_hint(const char *format, ...) __attribute__((format(printf, 1, 2)));
void emuv_message_quiet(int quiet);

/* Bytes as people read them, "192 MiB" or "5.5 MiB" or "17 bytes"; returns text. */
const char *emuv_size_text(unsigned long long bytes, char text[32]);

#endif
