/* SPDX-License-Identifier: GPL-2.0-only */
/* The text of the profiles that are built in: profile.c. */

	.section .rodata

	.globl sim_profile_pcie3, sim_profile_pcie3_end
	.hidden sim_profile_pcie3, sim_profile_pcie3_end
sim_profile_pcie3:
	.incbin "csrc/sim/profiles/pcie3.ini"
sim_profile_pcie3_end:
	.byte 0

	.globl sim_profile_pcie4, sim_profile_pcie4_end
	.hidden sim_profile_pcie4, sim_profile_pcie4_end
sim_profile_pcie4:
	.incbin "csrc/sim/profiles/pcie4.ini"
sim_profile_pcie4_end:
	.byte 0

	.globl sim_profile_pcie5, sim_profile_pcie5_end
	.hidden sim_profile_pcie5, sim_profile_pcie5_end
sim_profile_pcie5:
	.incbin "csrc/sim/profiles/pcie5.ini"
sim_profile_pcie5_end:
	.byte 0

	.section .note.GNU-stack, "", %progbits
