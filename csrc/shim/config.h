/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the launcher asked for, from the environment.  The launcher parses sizes;
 * here only decimal bytes are taken, and anything else is refused in words, so
 * that a mistyped budget is never an unlimited one.
 */
#ifndef EMUV_CONFIG_H
#define EMUV_CONFIG_H

#include "emuv_segment.h"

/* What must not spill: keep.h. */
#define EMUV_KEEP_RULES 32
#define EMUV_KEEP_NAME_BYTES 64

typedef struct {
	uint64_t least, most;           /* a size class, where `name` is "" */
	char name[EMUV_KEEP_NAME_BYTES]; /* a file's basename begins so */
} emuv_keep_rule_t;

typedef struct {
	int n;
	emuv_keep_rule_t rule[EMUV_KEEP_RULES];
} emuv_keep_rules_t;

typedef struct {
	int valid;        /* 0: `problem` says why; the driver is then not initialised */
	char problem[256];
	char hint[256];
	emuv_control_t control; /* the starting budget of every device */
	char name[EMUV_TEXT_BYTES];
	char run_id[EMUV_TEXT_BYTES];
	char driver[4096];
	int keep;
	int quiet;
	emuv_keep_rules_t keep_device;
	int adopted_from; /* the process whose environment this is; 0: this one's own */
	int shared; /* the budget is the run's: emuv_shared.h */
} emuv_config_t;

/*
 * Reads the environment, or where that has lost the run's, an ancestor's
 * (emuv_environ.h).  `config` is complete afterwards, valid or not.
 */
void emuv_config_read(emuv_config_t *config);

/*
 * "N", "none" (where allowed) or "0=N,1=M" into values[EMUV_MAX_DEVICES]; devices
 * that a list does not name get `otherwise`.  Returns 0 or -EINVAL.
 */
int emuv_config_sizes(const char *text, int none_allowed, uint64_t otherwise, uint64_t *values);

/*
 * Rules between commas: BYTES-BYTES (from, to), in decimal, or a name that begins with a
 * letter or '_' and goes on with those, digits and "+-.".  0 or -EINVAL.
 */
int emuv_config_keep(const char *text, emuv_keep_rules_t *rules);

#endif
