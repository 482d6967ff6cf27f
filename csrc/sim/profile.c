/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Profiles: small text files of `key = value` lines.
 *
 * `#` and `;` begin a comment, an empty line means nothing, a [section] line is allowed
 * and means nothing.  Each key of the table below comes once; none may be missing.
 * Rates are in 10^9 a second, times in microseconds, both with decimals.
 */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profile.h"

#define MOST_BYTES ((size_t)64 << 10)

sim_profile_t sim_profile;

static const struct {
	const char *key;
	size_t offset;
	double unit, least, most; /* value * unit is what is kept; limits of the value */
} keys[] = {
#define RATE(key) { #key, offsetof(sim_profile_t, key), 1e9, 0.001, 1e9 }
#define TIME(key) { #key, offsetof(sim_profile_t, key##_ns), 1e3, 0, 1e9 }
	RATE(link_to_device), RATE(link_to_host), RATE(link_both), RATE(remote_read),
	RATE(remote_write), RATE(vram), RATE(instructions),
	TIME(launch), TIME(fault_batch), TIME(fault), TIME(eviction),
#undef RATE
#undef TIME
};
#define KEYS (sizeof(keys) / sizeof(*keys))

/* profiles.S */
extern const char sim_profile_pcie3[], sim_profile_pcie3_end[];
extern const char sim_profile_pcie4[], sim_profile_pcie4_end[];
extern const char sim_profile_pcie5[], sim_profile_pcie5_end[];
static const struct {
	const char *name, *text, *end;
} built_in[] = {
	{ "pcie3", sim_profile_pcie3, sim_profile_pcie3_end },
	{ "pcie4", sim_profile_pcie4, sim_profile_pcie4_end },
	{ "pcie5", sim_profile_pcie5, sim_profile_pcie5_end },
};

typedef struct {
	const char *source; /* for messages */
	int line;
	unsigned int seen;  /* a bit a key; KEYS: the name */
	char *why;
	size_t room;
} reader_t;

static bool bad(reader_t *reader, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool bad(reader_t *reader, const char *format, ...)
{
	va_list arguments;
	int used = snprintf(reader->why, reader->room, "error: EMUV_SIM_PROFILE: %.80s, line %d: ",
			    reader->source, reader->line);

	va_start(arguments, format);
	vsnprintf(reader->why + used, reader->room - (size_t)used, format, arguments);
	va_end(arguments);
	return false;
}

static char *trim(char *text)
{
	size_t length;

	while (isspace((unsigned char)*text))
		text++;
	length = strlen(text);
	while (length && isspace((unsigned char)text[length - 1]))
		text[--length] = '\0';
	return text;
}

static bool set_value(reader_t *reader, size_t key, const char *text)
{
	char *end;
	double value;

	/* strtod also takes hexadecimal, infinities and the like. */
	if (!isdigit((unsigned char)*text) || text[strspn(text, "0123456789.eE+-")])
		return bad(reader, "\"%.40s\" is no number", text);
	errno = 0;
	value = strtod(text, &end);
	if (*end || errno)
		return bad(reader, "\"%.40s\" is no number", text);
	if (value < keys[key].least || value > keys[key].most)
		return bad(reader, "%s = %.40s: it must be from %g to %g", keys[key].key, text,
			   keys[key].least, keys[key].most);
	*(uint64_t *)((char *)&sim_profile + keys[key].offset) = (uint64_t)llround(value * keys[key].unit);
	return true;
}

static bool read_line(reader_t *reader, char *line)
{
	char *value, *name;
	size_t key = 0;

	line[strcspn(line, "#;")] = '\0';
	name = trim(line);
	if (!*name || (*name == '[' && name[strlen(name) - 1] == ']'))
		return true;
	value = strchr(name, '=');
	if (!value)
		return bad(reader, "\"%.40s\" is not `key = value`", name);
	*value++ = '\0';
	name = trim(name);
	value = trim(value);
	while (key < KEYS && strcmp(keys[key].key, name) != 0)
		key++;
	if (key == KEYS && strcmp(name, "name") != 0)
		return bad(reader, "there is no key \"%.40s\"", name);
	if (reader->seen & 1u << key)
		return bad(reader, "\"%.40s\" comes a second time", name);
	reader->seen |= 1u << key;
	if (key < KEYS)
		return set_value(reader, key, value);
	for (const char *c = value; *c; c++)
		if ((unsigned char)*c < ' ' || *c == '"' || *c == '\\')
			return bad(reader, "a name has no quotes, backslashes or control characters");
	if (!*value || strlen(value) >= sizeof(sim_profile.name))
		return bad(reader, "a name has from 1 to %zu bytes", sizeof(sim_profile.name) - 1);
	strcpy(sim_profile.name, value);
	return true;
}

/* `text` is changed. */
static bool read_text(reader_t *reader, char *text)
{
	char *next;

	for (char *line = text; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		reader->line++;
		if (!read_line(reader, line))
			return false;
	}
	for (size_t key = 0; key < KEYS; key++)
		if (!(reader->seen & 1u << key))
			return bad(reader, "the file ends without \"%s\"", keys[key].key);
	if (!(reader->seen & 1u << KEYS))
		return bad(reader, "the file ends without \"name\"");
	return true;
}

static bool read_file(reader_t *reader, const char *path, char *text)
{
	FILE *file = fopen(path, "re");
	size_t bytes = file ? fread(text, 1, MOST_BYTES, file) : 0;
	const char *what = !file || ferror(file) ? strerror(errno) :
			   bytes == MOST_BYTES	 ? "it is longer than a profile may be (64 KiB)" :
			   memchr(text, 0, bytes) ? "it is no text" :
						    NULL;

	if (file)
		fclose(file);
	if (what) {
		snprintf(reader->why, reader->room, "error: EMUV_SIM_PROFILE=\"%.100s\": %s", path, what);
		return false;
	}
	text[bytes] = '\0';
	return read_text(reader, text);
}

bool sim_profile_load(const char *choice, char *why, size_t room)
{
	reader_t reader = { .source = choice, .why = why, .room = room };
	char *text = malloc(MOST_BYTES + 1);
	bool good = false;

	if (!text) {
		snprintf(why, room, "error: EMUV_SIM_PROFILE: no memory");
		return false;
	}
	for (size_t i = 0; i < sizeof(built_in) / sizeof(*built_in); i++) {
		if (strcmp(choice, built_in[i].name) != 0)
			continue;
		memcpy(text, built_in[i].text, (size_t)(built_in[i].end - built_in[i].text));
		text[built_in[i].end - built_in[i].text] = '\0';
		good = read_text(&reader, text);
		free(text);
		return good;
	}
	if (strchr(choice, '/'))
		good = read_file(&reader, choice, text);
	else
		snprintf(why, room, "error: EMUV_SIM_PROFILE=\"%.80s\" is neither pcie3, pcie4 or pcie5 "
			 "nor the path of a file (with a /)", choice);
	free(text);
	return good;
}

void sim_profile_each(sim_profile_tell_t *tell, void *argument)
{
	for (size_t key = 0; key < KEYS; key++) {
		char name[32];
		uint64_t value = *(const uint64_t *)((const char *)&sim_profile + keys[key].offset);

		if (keys[key].unit == 1e9)
			snprintf(name, sizeof(name), "%s_per_s", keys[key].key);
		else
			snprintf(name, sizeof(name), "%s_ns", keys[key].key);
		tell(name, value, argument);
	}
}
