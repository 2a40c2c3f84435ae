"""Bad options of scripts/doctor.py and scripts/soak.py."""

import functools

from tests.bad_inputs.case import command

_doctor = functools.partial(command, "doctor")
_soak = functools.partial(command, "soak")

DOCTOR = {
    "unknown format": _doctor("--format must be one of", "--format html"),
    "unknown option": _doctor("unknown option", "--fix"),
    "option without value": _doctor("--workdir must be", "--workdir"),
}

SOAK = {
    "no kills": _soak("--kills must be a whole number >= 1, got 0", "--kills 0"),
    "kills a word": _soak("--kills must be INT", "--kills many"),
    "no epochs": _soak("--epochs must be a whole number >= 1, got -1", "--epochs -1"),
    "out is a file": _soak("is a file", "--out file", files={"file": "mine"}),
}
