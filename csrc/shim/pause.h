/* SPDX-License-Identifier: GPL-2.0-only */
/* A short sleep in which a cancelled thread does not end: it holds what it must give back. */
#ifndef EMUV_PAUSE_H
#define EMUV_PAUSE_H

#include <pthread.h>
#include <time.h>

static inline void emuv_pause_us(long microseconds)
{
	const struct timespec pause = { 0, microseconds * 1000 };
	int cancel;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	nanosleep(&pause, NULL);
	pthread_setcancelstate(cancel, NULL);
}

#endif
