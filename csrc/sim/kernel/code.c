/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What an entry of PTX becomes: translated to C once, compiled once with and once
 * without tracking, when it is first needed.
 *
 * Invariants: translate_lock guards what is kept with entries; the compiler runs without
 * it (jit.c sees to it that it runs once).  The C text stays, for the other half.  What
 * failed stays failed, and was said once.
 */
#include <stdlib.h>

#include "code.h"
#include "internal.h"
#include "jit.h"
#include "ptx/ptx.h"

struct sim_entry_code {
	bool translated;
	CUresult result;
	ptx_code_t code;
	sim_code_t facts;
	sim_jit_t *jit[2];             /* by tracking; guarded */
	_Atomic(const emuv_kernel_t *) kernel[2];
};

static pthread_mutex_t translate_lock = PTHREAD_MUTEX_INITIALIZER;

struct sim_entry_code *sim_entry_code_new(void)
{
	return calloc(1, sizeof(struct sim_entry_code));
}

void sim_entry_code_drop(struct sim_entry_code *code)
{
	if (!code)
		return;
	sim_jit_give(code->jit[0]);
	sim_jit_give(code->jit[1]);
	if (code->translated && code->result == CUDA_SUCCESS)
		ptx_code_drop(&code->code);
	free(code);
}

static CUresult result_of(ptx_status_t status)
{
	switch (status) {
	case PTX_OK:
		return CUDA_SUCCESS;
	case PTX_BAD_VERSION:
		return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
	case PTX_UNSUPPORTED:
		return CUDA_ERROR_NOT_SUPPORTED;
	case PTX_NO_MEMORY:
		return CUDA_ERROR_OUT_OF_MEMORY;
	default:
		return CUDA_ERROR_INVALID_PTX;
	}
}

/* translate_lock held. */
static void translate(const sim_image_t *image, const sim_entry_t *entry)
{
	struct sim_entry_code *code = entry->code;
	const ptx_function_t *function = ptx_function_named(image->ptx, entry->name);
	char why[PTX_WHY_BYTES] = "";
	ptx_status_t status = PTX_UNRESOLVED;

	if (function && function->defined)
		status = ptx_translate(image->ptx, function, &code->code, why);
	code->translated = true;
	code->result = result_of(status);
	if (status != PTX_OK) {
		sim_say("error: kernel \"%.150s\" cannot run: %s", entry->name,
			why[0] ? why : "it is declared, and not defined");
		return;
	}
	code->facts = (sim_code_t){ code->code.shared_bytes, code->code.local_bytes,
				    code->code.recursive, code->code.registers };
}

CUresult sim_code_of(const sim_image_t *image, const sim_entry_t *entry, const sim_code_t **facts)
{
	struct sim_entry_code *code = entry->code;
	CUresult result;

	pthread_mutex_lock(&translate_lock);
	if (!code->translated)
		translate(image, entry);
	result = code->result;
	pthread_mutex_unlock(&translate_lock);
	*facts = &code->facts;
	return result;
}

const emuv_kernel_t *sim_code_ready(const sim_entry_t *entry, bool track)
{
	return atomic_load_explicit(&entry->code->kernel[track], memory_order_acquire);
}

CUresult sim_code_kernel(const sim_image_t *image, const sim_entry_t *entry, bool track,
			 const emuv_kernel_t **kernel)
{
	struct sim_entry_code *code = entry->code;
	const sim_code_t *facts;
	CUresult result = sim_code_of(image, entry, &facts);
	sim_jit_t *jit;

	if (result != CUDA_SUCCESS)
		return result;
	*kernel = sim_code_ready(entry, track);
	if (*kernel)
		return CUDA_SUCCESS;
	jit = sim_jit_take(code->code.c_text, entry->name, track, &result);
	if (!jit)
		return result;
	*kernel = sim_jit_kernel(jit);
	pthread_mutex_lock(&translate_lock);
	if (!code->jit[track]) {
		code->jit[track] = jit;
		jit = NULL;
		atomic_store_explicit(&code->kernel[track], *kernel, memory_order_release);
	}
	pthread_mutex_unlock(&translate_lock);
	sim_jit_give(jit); /* another thread was first: it is the same kernel */
	return CUDA_SUCCESS;
}
