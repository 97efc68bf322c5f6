//! One column of a CCE clustering at full size: 10 M ids × 4 dimensions, 10,000 centroids trained
//! in 20 iterations on 256 points each, then every id assigned. Prints the seconds of both.
//!
//! `just bench --only kmeans` runs FAISS on the same work beside it.

use embc_core::kmeans::{Lloyd, Start, assign, kmeans};
use embc_core::rng::Rng;
use std::time::Instant;

const IDS: usize = 10_000_000;
const DIM: usize = 4;
const CENTROIDS: usize = 10_000;

fn main() {
    let mut rng = Rng::stream(1, "points");
    let points: Vec<f32> = (0..IDS * DIM).map(|_| rng.normal() as f32).collect();
    let sample = &points[..256 * CENTROIDS * DIM];
    let start = Instant::now();
    let centroids = kmeans(sample, DIM, CENTROIDS, None, Lloyd::new(Start::Random, 20), &mut rng);
    let trained = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut nearest = vec![0; IDS];
    let error = assign(&points, DIM, &centroids, &mut nearest);
    let assigned = start.elapsed().as_secs_f64();
    let error = error.iter().map(|&d| f64::from(d)).sum::<f64>() / IDS as f64;
    println!(
        "{{\"train_s\": {trained:.3}, \"assign_s\": {assigned:.3}, \"error\": {error:.6}, \"threads\": {}}}",
        rayon::current_num_threads()
    );
}
