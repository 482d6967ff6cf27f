/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For assembly: the stubs of a library that forwards what it does not define.
 *
 *   EMUV_FORWARD name   a weak function that jumps through a slot, which is the whole
 *                       cost of a forwarded call.  Slot i, of the i-th use, at first
 *                       leads to emuv_forward_lookup(i), and its answer is jumped to.
 *   EMUV_FORWARD_END    after the last one.
 *
 * The including library defines emuv_forward_lookup(index).
 */
#if !defined(__x86_64__)
#error "emuV's dlopen hook and forwarding stubs are written for x86-64 only"
#endif

	.text
/*
 * First call of a forwarded function: the index is on the stack, above it the
 * caller's return address.  Keeps every register that may carry an argument,
 * asks emuv_forward_lookup, and jumps to its answer.
 */
	.type	emuv_forward_common, @function
emuv_forward_common:
	.cfi_startproc
	.cfi_def_cfa_offset 16
	pushq	%rbp
	.cfi_adjust_cfa_offset 8
	.cfi_offset %rbp, -24
	movq	%rsp, %rbp
	.cfi_def_cfa_register %rbp
	pushq	%rdi
	pushq	%rsi
	pushq	%rdx
	pushq	%rcx
	pushq	%r8
	pushq	%r9
	pushq	%rax
	subq	$136, %rsp
	andq	$-16, %rsp
	movups	%xmm0, (%rsp)
	movups	%xmm1, 16(%rsp)
	movups	%xmm2, 32(%rsp)
	movups	%xmm3, 48(%rsp)
	movups	%xmm4, 64(%rsp)
	movups	%xmm5, 80(%rsp)
	movups	%xmm6, 96(%rsp)
	movups	%xmm7, 112(%rsp)
	movq	8(%rbp), %rdi
	callq	emuv_forward_lookup
	movq	%rax, %r11
	movups	(%rsp), %xmm0
	movups	16(%rsp), %xmm1
	movups	32(%rsp), %xmm2
	movups	48(%rsp), %xmm3
	movups	64(%rsp), %xmm4
	movups	80(%rsp), %xmm5
	movups	96(%rsp), %xmm6
	movups	112(%rsp), %xmm7
	leaq	-56(%rbp), %rsp
	popq	%rax
	popq	%r9
	popq	%r8
	popq	%rcx
	popq	%rdx
	popq	%rsi
	popq	%rdi
	popq	%rbp
	.cfi_def_cfa %rsp, 16
	addq	$8, %rsp		/* the index */
	.cfi_adjust_cfa_offset -8
	jmpq	*%r11
	.cfi_endproc
	.size	emuv_forward_common, . - emuv_forward_common

	.section .data.rel.emuv, "aw", @progbits
	.p2align 4
	.globl	emuv_forward_slots
	.hidden	emuv_forward_slots
	.type	emuv_forward_slots, @object
emuv_forward_slots:

	.set	emuv_index, 0
	.macro	EMUV_FORWARD name
	.text
	.p2align 4
	.weak	\name			/* a hook of the same name wins */
	.type	\name, @function
\name:
	.cfi_startproc
	endbr64
	jmpq	*(emuv_forward_slots + 8 * emuv_index)(%rip)
.Lfirst_\name:
	endbr64
	pushq	$emuv_index
	.cfi_adjust_cfa_offset 8
	jmp	emuv_forward_common
	.cfi_endproc
	.size	\name, . - \name
	.section .data.rel.emuv, "aw", @progbits
	.quad	.Lfirst_\name
	.set	emuv_index, emuv_index + 1
	.endm

	.macro	EMUV_FORWARD_END
	.section .data.rel.emuv, "aw", @progbits
	.size	emuv_forward_slots, . - emuv_forward_slots
	.section .note.GNU-stack, "", @progbits
	.endm
