/* SPDX-License-Identifier: GPL-2.0-only */
/* Modules: images loaded into a context. */
#include "internal.h"

static void drop_of_context(void *object, void *argument)
{
	if (((sim_object_t *)object)->context == argument)
		sim_object_delete(object);
}

void sim_modules_drop_context(sim_context_t *context)
{
	sim_object_each(SIM_MODULE, drop_of_context, context);
}
