/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * NVML names processes by their pid on the host.  Ours is that number only in the
 * initial pid namespace, whose inode the kernel fixes at PROC_PID_INIT_INO.
 */
#ifndef EMUV_PID_NAMESPACE_H
#define EMUV_PID_NAMESPACE_H

#include <stdbool.h>
#include <sys/stat.h>

static inline bool emuv_pid_is_global(void)
{
	struct stat namespace;

	return stat("/proc/self/ns/pid", &namespace) == 0 && namespace.st_ino == 0xEFFFFFFCu;
}

#endif
