# SPDX-License-Identifier: GPL-2.0-only
"""What lanes of a warp and threads of a block do together: 8 warps in each case.

Also mbarrier objects.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from ptx_bench import LANES, Case, signed

FULL = 0xFFFFFFFF
WARPS = range(0, LANES, 32)


def mask(bits: int) -> int:
    return (1 << bits) - 1


def values(seed: str, bits: int = 32, few: int = 0) -> list[int]:
    """One for each thread; `few`: of so many different ones in a warp."""
    rng = random.Random(seed)
    if not few:
        return [rng.getrandbits(bits) for _ in range(LANES)]
    return [rng.randrange(few) * 0x1234567 % (1 << bits) for _ in range(LANES)]


def together(
    text: str,
    results: str,
    operands: str,
    columns: list[list[int]],
    want: Callable[[list[tuple[int, ...]]], list[object]],
    before: str = "",
) -> Case:
    return Case(
        text,
        tuple(results.split()),
        tuple(operands.split()),
        list(zip(*columns, strict=True)),
        want,
        before,
        together=True,
    )


def by_warp(f: Callable[[list[tuple[int, ...]]], list[object]]) -> Callable[..., list[object]]:
    return lambda rows: [x for w in WARPS for x in f(rows[w : w + 32])]


def shuffles() -> list[Case]:
    cases = []
    for mode in ("up", "down", "bfly", "idx"):
        for c in (0, 0x1F, 0x1C03, 0x181F, 0x1807, 0x1000, 0x0010):

            def shuffled(rows: list[tuple[int, ...]], mode: str = mode, c: int = c) -> list[object]:
                out: list[object] = []
                for lane, (_, b) in enumerate(rows):
                    segment, clamp, b = c >> 8 & 31, c & 31, b & 31
                    least = lane & segment
                    most = least | clamp & ~segment & 31
                    j = {
                        "up": lane - b,
                        "down": lane + b,
                        "bfly": lane ^ b,
                        "idx": least | b & ~segment & 31,
                    }[mode]
                    inside = j >= most if mode == "up" else j <= most
                    out.append((rows[j if inside else lane][0], int(inside)))
                return out

            same = [i // 32 for i in range(LANES)]  # the same distance in all of a warp
            every = [i * 7 % 32 for i in range(LANES)]
            for b in (same, every):
                cases.append(
                    together(
                        f"shfl.sync.{mode}.b32 {{d}}|{{e}}, {{a}}, {{b}}, {c}, -1;",
                        "b32 pred",
                        "b32 b32",
                        [values(mode), b],
                        by_warp(shuffled),
                    )
                )
        cases.append(
            together(
                f"shfl.sync.{mode}.b32 {{d}}, {{a}}, 0, 31, 0xffffffff;",
                "b32",
                "b32",
                [values(mode)],
                by_warp(
                    lambda rows, mode=mode: [rows[0 if mode == "idx" else i][0] for i in range(32)]
                ),
            )
        )
    return cases


def votes() -> list[Case]:
    cases = []
    rng = random.Random("votes")
    p = (
        [0] * 32
        + [1] * 32
        + [1] * 31
        + [0]
        + [0] * 31
        + [1]
        + [rng.getrandbits(1) for _ in range(128)]
    )
    wants: dict[str, Callable[[list[int]], int]] = {
        "all": lambda ps: int(all(ps)),
        "any": lambda ps: int(any(ps)),
        "uni": lambda ps: int(len(set(ps)) == 1),
        "ballot": lambda ps: sum(x << i for i, x in enumerate(ps)),
    }
    for how, f in wants.items():
        kind = "b32" if how == "ballot" else "pred"
        for sign in ("", "!"):

            def want(rows: list[tuple[int, ...]], f=f, sign=sign) -> list[object]:  # type: ignore[no-untyped-def]
                return [f([x ^ (sign == "!") for (x,) in rows])] * 32

            cases.append(
                together(
                    f"vote.sync.{how}.{kind} {{d}}, {sign}{{a}}, -1;",
                    kind,
                    "pred",
                    [p],
                    by_warp(want),
                )
            )
    # Half of the warp at a time.
    half = [FULL >> 16 if i % 32 < 16 else FULL << 16 & FULL for i in range(LANES)]

    def halves(rows: list[tuple[int, ...]]) -> list[object]:
        low = sum(p << i for i, (p, _) in enumerate(rows) if i < 16)
        high = sum(p << i for i, (p, _) in enumerate(rows) if i >= 16)
        return [low] * 16 + [high] * 16

    cases.append(
        together(
            "setp.lt.u32 lower, {b}, 0x10000;\n@lower vote.sync.ballot.b32 {d}, {a}, {b};\n"
            "@!lower vote.sync.ballot.b32 {d}, {a}, {b};",
            "b32",
            "pred b32",
            [p, half],
            by_warp(halves),
            ".reg .pred lower;\n",
        )
    )
    return cases


def matches() -> list[Case]:
    cases = []
    for bits in (32, 64):
        few = values(f"match{bits}", bits, few=3)
        few[:32] = [77] * 32

        def any_(rows: list[tuple[int, ...]]) -> list[object]:
            return [sum(1 << i for i, y in enumerate(rows) if y == x) for x in rows]

        def all_(rows: list[tuple[int, ...]]) -> list[object]:
            same = len(set(rows)) == 1
            return [(FULL * same, int(same))] * 32

        cases += [
            together(
                f"match.any.sync.b{bits} {{d}}, {{a}}, -1;", "b32", f"b{bits}", [few], by_warp(any_)
            ),
            together(
                f"match.all.sync.b{bits} {{d}}|{{e}}, {{a}}, -1;",
                "b32 pred",
                f"b{bits}",
                [few],
                by_warp(all_),
            ),
        ]
    return cases


def reductions() -> list[Case]:
    cases = []

    def combined(f: Callable[[int, int], int], kind: str) -> Callable[..., list[object]]:
        def want(rows: list[tuple[int, ...]]) -> list[object]:
            xs = [signed(x, 32) if kind == "s32" else x for (x,) in rows]
            total = xs[0]
            for x in xs[1:]:
                total = f(total, x)
            return [total & FULL] * 32

        return by_warp(want)

    for kind in ("u32", "s32"):
        for op, f in (("add", lambda a, b: a + b), ("min", min), ("max", max)):
            cases.append(
                together(
                    f"redux.sync.{op}.{kind} {{d}}, {{a}}, -1;",
                    "b32",
                    "b32",
                    [values(op)],
                    combined(f, kind),
                )
            )
    for op, f in (
        ("and", lambda a, b: a & b),
        ("or", lambda a, b: a | b),
        ("xor", lambda a, b: a ^ b),
    ):
        rare = [a | 0xF0F if op == "and" else a & 0xF0F for a in values(op)]
        cases.append(
            together(
                f"redux.sync.{op}.b32 {{d}}, {{a}}, -1;", "b32", "b32", [rare], combined(f, "b32")
            )
        )
    everyone = [i % 32 for i in range(LANES)]
    cases += [
        together(
            "elect.sync {d}|{e}, -1;",
            "b32 pred",
            "b32",
            [everyone],
            lambda rows: [(0, int(x == 0)) for (x,) in rows],
        ),
        together(
            "activemask.b32 {d};", "b32", "b32", [everyone], lambda rows: [FULL for _ in rows]
        ),
        together(
            "bar.warp.sync -1;\nmov.b32 {d}, {a};",
            "b32",
            "b32",
            [everyone],
            lambda rows: [x for (x,) in rows],
        ),
    ]
    return cases


def older() -> list[Case]:
    """From before .sync: the lanes that are there take part.  No card of today has them."""
    v = values("older")
    p = [x & 1 for x in v]
    return [
        together(
            "shfl.bfly.b32 {d}|{e}, {a}, 1, 31;",
            "b32 pred",
            "b32",
            [v],
            lambda rows: [(rows[i ^ 1][0], 1) for i in range(LANES)],
        ),
        together(
            "shfl.down.b32 {d}, {a}, 2, 31;",
            "b32",
            "b32",
            [v],
            lambda rows: [rows[i + 2 if i % 32 < 30 else i][0] for i in range(LANES)],
        ),
        together(
            "vote.any.pred {d}, {a};",
            "pred",
            "pred",
            [p],
            by_warp(lambda rows: [max(rows)[0]] * 32),
        ),
        together(
            "vote.ballot.b32 {d}, {a};",
            "b32",
            "pred",
            [p],
            by_warp(lambda rows: [sum(x << i for i, (x,) in enumerate(rows))] * 32),
        ),
    ]


def barriers() -> list[Case]:
    """Each thread writes, and after the barrier reads what another one wrote."""
    v = values("barriers")
    next_ = (
        "add.u32 o, lane, 77;\nand.b32 o, o, 255;\nmov.u32 w, window;\nmad.lo.u32 w, o, 32, w;\n"
    )
    turned = [v[(i + 77) % LANES] for i in range(LANES)]
    before = ".reg .b32 o, w;\n"
    cases = []
    for text in (
        "bar.sync 0",
        "bar.cta.sync 1",
        "bar.sync 2, 256",
        "barrier.sync 3",
        "barrier.cta.sync.aligned 4",
        "barrier.cta.sync 5, 256",
        "barrier.cluster.arrive;\nbarrier.cluster.wait",
        "barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned",
        "membar.cta;\nbarrier.cluster.arrive.relaxed;\nbarrier.cluster.wait",
    ):
        cases.append(
            together(
                f"bar.sync 0;\nst.shared.b32 [as], {{a}};\n"
                f"{text};\n{next_}ld.shared.b32 {{d}}, [w];",
                "b32",
                "b32",
                [v],
                lambda rows: list(turned),
                before,
            )
        )
    for arrive in (
        "bar.arrive 6, 256",
        "barrier.cta.arrive 6, 256",
        "barrier.arrive.aligned 6, 256",
    ):
        # The first warp writes and goes on; the others wait for it.
        cases.append(
            together(
                "bar.sync 0;\nsetp.lt.u32 first, lane, 32;\n@first st.shared.b32 [as], {a};\n"
                f"@first {arrive};\n@!first bar.sync 6, 256;\n"
                "and.b32 o, lane, 31;\nmov.u32 w, window;\nmad.lo.u32 w, o, 32, w;\n"
                "mov.b32 {d}, {a};\n@!first ld.shared.b32 {d}, [w];",
                "b32",
                "b32",
                [v],
                lambda rows: [v[i % 32] for i in range(LANES)],
                before + ".reg .pred first;\n",
            )
        )
    p = [int(x % 3 == 0) for x in v]
    for form in ("bar", "bar.cta", "barrier", "barrier.cta"):
        tail = ".aligned" if form == "barrier.cta" else ""
        for threads in ("", ", 256"):
            cases += [
                together(
                    f"{form}.red.popc{tail}.u32 {{d}}, 0{threads}, {{a}};",
                    "u32",
                    "pred",
                    [p],
                    lambda rows: [sum(p)] * LANES,
                ),
                together(
                    f"{form}.red.and{tail}.pred {{d}}, 1{threads}, {{a}};",
                    "pred",
                    "pred",
                    [p],
                    lambda rows: [0] * LANES,
                ),
                together(
                    f"{form}.red.or{tail}.pred {{d}}, 1{threads}, !{{a}};",
                    "pred",
                    "pred",
                    [[1] * LANES],
                    lambda rows: [0] * LANES,
                ),
                together(
                    f"{form}.red.or{tail}.pred {{d}}, 2{threads}, {{a}};",
                    "pred",
                    "pred",
                    [p],
                    lambda rows: [1] * LANES,
                ),
            ]
    return cases + objects(v, turned, before, next_)


def objects(v: list[int], turned: list[int], before: str, next_: str) -> list[Case]:
    """An mbarrier at the start of the window's first 32 bytes; values 8 bytes behind."""
    cases = []
    first = "bar.sync 0;\nmov.u32 m, window;\nsetp.eq.u32 one, lane, 0;\n"
    more = before + ".reg .b32 m;\n.reg .b64 s;\n.reg .pred one, done;\n"
    for number, (arrive, test) in enumerate(
        (
            ("mbarrier.arrive.shared.b64 s, [m]", "mbarrier.test_wait.shared.b64 done, [m], s"),
            (
                "mbarrier.arrive.release.cta.shared::cta.b64 s, [m], 1",
                "mbarrier.try_wait.shared::cta.b64 done, [m], s",
            ),
            (
                "mbarrier.arrive_drop.shared.b64 s, [m]",
                "mbarrier.test_wait.parity.shared.b64 done, [m], 0",
            ),
            (
                "mbarrier.arrive_drop.release.cta.shared.b64 s, [m]",
                "mbarrier.try_wait.parity.shared.b64 done, [m], 0",
            ),
            (
                "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [m]",
                "mbarrier.test_wait.parity.acquire.cluster.shared.b64 done, [m], 0",
            ),
            (
                "mbarrier.arrive_drop.release.cluster.shared::cluster.b64 _, [m], 1",
                "mbarrier.test_wait.parity.shared.b64 done, [m], 0",
            ),
            (
                "cp.async.mbarrier.arrive.shared.b64 [m];\n"
                "cp.async.mbarrier.arrive.noinc.shared.b64 [m]",
                "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [m], 0, 100",
            ),
        )
    ):
        again = f"A{number}"
        cases.append(
            together(
                f"{first}@one mbarrier.init.shared.b64 [m], {LANES};\n"
                f"bar.sync 0;\nst.shared.b32 [as+8], {{a}};\n"
                f"{arrive};\n{again}:\n"
                f"{test};\n@!done bra {again};\n{next_}ld.shared.b32 {{d}}, [w+8];\n"
                "bar.sync 0;\n@one mbarrier.inval.shared.b64 [m];",
                "b32",
                "b32",
                [v],
                lambda rows: list(turned),
                more,
            )
        )
    cases.append(
        together(
            f"{first}@one mbarrier.init.shared.b64 [m], 7;\nmov.b64 s, 0;\n"
            "@one mbarrier.arrive.noComplete.release.cta.shared.b64 s, [m], 1;\n"
            "@one mbarrier.arrive_drop.noComplete.release.cta.shared.b64 s, [m], 1;\n"
            "@one mbarrier.arrive.noComplete.shared.b64 s, [m], 2;\n"
            "@one mbarrier.arrive_drop.noComplete.shared.b64 s, [m], 1;\n"
            "@one mbarrier.pending_count.b64 {d}, s;\n@!one mov.b32 {d}, 3;\nbar.sync 0;",
            "b32",
            "b32",
            [v],
            lambda rows: [3] * LANES,
            more,
        )
    )
    return cases


CASES = [*shuffles(), *votes(), *matches(), *reductions(), *older(), *barriers()]
