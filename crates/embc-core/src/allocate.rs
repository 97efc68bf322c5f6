//! Bytes over tables by what they buy: each table offers what it could become, and one price a byte
//! says what each takes.
//!
//! Losses are added up over tables, so the best set under a budget lies on the tables' lower convex
//! hulls, but for the last step (Lagrange multipliers; Shoham and Gersho 1988).

/// What a table could become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// What it would take.
    pub bytes: u64,
    /// What it would lose, in units that all tables share.
    pub loss: f64,
}

/// Of each table's choices one, so that they lose least within `bytes`; none where not even the
/// smallest of each fit.
pub fn allocate(tables: &[Vec<Choice>], bytes: u64) -> Option<Vec<usize>> {
    let smallest = tables.iter().map(|choices| choices.iter().map(|c| c.bytes).min());
    let smallest: Vec<u64> = smallest.collect::<Option<_>>()?;
    let mut left = bytes.checked_sub(smallest.iter().sum())?;
    // What could not fit would hide what does.
    let fits = |(choices, least): (&Vec<Choice>, &u64)| hull(choices, left + least);
    let hulls: Vec<Vec<usize>> = tables.iter().zip(&smallest).map(fits).collect();
    // Steps from one choice of a hull to the next, those that save most a byte first. Along a hull they
    // save less and less, so they come in its order.
    let mut steps = Vec::new();
    for (t, (choices, hull)) in tables.iter().zip(&hulls).enumerate() {
        for (at, pair) in hull.windows(2).enumerate() {
            let [from, to] = [pair[0], pair[1]].map(|i| choices[i]);
            let saved = (from.loss - to.loss) / (to.bytes - from.bytes) as f64;
            steps.push((saved, t, at, to.bytes - from.bytes));
        }
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut taken = vec![0; tables.len()];
    for (_, t, at, more) in steps {
        if taken[t] == at && more <= left {
            taken[t] += 1;
            left -= more;
        }
    }
    let mut chosen: Vec<usize> = hulls.iter().zip(taken).map(|(hull, at)| hull[at]).collect();
    while let Some((t, i)) = best_step(tables, &chosen, left) {
        left = left + tables[t][chosen[t]].bytes - tables[t][i].bytes;
        chosen[t] = i;
    }
    Some(chosen)
}

/// The table and choice, above the hulls too, that save most with the bytes that are left.
fn best_step(tables: &[Vec<Choice>], chosen: &[usize], left: u64) -> Option<(usize, usize)> {
    let mut best = (0.0, None);
    for (t, (choices, &now)) in tables.iter().zip(chosen).enumerate() {
        for (i, choice) in choices.iter().enumerate() {
            let saved = choices[now].loss - choice.loss;
            if choice.bytes <= choices[now].bytes + left && saved > best.0 {
                best = (saved, Some((t, i)));
            }
        }
    }
    best.1
}

/// The lower convex hull of losses over bytes, from the least bytes to `most`, as places in `choices`.
fn hull(choices: &[Choice], most: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..choices.len()).filter(|&i| choices[i].bytes <= most).collect();
    let key = |i: usize| (choices[i].bytes, choices[i].loss);
    order.sort_by(|&a, &b| key(a).0.cmp(&key(b).0).then(key(a).1.total_cmp(&key(b).1)));
    let mut hull: Vec<usize> = Vec::new();
    for i in order {
        let Choice { bytes, loss } = choices[i];
        if hull
            .last()
            .is_some_and(|&last| choices[last].loss <= loss || choices[last].bytes == bytes)
        {
            continue;
        }
        while let [.., a, b] = hull[..] {
            let slope =
                |from: Choice, to: Choice| (from.loss - to.loss) / (to.bytes - from.bytes) as f64;
            if slope(choices[a], choices[b]) > slope(choices[b], choices[i]) {
                break;
            }
            hull.pop();
        }
        hull.push(i);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(of: &[(u64, f64)]) -> Vec<Choice> {
        of.iter().map(|&(bytes, loss)| Choice { bytes, loss }).collect()
    }

    /// The best of all sets, by trying each.
    fn best(tables: &[Vec<Choice>], bytes: u64) -> Option<f64> {
        let Some((first, rest)) = tables.split_first() else { return Some(0.0) };
        let each = first.iter().filter(|choice| choice.bytes <= bytes);
        each.filter_map(|choice| Some(choice.loss + best(rest, bytes - choice.bytes)?))
            .min_by(f64::total_cmp)
    }

    #[test]
    fn what_saves_most_a_byte_comes_first_and_what_is_left_is_used() {
        let tables = [
            choices(&[(30, 1.0), (10, 9.0), (20, 8.5), (60, 0.0)]),
            choices(&[(5, 4.0), (50, 3.9), (9, 2.0)]),
        ];
        for (bytes, expect) in
            [(14, None), (15, Some([1, 0])), (19, Some([1, 2])), (39, Some([0, 2]))]
        {
            assert_eq!(allocate(&tables, bytes), expect.map(Vec::from), "{bytes}");
        }
        let all = allocate(&tables, 1000).unwrap();
        assert_eq!(all, [3, 2]);
        // Above the hull of all choices, and the best that fits.
        let one = [choices(&[(10, 9.0), (30, 6.0), (60, 0.0)])];
        assert_eq!(allocate(&one, 35), Some(vec![1]));
    }

    #[test]
    fn it_is_near_the_best_of_all_sets() {
        let mut rng = crate::rng::Rng::stream(1, "choices");
        let (mut gaps, mut sets, mut equal) = (0.0, 0, 0);
        for _ in 0..200 {
            let table = |rng: &mut crate::rng::Rng| -> Vec<Choice> {
                let choice = |_| Choice { bytes: 1 + rng.below(40), loss: rng.unit() };
                (0..5).map(choice).collect()
            };
            let tables: Vec<_> = (0..4).map(|_| table(&mut rng)).collect();
            let bytes = 20 + rng.below(120);
            let (found, best) = (allocate(&tables, bytes), best(&tables, bytes));
            assert_eq!(found.is_some(), best.is_some());
            let Some(found) = found else { continue };
            let pairs = || tables.iter().zip(&found).map(|(choices, &i)| choices[i]);
            assert!(pairs().map(|choice| choice.bytes).sum::<u64>() <= bytes);
            let loss: f64 = pairs().map(|choice| choice.loss).sum();
            let gap = loss - best.unwrap();
            assert!((-1e-9..0.5).contains(&gap), "{loss} {best:?}");
            (gaps, sets, equal) = (gaps + gap, sets + 1, equal + u32::from(gap < 1e-9));
        }
        let mean = gaps / f64::from(sets);
        assert!(mean < 0.02 && 3 * equal > 2 * sets, "{mean}, {equal} of {sets}");
    }
}
