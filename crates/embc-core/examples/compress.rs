//! Fit every scheme at a sixteenth of a table's memory to the table's rows, and say what is lost:
//! `cargo run --release -p embc-core --example compress`

use embc_core::optim::{Kind, Optim, Touch};
use embc_core::rng::Rng;
use embc_core::scheme::{BuildCx, Limit, SCHEMES, TableSpec, Tape};

fn main() {
    let (vocab, dim) = (4096, 32);
    let counts: Vec<u32> = (1..=vocab).map(|rank| 1 + 100_000 / rank).collect();
    let table = TableSpec { name: "items".into(), vocab, dim, counts: counts.into() };
    let mut rng = Rng::stream(1, "table");
    let target: Vec<f32> = (0..vocab as usize * dim).map(|_| rng.normal() as f32).collect();
    let ids: Vec<u32> = (0..vocab).collect();
    let (limit, optim) =
        (Limit::Params(table.full_params() / 16), Optim::new(Kind::Adam, 0.05, Touch::All));
    for scheme in SCHEMES {
        let plan = match scheme.plan_table(&table, limit, &scheme.defaults()) {
            Ok(plan) => plan,
            Err(why) => {
                println!("{:16} {why}", scheme.name());
                continue;
            }
        };
        let mut embedding = (plan.build)(&mut BuildCx::new(Rng::stream(2, "init")));
        embedding.params(&mut |param| optim.attach(param));
        let (mut rows, mut tape) = (vec![0.0; ids.len() * plan.out_dim], Tape::default());
        for _ in 0..60 {
            embedding.gather(&ids, &mut rows, &mut tape);
            let gradient: Vec<f32> = rows.iter().zip(&target).map(|(x, y)| x - y).collect();
            embedding.scatter(&ids, &gradient, &mut tape);
            embedding.params(&mut |param| optim.step(param));
        }
        embedding.gather(&ids, &mut rows, &mut tape);
        let squares: f32 = rows.iter().zip(&target).map(|(x, y)| (x - y).powi(2)).sum();
        let error = squares / target.iter().map(|y| y * y).sum::<f32>();
        println!(
            "{:16} {:>8} bytes, relative error {error:.3}",
            scheme.name(),
            plan.footprint.bytes()
        );
    }
}
