/* SPDX-License-Identifier: GPL-2.0-only */
/* Every function of NVML, forwarded; what memory.c, processes.c and real.c define wins. */
#include "forward_stubs.h"

#define NVML_NAME(name) EMUV_FORWARD name
#define NVML_MORE(name) EMUV_FORWARD name
#include "nvml_names.def"
	EMUV_FORWARD_END
