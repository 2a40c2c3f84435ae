"""Bad calls that make a network, count it or ask it something."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import nin_jax
from nin_jax import Preprocessing, Stage, Variant
from nin_jax.models import convert
from nin_jax.models.geometry import trace
from nin_jax.models.variants import variant_from_dict
from tests.bad_inputs.case import fails, wrong


def _tiny(**fields: Any) -> Variant:
    return Variant(**({"name": "tiny", "stages": (Stage(8, 3, padding=1),)} | fields))


def _model(**options: Any) -> Any:
    return nin_jax.create_model(_tiny(), image_size=16, **options)


NETWORKS = {
    "create_model: unknown variant": fails("or nin15", lambda: nin_jax.create_model("nin51")),
    "create_model: a number": fails(
        "variant must be a name, a file or a Variant, got 3",
        lambda: nin_jax.create_model(wrong(3)),
    ),
    "create_model: no channels": fails(
        "in_channels must be a whole number >= 1", lambda: nin_jax.create_model(in_channels=0)
    ),
    "create_model: half a channel": fails(
        "got 1.5", lambda: nin_jax.create_model(in_channels=wrong(1.5))
    ),
    "create_model: no classes": fails(
        "num_classes must be", lambda: nin_jax.create_model(num_classes=0)
    ),
    "create_model: image size zero": fails(
        "image size must be", lambda: nin_jax.create_model(image_size=0)
    ),
    "create_model: three sides": fails(
        "image size must be", lambda: nin_jax.create_model(image_size=wrong((96, 96, 3)))
    ),
    "create_model: image size a text": fails(
        "got '224'", lambda: nin_jax.create_model(image_size=wrong("224"))
    ),
    "create_model: half a pixel": fails(
        "whole numbers >= 1", lambda: nin_jax.create_model(image_size=wrong((224, 2.5)))
    ),
    "create_model: classes true": fails(
        "num_classes must be", lambda: nin_jax.create_model(num_classes=True)
    ),
    "create_model: too small": fails(
        "smallest size that works is 67x67", lambda: nin_jax.create_model(image_size=66)
    ),
    "create_model: seed negative": fails("seed must be", lambda: nin_jax.create_model(seed=-1)),
    "create_model: seed true": fails("seed must be", lambda: nin_jax.create_model(seed=True)),
    "create_model: unknown initialization": fails(
        "unknown initialization 'zeros'", lambda: nin_jax.create_model(init=wrong("zeros"))
    ),
    "create_model: preprocessing a text": fails(
        "preprocessing must be a Preprocessing, got 'bgr'", lambda: _model(preprocessing="bgr")
    ),
    "create_model: mean of another number of channels": fails(
        "preprocessing: mean has 3 values for 1 channel",
        lambda: _model(preprocessing=Preprocessing(mean=(0.4, 0.5, 0.6))),
    ),
    "create_model: BGR of two channels": fails(
        "BGR needs 3 channels, the images have 2",
        lambda: _model(in_channels=2, preprocessing=Preprocessing(channel_order="bgr")),
    ),
    "create_model: preprocessing and pretrained": fails(
        "preprocessing cannot be given with pretrained",
        lambda: nin_jax.create_model(
            "nin15", pretrained="fashion_mnist", preprocessing=Preprocessing()
        ),
    ),
    "Preprocessing: deviation zero": fails(
        "Preprocessing.std.0 must be >= 0.000001, got 0.0", lambda: Preprocessing(std=(0.0,))
    ),
    "Preprocessing: mean infinite": fails(
        "Preprocessing.mean.0 must be a finite number", lambda: Preprocessing(mean=(float("inf"),))
    ),
    "Preprocessing: an unknown rule": fails(
        "Preprocessing.resize must be 'stretch' or 'crop', got 'pad'",
        lambda: Preprocessing(resize=wrong("pad")),
    ),
    "create_model: dtype of whole numbers": fails(
        "dtype must be a floating type", lambda: nin_jax.create_model(dtype="int8")
    ),
    "create_model: unknown dtype": fails(
        "dtype must be a floating type", lambda: nin_jax.create_model(param_dtype="float33")
    ),
    "create_model: unknown dtype of pretrained weights": fails(
        "param_dtype must be a floating type such as float32, got 'float33'",
        lambda: nin_jax.create_model("nin15", pretrained="fashion_mnist", param_dtype="float33"),
    ),
    "create_model: larger than any machine": fails(
        "parameters, more than",
        lambda: nin_jax.create_model(_tiny(stages=(Stage(60_000, 300),)), image_size=500),
    ),
    "model: no batch": fails("images must be [B, H, W, 1]", lambda: _model()(jnp.zeros((16, 16)))),
    "model: other channels": fails(
        "images must be [B, H, W, 1]", lambda: _model()(jnp.zeros((1, 16, 16, 3)))
    ),
    "model: integers": fails(
        "got uint8: divide by 255", lambda: _model()(jnp.zeros((1, 16, 16, 1), jnp.uint8))
    ),
    "model: truth values": fails(
        "must be floating, in [0, 1], got bool", lambda: _model()(jnp.zeros((1, 16, 16, 1), bool))
    ),
    "class_maps: integers": fails(
        "got int32: divide by 255",
        lambda: nin_jax.class_maps(_model(), jnp.zeros((1, 16, 16, 1), jnp.int32)),
    ),
    "model: image too small": fails(
        "too small for tiny", lambda: _model()(jnp.zeros((1, 2, 2, 1)))
    ),
    "get_variant: nothing": fails("got None", lambda: nin_jax.get_variant(wrong(None))),
    "get_variant: a missing file": fails("No such file", lambda: nin_jax.get_variant("none.toml")),
    "get_variant: a NUL": fails("null", lambda: nin_jax.get_variant("a\0.toml")),
    "Stage: channels zero": fails("channels must be", lambda: Stage(0, 3)),
    "Stage: channels true": fails(
        "must be a whole number, or one for each layer", lambda: Stage(True, 3)
    ),
    "Stage: a width of none": fails(
        "must be a whole number, or one for each layer", lambda: Stage(wrong((8, None)), 3)
    ),
    "Stage: kernel a text": fails("kernel must be", lambda: Stage(8, wrong("3"))),
    "Stage: kernel huge": fails("kernel must be", lambda: Stage(8, 1 << 99_999)),
    "Stage: stride zero": fails("stride must be", lambda: Stage(8, 3, stride=0)),
    "Stage: padding negative": fails("padding must be", lambda: Stage(8, 3, padding=-1)),
    "Stage: mlp of lists": fails("mlp must be", lambda: Stage(8, 3, mlp=wrong([[1, 0]]))),
    "Stage: an mlp layer of one number": fails(
        "mlp.0.1 is missing", lambda: Stage(8, 3, mlp=wrong(((1,),)))
    ),
    "Stage: pool a number": fails("pool must be", lambda: Stage(8, 3, pool=wrong(1))),
    "Variant: no name": fails("name must be", lambda: _tiny(name="")),
    "Variant: a long name": fails("name must be", lambda: _tiny(name="x" * 101)),
    "Variant: stages a list": fails("stages must be a tuple", lambda: _tiny(stages=[])),
    "Variant: a stage without channels": fails(
        "needs channels", lambda: _tiny(stages=(Stage(None, 3),))
    ),
    "Variant: a head with a pool": fails("the head must have", lambda: _tiny(head=Stage(None, 3))),
    "Variant: unknown classifier": fails("classifier must be", lambda: _tiny(classifier="max")),
    "Variant: dropout one": fails("dropout must be", lambda: _tiny(dropout=1)),
    "Variant: dropout false": fails("dropout must be", lambda: _tiny(dropout=False)),
    "Variant: rate zero": fails("published_lr must be", lambda: _tiny(published_lr=0)),
    "Variant: too many stages": fails(
        "convolutions are more than", lambda: _tiny(stages=(Stage(1, 1),) * 10**6)
    ),
    "variant_from_dict: a list": fails(
        "must be a table of fields", lambda: variant_from_dict(wrong([1]))
    ),
    "variant_from_dict: no stages": fails(
        "name must be", lambda: variant_from_dict({"name": None, "stages": []})
    ),
    "trace: no classes": fails("num_classes must be", lambda: trace(_tiny(), 1, 0, 16)),
    "summary: too small": fails("too small", lambda: nin_jax.summary("nin", image_size=5)),
    "describe: unknown variant": fails("unknown variant", lambda: nin_jax.describe("x")),
    "account: batch size zero": fails(
        "batch size must be", lambda: nin_jax.account("nin", batch_size=0, xla=False)
    ),
    "account: unknown precision": fails(
        "unknown precision 'int8'", lambda: nin_jax.account("nin", precision=wrong("int8"))
    ),
    "account: unknown recipe": fails("did you mean", lambda: nin_jax.account(recipe="modem")),
    "account: batch size true": fails(
        "batch size must be", lambda: nin_jax.account("nin", batch_size=True, xla=False)
    ),
    "account: memory of a kilobyte": fails(
        "smaller than the parameters alone",
        lambda: nin_jax.account("nin", memory_bytes=1000, xla=False),
    ),
    "account: no channels": fails(
        "in_channels must be", lambda: nin_jax.account(in_channels=0, xla=False)
    ),
    "load_state_dict: misshaped": fails(
        "net.0.0.bias has shape [1], not [8]",
        lambda: convert.load_state_dict(_model(), {"net.0.0.bias": np.ones(1)}),
    ),
    "Predictor: no model": fails("must be a NiN", lambda: nin_jax.Predictor(wrong("nin"))),
    "Predictor: batch size zero": fails(
        "batch_size must be", lambda: nin_jax.Predictor(_model(), batch_size=0)
    ),
    "Predictor: batch size true": fails(
        "batch_size must be", lambda: nin_jax.Predictor(_model(), batch_size=True)
    ),
    "Predictor: unknown precision": fails(
        "precision must be", lambda: nin_jax.Predictor(_model(), precision=wrong("float16"))
    ),
    "Predictor: a list": fails(
        "images must be an array", lambda: nin_jax.Predictor(_model())(wrong([[0]]))
    ),
    "Predictor: one image": fails(
        "images must be [N, H, W, 1]", lambda: nin_jax.Predictor(_model())(np.zeros((16, 16, 1)))
    ),
    "Predictor: whole numbers": fails(
        "must be uint8 or floating",
        lambda: nin_jax.Predictor(_model())(np.zeros((1, 16, 16, 1), np.int32)),
    ),
    "Predictor: other channels": fails(
        "images must be [N, H, W, 1]", lambda: nin_jax.Predictor(_model())(np.zeros((1, 16, 16, 3)))
    ),
    "Predictor: another size": fails(
        "float images must be 16x16",
        lambda: nin_jax.Predictor(_model())(np.zeros((1, 8, 8, 1), np.float32)),
    ),
    "class_maps: no model": fails(
        "must be a NiN", lambda: nin_jax.class_maps(wrong(None), jnp.zeros((1, 16, 16, 1)))
    ),
    "class_maps: linear": fails(
        "has no class maps",
        lambda: nin_jax.class_maps(
            nin_jax.create_model(_tiny(classifier="linear"), image_size=16),
            jnp.zeros((1, 16, 16, 1)),
        ),
    ),
    "class_maps: one image": fails(
        "images must be", lambda: nin_jax.class_maps(_model(), jnp.zeros((16, 16, 1)))
    ),
}
