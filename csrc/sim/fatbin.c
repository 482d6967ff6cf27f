/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fat binaries: one program in several forms.  The member that suits the simulated GPU
 * is taken out, unpacked if need be, and becomes the image.
 *
 * PTX comes first, because it can be executed; of several, the one for the newest
 * architecture that is not newer than the device.  A cubin for this very architecture
 * comes next: its names and parameters are known, its kernels do not run.
 *
 * Members are plain, packed by LZ4 (its block format) or by zstd (one frame).  Zstd is
 * unpacked by libzstd.so.1, if the machine has it; without it the image is `open`.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"

#define FATBIN 0xba55ed50u
enum { MEMBER_PTX = 1, MEMBER_CUBIN = 2 };
#define MEMBER_LZ4 0x2000u
#define MEMBER_ZSTD 0x8000u

typedef struct {
	uint32_t magic;
	uint16_t version;
	uint16_t header_bytes;
	uint64_t bytes; /* behind the header */
} fat_header_t;

typedef struct {
	uint16_t kind, version;
	uint32_t header_bytes;
	uint64_t bytes;        /* behind the header, up to the next member */
	uint32_t packed_bytes; /* of these; 0: not packed */
	uint32_t options;
	uint32_t code_version, target;
	uint64_t reserved1, flags, reserved2;
	uint64_t unpacked_bytes;
} member_t;
_Static_assert(sizeof(member_t) == 64, "as in the file");

size_t sim_fat_size(const unsigned char *data, size_t known, char why[SIM_WHY_BYTES])
{
	size_t limit = known ? known : SIM_IMAGE_BYTES_MOST;
	fat_header_t header;

	if (limit < sizeof(header)) {
		sim_image_fail(why, "the fat binary's header is cut short");
		return 0;
	}
	memcpy(&header, data, sizeof(header));
	if (header.header_bytes < sizeof(header) || !header.bytes ||
	    !sim_image_inside(header.header_bytes, header.bytes, limit)) {
		sim_image_fail(why, "the fat binary's header makes no sense");
		return 0;
	}
	return header.header_bytes + header.bytes;
}

/* ---- unpacking ---- */

/* A length of which the token has four bits; -1: it goes on past the end. */
static int64_t lz4_length(unsigned int first, const unsigned char **at, const unsigned char *end)
{
	int64_t length = first;
	unsigned int more = 255;

	if (first < 15)
		return length;
	while (more == 255) {
		if (*at == end)
			return -1;
		more = *(*at)++;
		length += more;
	}
	return length;
}

/* Exactly `room` bytes come out, or it is no LZ4 block. */
static bool lz4_unpack(const unsigned char *at, size_t bytes, unsigned char *out, size_t room)
{
	const unsigned char *end = at + bytes;
	size_t done = 0;

	while (at < end) {
		unsigned int token = *at++, distance;
		int64_t length = lz4_length(token >> 4, &at, end);

		if (length < 0 || length > end - at || (size_t)length > room - done)
			return false;
		memcpy(out + done, at, (size_t)length);
		at += length;
		done += (size_t)length;
		if (at == end)
			break; /* the last sequence has no match */
		if (end - at < 2)
			return false;
		distance = at[0] | (unsigned int)at[1] << 8;
		at += 2;
		length = lz4_length(token & 15, &at, end);
		if (length < 0 || !distance || distance > done || (size_t)length + 4 > room - done)
			return false;
		/* The match may overlap what it makes. */
		for (length += 4; length; length--, done++)
			out[done] = out[done - distance];
	}
	return done == room;
}

static bool zstd_unpack(const unsigned char *data, size_t bytes, unsigned char *out, size_t room,
			char why[SIM_WHY_BYTES])
{
	size_t (*decompress)(void *, size_t, const void *, size_t);
	void *library = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
	bool done;

	if (library)
		*(void **)&decompress = dlsym(library, "ZSTD_decompress");
	if (!library || !decompress) {
		snprintf(why, SIM_WHY_BYTES, "it is packed by zstd, and there is no libzstd.so.1");
		if (library)
			dlclose(library);
		return false;
	}
	done = decompress(out, room, data, bytes) == room;
	dlclose(library);
	if (!done)
		sim_image_fail(why, "a member of the fat binary cannot be unpacked by zstd");
	return done;
}

/* A copy of the member's code, NUL behind it; NULL and `why`: it cannot be had. */
static unsigned char *unpack(const member_t *member, const unsigned char *code, size_t *size,
			     char why[SIM_WHY_BYTES])
{
	bool packed = member->flags & (MEMBER_LZ4 | MEMBER_ZSTD), done = true;
	size_t bytes = packed ? member->packed_bytes : member->bytes;
	size_t room = packed ? member->unpacked_bytes : bytes;
	unsigned char *out;

	if (bytes > member->bytes || !room || room > SIM_IMAGE_BYTES_MOST ||
	    (!packed && member->packed_bytes)) {
		sim_image_fail(why, "a member of the fat binary is packed in an unknown way");
		return NULL;
	}
	out = malloc(room + 1);
	if (!out) {
		snprintf(why, SIM_WHY_BYTES, "no memory for %zu bytes", room);
		return NULL;
	}
	if (!packed) {
		memcpy(out, code, room);
	} else if (member->flags & MEMBER_ZSTD) {
		done = zstd_unpack(code, bytes, out, room, why);
	} else {
		done = lz4_unpack(code, bytes, out, room);
		if (!done)
			sim_image_fail(why, "a member of the fat binary cannot be unpacked by LZ4");
	}
	if (!done) {
		free(out);
		return NULL;
	}
	out[room] = '\0';
	*size = room;
	return out;
}

/* ---- choosing ---- */

/* What a member is worth here: more is better, 0 nothing. */
static unsigned int worth(const member_t *member)
{
	unsigned int device = 10 * SIM_CC_MAJOR + SIM_CC_MINOR;

	if (member->kind == MEMBER_PTX && member->target <= device)
		return 1000 + member->target;
	if (member->kind == MEMBER_CUBIN && member->target / 10 == SIM_CC_MAJOR &&
	    member->target <= device)
		return member->target;
	return 0;
}

static bool next_member(const unsigned char *data, size_t size, size_t *at, member_t *member)
{
	if (!sim_image_inside(*at, sizeof(*member), size))
		return false;
	memcpy(member, data + *at, sizeof(*member));
	return member->header_bytes >= sizeof(*member) &&
	       sim_image_inside(*at, member->header_bytes, size) &&
	       sim_image_inside(*at + member->header_bytes, member->bytes, size);
}

/* "sm_90, sm_100, compute_100": what there is instead. */
static void list_members(const unsigned char *data, size_t size, char why[SIM_WHY_BYTES])
{
	fat_header_t header;
	member_t member;
	size_t at, used;

	memcpy(&header, data, sizeof(header));
	used = (size_t)snprintf(why, SIM_WHY_BYTES, "a fat binary for a device of sm_%d%d has",
				SIM_CC_MAJOR, SIM_CC_MINOR);
	for (at = header.header_bytes; at < size && next_member(data, size, &at, &member);
	     at += member.header_bytes + member.bytes)
		if (used < SIM_WHY_BYTES)
			used += (size_t)snprintf(why + used, SIM_WHY_BYTES - used, " %s%u",
						 member.kind == MEMBER_PTX ? "compute_" : "sm_",
						 member.target & 0xffff);
	if (used < SIM_WHY_BYTES)
		snprintf(why + used, SIM_WHY_BYTES - used, " only");
}

CUresult sim_fat_take(const unsigned char *data, size_t size, unsigned char **code,
		      size_t *code_bytes, bool *ptx, char why[SIM_WHY_BYTES])
{
	unsigned int below = ~0u, best;
	bool any = false;
	fat_header_t header;
	member_t member, chosen = { 0 };
	size_t at, where = 0;

	memcpy(&header, data, sizeof(header));
	*code = NULL;
	/* From the best member down, until one can be unpacked. */
	do {
		best = 0;
		for (at = header.header_bytes; at < size;
		     at += member.header_bytes + member.bytes) {
			if (!next_member(data, size, &at, &member))
				return sim_image_fail(why, "a member of the fat binary lies "
							   "outside of it");
			if (worth(&member) > best && worth(&member) < below) {
				best = worth(&member);
				chosen = member;
				where = at + member.header_bytes;
			}
		}
		if (best) {
			any = true;
			*code = unpack(&chosen, data + where, code_bytes, why);
			*ptx = chosen.kind == MEMBER_PTX;
		}
		below = best;
	} while (best && !*code);
	if (!any) {
		list_members(data, size, why);
		return CUDA_ERROR_NO_BINARY_FOR_GPU;
	}
	return CUDA_SUCCESS;
}
