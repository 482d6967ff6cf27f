/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Changing stacks on aarch64: void sim_fiber_swap(void **save, void *to).  Written from
 * the procedure call standard; not yet run on such a machine.
 *
 * x19 to x30 and the low halves of v8 to v15 are kept.  A new stack starts as
 * sim_fiber_frame (fiber.c) laid it out: x19 is the argument and x20 the function.
 */
#if defined(__aarch64__)
	.text
	.globl	sim_fiber_swap
	.hidden	sim_fiber_swap
	.type	sim_fiber_swap, %function
sim_fiber_swap:
	sub	sp, sp, #160
	stp	x19, x20, [sp]
	stp	x21, x22, [sp, #16]
	stp	x23, x24, [sp, #32]
	stp	x25, x26, [sp, #48]
	stp	x27, x28, [sp, #64]
	stp	x29, x30, [sp, #80]
	stp	d8, d9, [sp, #96]
	stp	d10, d11, [sp, #112]
	stp	d12, d13, [sp, #128]
	stp	d14, d15, [sp, #144]
	mov	x9, sp
	str	x9, [x0]
	mov	sp, x1
	ldp	x19, x20, [sp]
	ldp	x21, x22, [sp, #16]
	ldp	x23, x24, [sp, #32]
	ldp	x25, x26, [sp, #48]
	ldp	x27, x28, [sp, #64]
	ldp	x29, x30, [sp, #80]
	ldp	d8, d9, [sp, #96]
	ldp	d10, d11, [sp, #112]
	ldp	d12, d13, [sp, #128]
	ldp	d14, d15, [sp, #144]
	add	sp, sp, #160
	ret
	.size	sim_fiber_swap, . - sim_fiber_swap

	.globl	sim_fiber_begin
	.hidden	sim_fiber_begin
	.type	sim_fiber_begin, %function
sim_fiber_begin:
	mov	x0, x19
	blr	x20
	brk	#1
	.size	sim_fiber_begin, . - sim_fiber_begin
#endif
	.section .note.GNU-stack, "", %progbits
