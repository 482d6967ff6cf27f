/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The C compiler: EMUV_SIM_CC, or the first of cc, gcc and clang in PATH.
 *
 * It runs as a child of a program that knows nothing of it: with the signals' default
 * actions, nothing preloaded, no emuV settings, in a process group of its own, and for
 * COMPILE_MS at most.  A program that reaps all of its children, or ignores SIGCHLD,
 * takes the exit status away: what counts then is whether the output is there.
 */
#define _GNU_SOURCE
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"
#include "jit.h"

#define COMPILE_MS 120000
#define WORDS 24

extern char **environ;

/*
 * Wrapping and aliasing as PTX has them; no contraction, so that mul and add round twice
 * unless PTX says fma.  `wish`: PRE keeps a pointer for each constant offset, and
 * frames grow by hundreds of bytes that every switch of fibers then pays for (tiled
 * matrix product: +50 %).
 */
static const char *const flags[] = {
	"-x", "c", "-std=gnu17", "-O2", "-w", "-fPIC", "-shared", "-nostdlib", "-pipe",
	"-fvisibility=hidden", "-fno-strict-aliasing", "-fwrapv", "-ffp-contract=off",
	"-fno-math-errno", "-fno-trapping-math", "-fno-asynchronous-unwind-tables",
	"-fno-stack-protector", "-fstack-clash-protection", "-fno-semantic-interposition",
	"-Wl,-z,now", "-Wl,--as-needed", "-Wl,--build-id=none",
};
/* Only GCC knows it; left out where a compiler refuses it. */
static const char *const wish = "-fno-tree-pre";
static const char *const libraries[] = { "-lm", "-lc", "-lgcc" };

/* Instructions that the machine has and that generated code gains from. */
static const char *machine_flags(void)
{
#if defined(__x86_64__)
	static char text[96];
	unsigned int eax, ebx, ecx = 0, edx;
	bool f16c; /* asked of the processor: clang's __builtin_cpu_supports learnt it late */

	if (text[0])
		return text;
	__builtin_cpu_init();
	f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
	snprintf(text, sizeof(text), " %s%s%s%s%s", __builtin_cpu_supports("popcnt") ? "-mpopcnt " : "",
		 __builtin_cpu_supports("bmi") ? "-mbmi " : "",
		 __builtin_cpu_supports("bmi2") ? "-mbmi2 " : "",
		 __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "-mavx2 -mfma " : "",
		 __builtin_cpu_supports("avx2") && f16c ? "-mf16c" : "");
	return text;
#else
	return "";
#endif
}

static char all_flags[1024];

static void join_flags(void)
{
	size_t used = 0;

	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++)
		used += (size_t)snprintf(all_flags + used, sizeof(all_flags) - used, "%s ", flags[i]);
	snprintf(all_flags + used, sizeof(all_flags) - used, "%s%s", wish, machine_flags());
}

const char *sim_compiler_flags(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, join_flags);
	return all_flags;
}

/* ---- which one ---- */

static bool executable(const char *path, struct stat *status)
{
	return stat(path, status) == 0 && S_ISREG(status->st_mode) && access(path, X_OK) == 0;
}

/* The first word of `name` as a path that can be executed. */
static bool locate(const char *name, char path[1024], struct stat *status)
{
	const char *list = getenv("PATH");
	int length = (int)strcspn(name, " \t");

	if (memchr(name, '/', (size_t)length)) {
		snprintf(path, 1024, "%.*s", length, name);
		return executable(path, status);
	}
	for (list = list ? list : "/usr/local/bin:/usr/bin:/bin"; *list;) {
		int folder = (int)strcspn(list, ":");

		if (folder && snprintf(path, 1024, "%.*s/%.*s", folder, list, length, name) < 1024 &&
		    executable(path, status))
			return true;
		list += folder + (list[folder] == ':');
	}
	return false;
}

static sim_compiler_t found;
static char arguments[512]; /* of EMUV_SIM_CC, behind its first word */

static void find(void)
{
	static const char *const names[] = { "cc", "gcc", "clang" };
	const char *named = sim_config.compiler;
	struct stat status;
	bool there = false;

	if (*named) {
		there = locate(named, found.path, &status);
		snprintf(arguments, sizeof(arguments), "%s", named + strcspn(named, " \t"));
	}
	for (size_t i = 0; !*named && !there && i < sizeof(names) / sizeof(*names); i++)
		there = locate(names[i], found.path, &status);
	if (!there)
		found.path[0] = '\0';
	else
		snprintf(found.identity, sizeof(found.identity), "%.500s%.500s %lld %lld.%09ld",
			 found.path, arguments, (long long)status.st_size,
			 (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
}

const sim_compiler_t *sim_compiler(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, find);
	return &found;
}

/* ---- running it ---- */

static bool wanted(const char *setting)
{
	return strncmp(setting, "LD_PRELOAD=", 11) != 0 && strncmp(setting, "LD_AUDIT=", 9) != 0 &&
	       strncmp(setting, "EMUV_", 5) != 0 && strncmp(setting, "LC_ALL=", 7) != 0;
}

static char **environment(void)
{
	static char plain[] = "LC_ALL=C";
	size_t count = 0, kept = 0;
	char **made;

	while (environ[count])
		count++;
	made = malloc((count + 2) * sizeof(*made));
	if (!made)
		return NULL;
	for (size_t i = 0; i < count && environ[i]; i++)
		if (wanted(environ[i]))
			made[kept++] = environ[i];
	made[kept++] = plain;
	made[kept] = NULL;
	return made;
}

static pid_t start(char **words, const char *log)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t all, none;
	pid_t child = -1;
	char **made = environment();

	if (!made)
		return -1;
	sigfillset(&all);
	sigemptyset(&none);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&files, 2, log, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW,
					 0600);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
						      POSIX_SPAWN_SETPGROUP);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setpgroup(&attributes, 0);
	if (posix_spawn(&child, found.path, &files, &attributes, words, made) != 0)
		child = -1;
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&files);
	free(made);
	return child;
}

/* Waits for the child's end, or ends it.  False: it took too long. */
static bool finish(pid_t child, int *status)
{
	uint64_t limit = sim_now() + COMPILE_MS * 1000000ull;
	int fd = (int)syscall(SYS_pidfd_open, child, 0);
	bool ended = false;

	*status = 0;
	while (!ended && sim_now() < limit) {
		struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
		pid_t got;

		/* An old kernel has no pidfd: asks again every 2 ms. */
		if (poll(&poll_fd, fd >= 0, fd >= 0 ? 1000 : 2) < 0 && errno != EINTR)
			break;
		got = waitpid(child, status, WNOHANG);
		if (got < 0 && errno == ECHILD) {
			*status = 0; /* reaped by the program */
			ended = true;
		}
		ended |= got == child;
	}
	if (fd >= 0)
		close(fd);
	if (ended)
		return true;
	kill(-child, SIGKILL);
	while (waitpid(child, status, 0) < 0 && errno == EINTR)
		;
	return false;
}

static sim_compile_t compile(const char *source, const char *made, const char *log, bool wishes)
{
	char copy[sizeof(arguments)], machine[96], *save = NULL;
	const char *words[sizeof(flags) / sizeof(*flags) + 2 * WORDS];
	size_t count = 0;
	pid_t child;
	int status;

	words[count++] = found.path;
	snprintf(copy, sizeof(copy), "%s", arguments);
	for (char *word = strtok_r(copy, " \t", &save); word && count < WORDS;
	     word = strtok_r(NULL, " \t", &save))
		words[count++] = word;
	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++)
		words[count++] = flags[i];
	snprintf(machine, sizeof(machine), "%s", machine_flags());
	for (char *word = strtok_r(machine, " ", &save); word; word = strtok_r(NULL, " ", &save))
		words[count++] = word;
	if (wishes)
		words[count++] = wish;
	words[count++] = "-o";
	words[count++] = made;
	words[count++] = source;
	words[count++] = "-x";
	words[count++] = "none";
	for (size_t i = 0; i < sizeof(libraries) / sizeof(*libraries); i++)
		words[count++] = libraries[i];
	words[count] = NULL;
	child = start((char **)words, log);
	if (child < 0)
		return COMPILE_FAILED;
	if (!finish(child, &status))
		return COMPILE_SLOW;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 && access(made, R_OK) == 0
		       ? COMPILE_DONE
		       : COMPILE_REFUSED;
}

sim_compile_t sim_compiler_run(const char *source, const char *made, const char *log)
{
	static _Atomic bool plain;
	sim_compile_t how = compile(source, made, log, !plain);

	if (how != COMPILE_REFUSED || plain || compile(source, made, log, false) != COMPILE_DONE)
		return how;
	plain = true;
	return COMPILE_DONE;
}
