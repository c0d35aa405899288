//! [`Normalized`]: a series in units in which the search starts from the same points for all series.

use super::{Mean, Status};
use crate::service::Element;

/// The decay and the length of the weighted mean that stands for the variance before the first return, as `arch` has
/// it.
const BACKCAST_DECAY: f64 = 0.94;
const BACKCAST_LEN: usize = 75;

/// How a series is normalized, to variance 1, and where a mean is estimated to mean 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Normalized {
    pub(super) center: f64,
    pub(super) scale: f64,
    inverse: f64,
    /// The variance before the first return, normalized.
    pub(super) backcast: f64,
}

impl Normalized {
    /// # Errors
    /// The status of a series that has none: of equal returns, or with one that is not finite.
    pub(super) fn of<T: Element + Into<f64>>(series: &[T], mean: Mean) -> Result<Self, Status> {
        let count = series.len() as f64;
        let values = || series.iter().map(|&value| -> f64 { value.into() });
        let largest = values().map(f64::abs).fold(0.0, |most: f64, value| if value > most { value } else { most });
        let sum: f64 = values().sum();
        if !sum.is_finite() {
            return Err(Status::NotFinite);
        }
        let center = if mean == Mean::Constant { sum / count } else { 0.0 };
        let scale = (values().map(|value| (value - center).powi(2)).sum::<f64>() / count).sqrt();
        // Equal returns differ from their mean by its rounding.
        if scale <= 1e-12 * largest || scale < f64::MIN_POSITIVE.sqrt() {
            return Err(Status::Constant);
        }
        if !scale.is_finite() {
            return Err(Status::NotFinite);
        }
        let mut normalized = Self { center, scale, inverse: 1.0 / scale, backcast: 0.0 };
        let (mut weight, mut weights) = (1.0, 0.0);
        for value in values().take(BACKCAST_LEN) {
            normalized.backcast += weight * normalized.apply(value).powi(2);
            weights += weight;
            weight *= BACKCAST_DECAY;
        }
        normalized.backcast /= weights;
        Ok(normalized)
    }

    /// Normalizes one return.
    pub(super) fn apply(&self, value: f64) -> f64 {
        (value - self.center) * self.inverse
    }
}
