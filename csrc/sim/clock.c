/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The virtual clock: what a card would have taken, by a model (docs/paging.md); and the
 * machine's own clock.
 *
 * Each device has three resources, which are busy until a moment: the link to it, the
 * link from it, and its processors.  A piece of work starts when it may and when the
 * first resource it needs is free, and books them:
 *
 *   launch             a fixed time, of anything that does something
 *   faults, evictions  a fixed time each, then their bytes over the link, out and in;
 *                      the driver does that before the work can go on
 *   a kernel's body    the longest of its bytes in the card's memory, its instructions
 *                      and its remote bytes, each at its rate
 *
 * Both directions of the link together carry no more than the profile's `link_both`:
 * what is booked while the other direction is busy gets what that leaves.  What was
 * booked before is not slowed down.
 */
#include <time.h>

#include "internal.h"
#include "profile.h"
#include "stats.h"

#define SECOND UINT64_C(1000000000)

typedef struct {
	uint64_t from, until; /* the stretch that was booked last */
} booking_t;

static struct {
	booking_t to_device, to_host, processors;
} busy[SIM_MAX_DEVICES];

bool sim_clock_events;

uint64_t sim_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* The time of so many bytes (or instructions) at a rate by the second. */
static uint64_t time_of(uint64_t amount, uint64_t rate)
{
	return (uint64_t)(((unsigned __int128)amount * SECOND + rate - 1) / rate);
}

static uint64_t amount_in(uint64_t time, uint64_t rate)
{
	return (uint64_t)((unsigned __int128)time * rate / SECOND);
}

/*
 * Books `bytes` on one direction from `start` on, at most at `rate`; `other` is the
 * other direction, which takes `other_rate` while it is busy.
 */
static uint64_t book(booking_t *link, const booking_t *other, uint64_t other_rate, uint64_t bytes,
		     uint64_t rate, uint64_t start)
{
	uint64_t both = sim_profile.link_both;
	/* Nothing stops altogether, whatever a profile says. */
	uint64_t left = most(both > other_rate ? both - other_rate : 0, rate / 8);
	uint64_t at, full;

	if (!bytes)
		return start;
	at = most(start, link->until);
	if (at != link->until)
		link->from = at;
	if (at < other->from) { /* alone, until the other begins */
		full = least(bytes, amount_in(other->from - at, rate));
		at += time_of(full, rate);
		bytes -= full;
	}
	if (bytes && at >= other->from && at < other->until && left < rate) {
		full = least(bytes, amount_in(other->until - at, left));
		at += time_of(full, left);
		bytes -= full;
	}
	at += time_of(bytes, rate);
	link->until = at;
	return at;
}

static uint64_t book_in(CUdevice device, uint64_t bytes, uint64_t rate, uint64_t start)
{
	return book(&busy[device].to_device, &busy[device].to_host, sim_profile.link_to_host, bytes,
		    rate, start);
}

static uint64_t book_out(CUdevice device, uint64_t bytes, uint64_t rate, uint64_t start)
{
	return book(&busy[device].to_host, &busy[device].to_device, sim_profile.link_to_device,
		    bytes, rate, start);
}

uint64_t sim_clock_run(const sim_cost_t *cost, uint64_t start)
{
	const sim_profile_t *profile = &sim_profile;
	CUdevice device = cost->device;
	uint64_t in = 0, out = 0, begin = start, at, body, remote;
	uint64_t remote_in = cost->to_device[SIM_CAUSE_REMOTE];
	uint64_t remote_out = cost->to_host[SIM_CAUSE_REMOTE];

	for (int cause = 0; cause < SIM_CAUSES; cause++) {
		in += cause == SIM_CAUSE_REMOTE ? 0 : cost->to_device[cause];
		out += cause == SIM_CAUSE_REMOTE ? 0 : cost->to_host[cause];
	}
	if (!cost->kernel && !in && !out && !remote_in && !remote_out && !cost->faults &&
	    !cost->evictions && !cost->vram_bytes)
		return start;
	if (cost->kernel)
		begin = most(start, busy[device].processors.until);
	at = begin + profile->launch_ns + cost->fault_batches * profile->fault_batch_ns +
	     cost->faults * profile->fault_ns + cost->evictions * profile->eviction_ns;
	at = book_out(device, out, profile->link_to_host, at);
	at = book_in(device, in, profile->link_to_device, at);
	body = most(time_of(cost->vram_bytes, profile->vram),
		    time_of(cost->instructions, profile->instructions));
	remote = most(book_in(device, remote_in, profile->remote_read, at),
		      book_out(device, remote_out, profile->remote_write, at));
	at = most(at + body, remote);
	if (cost->kernel)
		busy[device].processors = (booking_t){ begin, at };
	sim_stats_done(cost, begin, at);
	return at;
}
