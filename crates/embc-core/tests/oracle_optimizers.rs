//! Optimizers and learning-rate schedules against PyTorch's: ten steps, with and without weight decay.
//!
//! `oracle/optimizers.json` is written by `scripts/oracle/optimizers.py`, in float64.

use embc_core::optim::{LrSchedule, Optim, Optimizer};
use embc_core::param::Param;
use serde::Deserialize;

#[derive(Deserialize)]
struct Oracle {
    columns: usize,
    /// A matrix [rows × columns].
    start: Vec<f32>,
    /// Of each step.
    gradients: Vec<Vec<f32>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    optimizer: Optimizer,
    schedule: Option<LrSchedule>,
    /// After the last step.
    weights: Vec<f32>,
}

#[test]
fn optimizers_and_schedules_equal_torch() {
    let oracle: Oracle = serde_json::from_str(include_str!("oracle/optimizers.json")).unwrap();
    let (width, steps) = (oracle.columns, oracle.gradients.len() as u64);
    for Case { optimizer, schedule, weights } in &oracle.cases {
        let rows = Param::rows("w", width, oracle.start.clone());
        let dense = Param::dense("w", oracle.start.clone());
        for mut param in [rows, dense] {
            let rule = optimizer.rule();
            rule.attach(&mut param);
            for (step, gradient) in (0..).zip(&oracle.gradients) {
                let width = param.width();
                for (row, gradient) in gradient.chunks(width).enumerate() {
                    param.add(row as u32, gradient);
                }
                let factor = schedule.map_or(1.0, |schedule| schedule.factor(step, steps));
                Optim { lr: (f64::from(rule.lr) * factor) as f32, ..rule }.step(&mut param);
            }
            for (ours, torch) in param.value().iter().zip(weights) {
                assert!(
                    (ours - torch).abs() < 1e-5,
                    "{optimizer:?} {schedule:?}: {ours} instead of {torch}"
                );
            }
        }
    }
}
