/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Three files: a program that opens OPENS, found by nothing but the RUNPATH of the
 * file that opens it; so does that one in its turn.  -DOPENS="…" -DFOUND=1 -DINNER=1.
 */
#include <dlfcn.h>
#include <stdio.h>

#if defined(INNER)
int found(void);
int found(void)
{
	return 42;
}
#else
static int look(void)
{
	void *library = dlopen(OPENS, RTLD_NOW);
	int (*next)(void);

	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	*(void **)&next = dlsym(library, "found");
	return next ? next() : 2;
}
#if defined(FOUND)
int found(void);
int found(void)
{
	return look();
}
#else
int main(void)
{
	return look();
}
#endif
#endif
