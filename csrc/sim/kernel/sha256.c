/* SPDX-License-Identifier: GPL-2.0-only */
/* SHA-256, as FIPS 180-4 writes it down. */
#include <string.h>

#include "sha256.h"

static const uint32_t constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
	0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
	0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
	0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
	0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
	0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2,
};

static uint32_t rotate(uint32_t value, unsigned int by)
{
	return value >> by | value << (32 - by);
}

static void block(sha256_t *hash, const unsigned char *data)
{
	uint32_t word[64], v[8];

	for (int i = 0; i < 16; i++)
		word[i] = (uint32_t)data[4 * i] << 24 | (uint32_t)data[4 * i + 1] << 16 |
			  (uint32_t)data[4 * i + 2] << 8 | data[4 * i + 3];
	for (int i = 16; i < 64; i++) {
		uint32_t a = word[i - 15], b = word[i - 2];

		word[i] = word[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + word[i - 7] +
			  (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
	}
	memcpy(v, hash->state, sizeof(v));
	for (int i = 0; i < 64; i++) {
		uint32_t one = v[7] + (rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)) +
			       ((v[4] & v[5]) ^ (~v[4] & v[6])) + constants[i] + word[i];
		uint32_t two = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) +
			       ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

		memmove(v + 1, v, 7 * sizeof(*v));
		v[4] += one;
		v[0] = one + two;
	}
	for (int i = 0; i < 8; i++)
		hash->state[i] += v[i];
}

void sha256_begin(sha256_t *hash)
{
	*hash = (sha256_t){ .state = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
				       0x9b05688c, 0x1f83d9ab, 0x5be0cd19 } };
}

void sha256_add(sha256_t *hash, const void *data, size_t bytes)
{
	const unsigned char *at = data;

	while (bytes) {
		size_t used = hash->bytes % 64, room = 64 - used;

		if (room > bytes)
			room = bytes;
		if (room == 64) {
			block(hash, at);
		} else {
			memcpy(hash->block + used, at, room);
			if (used + room == 64)
				block(hash, hash->block);
		}
		hash->bytes += room;
		at += room;
		bytes -= room;
	}
}

void sha256_end(sha256_t *hash, unsigned char digest[SHA256_BYTES])
{
	static const unsigned char padding[64] = { 0x80 };
	uint64_t bits = hash->bytes * 8;
	unsigned char length[8];

	for (int i = 0; i < 8; i++)
		length[i] = (unsigned char)(bits >> (56 - 8 * i));
	sha256_add(hash, padding, 1 + (119 - hash->bytes % 64) % 64);
	sha256_add(hash, length, sizeof(length));
	for (int i = 0; i < SHA256_BYTES; i++)
		digest[i] = (unsigned char)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}
