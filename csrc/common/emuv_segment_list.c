/* SPDX-License-Identifier: GPL-2.0-only */
#define _GNU_SOURCE
#include "emuv_segment_list.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "emuv_segment_file.h"

/* What ended meanwhile is passed over too. */
static bool read_living(const char *path, emuv_segment_t *copy)
{
	emuv_segment_view_t *view;
	int result;

	if (emuv_segment_open(path, 0, &view, NULL))
		return false;
	result = emuv_segment_snapshot(view, copy, NULL);
	emuv_segment_close(view);
	/* -EAGAIN: counters of several moments, of a program that never stands still. */
	return (!result || result == -EAGAIN) && copy->state != EMUV_STATE_EXITED &&
	       emuv_segment_alive(copy);
}

bool emuv_segment_each(emuv_segment_see_t see, void *state)
{
	char directory[PATH_MAX], path[PATH_MAX + NAME_MAX + 2];
	emuv_segment_t *copy;
	struct dirent *entry;
	bool go_on = true;
	DIR *files;

	if (emuv_segment_directory(directory, sizeof(directory), 0, NULL))
		return true;
	copy = malloc(sizeof(*copy));
	if (!copy)
		return false;
	files = opendir(directory);
	while (files && go_on && (entry = readdir(files))) {
		size_t length = strlen(entry->d_name);

		if (length < 4 || strcmp(entry->d_name + length - 4, ".seg") != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		if (read_living(path, copy))
			go_on = see(copy, state);
	}
	free(copy);
	if (files)
		closedir(files);
	return true;
}
