/* SPDX-License-Identifier: GPL-2.0-only */
#include "visible_devices.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ENTRY_BYTES EMUV_UUID_TEXT_BYTES

/* The next entry without its blanks; NULL after the last one. */
static const char *next_entry(const char *at, char entry[ENTRY_BYTES])
{
	size_t length;

	at += strspn(at, " \t");
	length = strcspn(at, ",");
	snprintf(entry, ENTRY_BYTES, "%.*s",
		 (int)(length < ENTRY_BYTES ? length : ENTRY_BYTES - 1), at);
	for (size_t end = strlen(entry); end && isspace((unsigned char)entry[end - 1]);)
		entry[--end] = '\0';
	return at[length] == ',' ? at + length + 1 : NULL;
}

/* As strtoul reads it, so that "1gpu" is 1; -1: no index. */
static long ordinal(const char *entry)
{
	char *end;
	long value = strtol(entry, &end, 10);

	return end == entry || value < 0 ? -1 : value;
}

/* The only card whose UUID begins so; -1: none, or several. */
static long by_uuid(const char *prefix, int count, emuv_uuid_text_t uuid, void *state)
{
	long found = -1;

	for (int i = 0; i < count; i++) {
		char text[EMUV_UUID_TEXT_BYTES];

		if (!uuid(i, text, state) || strncasecmp(text, prefix, strlen(prefix)) != 0)
			continue;
		if (found >= 0)
			return -1;
		found = i;
	}
	return found;
}

static bool is_uuids(const char *value)
{
	return strncmp(value + strspn(value, " \t"), "GPU-", 4) == 0;
}

static bool is_instances(const char *value)
{
	return strncmp(value + strspn(value, " \t"), "MIG-", 4) == 0;
}

int emuv_visible_devices(const char *value, int count, emuv_uuid_text_t uuid, void *state,
			 int *visible)
{
	int found = 0;
	bool uuids;

	if (!value) {
		for (; found < count; found++)
			visible[found] = found;
		return count;
	}
	if (is_instances(value))
		return 0;
	uuids = is_uuids(value);
	while (value) {
		char entry[ENTRY_BYTES];
		long device;

		value = next_entry(value, entry);
		if (uuids)
			device = strncmp(entry, "GPU-", 4) == 0 ?
					 by_uuid(entry, count, uuid, state) : -1;
		else
			device = ordinal(entry);
		if (device < 0 || device >= count)
			return found;
		for (int i = 0; i < found; i++)
			if (visible[i] == device)
				return 0;
		visible[found++] = (int)device;
	}
	return found;
}

bool emuv_visible_instance(const char *value, const char *uuid)
{
	char entry[ENTRY_BYTES];

	if (!value || !is_instances(value) || strncmp(uuid, "MIG-", 4) != 0)
		return false;
	next_entry(value, entry);
	/* "MIG-" alone begins every one; the old form is a path, given in full. */
	if (strncmp(entry, "MIG-GPU-", 8) == 0)
		return strcasecmp(entry, uuid) == 0;
	return entry[4] && strncasecmp(entry, uuid, strlen(entry)) == 0;
}

bool emuv_uuid_bytes(const char *text, unsigned char uuid[16])
{
	static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	unsigned int digits = 0;

	if (strncmp(text, "GPU-", 4) != 0 && strncmp(text, "MIG-", 4) != 0)
		return false;
	text += 4;
	if (strlen(text) != sizeof shape - 1)
		return false;
	for (size_t i = 0; i < sizeof shape - 1; i++) {
		int c = (unsigned char)text[i];
		int digit = isdigit(c) ? c - '0' : tolower(c) - 'a' + 10;

		if (shape[i] == '-' ? c != '-' : !isxdigit(c))
			return false;
		if (shape[i] == '-')
			continue;
		uuid[digits / 2] = (unsigned char)(digits % 2 ? uuid[digits / 2] << 4 | digit : digit);
		digits++;
	}
	return true;
}
