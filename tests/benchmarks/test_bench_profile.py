"""Profiles of a training step. No measured value is asserted."""

from types import SimpleNamespace

import pytest

from benchmarks.speed import profile
from benchmarks.speed.work import Work
from nin_jax.errors import UserError


def test_a_cpu_is_needed(monkeypatch):
    device = SimpleNamespace(platform="cpu")
    monkeypatch.setattr(profile, "default_device", lambda: device)
    profile.check()
    device.platform = "gpu"
    with pytest.raises(UserError, match="profile needs a CPU"):
        profile.check()


def test_time_is_divided_among_the_operations_that_run():
    runs = [("a", 0.0, 4.0), ("b", 1.0, 3.0), ("a", 2.0, 3.0), ("c", 7.0, 8.0)]
    seconds = profile.divide(runs)
    assert seconds == pytest.approx({"a": 2 + 1 / 2 + 2 / 3, "b": 1 / 2 + 1 / 3, "c": 1})


@pytest.mark.slow
def test_the_parts_of_a_step(tiny):
    work = Work("train", str(tiny), 2, 16)
    mine, theirs = profile.our_profile(work), profile.torch_profile(work)
    both = {profile.FORWARD, profile.GRADIENTS}
    assert both <= mine.seconds.keys() & theirs.seconds.keys()
    assert set(mine.flops) >= both == set(theirs.flops)
    assert all(seconds > 0 for seconds in mine.seconds.values())


def test_parts_of_a_compiled_step():
    text = """HloModule step
%fused (p: f32[4,8], q: f32[8,2]) -> f32[4,2] {
  %p = f32[4,8] parameter(0)
  %q = f32[8,2] parameter(1)
  ROOT %dot.1 = f32[4,2] dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
ENTRY %main (state_params__kernel: f32[8,2], images: f32[4,8]) -> f32[4,2] {
  %state_params__kernel = f32[8,2] parameter(0)
  %images = f32[4,8] parameter(1)
  %copy.1 = f32[8,2] copy(%state_params__kernel)
  %pad.1 = f32[4,8] copy(%images), metadata={op_name="jit(step)/jvp()/cond/branch_0_fun/pad"}
  %fusion.1 = f32[4,2] fusion(%pad.1, %copy.1), calls=%fused, metadata={op_name="jit(step)/jvp()"}
  %where.1 = f32[4,2] copy(%fusion.1), metadata={op_name="jit(step)/transpose(jvp())/select_n"}
  ROOT %update = f32[4,2] copy(%where.1)
}
"""
    found = profile.classify(text)
    assert found["fusion.1"] == profile.Operation(profile.FORWARD, 2 * 4 * 8 * 2)
    assert [found[name].part for name in ("copy.1", "pad.1", "where.1", "update")] == [
        "weights: copies, transforms for the convolutions",
        "transforms and copies, forward",
        "bias, ReLU, pools and loss, gradients",
        "data, update, and other",
    ]
