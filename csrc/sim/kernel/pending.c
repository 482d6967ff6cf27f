/* SPDX-License-Identifier: GPL-2.0-only */
/* Until paging is there. */
#include <stdlib.h>
#include <string.h>
#include "internal.h"
#include "paging.h"
__attribute__((weak)) bool sim_paging_tracks(CUdevice d) { (void)d; return false; }
__attribute__((weak)) sim_paging_t *sim_paging_begin(sim_context_t *c, const sim_launch_info_t *i) { (void)c; (void)i; return NULL; }
__attribute__((weak)) const uint8_t *sim_paging_table(const sim_paging_t *p) { (void)p; return NULL; }
__attribute__((weak)) void sim_paging_own(sim_paging_t *p, uint64_t a, uint64_t b) { (void)p; (void)a; (void)b; }
__attribute__((weak)) CUresult sim_paging_access(sim_paging_t *p, uint64_t a, uint32_t b, uint32_t r) { (void)p; (void)a; (void)b; (void)r; return 0; }
__attribute__((weak)) void sim_paging_end(sim_paging_t *p, sim_cost_t *c) { (void)p; (void)c; }
