/* SPDX-License-Identifier: GPL-2.0-only */
/* spawn fork|vfork|posix|exec PROGRAM [ARGUMENT…]: starts it so, ends as it ended. */
#define _GNU_SOURCE
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv)
{
	const char *how = argc > 2 ? argv[1] : "";
	int status = 0;
	pid_t child;

	if (strcmp(how, "exec") == 0) {
		execv(argv[2], argv + 2);
		return 120;
	}
	if (strcmp(how, "posix") == 0) {
		if (posix_spawn(&child, argv[2], NULL, NULL, argv + 2, environ))
			return 121;
	} else {
		child = strcmp(how, "vfork") == 0 ? vfork() : fork();
		if (child == 0) {
			execv(argv[2], argv + 2);
			_exit(122);
		}
	}
	if (child < 0 || waitpid(child, &status, 0) < 0 || !WIFEXITED(status))
		return 123;
	return WEXITSTATUS(status);
}
