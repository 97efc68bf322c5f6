//! What pruning finds is what comparing all does.

use super::*;

/// `n` points around `k` centres that lie 10 apart.
fn blobs(n: usize, k: usize) -> Vec<f32> {
    let mut rng = Rng::stream(1, "blobs");
    (0..n).flat_map(|i| [10.0 * (i % k) as f32 + rng.symmetric(0.5), rng.symmetric(0.5)]).collect()
}

/// Lanes and the rest after them, against the plain scan; values repeat, so that equals occur.
#[test]
fn the_least_is_the_first_of_equals() {
    let mut rng = Rng::stream(1, "least");
    for k in [1, 5, 16, 17, 48, 100, 333] {
        let mut random =
            |n: u64| -> Vec<f32> { (0..k).map(|_| rng.below(n) as f32 - 3.0).collect() };
        let (products, norms) = (random(9), random(4));
        let mut expect = (f32::INFINITY, 0);
        for (c, (product, norm)) in products.iter().zip(&norms).enumerate() {
            let distance = norm - 2.0 * product;
            expect = if distance < expect.0 { (distance, c as u32) } else { expect };
        }
        assert_eq!(least(&products, &norms), expect);
    }
}

/// Pruning finds what comparing all with all does, from good and from bad guesses.
#[test]
fn neighbours_hold_the_nearest() {
    for (dim, k) in [1, 2, 3, 4, 8].map(|dim| [(dim, 100), (dim, 2000)]).concat() {
        let mut rng = Rng::stream(3, "neighbours");
        let mut normal =
            |n: usize| -> Vec<f32> { (0..n * dim).map(|_| rng.normal() as f32).collect() };
        let (points, centroids) = (normal(3000), normal(k));
        let row = |c: u32| &centroids[c as usize * dim..][..dim];
        let (mut nearest, mut guessed) = (vec![0; 3000], vec![7; 3000]);
        let distances = assign(&points, dim, &centroids, &mut nearest);
        improve(&points, dim, &centroids, &mut guessed);
        assert_eq!(nearest, guessed);
        let mut by_products = vec![0; 3000];
        assign_by_products(&points, dim, &centroids, &mut by_products);
        for (i, point) in points.chunks_exact(dim).enumerate() {
            let all = (0..k as u32).map(|c| (squared(point, row(c)), c));
            let best = all.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
            assert_eq!((distances[i], nearest[i]), best);
            let rounding = squared(point, row(by_products[i])) - best.0;
            assert!(rounding < 1e-5, "products say the same: {rounding}");
        }
    }
}

#[test]
fn separate_blobs_are_found() {
    let points = blobs(2000, 8);
    for start in [Start::Random, Start::PlusPlus] {
        let mut rng = Rng::stream(2, "kmeans");
        let centroids = kmeans(&points, 2, 8, None, Lloyd::new(start, 50), &mut rng);
        let mut nearest = vec![0; 2000];
        let error = assign(&points, 2, &centroids, &mut nearest).iter().sum::<f32>() / 2000.0;
        // Random starts may leave two blobs together; k-means++ does not.
        if start == Start::PlusPlus {
            assert!(error < 0.2, "{error}");
            assert!((0..8).all(|i| nearest[i] == nearest[i + 8]));
        }
    }
}

#[test]
fn empty_clusters_are_filled_and_weights_count() {
    // 90 equal points and 10 others: four of five random starts coincide.
    let points: Vec<f32> = (0..100).map(|i| if i < 90 { 1.0 } else { i as f32 }).collect();
    let centroids =
        kmeans(&points, 1, 5, None, Lloyd::new(Start::Random, 30), &mut Rng::stream(1, "k"));
    let mut nearest = vec![0; 100];
    let error = assign(&points, 1, &centroids, &mut nearest).iter().sum::<f32>();
    assert!(error < 30.0, "{error} {centroids:?}");
    let weights: Vec<f32> = (0..3).map(|i| [1.0, 3.0, 0.0][i]).collect();
    let one = kmeans(
        &[0.0, 4.0, 99.0],
        1,
        1,
        Some(&weights),
        Lloyd::new(Start::Random, 2),
        &mut Rng::stream(1, "k"),
    );
    assert_eq!(one, [3.0]);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let points = blobs(5000, 30);
    // All compared, the neighbours of guesses, and bounds of groups.
    for (dim, k) in [(2, 40), (2, 1500), (10, 600)] {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut rng = Rng::stream(3, "kmeans");
            pool.install(|| kmeans(&points, dim, k, None, Lloyd::new(Start::Random, 10), &mut rng))
        };
        assert_eq!(run(1), run(2));
        assert_eq!(run(1), run(7));
    }
}

/// Weights that have blown up end the trial at its next loss, not here.
#[test]
fn points_that_are_not_finite_are_taken() {
    for wild in [f32::NAN, f32::INFINITY, 3e19, -1e38] {
        let mut points = blobs(500, 30);
        points[700] = wild;
        let mut rng = Rng::stream(4, "kmeans");
        let centroids = kmeans(&points, 2, 100, None, Lloyd::new(Start::Random, 5), &mut rng);
        let mut nearest = vec![0; 500];
        assign(&points, 2, &centroids, &mut nearest);
        assert!(nearest.iter().all(|&c| c < 100));
    }
}

/// Bounds of groups find in each of Lloyd's iterations what comparing all with all does, near or far
/// from rest, with one lane a group and with several.
#[test]
fn bounds_hold_the_nearest() {
    for (dim, k, bounds) in [(9, 150, 1 << 20), (32, 400, 1 << 20), (17, 300, 2000)] {
        let mut rng = Rng::stream(5, "bounds");
        let centres: Vec<f32> = (0..60 * dim).map(|_| rng.normal() as f32).collect();
        // Around few centres, so that most centroids come to rest, and some points are equal.
        let points: Vec<f32> = (0..3000)
            .flat_map(|i| {
                let centre = &centres[i % 60 * dim..][..dim];
                let wide = if i % 10 == 0 { 0.0 } else { 0.3 };
                centre.iter().map(|x| x + rng.symmetric(wide)).collect::<Vec<_>>()
            })
            .collect();
        let mut centroids = points[..k * dim].to_vec();
        let (mut groups, mut nearest) =
            (Groups::within(3000, &centroids, dim, bounds), vec![0; 3000]);
        for iteration in 0..8 {
            let squares = groups.assign(&points, &centroids, &mut nearest);
            let row = |c: usize| &centroids[c * dim..][..dim];
            for (i, point) in points.chunks_exact(dim).enumerate() {
                let least = (0..k).map(|c| squared(point, row(c))).fold(f32::INFINITY, f32::min);
                assert_eq!(squares[i], squared(point, row(nearest[i] as usize)));
                assert!(squares[i] <= least * 1.000_01 + 1e-6, "{} {least}", squares[i]);
            }
            means(&points, dim, None, &nearest, &mut centroids);
            // As an empty cluster does.
            let far = 37 * iteration * dim;
            centroids[..dim].copy_from_slice(&points[far..far + dim]);
        }
    }
}

/// Iterations that end where nothing moves are as many one by one.
#[test]
fn rest_ends_iterations_and_changes_nothing() {
    let mut rng = Rng::stream(6, "rest");
    for (dim, n, k) in [(2, 900, 40), (4, 3000, 600), (12, 2000, 600)] {
        let points: Vec<f32> = (0..n * dim).map(|_| rng.normal() as f32).collect();
        let (mut all, mut each) = (points[..k * dim].to_vec(), points[..k * dim].to_vec());
        refine(&points, dim, &mut all, None, Lloyd::new(Start::Random, 80));
        for _ in 0..80 {
            refine(&points, dim, &mut each, None, Lloyd::new(Start::Random, 1));
        }
        assert_eq!(all, each);
        // It is there indeed.
        refine(&points, dim, &mut each, None, Lloyd::new(Start::Random, 1));
        assert_eq!(all, each);
    }
}
