/* SPDX-License-Identifier: GPL-2.0-only */
/* SHA-256 (FIPS 180-4): the names of cached kernels, and whether a file is whole. */
#ifndef EMUV_SHA256_H
#define EMUV_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32

typedef struct {
	uint32_t state[8];
	uint64_t bytes;
	unsigned char block[64];
} sha256_t;

void sha256_begin(sha256_t *hash);
void sha256_add(sha256_t *hash, const void *data, size_t bytes);
void sha256_end(sha256_t *hash, unsigned char digest[SHA256_BYTES]);

#endif
