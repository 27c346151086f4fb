"""Whether a trained model may be shipped; pass, or the reasons a person can act on."""

from dataclasses import dataclass
from typing import Final

from ml.evaluation import Score

MIN_HOLDOUT_ROWS: Final = 20
MAX_QUANTISED_AUC_LOSS: Final = 0.01
MAX_PROBABILITY_DIFFERENCE: Final = 0.1


@dataclass(frozen=True)
class Verdict:
    """The outcome of a gate."""

    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons

    def __str__(self) -> str:
        return "; ".join(self.reasons) or "passed"


def beats_baseline(holdout: Score) -> Verdict:
    """A model is worth shipping if it ranks unseen devices in an unseen period better."""
    if holdout.rows < MIN_HOLDOUT_ROWS:
        return Verdict((f"{holdout.rows} held-out rows; at least {MIN_HOLDOUT_ROWS} are needed",))
    if holdout.auc is None or holdout.baseline_auc is None:
        return Verdict(
            ("the held-out rows are all of one class: choose another holdout_from or device",)
        )
    if holdout.auc <= holdout.baseline_auc:
        return Verdict(
            (
                f"held-out AUC {holdout.auc:.3f} does not beat the 7-day soil moisture mean "
                f"({holdout.baseline_auc:.3f}): keep the released model",
            )
        )
    return Verdict(())


def survives_quantisation(
    float_auc: float, int8_auc: float, max_probability_difference: float, baseline_auc: float
) -> Verdict:
    """The INT8 model must do what the float model does, and still beat the baseline."""
    reasons = []
    if float_auc - int8_auc > MAX_QUANTISED_AUC_LOSS:
        reasons.append(f"quantisation costs {float_auc - int8_auc:.3f} AUC")
    if max_probability_difference > MAX_PROBABILITY_DIFFERENCE:
        reasons.append(f"a probability moved by {max_probability_difference:.3f}")
    if int8_auc <= baseline_auc:
        reasons.append(f"INT8 AUC {int8_auc:.3f} does not beat the baseline's {baseline_auc:.3f}")
    return Verdict(tuple(reasons))
