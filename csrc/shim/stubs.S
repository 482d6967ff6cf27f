/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The two things that C cannot say: jumping on without a frame of one's own.
 *
 *   dlopen   ends in a jump to the real dlopen, because the loader looks at the
 *   dlmopen  return address to find the caller's RPATH, RUNPATH and $ORIGIN.
 *   NAME     for every driver function: a jump through a slot (forward.c), which
 *            is the whole cost of a forwarded call.
 */
#include "forward_stubs.h"

	.text
	.globl	dlopen
	.type	dlopen, @function
dlopen:
	.cfi_startproc
	endbr64
	pushq	%rsi			/* mode */
	.cfi_adjust_cfa_offset 8
	movq	8(%rsp), %rsi		/* who calls */
	callq	emuv_dlopen_file	/* the file is in %rdi already */
	pushq	%rax
	.cfi_adjust_cfa_offset 8
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	callq	emuv_dlopen_real
	addq	$8, %rsp
	.cfi_adjust_cfa_offset -8
	popq	%rdi
	.cfi_adjust_cfa_offset -8
	popq	%rsi
	.cfi_adjust_cfa_offset -8
	jmpq	*%rax
	.cfi_endproc
	.size	dlopen, . - dlopen

	.globl	dlmopen
	.type	dlmopen, @function
dlmopen:
	.cfi_startproc
	endbr64
	pushq	%rdi			/* namespace */
	.cfi_adjust_cfa_offset 8
	pushq	%rdx			/* mode */
	.cfi_adjust_cfa_offset 8
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	movq	%rsi, %rdi		/* file */
	movq	24(%rsp), %rsi		/* who calls */
	callq	emuv_dlopen_file
	movq	%rax, (%rsp)
	callq	emuv_dlmopen_real
	popq	%rsi
	.cfi_adjust_cfa_offset -8
	popq	%rdx
	.cfi_adjust_cfa_offset -8
	popq	%rdi
	.cfi_adjust_cfa_offset -8
	jmpq	*%rax
	.cfi_endproc
	.size	dlmopen, . - dlmopen

/*
 * The thread-local bytes of the library end on their alignment.  The loader takes the
 * bytes of a namespace back in one piece, and what a gap cuts off is lost: a program that
 * opens and closes namespaces would soon find no room for another.  This file is linked last.
 */
	.section .tbss.emuv_end, "awTR", @nobits
	.p2align 3
	.text

#define EMUV_API(export, name, version, flag) EMUV_FORWARD export
#include "driver_api.def"
	EMUV_FORWARD_END
