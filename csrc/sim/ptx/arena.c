/* SPDX-License-Identifier: GPL-2.0-only */
/* Memory that is given back all at once: what a module is made of. */
#include <stdlib.h>
#include <string.h>

#include "parse.h"

#define CHUNK_BYTES ((size_t)64 << 10)

typedef struct chunk {
	struct chunk *next;
	size_t used, room;
	_Alignas(16) unsigned char bytes[];
} chunk_t;

struct ptx_arena {
	chunk_t *chunks;
};

ptx_arena_t *ptx_arena_new(void)
{
	return calloc(1, sizeof(ptx_arena_t));
}

static void drop_chunks(chunk_t *chunk)
{
	while (chunk) {
		chunk_t *next = chunk->next;

		free(chunk);
		chunk = next;
	}
}

void ptx_arena_drop(ptx_arena_t *arena)
{
	if (!arena)
		return;
	drop_chunks(arena->chunks);
	free(arena);
}

void ptx_arena_reset(ptx_arena_t *arena)
{
	if (!arena->chunks)
		return;
	drop_chunks(arena->chunks->next);
	arena->chunks->next = NULL;
	arena->chunks->used = 0;
}

void ptx_arena_join(ptx_arena_t *arena, ptx_arena_t *other)
{
	chunk_t **end = &arena->chunks;

	while (*end)
		end = &(*end)->next;
	*end = other->chunks;
	free(other);
}

void *ptx_arena_take(ptx_arena_t *arena, size_t bytes)
{
	chunk_t *chunk = arena->chunks;
	size_t room = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
	void *taken;

	if (bytes > SIZE_MAX / 2)
		return NULL;
	bytes = (bytes + 15) & ~(size_t)15;
	if (!chunk || chunk->room - chunk->used < bytes) {
		room = (room + 15) & ~(size_t)15;
		chunk = malloc(sizeof(*chunk) + room);
		if (!chunk)
			return NULL;
		chunk->used = 0;
		chunk->room = room;
		chunk->next = arena->chunks;
		arena->chunks = chunk;
	}
	taken = chunk->bytes + chunk->used;
	chunk->used += bytes;
	return memset(taken, 0, bytes);
}
