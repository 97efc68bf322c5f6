//! Laws of plans: within the budget, and all of it used.

use super::{table, variants};
use embc_core::budget::{self, Budget, Rules};
use embc_core::quantize::Storage;
use embc_core::scheme::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Over vocabularies from 2 to 10 million and compressions from 1 to 10,000: a plan never
    /// exceeds its budget, and never falls short by more than a unit of the scheme.
    #[test]
    fn plans_use_their_budget_and_never_exceed_it(
        vocab in prop_oneof![2u32..100, 100u32..10_000, 10_000u32..10_000_000],
        ratio in prop_oneof![1.0f64..4.0, 4.0f64..100.0, 100.0f64..10_000.0],
    ) {
        let dim = 32;
        let tables = [table_without_counts(vocab, dim)];
        for (scheme, knobs) in variants() {
            if scheme.name() == "full" {
                continue;
            }
            let budget = Budget::Compression(ratio);
            let limit = (f64::from(vocab) * dim as f64 / ratio) as u64;
            match budget::plan(scheme, &tables, budget, Rules::default(), &knobs) {
                Ok(plans) => {
                    let params = plans[0].footprint.params;
                    prop_assert!(params <= limit, "{}: {params} > {limit}", scheme.name());
                    // The next larger size would not fit.
                    let larger = plans[0].larger;
                    prop_assert!(larger > limit, "{}: {larger} fits {limit}", scheme.name());
                }
                Err(PlanError::Infeasible(why)) => {
                    prop_assert!(why.contains(scheme.name()) || limit == 0, "{why}");
                }
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }
}

#[test]
fn plans_within_bytes_count_pointers_and_the_width_of_values() {
    for (scheme, knobs) in variants().into_iter().filter(|(s, _)| s.name() != "full") {
        let mut planned = 0;
        for storage in [Storage::Fp32, Storage::Fp16, Storage::Int8, Storage::Int4, Storage::Int2] {
            let rules = Rules { storage, ..Rules::default() };
            for bytes in [500, 5_000, 50_000, 500_000, 9_000_000] {
                let tables = [table(10_000, 32), table(500, 32), table(70_000, 32)];
                let budget = Budget::Bytes(bytes);
                match budget::plan(scheme, &tables, budget, rules, &knobs) {
                    Ok(plans) => {
                        planned += 1;
                        let took = budget::footprint(&plans).bytes();
                        assert!(took <= bytes, "{} {storage:?}: {took} > {bytes}", scheme.name());
                    }
                    Err(PlanError::Infeasible(_)) => {}
                    Err(error) => panic!("{}: {error}", scheme.name()),
                }
            }
        }
        assert!(planned > 0, "{} never fits", scheme.name());
    }
}

fn table_without_counts(vocab: u32, dim: usize) -> TableSpec {
    TableSpec { name: "t".into(), vocab, dim, counts: [].into() }
}
