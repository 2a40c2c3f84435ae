"""Collective operations and their bytes, read from HLO text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from nin_jax.accounting.collectives import Collective, collectives


def program(*lines):
    head = "HloModule m, is_scheduled=true\n\nENTRY %main (a: f32[8,4]) -> f32[8,4] {\n"
    return head + "".join(f"  {line}\n" for line in lines) + "}\n"


A = "%a = f32[8,4]{1,0} parameter(0)"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%r = f32[8,4]{1,0} all-reduce(%a), channel_id=1, to_apply=%add", ("all-reduce", 128)),
        ("%g = f32[64,4]{1,0} all-gather(%a), dimensions={0}", ("all-gather", 128)),
        ("ROOT %s = f32[1,4]{1,0} reduce-scatter(%a), dimensions={0}", ("reduce-scatter", 128)),
        (
            "%p = f32[8,4]{1,0} collective-permute(%a), source_target_pairs={{0,1},{1,0}}",
            ("collective-permute", 128),
        ),
        ("%t = f32[8,4]{1,0} all-to-all(%a), dimensions={0}", ("all-to-all", 128)),
        # The operand's shape may precede its name.
        ("%r = f32[8,4]{1,0} all-reduce(f32[8,4]{1,0} %a), to_apply=%add", ("all-reduce", 128)),
        # Names without a percent sign.
        ("r = f32[8,4]{1,0} all-reduce(a), to_apply=add", ("all-reduce", 128)),
        # An instruction with the name of a collective is not one.
        ("%all-reduce.2 = f32[8,4]{1,0} add(%a, %a)", None),
    ],
)
def test_each_kind_of_collective(line, expected):
    assert collectives(program(A, line)) == ([Collective(*expected)] if expected else [])


def test_several_operands_are_added_up():
    text = program(
        A,
        "%b = bf16[3]{0} parameter(1)",
        "%c = f32[] parameter(2)",
        "%r = (f32[8,4]{1,0}, bf16[3]{0}, /*index=2*/f32[]) all-reduce(%a, %b, /*index=2*/%c), "
        'replica_groups={{0,1}}, to_apply=%add, metadata={op_name="jit(f)/psum(x)"}',
        "%e = f32[8,4]{1,0} get-tuple-element(%r), index=0",
    )
    assert collectives(text) == [Collective("all-reduce", 128 + 6 + 4)]


def test_an_operand_may_be_a_tuple_and_have_a_tiled_layout():
    text = program(
        "%a = (f32[8,128]{1,0:T(8,128)}, u8[2]{0}) parameter(0)",
        "%r = (f32[8,128]{1,0:T(8,128)}, u8[2]{0}) all-reduce(%a), to_apply=%add",
    )
    assert collectives(text) == [Collective("all-reduce", 4 * 8 * 128 + 2)]


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        *(("pred", 1), ("s8", 1), ("f8e4m3fn", 1), ("bf16", 2), ("f16", 2)),
        *(("u32", 4), ("f32", 4), ("f64", 8), ("c64", 8), ("c128", 16)),
    ],
)
def test_bytes_of_each_type(dtype, size):
    text = program(f"%a = {dtype}[10]{{0}} parameter(0)", f"%r = {dtype}[10]{{0}} all-gather(%a)")
    assert collectives(text) == [Collective("all-gather", 10 * size)]


def test_four_bits_are_half_a_byte_and_a_token_has_none():
    text = program(
        "%a = s4[5]{0} parameter(0)",
        "%k = token[] after-all()",
        "%r = s4[5]{0} all-reduce(%a), to_apply=%add",
        "%s = (s4[5]{0}, token[]) all-to-all(%a, %k)",
    )
    assert collectives(text) == [Collective("all-reduce", 3), Collective("all-to-all", 3)]


def test_an_asynchronous_collective_counts_once():
    text = program(
        A,
        "%s = f32[8,4]{1,0} all-reduce-start(%a), to_apply=%add",
        "%d = f32[8,4]{1,0} all-reduce-done(%s)",
        "%g = (f32[8,4]{1,0}, f32[64,4]{1,0}) all-gather-start(%d), dimensions={0}",
        "ROOT %h = f32[64,4]{1,0} all-gather-done(%g)",
    )
    assert collectives(text) == [Collective("all-reduce", 128), Collective("all-gather", 128)]


def test_an_asynchronous_computation_counts_its_body():
    text = (
        "HloModule m\n\n"
        "%wrapped (p: f32[8]) -> f32[1] {\n"
        "  %p = f32[8]{0} parameter(0)\n"
        "  ROOT %x = f32[1]{0} reduce-scatter(%p), dimensions={0}, to_apply=%add\n"
        "}\n\n"
        "ENTRY %main (p: f32[2,8]) -> f32[1] {\n"
        "  %p = f32[2,8]{1,0} parameter(0)\n"
        "  %b = f32[8]{0} bitcast(%p)\n"
        "  %s = ((f32[8]{0}), f32[1]{0}) async-start(%b), calls=%wrapped\n"
        "  ROOT %d = f32[1]{0} async-done(%s)\n"
        "}\n"
    )
    assert collectives(text) == [Collective("reduce-scatter", 32)]


def test_names_belong_to_their_computation():
    body = "%body (p: f32[4]) -> f32[4] {\n  %p = f32[4]{0} parameter(0)\n}\n"
    with pytest.raises(ValueError, match="'p'"):
        collectives(body + program("%r = f32[4]{0} all-reduce(%p), to_apply=%add"))


def test_an_unknown_type_is_an_error():
    with pytest.raises(ValueError, match="x32"):
        collectives(program("%a = x32[4]{0} parameter(0)", "%r = x32[4]{0} all-reduce(%a)"))


def test_collectives_of_a_compiled_program():
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))

    def total(a, b):
        return jax.lax.psum((a, b), "data")

    summed = jax.shard_map(
        total, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=P(), check_vma=False
    )
    compiled = jax.jit(summed).lower(jnp.ones((3, 5)), jnp.ones(7, jnp.bfloat16)).compile()
    found = collectives(compiled.as_text() or "")
    assert {one.kind for one in found} == {"all-reduce"}
    # A processor without sums in bfloat16 uses float32.
    assert sum(one.bytes for one in found) in (60 + 14, 60 + 28)
