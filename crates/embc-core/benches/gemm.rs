//! How near the products of a training step come to the machine's best: DLRM's layers at the shape
//! of Criteo-Kaggle, forward (y = x W), backward into x (dx = dy Wᵀ) and into W (dW = xᵀ dy),
//! beside a product of 2048 × 2048 matrices, on as many threads as RAYON_NUM_THREADS says.
//!
//! `just bench-gemm`

use embc_core::linalg::{Op, gemm};
use embc_core::rng::Rng;
use std::time::{Duration, Instant};

/// GFLOP/s of a product [m × k] · [k × n], the best of a few rounds.
fn speed(m: usize, n: usize, k: usize, op_a: Op, op_b: Op, beta: f32) -> f64 {
    let mut rng = Rng::stream(1, "gemm");
    let mut random = |n| -> Vec<f32> { (0..n).map(|_| rng.symmetric(1.0)).collect() };
    let (a, b, mut c) = (random(m * k), random(k * n), vec![0.0; m * n]);
    let flops = 2.0 * (m * n * k) as f64;
    let round = |c: &mut [f32]| {
        let (mut times, start) = (0, Instant::now());
        while start.elapsed() < Duration::from_millis(60) {
            gemm(m, n, k, &a, op_a, &b, op_b, beta, c);
            times += 1;
        }
        f64::from(times) * flops / start.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(|_| round(&mut c)).fold(0.0, f64::max)
}

fn main() {
    let square = speed(2048, 2048, 2048, Op::N, Op::N, 0.0);
    println!("{} threads; 2048³: {square:.0} GFLOP/s", rayon::current_num_threads());
    println!("{:>6} {:>5} {:>5}  {:>8} {:>8} {:>8}", "batch", "in", "out", "y", "dx", "dW");
    let layers = [(13, 512), (512, 256), (256, 64), (64, 16), (367, 512), (512, 256), (256, 1)];
    for batch in [128, 2048] {
        let (mut time, mut work) = (0.0, 0.0);
        for (inputs, outputs) in layers {
            let speeds = [
                speed(batch, outputs, inputs, Op::N, Op::N, 1.0),
                speed(batch, inputs, outputs, Op::N, Op::T, 0.0),
                speed(inputs, outputs, batch, Op::T, Op::N, 1.0),
            ];
            let [y, dx, dw] = speeds;
            println!("{batch:>6} {inputs:>5} {outputs:>5}  {y:>8.0} {dx:>8.0} {dw:>8.0}");
            let each = 2.0 * (batch * inputs * outputs) as f64 / 1e9;
            time += speeds.iter().map(|speed| each / speed).sum::<f64>();
            work += 3.0 * each;
        }
        println!(
            "{batch:>6} all layers: {:.0} GFLOP/s, {:.2} of the square's",
            work / time,
            work / time / square
        );
    }
}
