/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Several threads that use the simulated GPU at once, each with streams of its own:
 * copies, sets, events, host functions, memory flags, stream-ordered memory, graphs.
 * Built with a thread sanitizer, as is the library (test_sanitized_sim.py).
 *
 *   threads_on_sim LIBRARY
 */
#include <pthread.h>

#include "calls.h"

enum { THREADS = 4, ROUNDS = 60, BYTES = 4096 };

static void *context;

static void count(void *counter)
{
	++*(unsigned int *)counter; /* in the stream's order: no lock */
}

/* One stream fills, another copies when it has; host functions count both. */
static void pair(word_t one, word_t two, word_t event, word_t memory, unsigned char *pinned, int round)
{
	unsigned int counter = 0;

	CALL("cuMemsetD8Async", memory, round, BYTES, one);
	CALL("cuLaunchHostFunc", one, count, &counter);
	CALL("cuEventRecord", event, one);
	CALL("cuStreamWaitEvent", two, event, 0);
	CALL("cuMemcpyDtoHAsync_v2", pinned, memory, BYTES, two);
	CALL("cuLaunchHostFunc", two, count, &counter);
	CALL("cuStreamSynchronize", two);
	expect(counter == 2, "host functions");
	expect(pinned[0] == (unsigned char)round && pinned[BYTES - 1] == (unsigned char)round,
	       "copied bytes");
}

/* The streams wait for each other's flags. */
static void flags(word_t one, word_t two, word_t memory, int round)
{
	CALL("cuStreamWaitValue32_v2", one, memory, round + 1, 1);
	CALL("cuStreamWriteValue32_v2", one, memory + 64, round + 1, 0);
	CALL("cuStreamWriteValue32_v2", two, memory, round + 1, 0);
	CALL("cuStreamWaitValue32_v2", two, memory + 64, round + 1, 1);
	CALL("cuStreamSynchronize", two);
	CALL("cuStreamSynchronize", one);
}

static void ordered(word_t one, unsigned char *pinned, int round)
{
	word_t memory;

	CALL("cuMemAllocAsync", &memory, BYTES, one);
	CALL("cuMemsetD8Async", memory, round + 7, BYTES, one);
	CALL("cuMemcpyDtoHAsync_v2", pinned, memory, BYTES, one);
	CALL("cuMemFreeAsync", memory, one);
	CALL("cuStreamSynchronize", one);
	expect(pinned[100] == (unsigned char)(round + 7), "stream-ordered bytes");
}

static word_t captured(word_t one, word_t memory, unsigned char *pinned)
{
	word_t graph, exec;

	CALL("cuStreamBeginCapture_v2", one, 2);
	CALL("cuMemsetD8Async", memory, 0x55, BYTES, one);
	CALL("cuMemcpyDtoHAsync_v2", pinned, memory, BYTES, one);
	CALL("cuStreamEndCapture", one, &graph);
	CALL("cuGraphInstantiateWithFlags", &exec, graph, 0);
	CALL("cuGraphDestroy", graph);
	return exec;
}

static void *work(void *unused)
{
	word_t one, two, event, memory, exec;
	unsigned char *pinned;
	int mode = 2;

	(void)unused;
	CALL("cuCtxSetCurrent", context);
	CALL("cuThreadExchangeStreamCaptureMode", &mode);
	CALL("cuStreamCreateWithPriority", &one, 1, -1);
	CALL("cuStreamCreate", &two, 1);
	CALL("cuEventCreate", &event, 0);
	CALL("cuMemAlloc_v2", &memory, BYTES);
	CALL("cuMemHostAlloc", &pinned, BYTES, 0);
	CALL("cuMemsetD8Async", memory, 0, BYTES, one);
	CALL("cuStreamSynchronize", one);
	exec = captured(one, memory, pinned);
	for (int round = 0; round < ROUNDS; round++) {
		pair(one, two, event, memory, pinned, round);
		CALL("cuMemsetD32Async", memory, 0, BYTES / 4, one);
		CALL("cuStreamSynchronize", one);
		flags(one, two, memory, round);
		ordered(two, pinned, round);
		CALL("cuGraphLaunch", exec, round & 1 ? one : two);
		CALL("cuStreamSynchronize", round & 1 ? one : two);
		expect(pinned[5] == 0x55, "a graph's bytes");
	}
	CALL("cuGraphExecDestroy", exec);
	CALL("cuStreamDestroy_v2", one);
	CALL("cuMemFree_v2", memory);
	CALL("cuMemFreeHost", pinned);
	CALL("cuEventDestroy_v2", event);
	CALL("cuStreamDestroy_v2", two);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS];

	library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
	if (!library) {
		fprintf(stderr, "usage: threads_on_sim LIBRARY (%s)\n", argc == 2 ? dlerror() : "");
		return 2;
	}
	CALL("cuInit", 0);
	CALL("cuDevicePrimaryCtxRetain", &context, 0);
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, work, NULL);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CALL("cuDevicePrimaryCtxRelease_v2", 0);
	puts("done");
	return 0;
}
