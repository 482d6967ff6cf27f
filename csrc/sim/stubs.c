/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every symbol that CUDA 13.0's driver exports, and no other.
 *
 * Each row of driver_api.def up to 13.0 gets a weak function here that counts the
 * call and answers CUDA_ERROR_NOT_SUPPORTED; where the simulator does the thing, the
 * strong definition of the same name replaces it at link time.  Rows of a later
 * version get nothing: a program that finds a symbol trusts its signature.
 */
#include "internal.h"

/*
 * UP_TO_13000(version, tokens): the tokens, or nothing for a later version.  A version
 * that is in neither list is an error at compile time, and belongs into one.
 */
#define UP_TO_13000(version, ...) IF_##version(__VA_ARGS__)
#define IF_2000(...) __VA_ARGS__
#define IF_2010(...) __VA_ARGS__
#define IF_2020(...) __VA_ARGS__
#define IF_2030(...) __VA_ARGS__
#define IF_3000(...) __VA_ARGS__
#define IF_3010(...) __VA_ARGS__
#define IF_3020(...) __VA_ARGS__
#define IF_4000(...) __VA_ARGS__
#define IF_4010(...) __VA_ARGS__
#define IF_4020(...) __VA_ARGS__
#define IF_5000(...) __VA_ARGS__
#define IF_5050(...) __VA_ARGS__
#define IF_6000(...) __VA_ARGS__
#define IF_6050(...) __VA_ARGS__
#define IF_7000(...) __VA_ARGS__
#define IF_8000(...) __VA_ARGS__
#define IF_9000(...) __VA_ARGS__
#define IF_9020(...) __VA_ARGS__
#define IF_10000(...) __VA_ARGS__
#define IF_10010(...) __VA_ARGS__
#define IF_10020(...) __VA_ARGS__
#define IF_11000(...) __VA_ARGS__
#define IF_11010(...) __VA_ARGS__
#define IF_11020(...) __VA_ARGS__
#define IF_11030(...) __VA_ARGS__
#define IF_11040(...) __VA_ARGS__
#define IF_11060(...) __VA_ARGS__
#define IF_11070(...) __VA_ARGS__
#define IF_12000(...) __VA_ARGS__
#define IF_12010(...) __VA_ARGS__
#define IF_12020(...) __VA_ARGS__
#define IF_12030(...) __VA_ARGS__
#define IF_12040(...) __VA_ARGS__
#define IF_12050(...) __VA_ARGS__
#define IF_12060(...) __VA_ARGS__
#define IF_12080(...) __VA_ARGS__
#define IF_12090(...) __VA_ARGS__
#define IF_13000(...) __VA_ARGS__
#define IF_13010(...)
#define IF_13020(...)
#define IF_13030(...)
#define IF_13040(...)
#define IF_13050(...)

sim_call_t sim_calls[SIM_CALLS] = {
#define EMUV_API(export, name, version, flag) \
	UP_TO_13000(version, [SIM_CALL_##export] = { #export, 0, 0 }, )
#include "driver_api.def"
#undef EMUV_API
};

static CUresult stub(int number)
{
	CUresult result = sim_enter(&sim_calls[number], true);

	if (result != CUDA_SUCCESS)
		return result;
	return sim_fail(CUDA_ERROR_NOT_SUPPORTED, "%s is not simulated", sim_calls[number].name);
}

/* Arguments are ignored, whatever they are: both calling conventions allow that. */
#define EMUV_API(export, name, version, flag)                                                 \
	UP_TO_13000(version, static CUresult stub_##export(void)                              \
		    {                                                                         \
			    return stub(SIM_CALL_##export);                                   \
		    }                                                                         \
		    __attribute__((weak, visibility("default"), alias("stub_" #export)))      \
		    CUresult export(void);)
#include "driver_api.def"
#undef EMUV_API

const sim_export_t sim_exports[] = {
#define EMUV_API(export, name, version, flag) \
	UP_TO_13000(version, { #name, export, stub_##export, version, flag, SIM_CALL_##export }, )
#include "driver_api.def"
#undef EMUV_API
};
const int sim_export_count = sizeof(sim_exports) / sizeof(*sim_exports);
