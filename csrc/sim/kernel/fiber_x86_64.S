/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Changing stacks on x86-64: void sim_fiber_swap(void **save, void *to).
 *
 * Only what a function must preserve is kept; control words (mxcsr, x87) are the same
 * in all fibers.  A new stack starts as sim_fiber_frame (fiber.c) laid it out: rbx is
 * the argument and r12 the function.
 */
#if defined(__x86_64__)
	.text
	.globl	sim_fiber_swap
	.hidden	sim_fiber_swap
	.type	sim_fiber_swap, @function
sim_fiber_swap:
	.cfi_startproc
	pushq	%rbp
	pushq	%rbx
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, (%rdi)
	movq	%rsi, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	ret
	.cfi_endproc
	.size	sim_fiber_swap, . - sim_fiber_swap

	.globl	sim_fiber_begin
	.hidden	sim_fiber_begin
	.type	sim_fiber_begin, @function
sim_fiber_begin:
	.cfi_startproc
	.cfi_undefined rip
	movq	%rbx, %rdi
	callq	*%r12
	ud2
	.cfi_endproc
	.size	sim_fiber_begin, . - sim_fiber_begin
#endif
	.section .note.GNU-stack, "", %progbits
