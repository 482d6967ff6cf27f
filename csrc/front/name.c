/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * libcuda.so and libcuda.so.1 on a search path: names for libemuv.so, which this needs
 * and which lies one folder up.
 *
 * A program that looks for the driver past the preloaded library (a plugin bound to its
 * own libraries first, which asks for "libcuda.so"; a library in a namespace of its own;
 * a child whose LD_PRELOAD another tool has rewritten) finds this file by LD_LIBRARY_PATH
 * instead, and dlsym on a handle searches what the library needs too. Links would do,
 * where wheels could hold links.
 */
typedef int emuv_front_t; /* nothing else: the dependency is the content */
