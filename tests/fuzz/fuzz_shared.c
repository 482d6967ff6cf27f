// SPDX-License-Identifier: GPL-2.0-only
// link: csrc/common/emuv_segment_*.c csrc/common/emuv_shared*.c csrc/common/emuv_environ.c
// corpus: tests/fuzz/corpus/shared
/*
 * A stranger's ledger of a run: read, judged, joined and given up, as a process of the
 * run and a controller do.  It is refused in words that quote the path, or the slot that
 * the process gets is its own.  The first byte: as in fuzz_segment.c.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "emuv_shared.h"
#include "fuzz.h"

const char *const fuzz_words[] = { "emUVRUN1", "fuzz", NULL };

enum { AS_LONG_AS_ONE = 1, HEADED = 2, JOINED = 4 };

static const char *folder(void)
{
	static char path[200];

	if (!path[0]) {
		const char *place = getenv("TMPDIR");

		snprintf(path, sizeof(path), "%s/emuv-%d", place ? place : "/tmp", (int)getpid());
		CHECK(mkdir(path, 0700) == 0);
	}
	return path;
}

static void make_file(const char *path, const uint8_t *data, size_t size, int how)
{
	static emuv_shared_t file; /* of which only the beginning is ever not zero */
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (size > 8192)
		size = 8192;
	memset(&file, 0, 8192);
	if (size)
		memcpy(&file, data, size);
	if (how & HEADED) {
		file.magic = EMUV_SHARED_MAGIC;
		file.version = EMUV_SHARED_VERSION;
		file.size = sizeof(file);
		file.uid = getuid();
		snprintf(file.run_id, sizeof(file.run_id), "fuzz");
		size = size < 256 ? 256 : size;
	}
	CHECK(fd >= 0 && write(fd, &file, size) == (ssize_t)size);
	CHECK(!(how & AS_LONG_AS_ONE) || ftruncate(fd, sizeof(file)) == 0);
	close(fd);
}

static void join(void)
{
	emuv_shared_start_t start = { .run_id = "fuzz" };
	emuv_shared_t *mapped = NULL;
	emuv_error_t error = { "" };
	unsigned int slot = EMUV_SHARED_SLOTS;
	int status = emuv_shared_join(folder(), &start, &mapped, &slot, &error);

	CHECK(status <= 0 && (!status || error.text[0]));
	if (status)
		return;
	CHECK(slot < EMUV_SHARED_SLOTS && mapped->owner[slot] == emuv_shared_self(mapped, 0));
	CHECK(emuv_shared_column(mapped, 77) < EMUV_MAX_DEVICES);
	emuv_shared_reap(mapped, mapped->owner[slot], 1);
	CHECK(mapped->owner[slot]); /* nobody takes the living for dead */
	emuv_shared_leave(mapped, slot);
	munmap(mapped, sizeof(*mapped));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static emuv_shared_t copy;
	emuv_segment_view_t *view;
	emuv_error_t error = { "" };
	int how = size ? *data : 0;
	char path[256];

	snprintf(path, sizeof(path), "%s/fuzz.run", folder());
	make_file(path, data + (size > 0), size - (size > 0), how);
	if (emuv_shared_open(path, 1, &view, &error)) {
		CHECK(strstr(error.text, path));
	} else {
		if (emuv_shared_snapshot(view, &copy, &error) == 0) {
			CHECK(memchr(copy.name, 0, sizeof(copy.name)));
			CHECK(memchr(copy.run_id, 0, sizeof(copy.run_id)));
			CHECK(emuv_segment_replace_control(view, &copy.control, &error) <= 0);
		} else {
			CHECK(error.text[0]);
		}
		emuv_segment_close(view);
	}
	if (how & JOINED)
		join();
	CHECK(emuv_shared_sweep(path, &error) <= 1);
	unlink(path);
	return 0;
}
