/* SPDX-License-Identifier: GPL-2.0-only */
#include "keep.h"

#include <string.h>

const emuv_keep_rules_t *emuv_keep_rules;
static const char *(*caller)(void);

void emuv_keep_use(const emuv_keep_rules_t *rules, const char *(*who)(void))
{
	caller = who;
	emuv_keep_rules = rules->n ? rules : NULL;
}

bool emuv_keep_wants_slow(uint64_t bytes)
{
	const char *name = NULL;
	bool asked = false;

	for (int i = 0; i < emuv_keep_rules->n; i++) {
		const emuv_keep_rule_t *rule = &emuv_keep_rules->rule[i];

		if (!rule->name[0]) {
			if (bytes >= rule->least && bytes <= rule->most)
				return true;
			continue;
		}
		if (!asked)
			name = caller();
		asked = true;
		if (name && strncmp(name, rule->name, strlen(rule->name)) == 0)
			return true;
	}
	return false;
}
