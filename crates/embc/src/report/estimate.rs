//! Means with their intervals.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean with its 95 % t-interval over seeds; no interval for one seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub mean: f64,
    pub half: Option<f64>,
    pub n: usize,
}

impl Estimate {
    pub fn of(values: &[f64]) -> Option<Self> {
        Self::at(0.95, values)
    }

    /// With an interval of another level than 95 %.
    pub fn at(level: f64, values: &[f64]) -> Option<Self> {
        Self::with(level, values, 0.0)
    }

    /// Over splits of the same rows, with so many rows scored for each training row: what they
    /// share makes the mean less certain (Nadeau and Bengio 2003).
    pub fn over_splits(values: &[f64], scored: f64) -> Option<Self> {
        Self::with(0.95, values, scored)
    }

    fn with(level: f64, values: &[f64], shared: f64) -> Option<Self> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let t = StudentsT::new(0.0, 1.0, n - 1.0).ok().map(|t| t.inverse_cdf(0.5 + level / 2.0));
        let half = t.map(|t| t * (variance * (1.0 / n + shared)).sqrt());
        (!values.is_empty()).then_some(Self { mean, half, n: values.len() })
    }

    pub fn text(self) -> String {
        match self.half {
            Some(half) => format!("{:.1} ± {half:.1}", self.mean),
            None => format!("{:.1}", self.mean),
        }
    }

    pub fn holds(self, x: f64) -> bool {
        self.half.is_none_or(|half| (self.mean - x).abs() <= half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_intervals() {
        // t(2, 0.975) = 4.3027, deviation 1, three values.
        let three = Estimate::of(&[1.0, 2.0, 3.0]).unwrap();
        assert!((three.half.unwrap() - 4.302_652_7 / 3f64.sqrt()).abs() < 1e-6);
        assert_eq!(three.text(), "2.0 ± 2.5");
        assert!(three.holds(0.0) && !three.holds(-1.0));
        // A test row for each four training rows: variance 1/3 + 1/4.
        let splits = Estimate::over_splits(&[1.0, 2.0, 3.0], 0.25).unwrap();
        assert!((splits.half.unwrap() - 4.302_652_7 * (7.0 / 12.0f64).sqrt()).abs() < 1e-6);
        assert_eq!(Estimate::of(&[1.0]), Some(Estimate { mean: 1.0, half: None, n: 1 }));
        assert_eq!(Estimate::of(&[]), None);
    }
}
