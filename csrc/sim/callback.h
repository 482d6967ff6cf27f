/* SPDX-License-Identifier: GPL-2.0-only */
/* A function of the program as a piece of work: callback.c, and graphs' host nodes. */
#ifndef EMUV_SIM_CALLBACK_H
#define EMUV_SIM_CALLBACK_H

#include "internal.h"
#include "work.h"

/* One of the two functions is set. */
typedef struct {
	sim_work_t work;
	void (*function)(void *data);
	void (*callback)(CUstream stream, CUresult status, void *data);
	void *data;
	CUstream handle; /* what the program called the stream */
} sim_host_work_t;
extern const sim_work_kind_t sim_host_kind;

#endif
