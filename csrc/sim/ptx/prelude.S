/* SPDX-License-Identifier: GPL-2.0-only */
/* The text in front of every generated kernel (ptx.h), from the headers themselves. */
	.section .rodata
	.globl emuv_kernel_prelude
	.hidden emuv_kernel_prelude
	.type emuv_kernel_prelude, %object
emuv_kernel_prelude:
	.ascii "#define EMUV_GENERATED 1\n"
	.incbin "csrc/sim/kernel/abi.h"
	.incbin "csrc/sim/ptx/prelude.h"
	.incbin "csrc/sim/ptx/prelude_float.h"
	.incbin "csrc/sim/ptx/prelude_half.h"
	.incbin "csrc/sim/ptx/prelude_warp.h"
	.incbin "csrc/sim/ptx/prelude_video.h"
	.incbin "csrc/sim/kernel/lanes.h"
	.incbin "csrc/sim/ptx/prelude_steps.h"
	.byte 0
	.size emuv_kernel_prelude, . - emuv_kernel_prelude
	.section .note.GNU-stack, "", %progbits
