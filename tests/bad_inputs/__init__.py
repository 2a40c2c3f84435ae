"""The table of bad inputs: what is run, on which files, and what its one line has to say."""

from tests.bad_inputs.api_files import FILES
from tests.bad_inputs.api_networks import NETWORKS
from tests.bad_inputs.case import Case
from tests.bad_inputs.convert import CONVERT
from tests.bad_inputs.doctor_and_soak import DOCTOR, SOAK
from tests.bad_inputs.evaluate import COMPARE, EVALUATE, EXPORT
from tests.bad_inputs.find_lr import FIND_LR
from tests.bad_inputs.predict_and_explain import EXPLAIN, PREDICT
from tests.bad_inputs.report_and_bench import BENCH, REPORT
from tests.bad_inputs.study_and_prepare import PREPARE, STUDY
from tests.bad_inputs.train import TRAIN
from tests.bad_inputs.variant_files import VARIANT_FILES

SCRIPTS = {
    "train": TRAIN | VARIANT_FILES,
    "find_lr": FIND_LR,
    "evaluate": EVALUATE,
    "compare": COMPARE,
    "export": EXPORT,
    "predict": PREDICT,
    "explain": EXPLAIN,
    "convert": CONVERT,
    "report": REPORT,
    "bench": BENCH,
    "study": STUDY,
    "prepare_tfds": PREPARE,
    "doctor": DOCTOR,
    "soak": SOAK,
}
CASES: dict[str, Case] = {
    f"{group}: {name}": case
    for group, cases in (*SCRIPTS.items(), ("API", NETWORKS | FILES))
    for name, case in cases.items()
}
