"""Bad options of scripts/find_lr.py, besides those that it shares with scripts/train.py."""

import functools

from tests.bad_inputs.case import on_digits

_find = functools.partial(on_digits, "find_lr")

FIND_LR = {
    "a rate": _find("--lr has no effect here", "--lr 0.1"),
    "a schedule": _find("--schedule has no effect here", "--schedule cosine"),
    "steps of the rate": _find("--lr-steps has no effect here", "--lr-steps 0.5"),
    "epochs": _find("--epochs has no effect here", "--epochs 2"),
    "first rate zero": _find("--lr-from must be >= 0.000", "--lr-from 0"),
    "last rate too large": _find("--lr-to must be <= 1000000", "--lr-to 1e9"),
    "rates that fall": _find("--lr-from 1 must be below --lr-to 0.1", "--lr-from 1 --lr-to 0.1"),
    "too few steps": _find("--test-steps must be >= 10, got 5", "--test-steps 5"),
    "a folder for a run": _find("unknown option --workdir", "--workdir run"),
    "unknown variant": _find("unknown variant 'nin51'", "--variant nin51"),
    "image too small": _find("image", "--image-size 5"),
    "out is a file": _find("--out out is a file", "--out out", files={"out": ""}),
    "frozen without weights": _find("--freeze needs --init-from", "--freeze"),
}
