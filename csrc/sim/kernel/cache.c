/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The cache of compiled kernels: a folder of shared objects, one a key.
 *
 * EMUV_SIM_CACHE, else $XDG_CACHE_HOME/emuv/kernels, else ~/.cache/emuv/kernels; it
 * belongs to this user and to nobody else (0700).  Where there is no such folder to be
 * had, and with EMUV_SIM_CACHE=off, each kernel gets a temporary one.
 *
 * Invariants
 *   - A file gets its name when it is complete, by rename: any number of processes may
 *     compile the same kernel at once, and all of them make the same file.
 *   - The last bytes of a file are a mark: a magic number, the key, and the SHA-256 of all
 *     that is before them.  A file without is never loaded: it is made again.
 *   - LIMIT_BYTES at most, checked at a process' first store and every 256; what was
 *     not used for longest goes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"
#include "jit.h"

#define LIMIT_BYTES ((uint64_t)256 << 20)
#define PRUNE_EVERY 256
#define MAX_FILE_BYTES (64 << 20)
/* A file's time is renewed when it is used and older than this. */
#define RENEW_SECONDS 3600
/* What a compiler that was killed left behind. */
#define STALE_SECONDS 3600

typedef struct {
	char magic[8];
	unsigned char key[SHA256_BYTES], content[SHA256_BYTES];
} mark_t;
static const char magic[8] = "emuvkrn1";

/* ---- the folder ---- */

/* Makes the folders of `path` that are missing; the last one must be ours alone. */
static bool folder_ready(char *path)
{
	struct stat status;

	for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
		*at = '\0';
		if (mkdir(path, 0700) != 0 && errno != EEXIST && errno != EROFS && errno != EACCES) {
			*at = '/';
			return false;
		}
		*at = '/';
	}
	if (mkdir(path, 0700) != 0 && errno != EEXIST)
		return false;
	return lstat(path, &status) == 0 && S_ISDIR(status.st_mode) &&
	       status.st_uid == geteuid() && (status.st_mode & 077) == 0 &&
	       access(path, W_OK | X_OK) == 0;
}

static bool folder_named(char folder[], size_t bytes)
{
	const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int length;

	if (sim_config.cache[0])
		length = snprintf(folder, bytes, "%s", sim_config.cache);
	else if (base && base[0] == '/')
		length = snprintf(folder, bytes, "%s/emuv/kernels", base);
	else if (home && home[0] == '/')
		length = snprintf(folder, bytes, "%s/.cache/emuv/kernels", home);
	else
		return false;
	return length > 0 && (size_t)length < bytes && folder[0] == '/' && folder_ready(folder);
}

bool sim_cache_open(sim_cache_t *cache)
{
	const char *places[] = { getenv("TMPDIR"), "/tmp", "/dev/shm", "/var/tmp" };

	cache->temporary = false;
	if (strcmp(sim_config.cache, "off") != 0) {
		if (folder_named(cache->folder, sizeof(cache->folder)))
			return true;
		sim_fail(CUDA_ERROR_OPERATING_SYSTEM,
			 "no folder of this user alone for compiled kernels at \"%.200s\": each is "
			 "compiled again by every process", cache->folder);
	}
	cache->temporary = true;
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		if (!places[i] || places[i][0] != '/' || strlen(places[i]) > 800)
			continue;
		snprintf(cache->folder, sizeof(cache->folder), "%s/emuv-kernel-XXXXXX", places[i]);
		if (mkdtemp(cache->folder))
			return true;
	}
	sim_say("error: nowhere to write compiled kernels (%s): set EMUV_SIM_CACHE to a folder",
		strerror(errno));
	return false;
}

void sim_cache_close(const sim_cache_t *cache)
{
	if (cache->temporary)
		rmdir(cache->folder); /* stays where the text of a failure is kept */
}

int sim_cache_create(const char *path)
{
	return open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

/* ---- its files ---- */

/* The whole file, of ours; NULL: none, or not to be trusted. */
static unsigned char *content(int fd, size_t *bytes)
{
	struct stat status;
	unsigned char *data;
	size_t got = 0;

	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_uid != geteuid() ||
	    (status.st_mode & 022) || status.st_size > MAX_FILE_BYTES)
		return NULL;
	*bytes = (size_t)status.st_size;
	data = malloc(*bytes + 1);
	while (data && got < *bytes) {
		ssize_t more = read(fd, data + got, *bytes - got);

		if (more <= 0) {
			free(data);
			return NULL;
		}
		got += (size_t)more;
	}
	return data;
}

static void digest(const unsigned char *data, size_t bytes, unsigned char out[SHA256_BYTES])
{
	sha256_t hash;

	sha256_begin(&hash);
	sha256_add(&hash, data, bytes);
	sha256_end(&hash, out);
}

bool sim_cache_valid(const char *path, const unsigned char key[SHA256_BYTES])
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	unsigned char sum[SHA256_BYTES], *data;
	bool valid = false;
	struct stat status;
	size_t bytes;
	mark_t mark;

	if (fd < 0)
		return false;
	data = content(fd, &bytes);
	if (data && bytes > sizeof(mark)) {
		memcpy(&mark, data + bytes - sizeof(mark), sizeof(mark));
		digest(data, bytes - sizeof(mark), sum);
		valid = memcmp(mark.magic, magic, sizeof(magic)) == 0 &&
			memcmp(mark.key, key, SHA256_BYTES) == 0 &&
			memcmp(mark.content, sum, SHA256_BYTES) == 0;
	}
	if (valid && fstat(fd, &status) == 0 && status.st_mtime + RENEW_SECONDS < time(NULL))
		futimens(fd, NULL);
	free(data);
	close(fd);
	return valid;
}

typedef struct {
	char name[100];
	time_t used;
	uint64_t bytes;
} file_t;

static int by_age(const void *a, const void *b)
{
	const file_t *left = a, *right = b;

	return (left->used > right->used) - (left->used < right->used);
}

static void prune(const char *path)
{
	char folder[CACHE_PATH_BYTES];
	file_t *files = NULL;
	size_t count = 0, room = 0;
	uint64_t bytes = 0;
	struct dirent *entry;
	struct stat status;
	DIR *open_folder;

	snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path), path);
	open_folder = opendir(folder);
	if (!open_folder)
		return;
	while ((entry = readdir(open_folder))) {
		/* Only what this file writes: somebody may have put EMUV_SIM_CACHE anywhere. */
		if (strncmp(entry->d_name, "emuv-", 5) != 0 || strlen(entry->d_name) >= 100 ||
		    fstatat(dirfd(open_folder), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0)
			continue;
		if (!strstr(entry->d_name, ".so") || strchr(entry->d_name, '-') != strrchr(entry->d_name, '-')) {
			if (status.st_mtime + STALE_SECONDS < time(NULL))
				unlinkat(dirfd(open_folder), entry->d_name, 0);
			continue;
		}
		if (count == room) {
			file_t *more = realloc(files, (room = room * 2 + 64) * sizeof(*more));

			if (!more)
				break;
			files = more;
		}
		strcpy(files[count].name, entry->d_name);
		files[count].used = status.st_mtime;
		files[count++].bytes = (uint64_t)status.st_size;
		bytes += (uint64_t)status.st_size;
	}
	if (bytes > LIMIT_BYTES) {
		qsort(files, count, sizeof(*files), by_age);
		/* To three quarters, so that it is not done again at once. */
		for (size_t i = 0; i < count && bytes > LIMIT_BYTES / 4 * 3; i++)
			if (unlinkat(dirfd(open_folder), files[i].name, 0) == 0)
				bytes -= files[i].bytes;
	}
	closedir(open_folder);
	free(files);
}

bool sim_cache_keep(const char *made, const char *path, const unsigned char key[SHA256_BYTES])
{
	static _Atomic unsigned int stores;
	int fd = open(made, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	unsigned char *data = NULL;
	bool kept = false;
	mark_t mark;
	size_t bytes;

	if (fd >= 0 && fchmod(fd, 0600) == 0)
		data = content(fd, &bytes);
	if (data) {
		memcpy(mark.magic, magic, sizeof(magic));
		memcpy(mark.key, key, SHA256_BYTES);
		digest(data, bytes, mark.content);
		kept = write(fd, &mark, sizeof(mark)) == (ssize_t)sizeof(mark) &&
		       rename(made, path) == 0;
	}
	free(data);
	if (fd >= 0)
		close(fd);
	if (kept && atomic_fetch_add(&stores, 1) % PRUNE_EVERY == 0)
		prune(path);
	return kept;
}
