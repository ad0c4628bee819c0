"""`RiskCoverage`: what a model risks when it answers only where it is confident enough (selective prediction).

El-Yaniv & Wiener 2010, "On the Foundations of Noise-free Selective Classification"; Geifman & El-Yaniv 2017.

Shapes: **B** examples, **K** distinct confidences.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treesearch.errors import DataError

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """A point for each distinct confidence: answer where the confidence is at least so much.

    Examples of equal confidence are answered together or not at all: no threshold parts them.
    """

    threshold: Numbers  # [K] falling
    coverage: Numbers  # [K] share of the examples that are answered, rising to 1
    risk: Numbers  # [K] mean loss of those
    num_examples: int  # B

    @property
    def aurc(self) -> float:
        """Area under the curve: the mean over all examples of the risk at which each is answered. Lower is better."""
        return float(self.risk @ np.diff(self.coverage, prepend=0.0))

    @property
    def excess_aurc(self) -> float:
        """The area less that of the best order of the same 0/1 losses, whose errors come last; >= 0.

        Raises:
            DataError: The losses of the examples of some confidence do not sum to a number of errors.
        """
        num_K = self.coverage * self.num_examples
        wrong_K = np.diff(self.risk * num_K, prepend=0.0)  # errors at each confidence
        most_K = np.diff(num_K, prepend=0.0)
        if (
            (np.abs(wrong_K - wrong_K.round()) > 1e-6).any()
            or (wrong_K < -1e-6).any()
            or (wrong_K > most_K + 1e-6).any()
        ):
            raise DataError("excess area needs losses that are 0 or 1; use aurc for others")
        num_wrong = float(wrong_K.sum())
        answered = np.arange(1, self.num_examples + 1)
        best = np.maximum(answered - (self.num_examples - round(num_wrong)), 0) / answered
        return self.aurc - float(best.mean())

    def risk_at(self, coverage: float) -> float:
        """The risk of answering at least this share: of the first point that reaches it.

        Args:
            coverage: In (0, 1].

        Raises:
            DataError: It is not.
        """
        return float(self.risk[self._point_at(coverage)])

    def threshold_at(self, coverage: float) -> float:
        """The confidence from which on at least this share is answered; as `risk_at`."""
        return float(self.threshold[self._point_at(coverage)])

    def coverage_at(self, risk: float) -> float:
        """The largest share that can be answered at no more than this risk; 0 where there is none.

        Raises:
            DataError: The risk is not a number.
        """
        if np.isnan(risk):
            raise DataError("risk must be a number, but is NaN")
        # In exact arithmetic a mean loss may equal the limit; in floating point it must not miss it.
        fits = np.flatnonzero(self.risk <= risk + 1e-12)
        return float(self.coverage[fits[-1]]) if fits.size else 0.0

    def _point_at(self, coverage: float) -> int:
        if not 0 < coverage <= 1:
            raise DataError(f"coverage must lie in (0, 1], but got {coverage!r:.40}")
        return int(np.searchsorted(self.coverage, coverage - 1e-12))


def risk_coverage(confidence: ArrayLike, loss: ArrayLike) -> RiskCoverage:
    """The curve of risk against coverage.

    Args:
        confidence: [B], higher for what is answered first; on any scale.
        loss: [B], whether each answer would be wrong, or any other loss.

    Raises:
        DataError: There is no example, lengths differ, a confidence is NaN, or a loss is not finite.
    """
    try:
        confidence_B, loss_B = np.asarray(confidence, np.float64), np.asarray(loss, np.float64)
    except (TypeError, ValueError):
        raise DataError("confidence and loss must be numbers, one of each per example") from None
    if confidence_B.ndim != 1 or not confidence_B.size or confidence_B.shape != loss_B.shape:
        raise DataError(
            f"confidence and loss must be one number each per example, but have shapes {confidence_B.shape} and"
            f" {loss_B.shape}"
        )
    if np.isnan(confidence_B).any():
        raise DataError(f"confidences must be numbers, but that of example {np.isnan(confidence_B).argmax()} is NaN")
    if not np.isfinite(loss_B).all():
        raise DataError(f"losses must be finite, but that of example {np.isfinite(loss_B).argmin()} is not")
    order = np.argsort(-confidence_B, kind="stable")
    sorted_B = confidence_B[order]
    last_K = np.flatnonzero(np.append(sorted_B[1:] != sorted_B[:-1], True))
    answered_K = last_K + 1
    risk_K = np.cumsum(loss_B[order])[last_K] / answered_K
    return RiskCoverage(sorted_B[last_K], answered_K / confidence_B.size, risk_K, int(confidence_B.size))
