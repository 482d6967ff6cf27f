# SPDX-License-Identifier: GPL-2.0-only
"""Asynchronous copies, hints, fences, addresses of every space, the stack."""

from __future__ import annotations

from ptx_bench import Case
from ptx_memory_cases import DATA, joined, rows


def others() -> list[Case]:
    cases = []
    sixteen = "ld.shared.v2.b64 {{{d}, {e}}}, [as];"
    for form, size, extra, kept in (
        ("ca.shared.global", 16, "", 16),
        ("cg.shared.global", 16, "", 16),
        ("ca.shared::cta.global.L2::128B", 8, "", 8),
        ("ca.shared.global", 4, "", 4),
        ("cg.shared.global", 16, ", 5", 5),
        ("ca.shared.global", 8, ", 0", 0),
        ("ca.shared.global", 16, ", no", 16),
        ("ca.shared.global", 16, ", yes", 0),
        ("cg.shared.global.L2::cache_hint", 16, ", policy", 16),
        ("cg.shared.global.L2::cache_hint", 16, ", 3, policy", 3),
    ):

        def want(a: int, b: int, c: int, f: int, size: int = size, kept: int = kept) -> object:
            data = joined((a, b))[:kept] + bytes(size - kept)
            data += joined((c, f))[size:16]
            return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:16], "little")

        cases.append(
            Case(
                "st.shared.v2.b64 [as], {{{c}, {f}}};\nst.global.v2.b64 [ag], {{{a}, {b}}};\n"
                f"cp.async.{form} [as], [ag], {size}{extra};\ncp.async.commit_group;\n"
                "cp.async.wait_group 0;\ncp.async.wait_all;\n" + sixteen,
                ("b64", "b64"),
                DATA,
                rows(form + extra),
                want,
                before=(
                    ".reg .pred no, yes;\nsetp.ne.u32 no, 0, 0;\n"
                    "setp.eq.u32 yes, 0, 0;\n.reg .b64 policy;\n"
                    "createpolicy.fractional.L2::evict_last.L2::evict_unchanged.b64 policy, 0.5;\n"
                ),
            )
        )
    nothing = (
        "prefetch.global.L1 [ag]",
        "prefetch.global.L2 [ag]",
        "prefetch.L1 [ag]",
        "prefetchu.L1 [ag]",
        "prefetch.global.L2::evict_last [ag]",
        "applypriority.global.L2::evict_normal [ag], 128",
        "membar.cta",
        "membar.gl",
        "membar.sys",
        "membar.proxy.alias",
        "fence.sc.gpu",
        "fence.acq_rel.cta",
        "fence.cta",
        "fence.sys",
        "fence.proxy.alias",
        "fence.proxy.async",
        "fence.proxy.async.shared::cta",
        "nanosleep.u32 20",
        "pmevent 1",
        "pmevent.mask 3",
        "griddepcontrol.wait",
        "griddepcontrol.launch_dependents",
        "setmaxnreg.inc.sync.aligned.u32 64",
    )
    for text in nothing:  # nothing that the thread sees
        cases.append(
            Case(
                f"mov.b64 {{d}}, {{a}};\n{text};",
                ("b64",),
                ("b64",),
                [(r[0],) for r in rows(text)],
                lambda a: a,
            )
        )
    generic = ".reg .b64 g, h;\n.reg .pred p, q, r;\n"
    for space, to in (
        ("global", "cvta.global.u64 g, ag"),
        ("local", "cvta.local.u64 g, al"),
        ("shared", "cvt.u64.u32 h, as;\ncvta.shared.u64 g, h"),
        ("const", "mov.u64 h, fixed;\ncvta.const.u64 g, h"),
        ("param", "mov.u64 h, p_in;\ncvta.param.u64 g, h"),
    ):
        tests = "".join(
            f"isspacep.{s} p, g;\nselp.u32 {{{n}}}, 1, 0, p;\n"
            for s, n in zip(
                ("global", "local", "shared", "const", "param"),
                ("d", "e", "r2", "r3", "r4"),
                strict=True,
            )
        )
        back = (
            f"cvta.to.{space}.u64 h, g;\ncvta.{space}.u64 h, h;\n"
            f"setp.eq.u64 p, g, h;\nselp.u32 {{r5}}, 1, 0, p;"
        )
        order = ("global", "local", "shared", "const", "param")
        cases.append(
            Case(
                f"{to};\n{tests}{back}",
                ("u32",) * 6,
                (),
                [()],
                lambda space=space, order=order: (*(int(s == space) for s in order), 1),
                before=generic,
            )
        )
    cases += [
        Case(
            "mov.v4.b32 {{{d}, {e}, {r2}, {r3}}}, {{{a}, {b}, {c}, {f}}};",
            ("b32",) * 4,
            ("b32",) * 4,
            [(1, 2, 3, 4)],
            lambda *row: row,
        ),
        Case(
            "mov.v2.b32 {{{d}, {e}}}, {{{a}, {b}}};",
            ("b32", "b32"),
            ("b32", "b32"),
            [(1, 2)],
            lambda a, b: (a, b),
        ),
        Case(
            "createpolicy.range.global.L2::evict_last.L2::evict_unchanged.b64 g, [ag], 32, 32;\n"
            "createpolicy.cvt.L2.b64 h, 0x10F0000000000000;\nst.global.b64 [ag], {a};\n"
            "ld.global.L2::cache_hint.b64 {d}, [ag], g;\n"
            "ld.global.L2::cache_hint.b64 {e}, [ag], h;",
            ("b64", "b64"),
            ("b64",),
            [(7,)],
            lambda a: (a, a),
            before=".reg .b64 g, h;\n",
        ),
        Case(
            "stacksave.u64 s;\nalloca.u64 g, 64;\n"
            "st.u64 [g], {a};\nalloca.u64 h, 32, 32;\nst.u64 [h], {b};\n"
            "ld.u64 {d}, [g];\nld.u64 {e}, [h];\nstackrestore.u64 s;\nalloca.u64 h, 64;\n"
            "sub.u64 {r2}, g, h;\nstackrestore.u64 s;",
            ("b64",) * 3,
            ("b64", "b64"),
            [r[:2] for r in rows("alloca")],
            lambda a, b: (a, b, 0),
            before=".reg .b64 g, h, s;\n",
        ),
        Case(
            "mapa.u64 {d}, {a}, 0;\ngetctarank.u64 {e}, {a};",
            ("b64", "b32"),
            ("b64",),
            [(4096,)],
            lambda a: (a, 0),
        ),
        Case(
            "discard.global.L2 [z], 128;\nmov.b64 {d}, {a};",
            ("b64",),
            ("b64",),
            [(5,)],
            lambda a: a,
            before=".reg .b64 z;\nand.b64 z, ag, -128;\n",
        ),
    ]
    return cases


CASES = others()
