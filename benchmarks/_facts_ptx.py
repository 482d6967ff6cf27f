# SPDX-License-Identifier: GPL-2.0-only
"""The kernels of the measurements, as PTX text that the driver compiles.

Purpose: read, write and atomic sweeps over 64-bit words, and a timed spin, with no compiler and no
package on the machine.

Invariants
- Every kernel takes the same four 64-bit parameters (base, count, step, out), so that one launch
  helper serves all of them; `out` holds one 64-bit word a thread.
- Every load feeds a sum that is stored, so that none is optimised away.
- Grid-stride loops: any grid is correct; the grid only sets the speed.
"""

from __future__ import annotations

# The lowest version and target that every supported card (compute capability 7.5 and up) takes;
# the later heads are for a driver that has dropped the earlier ones.
HEADS = (("7.0", "sm_70"), ("7.4", "sm_75"), ("8.0", "sm_80"), ("8.0", "sm_90"))

# base %rd1, count %rd2, step %rd3, out %rd4; this thread %rd5, threads in all %rd6; sum %rd8
_PROLOGUE = """
.visible .entry {name}(
	.param .u64 {name}_base,
	.param .u64 {name}_count,
	.param .u64 {name}_step,
	.param .u64 {name}_out
)
{{
	.reg .pred %p<3>;
	.reg .b32 %r<5>;
	.reg .b64 %rd<40>;
	ld.param.u64 %rd1, [{name}_base];
	ld.param.u64 %rd2, [{name}_count];
	ld.param.u64 %rd3, [{name}_step];
	ld.param.u64 %rd4, [{name}_out];
	mov.u32 %r1, %ctaid.x;
	mov.u32 %r2, %ntid.x;
	mov.u32 %r3, %tid.x;
	mov.u32 %r4, %nctaid.x;
	cvt.u64.u32 %rd7, %r3;
	mad.wide.u32 %rd5, %r1, %r2, %rd7;
	mul.wide.u32 %rd6, %r4, %r2;
	mov.u64 %rd8, 0;
	mov.u64 %rd9, %rd5;
"""

_EPILOGUE = """
	shl.b64 %rd38, %rd5, 3;
	add.u64 %rd39, %rd4, %rd38;
	st.global.u64 [%rd39], %rd8;
	ret;
}
"""

# One item a turn: index %rd9; `body` may use %rd10 and up and adds to %rd8.
_LOOP = """
NEXT_{name}:
	setp.ge.u64 %p1, %rd9, %rd2;
	@%p1 bra DONE_{name};
{body}
	add.u64 %rd9, %rd9, %rd6;
	bra NEXT_{name};
DONE_{name}:
"""

# count pairs of words, four loads in flight a thread while four whole turns are left.
_READ_SEQUENTIAL = """
	shl.b64 %rd10, %rd6, 4;
	mul.lo.u64 %rd11, %rd6, 3;
QUAD_read_sequential:
	add.u64 %rd12, %rd9, %rd11;
	setp.ge.u64 %p2, %rd12, %rd2;
	@%p2 bra NEXT_read_sequential;
	shl.b64 %rd13, %rd9, 4;
	add.u64 %rd14, %rd1, %rd13;
	add.u64 %rd15, %rd14, %rd10;
	add.u64 %rd16, %rd15, %rd10;
	add.u64 %rd17, %rd16, %rd10;
	ld.global.v2.u64 {%rd18, %rd19}, [%rd14];
	ld.global.v2.u64 {%rd20, %rd21}, [%rd15];
	ld.global.v2.u64 {%rd22, %rd23}, [%rd16];
	ld.global.v2.u64 {%rd24, %rd25}, [%rd17];
	add.u64 %rd8, %rd8, %rd18;
	add.u64 %rd8, %rd8, %rd19;
	add.u64 %rd8, %rd8, %rd20;
	add.u64 %rd8, %rd8, %rd21;
	add.u64 %rd8, %rd8, %rd22;
	add.u64 %rd8, %rd8, %rd23;
	add.u64 %rd8, %rd8, %rd24;
	add.u64 %rd8, %rd8, %rd25;
	add.u64 %rd9, %rd12, %rd6;
	bra QUAD_read_sequential;
"""

_PAIR_READ = """
	shl.b64 %rd26, %rd9, 4;
	add.u64 %rd27, %rd1, %rd26;
	ld.global.v2.u64 {%rd28, %rd29}, [%rd27];
	add.u64 %rd8, %rd8, %rd28;
	add.u64 %rd8, %rd8, %rd29;
"""

_STRIDED_READ = """
	mad.lo.u64 %rd10, %rd9, %rd3, %rd1;
	ld.global.u64 %rd11, [%rd10];
	add.u64 %rd8, %rd8, %rd11;
"""

# step is a mask of words (a power of two, less one); the index is hashed.
_RANDOM_READ = """
	mul.lo.u64 %rd10, %rd9, 0x9E3779B97F4A7C15;
	shr.u64 %rd11, %rd10, 29;
	xor.b64 %rd12, %rd10, %rd11;
	mul.lo.u64 %rd13, %rd12, 0xBF58476D1CE4E5B9;
	shr.u64 %rd14, %rd13, 32;
	xor.b64 %rd15, %rd13, %rd14;
	and.b64 %rd16, %rd15, %rd3;
	shl.b64 %rd17, %rd16, 3;
	add.u64 %rd18, %rd1, %rd17;
	ld.global.u64 %rd19, [%rd18];
	add.u64 %rd8, %rd8, %rd19;
"""

# pair i becomes {i, step}
_PAIR_WRITE = """
	shl.b64 %rd10, %rd9, 4;
	add.u64 %rd11, %rd1, %rd10;
	st.global.v2.u64 [%rd11], {%rd9, %rd3};
"""

_STRIDED_WRITE = """
	mad.lo.u64 %rd10, %rd9, %rd3, %rd1;
	st.global.u64 [%rd10], %rd9;
"""

_STRIDED_ATOMIC = """
	mad.lo.u64 %rd10, %rd9, %rd3, %rd1;
	red.global.add.u64 [%rd10], 1;
"""

# Busy for `count` cycles of the multiprocessor's clock.  `step` bounds the turns: a clock that
# stood still must not hold the card for ever.
_SPIN = """
	mov.u64 %rd10, %clock64;
SPIN:
	mov.u64 %rd11, %clock64;
	sub.u64 %rd12, %rd11, %rd10;
	add.u64 %rd8, %rd8, 1;
	setp.ge.u64 %p1, %rd12, %rd2;
	@%p1 bra SPUN;
	setp.lt.u64 %p2, %rd8, %rd3;
	@%p2 bra SPIN;
SPUN:
"""


def _kernel(name: str, body: str, before: str = "", loop: bool = True) -> str:
    middle = _LOOP.format(name=name, body=body) if loop else body
    return _PROLOGUE.format(name=name) + before + middle + _EPILOGUE


KERNELS = {
    "read_sequential": _kernel("read_sequential", _PAIR_READ, before=_READ_SEQUENTIAL),
    "read_strided": _kernel("read_strided", _STRIDED_READ),
    "read_random": _kernel("read_random", _RANDOM_READ),
    "write_sequential": _kernel("write_sequential", _PAIR_WRITE),
    "write_strided": _kernel("write_strided", _STRIDED_WRITE),
    "atomic_strided": _kernel("atomic_strided", _STRIDED_ATOMIC),
    "spin": _kernel("spin", _SPIN, loop=False),
}


def module_text(version: str = HEADS[0][0], target: str = HEADS[0][1]) -> str:
    """The whole module as PTX text for one `.version` and `.target`."""
    head = f".version {version}\n.target {target}\n.address_size 64\n"
    return head + "".join(KERNELS.values())
