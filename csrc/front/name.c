/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * libcuda.so, a name for whatever is libcuda.so.1 in this process.
 *
 * A program that opens "libcuda.so" past emuV's dlopen (a plugin bound to its own
 * libraries first: RTLD_DEEPBIND) does not meet the preloaded library by that name,
 * which is not its SONAME. It finds this file by LD_LIBRARY_PATH instead; it needs
 * libcuda.so.1, which is in the process already, and dlsym on a handle searches what
 * the library needs too. A link would do where wheels could hold links.
 */
typedef int emuv_front_t; /* nothing else: the dependency is the content */
