/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * CUDA IPC: events.  What processes share of one is a page with two numbers: the latest
 * record that was submitted, by anyone, and the latest that was reached.  Who waits looks
 * at it again and again, and now and then whether the process that recorded still lives:
 * the work of one that does not is never done, and a wait for it ends with
 * CUDA_ERROR_LAUNCH_TIMEOUT.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "emuv_segment_file.h"
#include "event.h"
#include "share.h"

#define OWNERS 8
#define ALIVE_NS 20000000u /* between looks at who recorded */
#define PID_BITS 22        /* the most that Linux gives out */

typedef struct {
	_Atomic uint64_t issued, reached;
	/* Of record n: [n % OWNERS], process id and start time in one word; 0: not known yet. */
	_Atomic uint64_t owner[OWNERS];
} page_t;

struct sim_shared_event {
	page_t *page;
	int fd; /* the exporter's; -1: imported, or retired */
	uint64_t key;
	unsigned int references;
	uint64_t looked; /* sim_now */
};

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static uint64_t owner_word(int pid)
{
	return emuv_start_ticks(pid) << PID_BITS | (uint64_t)pid;
}

static sim_shared_event_t *enter(int fd, uint64_t key)
{
	void *map = mmap(NULL, page_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	sim_shared_event_t *shared = map == MAP_FAILED ? NULL : calloc(1, sizeof(*shared));

	if (!shared) {
		if (map != MAP_FAILED)
			munmap(map, page_bytes());
		return NULL;
	}
	*shared = (sim_shared_event_t){ .page = map, .fd = -1, .key = key, .references = 1 };
	return shared;
}

void sim_shared_event_keep(sim_shared_event_t *shared)
{
	shared->references++;
}

void sim_shared_event_drop(sim_shared_event_t *shared)
{
	if (!shared || --shared->references)
		return;
	munmap(shared->page, page_bytes());
	free(shared);
}

void sim_shared_event_retire(sim_shared_event_t *shared)
{
	if (!shared)
		return;
	if (shared->fd >= 0)
		close(shared->fd);
	shared->fd = -1;
	sim_shared_event_drop(shared);
}

uint64_t sim_shared_event_issue(sim_shared_event_t *shared)
{
	static uint64_t self;
	uint64_t serial;

	if (!self)
		self = owner_word(sim_share_self());
	serial = atomic_fetch_add(&shared->page->issued, 1) + 1;
	atomic_store(&shared->page->owner[serial % OWNERS], self);
	return serial;
}

void sim_shared_event_reach(sim_shared_event_t *shared, uint64_t serial)
{
	uint64_t last = atomic_load(&shared->page->reached);

	while (last < serial &&
	       !atomic_compare_exchange_weak(&shared->page->reached, &last, serial))
		;
}

uint64_t sim_shared_event_latest(const sim_shared_event_t *shared)
{
	return atomic_load(&shared->page->issued);
}

static bool owner_lives(const sim_shared_event_t *shared, uint64_t serial)
{
	uint64_t owner = atomic_load(&shared->page->owner[serial % OWNERS]);

	return !owner || owner_word((int)(owner & ((1u << PID_BITS) - 1))) == owner;
}

CUresult sim_shared_event_ask(sim_shared_event_t *shared, uint64_t serial)
{
	uint64_t now;

	if (atomic_load(&shared->page->reached) >= serial)
		return CUDA_SUCCESS;
	now = sim_now();
	if (now - shared->looked < ALIVE_NS)
		return CUDA_ERROR_NOT_READY;
	shared->looked = now;
	if (owner_lives(shared, serial) || atomic_load(&shared->page->reached) >= serial)
		return CUDA_ERROR_NOT_READY;
	return sim_fail(CUDA_ERROR_LAUNCH_TIMEOUT,
			"the process that recorded an event ended before its work did");
}

/* ---- the calls ---- */

SIM_API(cuIpcGetEventHandle, CUipcEventHandle *handle, CUevent event)
{
	CUresult result = CUDA_SUCCESS;
	sim_shared_event_t **place;
	sim_handle_t made = { 0 };

	SIM_ENTER(cuIpcGetEventHandle);
	if (!handle)
		return CUDA_ERROR_INVALID_VALUE;
	sim_lock_take();
	place = sim_event_shared(event, &result);
	if (place && !*place) {
		uint64_t key;
		int fd = sim_share_new(SIM_SHARE_EVENT, page_bytes(), &key);

		*place = fd < 0 ? NULL : enter(fd, key);
		if (*place) {
			(*place)->fd = fd;
			sim_event_becomes_shared(event);
		} else {
			result = CUDA_ERROR_OUT_OF_MEMORY;
			if (fd >= 0)
				close(fd);
		}
	}
	if (place && *place && result == CUDA_SUCCESS)
		made = (sim_handle_t){
			.magic = SIM_HANDLE_MAGIC, .key = (*place)->key, .pid = sim_share_self(),
			.fd = (*place)->fd, .kind = SIM_SHARE_EVENT,
		};
	sim_lock_drop();
	if (result == CUDA_SUCCESS)
		memcpy(handle, &made, sizeof(made));
	return result;
}

SIM_API(cuIpcOpenEventHandle, CUevent *event, CUipcEventHandle given)
{
	sim_shared_event_t *shared;
	sim_handle_t handle;
	CUresult result;
	size_t bytes;
	int fd;

	SIM_ENTER(cuIpcOpenEventHandle);
	SIM_NEED_CONTEXT(context);
	memcpy(&handle, &given, sizeof(handle));
	if (!event || handle.magic != SIM_HANDLE_MAGIC || handle.kind != SIM_SHARE_EVENT)
		return sim_fail(CUDA_ERROR_INVALID_VALUE, "cuIpcOpenEventHandle: this is no handle of an event");
	if (handle.pid == sim_share_self())
		return sim_fail(CUDA_ERROR_INVALID_CONTEXT,
				"cuIpcOpenEventHandle: the handle is of this process");
	fd = sim_share_open(handle.pid, handle.fd, SIM_SHARE_EVENT, handle.key, &bytes);
	if (fd < 0)
		return sim_fail(CUDA_ERROR_INVALID_HANDLE, "cuIpcOpenEventHandle: the event is gone, "
				"or its process (%d) has ended", handle.pid);
	shared = bytes >= sizeof(page_t) ? enter(fd, handle.key) : NULL;
	close(fd);
	if (!shared)
		return CUDA_ERROR_MAP_FAILED;
	sim_lock_take();
	result = sim_event_import(context, shared, event);
	if (result != CUDA_SUCCESS)
		sim_shared_event_drop(shared);
	sim_lock_drop();
	return result;
}

/* ---- waits for what another process recorded ---- */

typedef struct {
	sim_work_t work;
	sim_shared_event_t *shared;
	uint64_t serial;
} wait_work_t;

static CUresult wait_run(sim_work_t *work, sim_cost_t *cost)
{
	const wait_work_t *wait = (const wait_work_t *)work;
	CUresult result;

	(void)cost;
	if (work->context->error || work->context->stop)
		return CUDA_SUCCESS;
	sim_lock_take();
	result = sim_shared_event_ask(wait->shared, wait->serial);
	sim_lock_drop();
	return result == CUDA_ERROR_NOT_READY ? SIM_AGAIN : result;
}

static bool wait_copied(sim_work_t *work)
{
	sim_shared_event_keep(((wait_work_t *)work)->shared);
	return true;
}

static void wait_drop(sim_work_t *work)
{
	sim_shared_event_drop(((wait_work_t *)work)->shared);
}

static const sim_work_kind_t wait_kind = {
	.name = "wait for another process's event",
	.bytes = sizeof(wait_work_t),
	.node_type = 6, /* CU_GRAPH_NODE_TYPE_WAIT_EVENT */
	.apart = true,
	.run = wait_run,
	.copied = wait_copied,
	.drop = wait_drop,
};

CUresult sim_shared_event_wait(sim_stream_t *stream, sim_shared_event_t *shared, uint64_t serial)
{
	sim_work_t *work = sim_work_new(&wait_kind, stream->object.context);

	if (!work)
		return CUDA_ERROR_OUT_OF_MEMORY;
	sim_shared_event_keep(shared);
	((wait_work_t *)work)->shared = shared;
	((wait_work_t *)work)->serial = serial;
	return sim_stream_submit(stream, work);
}
