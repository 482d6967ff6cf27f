/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * libnvidia-ml.so.1 of the simulated machine: what NVML's callers (nvidia-ml-py, nvitop,
 * PyTorch) ask of it, internal header.
 *
 *   start.c     init and shutdown, what is said of the machine, words for errors
 *   card.c      which cards there are, handles, what a card says of itself
 *   use.c       who uses a card, and how many bytes of it
 *   processes.c the calls that list processes
 *   stubs.c     every other function: NVML_ERROR_NOT_SUPPORTED
 *
 * Invariants
 *   - No reading is invented: a simulated card has no temperature, no watts and no
 *     clock that runs.  What is not known is NVML_ERROR_NOT_SUPPORTED.
 *   - CUDA is not initialised by a question here, no file is made, nothing is locked
 *     while another library is called.
 *   - CUDA_VISIBLE_DEVICES means nothing: cards are those of the machine.
 *   - What a segment file holds is a stranger's: checked and cut to the card's size.
 */
#ifndef EMUV_NVML_SIM_H
#define EMUV_NVML_SIM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "nvml_abi.h"
#include "sim/sim.h"

#define NVML_API(name, ...)                                                    \
	__attribute__((visibility("default"))) nvmlReturn_t name(__VA_ARGS__); \
	__attribute__((visibility("default"))) nvmlReturn_t name(__VA_ARGS__)

/* ---- start.c ---- */
bool nvml_sim_started(void);
#define NVML_ENTER()                                    \
	do {                                            \
		if (!nvml_sim_started())                \
			return NVML_ERROR_UNINITIALIZED; \
	} while (0)
/* Text into a buffer of the caller's, as every such call of NVML does it. */
nvmlReturn_t nvml_sim_text(char *buffer, unsigned int length, const char *text);

/* ---- card.c ---- */
/* EMUV_SIM_DEVICES and EMUV_SIM_VRAM; false, and a line on stderr: they make no sense. */
bool nvml_sim_configure(void);
/* The index of a handle, or -1. */
int nvml_sim_card(nvmlDevice_t device);
#define NVML_CARD(name, device)                        \
	int name;                                      \
	NVML_ENTER();                                  \
	name = nvml_sim_card(device);                  \
	if (name < 0)                                  \
		return NVML_ERROR_INVALID_ARGUMENT

/* ---- use.c ---- */
typedef struct {
	pid_t pid;
	uint64_t bytes;
} nvml_user_t;
typedef struct {
	unsigned int cards;    /* how many cards its processes have seen */
	uint64_t card_bytes;   /* the card's size, as they say; 0: none says */
	uint64_t used;         /* the sum over its users */
	unsigned int count;
	nvml_user_t *user;     /* malloc'd */
} nvml_use_t;
/*
 * Who uses card `index`.  In a process that has the simulated driver initialised: that
 * process alone, whose card it is.  Elsewhere: every program of this user that runs
 * under emuV on the simulated GPU, as its segment says.  False: no memory.
 */
bool nvml_sim_use(int index, nvml_use_t *use);
void nvml_sim_use_drop(nvml_use_t *use);
/* Bytes of a card, agreed with what its users say. */
uint64_t nvml_sim_card_bytes(const nvml_use_t *use);

#endif
