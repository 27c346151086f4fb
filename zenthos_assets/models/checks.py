"""Gates: may this model go on to be released? The rules are ml.promotion."""

import dagster as dg

from ml.dataset import Split
from ml.evaluation import Score
from ml.promotion import Verdict, beats_baseline, survives_quantisation

TRAINING_SET_KEY = dg.AssetKey(["ml", "training_set"])
MODEL_KEY = dg.AssetKey(["ml", "irrigation_model"])
TFLITE_KEY = dg.AssetKey(["ml", "irrigation_model_tflite"])

DATASET_SPEC = dg.AssetCheckSpec(
    "both_classes_in_every_split",
    asset=TRAINING_SET_KEY,
    blocking=True,
    description="There is something to learn, and something to score.",
)
BASELINE_SPEC = dg.AssetCheckSpec(
    "beats_baseline",
    asset=MODEL_KEY,
    blocking=True,
    description="Held-out AUC above that of the 7-day soil moisture mean alone.",
)
QUANTISATION_SPEC = dg.AssetCheckSpec(
    "survives_quantisation",
    asset=TFLITE_KEY,
    blocking=True,
    description="The INT8 model does what the float model does.",
)


def both_classes(irrigate_shares: dict[str, float]) -> dg.AssetCheckResult:
    """The outcome of DATASET_SPEC, from the share of `irrigate` in each split."""
    shares = {split: irrigate_shares.get(split, 0.0) for split in (Split.TRAIN, Split.HOLDOUT)}
    found = ", ".join(f"{share:.0%} of {split}" for split, share in shares.items())
    return dg.AssetCheckResult(
        check_name=DATASET_SPEC.name,
        passed=all(0.0 < share < 1.0 for share in shares.values()),
        description=f"irrigate is {found}; each needs both classes",
        metadata={"irrigate_shares": irrigate_shares},
    )


def baseline_gate(holdout: Score) -> dg.AssetCheckResult:
    """The outcome of BASELINE_SPEC."""
    return _result(BASELINE_SPEC, beats_baseline(holdout))


def quantisation_gate(
    as_float: Score, as_int8: Score, max_probability_difference: float
) -> dg.AssetCheckResult:
    """The outcome of QUANTISATION_SPEC."""
    verdict = survives_quantisation(
        as_float.auc or 0.5,
        as_int8.auc or 0.5,
        max_probability_difference,
        as_int8.baseline_auc or 0.5,
    )
    return _result(QUANTISATION_SPEC, verdict)


def _result(spec: dg.AssetCheckSpec, verdict: Verdict) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=spec.name,
        passed=verdict.passed,
        description=str(verdict),
        metadata={"verdict": str(verdict)},
    )
