/* SPDX-License-Identifier: GPL-2.0-only */
/* Opens a plugin that looks at its own libraries first, and lets it take. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	void *plugin = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND) : NULL;
	int (*plugin_take)(void);

	if (!plugin) {
		fprintf(stderr, "plugin_host: %s\n", dlerror());
		return 2;
	}
	*(void **)&plugin_take = dlsym(plugin, "plugin_take");
	return plugin_take ? plugin_take() : 2;
}
