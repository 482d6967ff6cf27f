/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A CUDA program that does what it is told: one command a line on stdin, one
 * line of answer on stdout.  It knows nothing of emuV.
 *
 *   a BYTES   cuMemAlloc; answers the CUresult
 *   f         frees the newest; answers the CUresult
 *   i         cuMemGetInfo: free and total
 *   x N       forks a child that starts this program again; answers its status
 *   q N       exits with N at once
 *
 * With arguments, those are the commands, one an argument, and stdin is not read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda_abi.h"

CUresult cuInit(unsigned int flags);
CUresult cuDeviceGet(CUdevice *device, int ordinal);
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes);
CUresult cuMemFree_v2(CUdeviceptr address);
CUresult cuMemGetInfo_v2(size_t *free, size_t *total);

static CUdeviceptr held[4096];
static int n_held;

static int again(char **argv, const char *command)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		execl("/proc/self/exe", argv[0], command, (char *)NULL);
		_exit(99);
	}
	if (child < 0 || waitpid(child, &status, 0) < 0)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void obey(char **argv, const char *line)
{
	unsigned long long number = strtoull(line[0] ? line + 1 : line, NULL, 10);
	size_t available = 0, total = 0;

	switch (line[0]) {
	case 'a': {
		CUdeviceptr address = 0;
		CUresult rc = cuMemAlloc_v2(&address, number);

		if (rc == 0)
			held[n_held++ % 4096] = address;
		printf("%d\n", (int)rc);
		break;
	}
	case 'f':
		printf("%d\n", n_held ? (int)cuMemFree_v2(held[--n_held]) : -1);
		break;
	case 'i':
		cuMemGetInfo_v2(&available, &total);
		printf("%zu %zu\n", available, total);
		break;
	case 'x':
		printf("%d\n", again(argv, "q 0"));
		break;
	case 'q':
		exit((int)number);
	default:
		printf("?\n");
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char line[256];
	CUdevice device;
	CUcontext context;

	if (cuInit(0) || cuDeviceGet(&device, 0) || cuDevicePrimaryCtxRetain(&context, device) ||
	    cuCtxSetCurrent(context)) {
		fprintf(stderr, "no CUDA\n");
		return 90;
	}
	printf("ready\n");
	fflush(stdout);
	for (int i = 1; i < argc; i++)
		obey(argv, argv[i]);
	while (argc == 1 && fgets(line, sizeof(line), stdin))
		obey(argv, line);
	return 0;
}
