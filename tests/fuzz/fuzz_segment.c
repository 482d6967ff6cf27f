// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/common/emuv_segment_*.c csrc/common/emuv_shared*.c csrc/common/emuv_environ.c
// corpus: tests/fuzz/corpus/segment
/*
 * A stranger's segment: opened, read, and written to as a controller does.  It is refused
 * in words that quote the path, or what comes out is whole: texts end, counts fit.
 *
 * The input's first byte says how to make the file of the others, so that the corpus
 * outlives a change of the layout: see the enumeration.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "emuv_segment_file.h"
#include "fuzz.h"

const char *const fuzz_words[] = { "EemUSEG1", "1GESUmeE", NULL };

static const char *place(void)
{
	static char path[256];

	if (!path[0]) {
		const char *folder = getenv("TMPDIR");

		snprintf(path, sizeof(path), "%s/%d-1.seg", folder ? folder : "/tmp", (int)getpid());
	}
	return path;
}

enum {
	AS_LONG_AS_ONE = 1, /* zeros behind them, up to a segment's size */
	HEADED = 2,         /* with magic, version and size of a segment */
	ALIVE = 4,          /* of this very process */
};

static void make_file(const uint8_t *data, size_t size)
{
	static emuv_segment_t file;
	int fd = open(place(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), how = size ? *data : 0;
	size_t bytes = size ? size - 1 : 0;

	memset(&file, 0, sizeof(file));
	if (bytes > sizeof(file))
		bytes = sizeof(file);
	if (bytes)
		memcpy(&file, data + 1, bytes);
	if (how & HEADED) {
		file.magic = EMUV_SEGMENT_MAGIC;
		file.version = EMUV_SEGMENT_VERSION;
		file.size = sizeof(file);
	}
	if (how & ALIVE) {
		file.pid = getpid();
		file.start_ticks = emuv_start_ticks(file.pid);
	}
	if (how & AS_LONG_AS_ONE)
		bytes = sizeof(file);
	CHECK(fd >= 0 && write(fd, &file, bytes) == (ssize_t)bytes);
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static emuv_segment_t copy;
	emuv_segment_view_t *view;
	emuv_error_t error = { "" };
	int status;

	make_file(data, size);
	status = emuv_segment_open(place(), 1, &view, &error);
	if (status) {
		CHECK(status < 0 && strstr(error.text, place()));
		return 0;
	}
	memset(&copy, 0xa5, sizeof(copy));
	status = emuv_segment_snapshot(view, &copy, &error);
	CHECK(status <= 0);
	if (status) {
		CHECK(error.text[0]);
	} else {
		CHECK(memchr(copy.name, 0, sizeof(copy.name)));
		CHECK(memchr(copy.command, 0, sizeof(copy.command)));
		CHECK(memchr(copy.run_id, 0, sizeof(copy.run_id)));
		CHECK(copy.n_devices <= EMUV_MAX_DEVICES);
		CHECK(emuv_segment_alive(&copy) == 0 || copy.pid > 0);
		status = emuv_segment_replace_control(view, &copy.control, &error);
		CHECK(status <= 0 && (!status || error.text[0]));
	}
	emuv_segment_close(view);
	return 0;
}
