/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * libemuv-nvml.so: NVML as a program under emuV sees it, internal header.
 *
 * It bears NVML's SONAME and is preloaded beside libemuv.so.  Every function jumps to
 * the machine's NVML (EMUV_NVML, opened on the first call); those that tell how much
 * memory there is, or who holds it, ask there first and then put in what the budget says.
 *
 *   stubs.S, real.c   forwarding, and the way to the machine's NVML
 *   memory.c          a card's memory
 *   processes.c       who uses a card
 *   budget_of.c       what the books, or the environment and the run's segments, say
 *   ordinal.c         which CUDA device a card is
 *
 * Invariants
 *   - An error of the machine's NVML is the answer, and so is what it says of a card
 *     that the program has no budget on.
 *   - CUDA is not loaded or initialised by a question here; nothing is written, printed,
 *     or locked while another library is called.
 *   - Where libemuv.so is not in the process, nothing is adjusted.
 */
#ifndef EMUV_NVML_SHOWN_H
#define EMUV_NVML_SHOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "emuv_segment.h"
#include "nvml_abi.h"

#define NVML_API(name, ...)                                                    \
	__attribute__((visibility("default"))) nvmlReturn_t name(__VA_ARGS__); \
	__attribute__((visibility("default"))) nvmlReturn_t name(__VA_ARGS__)

/* ---- real.c ---- */
/* The machine's function; never NULL: else one that answers an error. */
void *shown_real(const char *name);
/* A call of the machine's `name` in the shape of this library's function of that name. */
#define SHOWN_REAL(name) ((__typeof__(&name))shown_real(#name))
/*
 * The machine's answer to an adjusted function, for whose time the thread is inside: what
 * that calls by its own name, and so comes here, is the machine's business.
 */
extern __thread unsigned int shown_inside;
#define SHOWN_ASK(name, ...)                                              \
	__extension__({                                                   \
		nvmlReturn_t answer_;                                     \
									  \
		shown_inside++;                                           \
		answer_ = SHOWN_REAL(name)(__VA_ARGS__);                  \
		shown_inside--;                                           \
		answer_;                                                  \
	})
/* Whether the machine's NVML is the simulated machine's. */
bool shown_is_sim(void);

/* ---- ordinal.c ---- */
/* The environment's budget, read once. */
const emuv_config_t *shown_config(void);
/*
 * The CUDA ordinal of a card in this process, by CUDA_VISIBLE_DEVICES alone; -1: none,
 * or not known.
 */
int shown_ordinal(nvmlDevice_t device);
bool shown_uuid_text(nvmlDevice_t device, char *text, unsigned int bytes);
/* Where it sits, as emuv_device_counters_t has it; 0: not known. */
uint64_t shown_pci(nvmlDevice_t device);

/* ---- budget_of.c ---- */
/*
 * Puts the budget's figures for a card in place of the machine's; false: it has no
 * budget, and nothing is changed.
 */
bool shown_memory(nvmlDevice_t device, nvmlMemory_t *memory);
typedef struct {
	int32_t pid;
	uint64_t bytes;
} shown_user_t;
typedef struct {
	shown_user_t *user; /* malloc'd */
	size_t count;
} shown_users_t;
/* The run's processes, with what emuV charges each as being on the card. */
void shown_users(nvmlDevice_t device, shown_users_t *users);

#endif
