/* SPDX-License-Identifier: GPL-2.0-only */
#define _GNU_SOURCE
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emuv_environ.h"
#include "emuv_shared.h"

/* Decimal digits up to a comma or the end; advances *text. */
static int number(const char **text, uint64_t *value)
{
	const char *at = *text;
	uint64_t sum = 0;

	if (*at < '0' || *at > '9')
		return -EINVAL;
	for (; *at >= '0' && *at <= '9'; at++)
		if (__builtin_mul_overflow(sum, UINT64_C(10), &sum) ||
		    __builtin_add_overflow(sum, (uint64_t)(*at - '0'), &sum))
			return -EINVAL;
	/* The largest value means "unlimited" and is spelled "none". */
	if (sum == EMUV_UNLIMITED)
		return -EINVAL;
	*text = at;
	*value = sum;
	return 0;
}

static int size_or_none(const char **text, int none_allowed, uint64_t *value)
{
	if (none_allowed && strncmp(*text, "none", 4) == 0) {
		*text += 4;
		*value = EMUV_UNLIMITED;
		return 0;
	}
	return number(text, value);
}

int emuv_config_sizes(const char *text, int none_allowed, uint64_t otherwise, uint64_t *values)
{
	uint32_t named = 0;
	uint64_t value;

	if (!strchr(text, '=')) {
		if (size_or_none(&text, none_allowed, &value) || *text)
			return -EINVAL;
		for (int i = 0; i < EMUV_MAX_DEVICES; i++)
			values[i] = value;
		return 0;
	}
	for (int i = 0; i < EMUV_MAX_DEVICES; i++)
		values[i] = otherwise;
	for (;;) {
		uint64_t device;

		if (number(&text, &device) || device >= EMUV_MAX_DEVICES || *text++ != '=' ||
		    named & (1u << device) || size_or_none(&text, none_allowed, &value))
			return -EINVAL;
		named |= 1u << device;
		values[device] = value;
		if (!*text)
			return 0;
		if (*text++ != ',')
			return -EINVAL;
	}
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static int keep_rule(const char **text, emuv_keep_rule_t *rule)
{
	const char *at = *text;
	size_t n;

	memset(rule, 0, sizeof *rule);
	if (!is_letter(*at)) {
		if (number(text, &rule->least) || *(*text)++ != '-' || number(text, &rule->most) ||
		    rule->least > rule->most)
			return -EINVAL;
		return 0;
	}
	while (is_letter(*at) || (*at >= '0' && *at <= '9') || (*at && strchr("+-.", *at)))
		at++;
	n = (size_t)(at - *text);
	if (n >= sizeof rule->name)
		return -EINVAL;
	memcpy(rule->name, *text, n);
	*text = at;
	return 0;
}

int emuv_config_keep(const char *text, emuv_keep_rules_t *rules)
{
	for (rules->n = 0; rules->n < EMUV_KEEP_RULES;) {
		if (keep_rule(&text, &rules->rule[rules->n]))
			return -EINVAL;
		rules->n++;
		if (!*text)
			return 0;
		if (*text++ != ',')
			return -EINVAL;
	}
	return -EINVAL;
}

static void refuse(emuv_config_t *config, const char *variable, const char *value,
		   const char *accepted)
{
	config->valid = 0;
	snprintf(config->problem, sizeof config->problem, "%s='%.100s' is not %s", variable,
		 value, accepted);
	snprintf(config->hint, sizeof config->hint,
		 "start the program through emuv-run, which sets %s", variable);
}

static void read_text(const char *variable, char *text, size_t bytes)
{
	const char *value = emuv_environ(variable);

	snprintf(text, bytes, "%s", value ? value : "");
}

static int read_flag(const char *variable)
{
	const char *value = emuv_environ(variable);

	return value && strcmp(value, "1") == 0;
}

void emuv_config_read(emuv_config_t *config)
{
	uint64_t vram[EMUV_MAX_DEVICES], extra[EMUV_MAX_DEVICES];
	const char *value;

	memset(config, 0, sizeof *config);
	config->adopted_from = emuv_environ_adopt();
	config->valid = 1;
	config->quiet = read_flag("EMUV_QUIET");
	config->keep = read_flag("EMUV_KEEP");
	read_text("EMUV_NAME", config->name, sizeof config->name);
	read_text("EMUV_RUN", config->run_id, sizeof config->run_id);
	read_text("EMUV_DRIVER", config->driver, sizeof config->driver);

	value = emuv_environ("EMUV_VRAM");
	if (!value) {
		config->valid = 0;
		snprintf(config->problem, sizeof config->problem,
			 "libemuv.so is loaded but EMUV_VRAM is not set, and no process above this "
			 "one has a budget to hold");
		snprintf(config->hint, sizeof config->hint,
			 "start the program through emuv-run --vram SIZE, or unset LD_PRELOAD");
		return;
	}
	if (emuv_config_sizes(value, 1, EMUV_UNLIMITED, vram))
		refuse(config, "EMUV_VRAM", value, "a number of bytes, 'none' or '0=BYTES,1=BYTES'");
	value = emuv_environ("EMUV_VIRTUAL");
	if (emuv_config_sizes(value ? value : "0", 0, 0, extra))
		refuse(config, "EMUV_VIRTUAL", value, "a number of bytes or '0=BYTES,1=BYTES'");
	for (int i = 0; i < EMUV_MAX_DEVICES; i++)
		config->control.budget[i] = (emuv_budget_t){ vram[i], extra[i] };

	value = emuv_environ("EMUV_POLICY");
	if (!value || strcmp(value, "cap") == 0)
		config->control.policy = EMUV_POLICY_CAP;
	else if (strcmp(value, "spill") == 0)
		config->control.policy = EMUV_POLICY_SPILL;
	else
		refuse(config, "EMUV_POLICY", value, "'cap' or 'spill'");
	value = emuv_environ("EMUV_ALLOCATION");
	if (!value || strcmp(value, "lazy") == 0)
		config->control.allocation = EMUV_ALLOCATION_LAZY;
	else if (strcmp(value, "eager") == 0)
		config->control.allocation = EMUV_ALLOCATION_EAGER;
	else
		refuse(config, "EMUV_ALLOCATION", value, "'lazy' or 'eager'");
	value = emuv_environ("EMUV_KEEP_DEVICE");
	if (value && emuv_config_keep(value, &config->keep_device))
		refuse(config, "EMUV_KEEP_DEVICE", value, "'BYTES-BYTES' or 'library', between commas");
	value = emuv_environ("EMUV_SHARED");
	config->shared = value && strcmp(value, "1") == 0;
	if (value && !config->shared && value[0] && strcmp(value, "0") != 0)
		refuse(config, "EMUV_SHARED", value, "'1' or '0'");
	if (config->shared && !emuv_shared_run_id_valid(config->run_id))
		refuse(config, "EMUV_RUN", config->run_id, "the id of a run, which EMUV_SHARED=1 needs");
	if (config->driver[0] != '/')
		refuse(config, "EMUV_DRIVER", config->driver, "the absolute path of libcuda.so.1");
}
