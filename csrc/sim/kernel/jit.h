/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * C text to a kernel in this process: compiled once, kept in a cache of files, loaded.
 *
 *   jit.c       the key of a text, what is loaded, who waits for whom
 *   cache.c     the folder of compiled kernels
 *   compiler.c  which compiler, with which flags, and running it
 */
#ifndef EMUV_SIM_JIT_H
#define EMUV_SIM_JIT_H

#include "abi.h"
#include "sha256.h"
#include "sim.h"

/* ---- jit.c ---- */
typedef struct sim_jit sim_jit_t;
/*
 * The kernel of a generated text, with or without tracking.  Without sim_lock; takes
 * as long as the compiler.  On failure NULL, and one line on stderr that says why:
 *   CUDA_ERROR_JIT_COMPILER_NOT_FOUND  there is no C compiler
 *   CUDA_ERROR_LAUNCH_FAILED           the compiler did not take the text: emuV's error
 *   CUDA_ERROR_OUT_OF_MEMORY
 */
sim_jit_t *sim_jit_take(const char *text, const char *kernel, bool track, CUresult *why);
const emuv_kernel_t *sim_jit_kernel(const sim_jit_t *jit);
void sim_jit_give(sim_jit_t *jit); /* NULL is taken */

/* ---- cache.c ---- */
#define CACHE_PATH_BYTES 1100
typedef struct {
	char folder[CACHE_PATH_BYTES - 120];
	bool temporary; /* made for this one kernel, and goes again */
} sim_cache_t;
/* The folder to compile in.  False: there is none, and a line has said so. */
bool sim_cache_open(sim_cache_t *cache);
void sim_cache_close(const sim_cache_t *cache);
/* Is the file that of the key, and whole? */
bool sim_cache_valid(const char *path, const unsigned char key[SHA256_BYTES]);
/* Marks the file as valid for the key and gives it its name, at once. */
bool sim_cache_keep(const char *made, const char *path, const unsigned char key[SHA256_BYTES]);
/* A new file of the folder, which nobody else has; -1: errno says why. */
int sim_cache_create(const char *path);

/* ---- compiler.c ---- */
typedef struct {
	char path[1024]; /* "": none was found */
	char identity[1200]; /* the same while the program is the same */
} sim_compiler_t;
const sim_compiler_t *sim_compiler(void);
/* The flags of every compilation, as text for the key. */
const char *sim_compiler_flags(void);
typedef enum { COMPILE_DONE, COMPILE_REFUSED, COMPILE_FAILED, COMPILE_SLOW } sim_compile_t;
/* Compiles `source` to the shared object `made`; `log` is a file for what it says. */
sim_compile_t sim_compiler_run(const char *source, const char *made, const char *log);

#endif
