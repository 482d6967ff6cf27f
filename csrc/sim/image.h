/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Device code as the simulated GPU keeps it: a copy of what the program handed over,
 * and the names in it.
 *
 * An image is read once and never changes; modules, libraries and their handles share
 * it by reference.  It is one of
 *   PTX text     parsed and linked by ptx/; entries, parameters and variables from there
 *   a cubin      ELF for machine 190: symbols and .nv.info sections
 *   what cuLinkComplete of this driver made: such an ELF, with PTX text inside
 *   a fat binary the member that suits: one of these; where that cannot be unpacked, the
 *                image is `open`: every name is taken to be there
 */
#ifndef EMUV_SIM_IMAGE_H
#define EMUV_SIM_IMAGE_H

#include "sim.h"

typedef struct {
	unsigned int offset, bytes;
} sim_parameter_t;

typedef struct {
	char *name;
	sim_parameter_t *parameters;
	unsigned int parameter_count;
	unsigned int registers;    /* 0: unknown */
	unsigned int shared_bytes; /* static */
	unsigned int max_threads;  /* .maxntid; 0: none given */
	struct sim_entry_code *code; /* of PTX: what kernel/code.c makes of it */
} sim_entry_t;

typedef struct {
	char *name;
	size_t bytes, align;
	unsigned char *initial; /* `bytes` of them; NULL: zeros */
	bool constant, managed;
	const struct ptx_variable *ptx; /* of PTX: has the addresses among the initial values */
} sim_variable_t;

#define SIM_WHY_BYTES 256
#define SIM_IMAGE_BYTES_MOST ((size_t)1 << 31)

/* SIM_IMAGE_FAT: `open`, without data; `why` says why. */
typedef enum { SIM_IMAGE_PTX, SIM_IMAGE_CUBIN, SIM_IMAGE_FAT } sim_image_kind_t;
typedef struct {
	_Atomic int references;
	sim_image_kind_t kind;
	unsigned char *data; /* the copy; text has a NUL after it */
	size_t size;
	bool open;
	bool fat; /* a member of a fat binary */
	int ptx_version, target; /* 90 for 9.0; 80 for sm_80; 0: unknown */
	unsigned int max_registers; /* as the options of loading or linking say; 0: nothing */
	sim_entry_t *entries;
	unsigned int entry_count;
	sim_variable_t *variables;
	unsigned int variable_count;
	char why[SIM_WHY_BYTES]; /* of an open image */
	struct ptx_module *ptx; /* of PTX, linked; its variables' indexes are those above */
} sim_image_t;

/*
 * Reads an image of `size` bytes, or of as many as its own headers say (a text: up to
 * its NUL) where size is 0.  On failure `why` says what is wrong, in words.
 * PTX is parsed, and, but for a `part` of what cuLink* puts together, linked.
 * Errors: CUDA_ERROR_INVALID_IMAGE, _INVALID_PTX, _UNSUPPORTED_PTX_VERSION, _NOT_SUPPORTED,
 * _NO_BINARY_FOR_GPU, _INVALID_VALUE, _OUT_OF_MEMORY.
 */
CUresult sim_image_read(const void *data, size_t size, bool part, sim_image_t **image,
			char why[SIM_WHY_BYTES]);
CUresult sim_image_read_file(const char *path, bool part, sim_image_t **image,
			     char why[SIM_WHY_BYTES]);
sim_image_t *sim_image_share(sim_image_t *image);
void sim_image_drop(sim_image_t *image);
const sim_entry_t *sim_image_entry(const sim_image_t *image, const char *name);
const sim_variable_t *sim_image_variable(const sim_image_t *image, const char *name);

/* kernel/code.c; NULL: no memory, and is taken. */
struct sim_entry_code *sim_entry_code_new(void);
void sim_entry_code_drop(struct sim_entry_code *code);
/* Zeroed, with a copy of the name; NULL: no memory. */
sim_entry_t *sim_image_add_entry(sim_image_t *image, const char *name, size_t length);
sim_variable_t *sim_image_add_variable(sim_image_t *image, const char *name, size_t length);

/* True: [offset, offset + bytes) lies in `size` bytes. */
static inline bool sim_image_inside(uint64_t offset, uint64_t bytes, size_t size)
{
	return offset <= size && bytes <= size - offset;
}
/* Puts the text into `why`; CUDA_ERROR_INVALID_IMAGE. */
CUresult sim_image_fail(char why[SIM_WHY_BYTES], const char *text);

/* cubin.c: the size that the headers say (`known` 0: unknown); 0: these are no headers of a cubin. */
size_t sim_cubin_size(const unsigned char *data, size_t known, char why[SIM_WHY_BYTES]);
/* Reads image->data, whose size sim_cubin_size has checked. */
CUresult sim_cubin_read(sim_image_t *image, bool part, char why[SIM_WHY_BYTES]);

/* fatbin.c: the same of a fat binary. */
size_t sim_fat_size(const unsigned char *data, size_t known, char why[SIM_WHY_BYTES]);
/*
 * The member that suits best: *code is malloc'd, a NUL behind it; NULL: there is one,
 * and it cannot be unpacked, as `why` says.  CUDA_ERROR_NO_BINARY_FOR_GPU: there is none.
 */
CUresult sim_fat_take(const unsigned char *data, size_t size, unsigned char **code,
		      size_t *code_bytes, bool *ptx, char why[SIM_WHY_BYTES]);

/* image_ptx.c: reads image->data, which is text, or texts with a NUL between them. */
CUresult sim_image_read_ptx(sim_image_t *image, bool link, char why[SIM_WHY_BYTES]);

/*
 * The options that cuModuleLoadDataEx and its like take.  Writes `text` ("" for
 * success) to the error log, and how much was written to the sizes.
 */
void sim_jit_answer(unsigned int count, const int *options, void **values, const char *text);
/* CUDA_ERROR_INVALID_VALUE for arrays that are missing. */
CUresult sim_jit_check(unsigned int count, const int *options, void **values);
/* CU_JIT_MAX_REGISTERS; 0: not given. */
unsigned int sim_jit_registers(unsigned int count, const int *options, void **values);

#define SIM_ELF_MACHINE 190
#define SIM_ELF_PTX_SECTION ".emuv.ptx"

/* ---- module.c ---- */
typedef struct sim_function {
	sim_object_t object;
	struct sim_module *module;
	struct sim_function *next;
	char *name;
	const sim_entry_t *entry; /* NULL: of an open image */
	int attributes[16];
	bool of_kernel; /* the attributes set on its kernel have been taken over */
	bool settled;   /* the attributes say what its code says */
	struct sim_legacy *legacy; /* launch_legacy.c */
} sim_function_t;

typedef struct sim_module {
	sim_object_t object;
	sim_image_t *image;
	sim_function_t *functions;
	struct {
		CUdeviceptr address; /* 0: not asked for yet */
		uint64_t id;         /* of its range: the program may have freed it */
		bool placed;         /* the addresses among its initial values are there */
	} *variables;                /* by index in the image */
	uint64_t *addresses;         /* all of them; NULL: not all were asked for yet */
	bool of_library;        /* unloaded with it */
	uint64_t code_bytes;    /* that it takes of the card, EMUV_SIM_MODULE */
} sim_module_t;

/* sim_lock held for these. */
sim_module_t *sim_module_make(sim_image_t *image, sim_context_t *context);
void sim_module_delete(sim_module_t *module);
CUresult sim_module_function(sim_module_t *module, const char *name, sim_function_t **function);
/* Address and size of a variable; its memory is taken at the first question. */
CUresult sim_module_variable(sim_module_t *module, const char *name, bool managed,
			     CUdeviceptr *address, size_t *bytes);

/*
 * The addresses of all variables, by index in the image: what a kernel is given.  Takes
 * memory for those that have none yet.
 */
CUresult sim_module_addresses(sim_module_t *module, const uint64_t **addresses);

/* The 16 attributes of a function: what it is, and what may be set. */
void sim_attributes_init(int attributes[16], const sim_image_t *image, const sim_entry_t *entry);
CUresult sim_attribute_set(int attributes[16], int number, int value);
/* What translating the entry tells of them; entry may be NULL. */
CUresult sim_attributes_settle(int attributes[16], bool *settled, const sim_image_t *image,
			       const sim_entry_t *entry);

/* ---- library.c ---- */
typedef struct sim_kernel {
	sim_object_t object;
	struct sim_library *library;
	struct sim_kernel *next;
	char *name;
	const sim_entry_t *entry;
	int attributes[SIM_MAX_DEVICES][16];
	bool settled[SIM_MAX_DEVICES];
} sim_kernel_t;

/* ---- function.c ---- */
CUresult sim_parameter(const sim_entry_t *entry, size_t index, size_t *offset, size_t *bytes);

/* ---- library.c, function.c: sim_lock held ---- */
/* The function of a handle that is a CUfunction or a CUkernel (for the current context). */
sim_function_t *sim_function_get(CUfunction handle, CUresult *why);
/* The context ends, and with it its modules of every library. */
void sim_libraries_drop_context(sim_context_t *context);

#endif
