//! Means with their intervals.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean with its 95 % t-interval over seeds; no interval for one seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the width of the interval.
    pub half: Option<f64>,
    /// How many values.
    pub n: usize,
}

impl Estimate {
    /// With its 95 % interval; none of no values.
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
        // Values that are all equal say nothing of how far others may lie: a deviation of zero is
        // the grain of the metric, or too few seeds.
        let varies = variance > 1e-24 * mean * mean;
        let half = t.map(|t| t * (variance * (1.0 / n + shared)).sqrt()).filter(|_| varies);
        (!values.is_empty()).then_some(Self { mean, half, n: values.len() })
    }

    /// The mean of `values` over that of `base`, paired, as a loss in per cent: of the means, so that
    /// one base of zero does not decide it, with the variance of a ratio (the delta method). None
    /// where the bases' mean is zero.
    pub fn loss(values: &[f64], base: &[f64], sign: f64) -> Option<Self> {
        let n = base.len().min(values.len()) as f64;
        let mean = |x: &[f64]| x.iter().sum::<f64>() / n;
        let (ours, of_base) = (mean(values), mean(base));
        if n == 0.0 || of_base == 0.0 {
            return None;
        }
        let scale = 100.0 * sign / of_base.abs();
        let ratio = ours / of_base;
        let linear = |(x, b): (&f64, &f64)| {
            scale * (of_base - ours) + scale * (ratio * (b - of_base) - (x - ours))
        };
        Self::of(&values.iter().zip(base).map(linear).collect::<Vec<_>>())
    }

    /// For people, with one decimal: "2.0 ± 2.5".
    pub fn text(self) -> String {
        match self.half {
            Some(half) => format!("{:.1} ± {half:.1}", self.mean),
            None => format!("{:.1}", self.mean),
        }
    }

    /// True where the interval holds `x`, or where there is none.
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
        // No spread is no knowledge of it, whatever rounding leaves.
        assert_eq!(Estimate::of(&[0.5, 0.5]).unwrap().half, None);
        assert_eq!(Estimate::of(&[0.1 + 0.2, 0.3, 0.3]).unwrap().half, None);
    }

    #[test]
    fn losses_are_of_means() {
        // A base of zero in one seed: 25 % of the means.
        let loss = Estimate::loss(&[0.1, 0.1, 0.1], &[0.0, 0.2, 0.2], 1.0).unwrap();
        assert!((loss.mean - 25.0).abs() < 1e-9 && loss.half.is_some());
        assert_eq!(Estimate::loss(&[0.1, 0.1], &[0.0, 0.0], 1.0), None);
        // Where bases are alike, the t-interval of the losses themselves.
        let loss = Estimate::loss(&[0.9, 0.8, 0.7], &[1.0, 1.0, 1.0], 1.0).unwrap();
        let plain = Estimate::of(&[10.0, 20.0, 30.0]).unwrap();
        assert!((loss.mean - plain.mean).abs() < 1e-9);
        assert!((loss.half.unwrap() - plain.half.unwrap()).abs() < 1e-9);
        let less = Estimate::loss(&[2.2, 2.0], &[2.0, 2.0], -1.0).unwrap();
        assert!((less.mean - 5.0).abs() < 1e-9, "less is better: {less:?}");
    }
}
