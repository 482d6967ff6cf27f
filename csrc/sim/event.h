/* SPDX-License-Identifier: GPL-2.0-only */
/* Records of events and waits for them as pieces of work: event.c, and graphs' nodes. */
#ifndef EMUV_SIM_EVENT_H
#define EMUV_SIM_EVENT_H

#include "internal.h"
#include "work.h"

typedef struct sim_event sim_event_t;

typedef struct {
	sim_work_t work;
	CUevent event;
	uint64_t serial; /* of the record that this is */
	struct sim_shared_event *shared; /* of a record, queued: as processes share it, */
	uint64_t shared_serial;          /* and its number there */
} sim_event_work_t;
extern const sim_work_kind_t sim_record_kind, sim_wait_kind;

#endif
