/* SPDX-License-Identifier: GPL-2.0-only */
/* The types of PTX, and how a message names an instruction. */
#include <stdio.h>
#include <string.h>

#include "ptx.h"

static const struct {
	const char *name, *c;
	unsigned int bytes;
} types[PTX_TYPES] = {
	[PTX_NONE] = { "", "void", 0 },
	[PTX_PRED] = { "pred", "bool", 1 },
	[PTX_B8] = { "b8", "uint8_t", 1 },
	[PTX_U8] = { "u8", "uint8_t", 1 },
	[PTX_S8] = { "s8", "int8_t", 1 },
	[PTX_B16] = { "b16", "uint16_t", 2 },
	[PTX_U16] = { "u16", "uint16_t", 2 },
	[PTX_S16] = { "s16", "int16_t", 2 },
	[PTX_F16] = { "f16", "uint16_t", 2 },
	[PTX_BF16] = { "bf16", "uint16_t", 2 },
	[PTX_B32] = { "b32", "uint32_t", 4 },
	[PTX_U32] = { "u32", "uint32_t", 4 },
	[PTX_S32] = { "s32", "int32_t", 4 },
	[PTX_F32] = { "f32", "float", 4 },
	[PTX_F16X2] = { "f16x2", "uint32_t", 4 },
	[PTX_BF16X2] = { "bf16x2", "uint32_t", 4 },
	[PTX_U16X2] = { "u16x2", "uint32_t", 4 },
	[PTX_S16X2] = { "s16x2", "uint32_t", 4 },
	[PTX_B64] = { "b64", "uint64_t", 8 },
	[PTX_U64] = { "u64", "uint64_t", 8 },
	[PTX_S64] = { "s64", "int64_t", 8 },
	[PTX_F64] = { "f64", "double", 8 },
	[PTX_B128] = { "b128", "unsigned __int128", 16 },
};

ptx_type_t ptx_type_named(const char *name)
{
	for (ptx_type_t type = PTX_PRED; type < PTX_TYPES; type++)
		if (strcmp(types[type].name, name) == 0)
			return type;
	return PTX_NONE;
}

const char *ptx_type_name(ptx_type_t type)
{
	return types[type].name;
}

unsigned int ptx_type_bytes(ptx_type_t type)
{
	return types[type].bytes;
}

const char *ptx_type_c(ptx_type_t type)
{
	return types[type].c;
}

void ptx_instruction_name(const ptx_instruction_t *instruction, char *text, size_t bytes)
{
	size_t at;

	if (!bytes)
		return;
	snprintf(text, bytes, "%s", instruction->opcode ? instruction->opcode : "");
	for (unsigned int i = 0; i < instruction->modifiers; i++) {
		at = strlen(text);
		snprintf(text + at, bytes - at, ".%s", instruction->modifier[i]);
	}
}

bool ptx_has(const ptx_instruction_t *instruction, const char *modifier)
{
	for (unsigned int i = 0; i < instruction->modifiers; i++)
		if (strcmp(instruction->modifier[i], modifier) == 0)
			return true;
	return false;
}
