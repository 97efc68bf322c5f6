//! Histories, targets and candidates, on files small enough to check by hand.

use embc_core::batch::{Bag, Batch, Data, Examples, Order, Protocol, Split};
use embc_data::view::View;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

mod support;

/// User, item, rating, time. User 1 rates item 10 again, and 15, which only tests; user 2's times
/// are backwards in the file; user 3 has one training item.
const RATINGS: &str = "1::10::5::1\n1::11::4::2\n1::10::1::3\n1::12::2::4\n1::13::3::5\n1::14::3::6\n1::15::3::7\n2::12::1::9\n2::11::5::8\n2::10::4::7\n2::13::4::6\n2::14::4::5\n3::10::5::9\n3::13::5::10\n3::11::5::11\n";
const SPLIT: &str = "split = { rule = \"last-per-user\", valid = 1, test = 1 }";

fn view(spec: &str, examples: Examples) -> Result<View, String> {
    support::view("movielens-dat", &[("ratings", RATINGS)], SPLIT, spec, examples)
}

fn of(bag: &Bag, i: usize) -> Vec<u32> {
    match bag.offsets.is_empty() && bag.ids.is_empty() {
        true => Vec::new(),
        false => bag.ids[bag.range(i)].to_vec(),
    }
}

/// The bags of every example: its fields, and then targets, known items and candidates.
fn examples(run: impl FnOnce(&mut dyn FnMut(&Batch) -> ControlFlow<()>)) -> Vec<Vec<Vec<u32>>> {
    let mut all = Vec::new();
    run(&mut |batch| {
        for i in 0..batch.size {
            let more = [&batch.targets, &batch.seen, &batch.candidates];
            all.push(batch.fields.iter().chain(more).map(|bag| of(bag, i)).collect());
        }
        ControlFlow::Continue(())
    });
    all
}

fn train(view: &View, epoch: u32, batch: usize) -> Vec<Vec<Vec<u32>>> {
    examples(|visit| {
        view.train(Order { seed: 1, epoch, batch, skip: 0, train_unknown: false }, visit)
    })
}

fn queries(view: &View, split: Split) -> Vec<Vec<Vec<u32>>> {
    examples(|visit| view.eval(split, Protocol::Ranking, 2, visit))
}

/// Names of a view's ids are ranks by training count: 10 three times (again by user 1, a row that
/// histories leave out), then 11, 12, 13 and 14 in the order of their values where counts tie.
fn known_items(view: &View) -> usize {
    view.shape().classes
}

#[test]
fn a_query_has_what_was_known_before_it() {
    let view = view("", Examples::Users).unwrap();
    assert_eq!(known_items(&view), 5, "15 is in no training row");
    assert_eq!(view.shape().train_rows, 2, "user 3 has one training item");
    let [valid, test] = [Split::Valid, Split::Test].map(|split| queries(&view, split));
    // What a user knows grows by the item that validated, and time orders it.
    for (valid, test) in valid.iter().zip(&test) {
        let [before, target] = [&valid[0], &valid[1]];
        assert_eq!(test[0], [&before[..], target].concat());
        assert_eq!(target.len(), 1);
        let mut sorted = before.clone();
        sorted.sort();
        assert_eq!(valid[2], sorted, "known items, ascending");
        assert!(!test[0].contains(&test[1][0]));
    }
    assert_eq!(valid[0][0].len(), 4, "user 1 rated an item twice");
    assert_eq!(test[0][1], [5], "the unknown item has the OOV id");
    let left_out = &view.left_out;
    let count = |what: &str| left_out.iter().find(|(k, _)| k.contains(what)).map(|(_, n)| *n);
    assert_eq!(count("already had"), Some(1));
    assert_eq!(count("one training item"), Some(1));
    assert_eq!(count("test items outside the vocabulary"), Some(1));
    assert_eq!(count("without a history"), None);
    let item = |time: usize| test[1][0][time];
    // User 2 in time order: 14, 13, 10 train, 11 validates, 12 tests.
    assert_eq!(test[1][0].len(), 4);
    assert_eq!(item(2), 0, "item 10 is the most frequent");
}

#[test]
fn a_user_is_half_history_half_targets_anew_each_epoch() {
    let view = view("", Examples::Users).unwrap();
    let whole: Vec<Vec<u32>> = queries(&view, Split::Valid)[..2]
        .iter()
        .map(|query| {
            let mut items = query[0].clone();
            items.sort();
            items
        })
        .collect();
    let mut halves = BTreeMap::new();
    for epoch in 0..20 {
        let drawn = train(&view, epoch, 1);
        assert_eq!(drawn, train(&view, epoch, 64), "batches change nothing");
        for example in drawn {
            let [history, targets] = [&example[0], &example[1]];
            assert_eq!(history.len(), (history.len() + targets.len()) / 2);
            let mut items = [&history[..], targets].concat();
            items.sort();
            assert!(whole.contains(&items), "{items:?}");
            *halves.entry(example).or_insert(0) += 1;
        }
    }
    assert!(halves.len() > 4, "{halves:?}");
}

#[test]
fn an_event_follows_what_came_before_up_to_the_history() {
    let view = view("history = 2", Examples::Events).unwrap();
    let mut events = train(&view, 0, 3);
    assert_eq!((events.len(), view.shape().train_rows), (5, 5));
    events.sort_by_key(|event| (event[0].len(), event[0].clone()));
    let user1 = &queries(&view, Split::Valid)[0];
    assert_eq!(user1[0].len(), 2, "the last two of four");
    // The last item, after the two before it.
    let last = |e: &&Vec<Vec<u32>>| e[1][0] == user1[0][1] && e[0].get(1) == Some(&user1[0][0]);
    assert_eq!(events.iter().find(last).map(|event| event[0].len()), Some(2));
    assert!(view.left_out.keys().any(|what| what.contains("more training items than the 2")));
}

#[test]
fn a_pair_is_an_item_of_the_user_and_one_that_is_not() {
    let text: String = (0..20).map(|i| format!("9::{}::5::{i}\n", 100 + i)).collect();
    let text = RATINGS.to_string() + &text;
    let files = [("ratings", &text[..])];
    let spec = "candidates = 3";
    let view = support::view("movielens-dat", &files, SPLIT, spec, Examples::Pairs).unwrap();
    let pairs = train(&view, 0, 7);
    assert_eq!(pairs.len() as u64, view.shape().train_rows);
    assert_eq!(pairs.len(), 4 + 3 + 18);
    let others = |epoch| -> Vec<u32> { train(&view, epoch, 7).iter().map(|p| p[2][0]).collect() };
    assert_ne!(others(0), others(1));
    // Held-out items are not spared: training knows nothing of them.
    let test: Vec<u32> = queries(&view, Split::Test).iter().map(|query| query[1][0]).collect();
    assert!((0..30).any(|epoch| others(epoch).iter().any(|other| test.contains(other))));
    let whole = train(&view, 0, 7);
    let spec = "candidates = 3\nhistory = 2";
    let cut = support::view("movielens-dat", &files, SPLIT, spec, Examples::Pairs).unwrap();
    for (whole, cut) in whole.iter().zip(train(&cut, 0, 7)) {
        assert_eq!(cut[0], whole[0][whole[0].len().saturating_sub(2)..], "the last two others");
        assert_eq!(cut[1..], whole[1..]);
    }
    for pair in &pairs {
        assert!(!pair[0].contains(&pair[1][0]), "the item is not in its own history");
        assert!(!pair[0].contains(&pair[2][0]) && pair[1] != pair[2]);
    }
    // Each test item among three that the user does not have; field 1 is the candidate.
    let mut groups: BTreeMap<u32, Vec<(u32, f32)>> = BTreeMap::new();
    view.eval(Split::Test, Protocol::Ranking, 3, &mut |batch| {
        for i in 0..batch.size {
            let candidate = (batch.fields[1].ids[i], batch.labels[i]);
            groups.entry(batch.groups[i]).or_default().push(candidate);
        }
        ControlFlow::Continue(())
    });
    assert_eq!(groups.len(), 4);
    for candidates in groups.values() {
        assert_eq!(candidates.iter().map(|c| c.1).sum::<f32>(), 1.0);
        assert_eq!(candidates.len(), 4);
    }
}

#[test]
fn candidates_of_files_are_read_and_checked() {
    let pairs = "user,item,part\na,x,0\na,y,0\nb,z,0\nb,x,0\na,z,2\nb,y,2\n";
    let split = "split = { rule = \"column\", column = \"part\", train = [\"0\"], valid = { from = \"train\", share = 0.0, seed = 1 }, test = [\"2\"] }";
    let open = |rating: &str, negative: &str| {
        let files = [("pairs", pairs), ("loo_rating", rating), ("loo_negative", negative)];
        support::view("pairs-csv", &files, split, "candidates = \"files\"", Examples::Users)
    };
    // Ids count first appearances: a b, x y z. One negative of user a is the test item.
    let view = open("0\t2\t5\n1\t1\t5\n", "(0,2)\t0\t2\n(1,1)\t2\n").unwrap();
    let test = queries(&view, Split::Test);
    assert_eq!(test.len(), 2);
    for query in &test {
        assert_eq!((query[3].len(), query[3][0]), (2, query[1][0]), "the target, one negative");
        assert!(query[2].is_empty());
    }
    assert!(view.left_out.iter().any(|(what, n)| what.contains("test item itself") && *n == 1));
    let refused = |rating: &str, negative: &str, what: &str| {
        let error = open(rating, negative).err().unwrap();
        assert!(error.contains(what), "{error}");
    };
    refused("0\t1\t5\n", "", "hold out other items than the split");
    refused("0\t9\n", "", "loo_rating:1: does not begin with a user and an item");
    refused("0\t2\n", "(0,2)\t0\n(1,1)\t0\n", "loo_negative:2: does not begin with a (user,item)");
    refused("0\t2\n", "(0,2)\tx\n", "\"x\" is no item");
}

#[test]
fn what_histories_cannot_be_made_of() {
    let csv = "columns = { label = \"click\", categorical = [\"a\", \"b\", \"c\"] }\nsplit = { rule = \"tail\", valid = 0.3 }";
    let files = [("data", "click,a,b,c\n1,1,1,1\n0,1,1,1\n1,2,2,2\n")];
    let error = support::view("csv", &files, csv, "", Examples::Users).err().unwrap();
    assert!(error.contains("needs a user and an item column"), "{error}");
    let files = [("ratings", "1::1::5::1\n2::2::5::2\n3::1::5::3\n")];
    let error = support::view("movielens-dat", &files, SPLIT, "", Examples::Users).err().unwrap();
    assert!(error.contains("no user has two training items"), "{error}");
    for (spec, examples, what) in [
        ("valid_queries = 0.0", Examples::Users, "valid_queries must be above 0"),
        ("history = 0", Examples::Users, "history must be positive"),
        ("negatives = 2", Examples::Events, "negatives is for models that read rows"),
        ("shuffle = \"none\"", Examples::Users, "histories are always shuffled"),
        ("", Examples::Pairs, "needs [data] history"),
        ("candidates = \"files\"", Examples::Rows, "is for models that read histories"),
    ] {
        let error = view(spec, examples).err().unwrap();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_share_of_users_validates_and_all_test() {
    let text: String = (0..400)
        .flat_map(|user| (0..4).map(move |i| format!("{user}::{}::5::{i}\n", (user + i) % 9)))
        .collect();
    let files = [("ratings", &text[..])];
    let of = |spec: &str, examples| {
        support::view("movielens-dat", &files, SPLIT, spec, examples).unwrap()
    };
    for examples in [Examples::Users, Examples::Events] {
        let view = of("valid_queries = 0.25", examples);
        assert!((70..130).contains(&queries(&view, Split::Valid).len()));
        assert_eq!(queries(&view, Split::Test).len(), 400);
    }
    // Rows are asked in groups of a user's candidates.
    let groups = |split| {
        let view = of("valid_queries = 0.25\nnegatives = 1", Examples::Rows);
        let mut last = 0;
        view.eval(split, Protocol::Ranking, 64, &mut |batch| {
            last = *batch.groups.last().unwrap();
            ControlFlow::Continue(())
        });
        last + 1
    };
    assert!((70..130).contains(&groups(Split::Valid)));
    assert_eq!(groups(Split::Test), 400);
}

/// Multi-valued fields end after `history` ids.
#[test]
fn documents_are_cut_and_empty_ones_counted() {
    let line = |split: &str, label: &str, text: &str| {
        format!(
            "{{\"split\":\"{split}\",\"label\":\"{label}\",\"id\":\"1\",\"text\":\"{text}\"}}\n"
        )
    };
    let text =
        line("train", "x", "one two three") + &line("train", "y", "") + &line("test", "x", "two");
    let split = "split = { rule = \"column\", column = \"split\", train = [\"train\"], test = [\"test\"], valid = { from = \"train\", share = 0.0, seed = 1 } }";
    let files = [("data", &text[..])];
    let view = support::view("text-jsonl", &files, split, "history = 2", Examples::Rows).unwrap();
    let mut lengths: Vec<usize> = train(&view, 0, 2).iter().map(|e| e[0].len()).collect();
    lengths.sort();
    assert_eq!(lengths, [0, 2]);
    let left_out: Vec<(String, u64)> = view.left_out.clone().into_iter().collect();
    let expect = [("rows with nothing in text", 1), ("rows with text cut to the first 2 ids", 1)];
    assert_eq!(left_out, expect.map(|(what, n)| (what.to_string(), n)));
}
