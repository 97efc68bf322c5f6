//! Splits, labels, vocabularies, negatives and shuffles on files small enough to check by hand.

use embc_core::batch::{Batch, Data, Examples, Order, Protocol, Split};
use embc_data::view::View;
use std::ops::ControlFlow;

mod support;

/// A data set as a model of rows sees it.
fn view(format: &str, files: &[(&str, &str)], more: &str, spec: &str) -> Result<View, String> {
    support::view(format, files, more, spec, Examples::Rows)
}

/// (ids of each field, label, group) of every example.
fn examples(
    run: impl FnOnce(&mut dyn FnMut(&Batch) -> ControlFlow<()>),
) -> Vec<(Vec<u32>, f32, u32)> {
    let mut all = Vec::new();
    run(&mut |batch| {
        for i in 0..batch.size {
            let ids = batch.fields.iter().flat_map(|bag| bag.ids[bag.range(i)].to_vec()).collect();
            all.push((ids, batch.labels[i], batch.groups.get(i).copied().unwrap_or(0)));
        }
        ControlFlow::Continue(())
    });
    all
}

fn train(view: &View, seed: u64, epoch: u32, batch: usize) -> Vec<(Vec<u32>, f32, u32)> {
    examples(|visit| view.train(Order { seed, epoch, batch, skip: 0, train_unknown: false }, visit))
}

/// Four users; user 1 has ties in time, user 4 a single row.
const RATINGS: &str = "1::10::5::100\n1::11::4::200\n1::12::2::200\n1::13::3::200\n2::10::4::5\n2::12::1::4\n2::11::5::3\n3::10::2::1\n3::11::2::2\n3::14::5::3\n4::10::5::9\n";

fn sizes(view: &View) -> [usize; 3] {
    [view.rows(0), view.rows(1), view.rows(2)]
}

#[test]
fn last_per_user_sorts_by_time_with_ties_in_file_order() {
    let rule = "split = { rule = \"last-per-user\", valid = 1, test = 1 }";
    let spec = "vocab = \"all\"\nlabel = { positive_min = 4 }";
    let view = view("movielens-dat", &[("ratings", RATINGS)], rule, spec).unwrap();
    assert_eq!(sizes(&view), [5, 3, 3]);
    assert_eq!(view.short_users, 1);
    // User 1's last row in the file is item 13 with 3 stars, user 2's latest is item 10.
    let test = examples(|visit| view.eval(Split::Test, Protocol::Rows, 2, visit));
    assert_eq!(test.iter().map(|e| e.1).collect::<Vec<_>>(), [0.0, 1.0, 1.0]);
    let valid = examples(|visit| view.eval(Split::Valid, Protocol::Rows, 2, visit));
    assert_eq!(valid.iter().map(|e| e.1).collect::<Vec<_>>(), [0.0, 0.0, 0.0]);
}

#[test]
fn dropped_ratings_leave_before_the_split_and_ids_rank_by_training_count() {
    let rule = "split = { rule = \"last-per-user\", valid = 1, test = 0 }";
    let spec = "vocab = \"train\"\nlabel = { positive_min = 4, drop = [3] }";
    let view = view("movielens-dat", &[("ratings", RATINGS)], rule, spec).unwrap();
    assert_eq!(sizes(&view), [7, 3, 0]);
    let items = &view.shape().fields[1];
    // In training: item 11 three times, 10 three times, 12 once; 14 only validates and is OOV.
    assert_eq!(items.counts.to_vec(), [3, 3, 1, 0]);
    let valid = examples(|visit| view.eval(Split::Valid, Protocol::Rows, 9, visit));
    assert!(
        valid.iter().any(|(ids, label, _)| ids[1] == 3 && *label == 1.0),
        "14 is OOV: {valid:?}"
    );
}

#[test]
fn rare_ids_become_oov() {
    let rule = "split = { rule = \"tail\", valid = 0.1 }";
    let spec = "min_count = 2\nlabel = { positive_min = 4 }";
    let view = view("movielens-dat", &[("ratings", RATINGS)], rule, spec).unwrap();
    assert_eq!(sizes(&view), [10, 1, 0]);
    // The last row in time validates, wherever it stands in the file: items 11 four times, 10 three
    // times, 12 twice; one once, in the unknown id.
    assert_eq!(view.shape().fields[1].counts.to_vec(), [4, 3, 2, 1]);
}

/// An id of validation alone is below a minimum count of one, with `vocab = "all"` too.
#[test]
fn ids_lie_below_their_vocabulary() {
    let rule = "split = { rule = \"tail\", valid = 0.3 }";
    for vocab in ["train", "all"] {
        for min_count in 0..3 {
            let spec = format!(
                "min_count = {min_count}\nvocab = \"{vocab}\"\nlabel = {{ positive_min = 4 }}"
            );
            let view = view("movielens-dat", &[("ratings", RATINGS)], rule, &spec).unwrap();
            let valid = examples(|visit| view.eval(Split::Valid, Protocol::Rows, 9, visit));
            for (ids, ..) in &valid {
                let fields = ids.iter().zip(&view.shape().fields);
                fields.for_each(|(&id, field)| assert!(id < field.vocab, "{spec}: {id}"));
            }
        }
    }
}

fn numbered(rows: usize) -> String {
    (0..rows).fold("y,u,v\n".into(), |text, i| text + &format!("{},{i},{}\n", i % 2, i % 3))
}

const UV: &str = "columns = { label = \"y\", categorical = [\"u\", \"v\"] }";

#[test]
fn tails_days_and_shares() {
    let of = |rule: &str| {
        let more = format!("split = {rule}\n{UV}");
        view("csv", &[("data", &numbered(1000))], &more, "").map(|view| sizes(&view))
    };
    assert_eq!(of("{ rule = \"tail\", valid = 0.0834, test = 0.0833 }"), Ok([834, 83, 83]));
    assert_eq!(of("{ rule = \"days\", days = 5 }"), Ok([800, 100, 100]));
    let [train, valid, test] =
        of("{ rule = \"random\", valid = 0.1, test = 0.2, seed = 1 }").unwrap();
    assert_eq!(train + valid + test, 1000);
    assert!((70..130).contains(&valid) && (160..240).contains(&test));
    assert!(
        of("{ rule = \"tail\", valid = 0.5, test = 0.5 }")
            .unwrap_err()
            .contains("something to train on")
    );
    let three = "columns = { label = \"all-positive\", categorical = [\"u\", \"v\", \"y\"] }";
    let more = format!("split = {{ rule = \"last-per-user\", valid = 1 }}\n{three}");
    let error = view("csv", &[("data", &numbered(100))], &more, "").err().unwrap();
    assert!(error.contains("needs a column called user"), "{error}");
    assert!(of("{ rule = \"days\", days = 1 }").unwrap_err().contains("at least 2"));
    assert!(of("{ rule = \"tial\", valid = 0.5 }").unwrap_err().contains("tial"));
    assert!(of("{ rule = \"tail\", valid = 0.5, sed = 1 }").unwrap_err().contains("sed"));
}

#[test]
fn columns_and_files() {
    let rows = "y,u,v,s\n0,a,b,t\n1,a,c,t\n1,b,b,v\n0,c,c,e\n0,d,d,x\n";
    let of = |rule: &str| {
        let more = format!("split = {{ rule = \"column\", column = \"s\", {rule} }}\n{UV}");
        view("csv", &[("data", rows)], &more, "").map(|view| sizes(&view))
    };
    let all = "train = [\"t\"], valid = [\"v\"], test = [\"e\"], drop = [\"x\"]";
    assert_eq!(of(all), Ok([2, 1, 1]));
    let unknown = of("train = [\"t\"], valid = [\"v\"]").unwrap_err();
    assert!(unknown.contains("column s has the value \"e\""), "{unknown}");
    // A share of the training rows: the same rows for the same seed, about as many as asked for.
    let many = (0..1000).fold("y,u,v,s\n".to_string(), |text, i| {
        text + &format!("{},a{i},b,{}\n", i % 2, ["t", "e"][i / 900])
    });
    let share =
        "train = [\"t\"], test = [\"e\"], valid = { from = \"train\", share = 0.1, seed = 1 }";
    let more = format!("split = {{ rule = \"column\", column = \"s\", {share} }}\n{UV}");
    let [train, valid, test] = sizes(&view("csv", &[("data", &many)], &more, "").unwrap());
    assert_eq!((train + valid, test), (900, 100));
    assert!((60..120).contains(&valid), "{valid}");
    let files = [("train", "1 10 11\n2 10\n"), ("valid", "1 12\n"), ("test", "2 11 12\n")];
    let view = view("adjacency", &files, "split = { rule = \"files\" }", "").unwrap();
    assert_eq!(sizes(&view), [3, 1, 2]);
    assert!(view.needs_negatives());
}

#[test]
fn named_splits() {
    let more = format!(
        "split = {{ rule = \"tail\", valid = 0.1 }}\nsplits.half = {{ rule = \"tail\", valid = 0.5 }}\n{UV}"
    );
    let of = |spec: &str| view("csv", &[("data", &numbered(100))], &more, spec).map(|v| sizes(&v));
    assert_eq!(of(""), Ok([90, 10, 0]));
    assert_eq!(of("split = \"half\""), Ok([50, 50, 0]));
    assert_eq!(of("split = { rule = \"tail\", valid = 0.2 }"), Ok([80, 20, 0]));
    assert!(of("split = \"third\"").unwrap_err().contains("it names half"));
}

#[test]
fn every_shuffle_is_a_permutation_of_its_own_for_each_epoch() {
    let more = format!("split = {{ rule = \"tail\", valid = 0.1 }}\n{UV}");
    for shuffle in ["\"full\"", "{ window = 50 }", "\"none\""] {
        let spec = format!("shuffle = {shuffle}");
        let view = view("csv", &[("data", &numbered(1000))], &more, &spec).unwrap();
        let first = train(&view, 1, 0, 64);
        assert_eq!(first, train(&view, 1, 0, 64), "{shuffle}");
        assert_eq!(first, train(&view, 1, 0, 7), "{shuffle}: batches cut the same order");
        let fixed = shuffle == "\"none\"";
        assert_eq!(first == train(&view, 1, 1, 64), fixed, "{shuffle}");
        assert_eq!(first == train(&view, 2, 0, 64), fixed, "{shuffle}");
        let mut users: Vec<u32> = first.iter().map(|e| e.0[0]).collect();
        users.sort();
        assert_eq!(users, (0..900).collect::<Vec<_>>(), "{shuffle}");
        let skipped = examples(|visit| {
            view.train(Order { seed: 1, epoch: 0, batch: 64, skip: 3, train_unknown: false }, visit)
        });
        assert_eq!(skipped, first[3 * 64..], "{shuffle}");
        // A visitor that stops early leaves no thread behind.
        let mut batches = 0;
        view.train(
            Order { seed: 1, epoch: 0, batch: 10, skip: 0, train_unknown: false },
            &mut |_| {
                batches += 1;
                ControlFlow::Break(())
            },
        );
        assert_eq!(batches, 1);
    }
}

#[test]
fn negatives_are_unseen_items_and_follow_their_positive() {
    let rule = "split = { rule = \"last-per-user\", valid = 1, test = 1 }";
    let of = |spec: &str| view("movielens-dat", &[("ratings", RATINGS)], rule, spec).unwrap();
    let view = of("negatives = 2\nvocab = \"all\"");
    assert_eq!(view.shape().train_rows, 15);
    let first = train(&view, 1, 0, 4);
    assert_eq!(first.len(), 15);
    type Pairs = std::collections::BTreeSet<(u32, u32)>;
    let positives = |all: &[(Vec<u32>, f32, u32)]| -> Pairs {
        all.iter().filter(|e| e.1 == 1.0).map(|e| (e.0[0], e.0[1])).collect()
    };
    let held: Vec<_> = [Split::Valid, Split::Test]
        .into_iter()
        .flat_map(|split| examples(|visit| view.eval(split, Protocol::Rows, 9, visit)))
        .collect();
    let (known, held_out) = (positives(&first), positives(&held));
    assert_eq!((known.len(), held_out.len()), (5, 6));
    let mut spared = held_out.clone();
    for epoch in 0..20 {
        for triple in train(&view, 1, epoch, 4).chunks(3) {
            assert_eq!(triple.iter().map(|e| e.1).collect::<Vec<_>>(), [1.0, 0.0, 0.0]);
            for negative in &triple[1..] {
                assert_eq!(negative.0[0], triple[0].0[0], "the same user");
                let pair = (negative.0[0], negative.0[1]);
                assert!(!known.contains(&pair), "{negative:?}");
                spared.remove(&pair);
            }
        }
    }
    // Training does not know what is held out; evaluation does.
    assert!(spared.len() < 3, "{spared:?}");
    for negative in held.iter().filter(|e| e.1 == 0.0) {
        let pair = (negative.0[0], negative.0[1]);
        assert!(!known.contains(&pair) && !held_out.contains(&pair), "{negative:?}");
    }
    assert_ne!(first, train(&view, 1, 1, 4), "drawn anew each epoch");
}

#[test]
fn rankings_leave_out_what_is_known_and_sampled_ones_have_their_number() {
    let rule = "split = { rule = \"last-per-user\", valid = 1, test = 1 }";
    let of = |spec: &str| view("movielens-dat", &[("ratings", RATINGS)], rule, spec).unwrap();
    let all = of("negatives = 1\nvocab = \"all\"");
    let test = examples(|visit| all.eval(Split::Test, Protocol::Ranking, 2, visit));
    // Five items; users 1, 2 and 3 know 3, 2 and 2 of them from training and validation.
    let per_group = |group: u32| test.iter().filter(|e| e.2 == group).count();
    let mut counts = [per_group(0), per_group(1), per_group(2)];
    counts.sort();
    assert_eq!(counts, [2, 3, 3]);
    assert_eq!(test.iter().filter(|e| e.1 == 1.0).count(), 3);
    let sampled = of("negatives = 1\ncandidates = 6\nvocab = \"all\"");
    let valid = examples(|visit| sampled.eval(Split::Valid, Protocol::Ranking, 4, visit));
    // Of five items users have 4, 3 and 3: one or two are left, each once.
    let mut lengths = [0, 1, 2].map(|group| valid.iter().filter(|e| e.2 == group).count());
    lengths.sort();
    assert_eq!(lengths, [2, 3, 3]);
    for query in valid.chunk_by(|a, b| a.2 == b.2) {
        assert!(query[0].1 == 1.0 && query[1..].iter().all(|e| e.1 == 0.0));
        let items: std::collections::BTreeSet<u32> = query.iter().map(|e| e.0[1]).collect();
        assert_eq!(items.len(), query.len());
    }
    let left_out = sampled.left_out_of_rankings();
    assert!(
        left_out.iter().any(|(what, n)| what.contains("fewer than 6") && *n == 3),
        "{left_out:?}"
    );
}

#[test]
fn dense_features_and_bags() {
    let rows = "y,x,tags,u\n0,1,a|b|a,p\n1,,,q\n0,3,b,p\n1,5,c,p\n";
    let columns = "columns = { label = \"y\", dense = [\"x\"], categorical = [\"u\"], multi = [{ name = \"tags\", separator = \"|\" }] }";
    let more = format!("split = {{ rule = \"tail\", valid = 0.25 }}\n{columns}");
    let of = |dense: &str| {
        let spec = format!("vocab = \"all\"\nshuffle = \"none\"\ndense = \"{dense}\"");
        let view = view("csv", &[("data", rows)], &more, &spec).unwrap();
        let mut seen = (Vec::new(), Vec::new(), Vec::new());
        view.train(
            Order { seed: 1, epoch: 0, batch: 9, skip: 0, train_unknown: false },
            &mut |batch| {
                seen = (
                    batch.dense.clone(),
                    batch.fields[1].ids.clone(),
                    batch.fields[1].offsets.clone(),
                );
                ControlFlow::Continue(())
            },
        );
        seen
    };
    // The mean of 1 and 3 is 2, their deviation 1; the missing value is 0 in every transformation.
    // b stands in two training rows, a in one, though twice.
    assert_eq!(of("standard"), (vec![-1.0, 0.0, 1.0], vec![1, 0, 1, 0], vec![0, 3, 3, 4]));
    assert_eq!(of("raw").0, [1.0, 0.0, 3.0]);
    assert_eq!(of("log1p").0, [2f32.ln(), 0.0, 4f32.ln()]);
    assert_eq!(of("floor-log2").0, [1.0, 0.0, 1.0]);
}

#[test]
fn synthetic_data_has_the_planted_shape() {
    let more = "split = { rule = \"tail\", valid = 0.1, test = 0.1 }\nsynth = { kind = \"criteo\", rows = 3000, seed = 1 }";
    let criteo = view("synth", &[], more, "").unwrap();
    assert_eq!((criteo.shape().dense, criteo.shape().fields.len()), (13, 26));
    let labels = train(&criteo, 1, 0, 100);
    let rate = labels.iter().map(|e| e.1).sum::<f32>() / labels.len() as f32;
    assert!((0.2..0.35).contains(&rate), "{rate}");
    let wrong = "split = { rule = \"tail\", valid = 0.1 }\nsynth = { kind = \"gmf\", rows = 10, vocab = 400, seed = 1 }";
    assert!(view("synth", &[], wrong, "").err().unwrap().contains("make 0 items a user"));
}

/// What a view came to, asked for again, comes to the same: an order runs wherever the data is.
#[test]
fn a_resolved_view_asks_for_itself() {
    let rows: String = (0..60)
        .map(|i| format!("{},{},u{},i{},{i}\n", 1 + i % 5, i % 2, i % 6, i * 7 % 11))
        .collect();
    let rows = format!("stars,click,user,item,t\n{rows}");
    let mut tried = 0;
    for label in [
        "label = \"all-positive\"",
        "label = \"all-positive\", negatives = 3",
        "label = \"click\"",
        "label = \"click\", negatives = 2",
        "label = \"click\", dense = [\"stars\"]",
        "label = \"stars\", rating = true",
        "label = \"stars\", classes = true",
    ] {
        let more = format!(
            "split = {{ rule = \"last-per-user\", valid = 1, test = 1 }}\ncolumns = {{ {label}, time = \"t\", categorical = [\"user\", \"item\"] }}"
        );
        for spec in [
            "",
            "negatives = 0",
            "negatives = 4",
            "min_count = 2\nvocab = \"all\"",
            "label = { positive_min = 4 }",
            "history = 9\ncandidates = 5\nvalid_queries = 0.5",
            "user = \"item\"\nitem = \"user\"",
            "dense = \"raw\"",
            "dense = \"standard\"",
            "had = \"positives\"",
            "split = { rule = \"random\", valid = 0.2, test = 0.2, seed = 3 }\nshuffle = \"none\"",
        ] {
            for by in [Examples::Rows, Examples::Users, Examples::Pairs] {
                let of = |spec: &str| support::view("csv", &[("data", &rows)], &more, spec, by);
                let Ok(view) = of(spec) else { continue };
                let asked = toml::to_string(&view.resolved().asked(by)).unwrap();
                let again =
                    of(&asked).unwrap_or_else(|e| panic!("{label} {spec:?} {by:?}: {e}\n{asked}"));
                assert_eq!(again.resolved(), view.resolved(), "{label} {spec:?} {by:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 60, "{tried}");
}
