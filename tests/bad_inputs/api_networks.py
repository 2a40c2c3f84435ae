"""Bad calls that make a network, count it or ask it something."""

from typing import Any

import jax.numpy as jnp
import numpy as np

import nin_jax
from nin_jax import Preprocessing, Stage, Variant
from nin_jax.models import convert
from nin_jax.models.geometry import trace
from nin_jax.models.variants import variant_from_dict
from tests.bad_inputs.case import Case, fails, wrong


def _tiny(**fields: Any) -> Variant:
    return Variant(**({"name": "tiny", "stages": (Stage(8, 3, padding=1),)} | fields))


def _model(**options: Any) -> Any:
    return nin_jax.create_model(_tiny(), image_size=16, **options)


def _create(text: str, *arguments: Any, **options: Any) -> Case:
    return fails(text, lambda: nin_jax.create_model(*arguments, **options))


def _new(text: str, **options: Any) -> Case:
    return fails(text, lambda: _model(**options))


def _compute(text: str, *shape: int, dtype: Any = jnp.float32) -> Case:
    return fails(text, lambda: _model()(jnp.zeros(shape, dtype)))


def _predict(text: str, *shape: int, dtype: Any = np.float64) -> Case:
    return fails(text, lambda: nin_jax.Predictor(_model())(np.zeros(shape, dtype)))


def _preprocessing(text: str, **fields: Any) -> Case:
    return fails(text, lambda: Preprocessing(**fields))


def _stage(text: str, *arguments: Any, **fields: Any) -> Case:
    return fails(text, lambda: Stage(*arguments, **fields))


def _variant(text: str, **fields: Any) -> Case:
    return fails(text, lambda: _tiny(**fields))


def _account(text: str, **options: Any) -> Case:
    return fails(text, lambda: nin_jax.account("nin", xla=False, **options))


NETWORKS = {
    "create_model: unknown variant": _create("or nin15", "nin51"),
    "create_model: a number": _create("variant must be a name, a file or a Variant, got 3", 3),
    "create_model: no channels": _create("in_channels must be a whole number >= 1", in_channels=0),
    "create_model: half a channel": _create("got 1.5", in_channels=1.5),
    "create_model: no classes": _create("num_classes must be", num_classes=0),
    "create_model: image size zero": _create("image size must be", image_size=0),
    "create_model: three sides": _create("image size must be", image_size=(96, 96, 3)),
    "create_model: image size a text": _create("got '224'", image_size="224"),
    "create_model: half a pixel": _create("whole numbers >= 1", image_size=(224, 2.5)),
    "create_model: classes true": _create("num_classes must be", num_classes=True),
    "create_model: too small": _create("smallest size that works is 67x67", image_size=66),
    "create_model: seed negative": _create("seed must be", seed=-1),
    "create_model: seed true": _create("seed must be", seed=True),
    "create_model: unknown initialization": _create("unknown initialization 'zeros'", init="zeros"),
    "create_model: preprocessing a text": _new(
        "preprocessing must be a Preprocessing, got 'bgr'", preprocessing="bgr"
    ),
    "create_model: mean of another number of channels": _new(
        "preprocessing: mean has 3 values for 1 channel",
        preprocessing=Preprocessing(mean=(0.4, 0.5, 0.6)),
    ),
    "create_model: BGR of two channels": _new(
        "BGR needs 3 channels, the images have 2",
        in_channels=2,
        preprocessing=Preprocessing(channel_order="bgr"),
    ),
    "create_model: preprocessing and pretrained": _create(
        "preprocessing cannot be given with pretrained",
        "nin15",
        pretrained="fashion_mnist",
        preprocessing=Preprocessing(),
    ),
    "Preprocessing: deviation zero": _preprocessing(
        "Preprocessing.std.0 must be >= 0.000001, got 0.0", std=(0.0,)
    ),
    "Preprocessing: mean infinite": _preprocessing(
        "Preprocessing.mean.0 must be a finite number", mean=(float("inf"),)
    ),
    "Preprocessing: an unknown rule": _preprocessing(
        "Preprocessing.resize must be 'stretch' or 'crop', got 'pad'", resize="pad"
    ),
    "create_model: dtype of whole numbers": _create("dtype must be a floating type", dtype="int8"),
    "create_model: unknown dtype": _create("dtype must be a floating type", param_dtype="float33"),
    "create_model: unknown dtype of pretrained weights": _create(
        "param_dtype must be a floating type such as float32, got 'float33'",
        "nin15",
        pretrained="fashion_mnist",
        param_dtype="float33",
    ),
    "create_model: larger than any machine": fails(
        "parameters, more than",
        lambda: nin_jax.create_model(_tiny(stages=(Stage(60_000, 300),)), image_size=500),
    ),
    "model: no batch": _compute("images must be [B, H, W, 1]", 16, 16),
    "model: other channels": _compute("images must be [B, H, W, 1]", 1, 16, 16, 3),
    "model: integers": _compute("got uint8: divide by 255", 1, 16, 16, 1, dtype=jnp.uint8),
    "model: truth values": _compute(
        "must be floating, in [0, 1], got bool", 1, 16, 16, 1, dtype=bool
    ),
    "class_maps: integers": fails(
        "got int32: divide by 255",
        lambda: nin_jax.class_maps(_model(), jnp.zeros((1, 16, 16, 1), jnp.int32)),
    ),
    "model: image too small": _compute("too small for tiny", 1, 2, 2, 1),
    "get_variant: nothing": fails("got None", lambda: nin_jax.get_variant(wrong(None))),
    "get_variant: a missing file": fails("No such file", lambda: nin_jax.get_variant("none.toml")),
    "get_variant: a NUL": fails("null", lambda: nin_jax.get_variant("a\0.toml")),
    "Stage: channels zero": _stage("channels must be", 0, 3),
    "Stage: channels true": _stage("must be a whole number, or one for each layer", True, 3),
    "Stage: a width of none": _stage("must be a whole number, or one for each layer", (8, None), 3),
    "Stage: kernel a text": _stage("kernel must be", 8, "3"),
    "Stage: kernel huge": _stage("kernel must be", 8, 1 << 99_999),
    "Stage: stride zero": _stage("stride must be", 8, 3, stride=0),
    "Stage: padding negative": _stage("padding must be", 8, 3, padding=-1),
    "Stage: mlp of lists": _stage("mlp must be", 8, 3, mlp=[[1, 0]]),
    "Stage: an mlp layer of one number": _stage("mlp.0.1 is missing", 8, 3, mlp=((1,),)),
    "Stage: pool a number": _stage("pool must be", 8, 3, pool=1),
    "Variant: no name": _variant("name must be", name=""),
    "Variant: a long name": _variant("name must be", name="x" * 101),
    "Variant: stages a list": _variant("stages must be a tuple", stages=[]),
    "Variant: a stage without channels": _variant("needs channels", stages=(Stage(None, 3),)),
    "Variant: a head with a pool": _variant("the head must have", head=Stage(None, 3)),
    "Variant: unknown classifier": _variant("classifier must be", classifier="max"),
    "Variant: dropout one": _variant("dropout must be", dropout=1),
    "Variant: dropout false": _variant("dropout must be", dropout=False),
    "Variant: rate zero": _variant("published_lr must be", published_lr=0),
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
    "account: batch size zero": _account("batch size must be", batch_size=0),
    "account: unknown precision": _account("unknown precision 'int8'", precision="int8"),
    "account: unknown recipe": _account("did you mean", recipe="modem"),
    "account: batch size true": _account("batch size must be", batch_size=True),
    "account: memory of a kilobyte": _account(
        "smaller than the parameters alone", memory_bytes=1000
    ),
    "account: no channels": _account("in_channels must be", in_channels=0),
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
    "Predictor: one image": _predict("images must be [N, H, W, 1]", 16, 16, 1),
    "Predictor: whole numbers": _predict("must be uint8 or floating", 1, 16, 16, 1, dtype=np.int32),
    "Predictor: other channels": _predict("images must be [N, H, W, 1]", 1, 16, 16, 3),
    "Predictor: another size": _predict("float images must be 16x16", 1, 8, 8, 1),
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
