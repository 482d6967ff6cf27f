/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who a simulated card is, by its index on the machine (before CUDA_VISIBLE_DEVICES):
 * what the driver and libnvidia-ml.so.1 must say alike.
 */
#ifndef EMUV_SIM_IDENTITY_H
#define EMUV_SIM_IDENTITY_H

#include <stdio.h>
#include <string.h>

#define SIM_CARD_NAME "emuV simulated GPU"
#define SIM_CARD_BUS(physical) ((unsigned int)(1 + (physical)) & 0xff) /* domain 0, slot 0 */
#define SIM_CARD_BYTES (8ull << 30) /* EMUV_SIM_VRAM's default */
#define SIM_CARD_BYTES_LEAST (1ull << 20)
#define SIM_CARD_BYTES_MOST (1ull << 44)

static inline void sim_identity_uuid(int physical, unsigned char uuid[16])
{
	/* The index comes first, so that short prefixes tell cards apart. */
	static const unsigned char rest[16] = { 0,    0xe3, 0x4d, 0x75, 0x56, 0x73, 0x41, 0x6d,
						0x8a, 0x1c, 0x0d, 0x2f, 0x5b, 0x97, 0x64, 0xc8 };

	memcpy(uuid, rest, 16);
	uuid[0] = (unsigned char)(0x10 * (physical & 15) + (physical & 15));
}

/* "GPU-…", 40 characters. */
static inline void sim_identity_uuid_text(int physical, char text[48])
{
	unsigned char u[16];

	sim_identity_uuid(physical, u);
	snprintf(text, 48,
		 "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0],
		 u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13],
		 u[14], u[15]);
}

/*
 * Domain, bus, slot and function of a text as the driver reads it: domain:bus:slot.function,
 * domain:bus:slot or bus:slot.function, in hexadecimal.  Not 0: it is none of these.
 */
static inline int sim_identity_pci(const char *text, unsigned int at[4])
{
	int used = 0;

	at[0] = at[3] = 0;
	if (sscanf(text, "%x:%x:%x.%x%n", &at[0], &at[1], &at[2], &at[3], &used) < 4 &&
	    (at[3] = 0, sscanf(text, "%x:%x:%x%n", &at[0], &at[1], &at[2], &used) < 3) &&
	    (at[0] = 0, sscanf(text, "%x:%x.%x%n", &at[1], &at[2], &at[3], &used) < 3))
		return -1;
	return text[used] ? -1 : 0;
}

#endif
