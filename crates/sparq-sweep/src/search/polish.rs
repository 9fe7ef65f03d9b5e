//! An evolution of allocations, judged by the divergence of whole models.

use super::base::Score;
use super::knapsack::{BUDGET_SLACK, Item};
use crate::Result;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// Offspring of a generation, and how many of them go on to each round: they are first judged on a quarter of the probe,
/// the better ones on half, the best on all. The schedule is EvoPress's, scaled down.
const ROUNDS: [usize; 3] = [16, 4, 1];

/// Units that a mutation raises: the smaller of two draws up to this, as in EvoPress.
const RAISED: usize = 3;

/// A candidate whose error is up to this many times that of one that costs no more stays in play: errors on calibration
/// tokens tell no finer.
const NEAR: f64 = 1.25;

/// Where choices of candidates, one for each unit, are judged.
pub(super) trait Arena {
    /// Number of sequences of the probe text.
    fn sequences(&self) -> usize;

    /// Divergence of the model that `choice` names, on each of these sequences.
    fn judge(&self, choice: &[usize], sequences: &[usize]) -> Result<Vec<Score>>;

    /// Tells that what is judged from now on will be like `choice`.
    fn adopt(&mut self, choice: &[usize]) -> Result<()>;
}

/// What may be chosen.
#[derive(Debug)]
pub(super) struct Rules {
    items: Vec<Item>,
    /// Bound of the costs together.
    budget: f64,
    /// For each unit the candidates in play, from the cheapest on.
    ladders: Vec<Vec<usize>>,
}

impl Rules {
    pub(super) fn new(items: Vec<Item>, budget: f64) -> Self {
        let ladders = items.iter().map(ladder).collect();
        Self { items, budget, ladders }
    }

    /// Whether a choice keeps the budget, up to rounding.
    pub(super) fn allows(&self, choice: &[usize]) -> bool {
        self.spent(choice) <= self.budget * (1.0 + BUDGET_SLACK)
    }

    fn spent(&self, choice: &[usize]) -> f64 {
        choice.iter().zip(&self.items).map(|(&candidate, item)| item.costs[candidate]).sum()
    }

    /// The candidate above (or below) the one that `unit` has.
    fn step(&self, choice: &[usize], unit: usize, up: bool) -> Option<usize> {
        let (ladder, costs, at) = (&self.ladders[unit], &self.items[unit].costs, choice[unit]);
        let rung = ladder.iter().position(|&candidate| candidate == at);
        match (rung, up) {
            (Some(rung), true) => ladder.get(rung + 1).copied(),
            (Some(rung), false) => ladder.get(rung.checked_sub(1)?).copied(),
            (None, true) => ladder.iter().copied().find(|&candidate| costs[candidate] > costs[at]),
            (None, false) => ladder.iter().copied().rfind(|&candidate| costs[candidate] < costs[at]),
        }
    }

    /// Estimated damage mended for what a step costs; the other way round, negative, for a step down.
    fn worth(&self, choice: &[usize], unit: usize, to: usize) -> f64 {
        let (item, from) = (&self.items[unit], choice[unit]);
        let price = (item.costs[to] - item.costs[from]).abs().max(1e-12 * item.costs[to].abs());
        (item.damages[from] - item.damages[to]) / price
    }

    /// Moves one unit one step: of two drawn among those that may, the one whose step the estimates favour.
    fn take(
        &self,
        choice: &mut [usize],
        up: bool,
        spared: &BTreeSet<usize>,
        fits: impl Fn(f64) -> bool,
        random: &mut ChaCha8Rng,
    ) -> Option<usize> {
        let price = |unit: usize, to: usize| self.items[unit].costs[to] - self.items[unit].costs[choice[unit]];
        let steps: Vec<(usize, usize)> = (0..choice.len())
            .filter(|unit| !spared.contains(unit))
            .filter_map(|unit| Some((unit, self.step(choice, unit, up)?)))
            .filter(|&(unit, to)| fits(price(unit, to)))
            .collect();
        if steps.is_empty() {
            return None;
        }
        let mut draw = || steps[random.random_range(0..steps.len())];
        let (one, other) = (draw(), draw());
        let better = self.worth(choice, one.0, one.1) >= self.worth(choice, other.0, other.1);
        let (unit, to) = if better { one } else { other };
        choice[unit] = to;
        Some(unit)
    }

    /// Raises a few units, lowers others until the budget is kept again, and spends what is left; none if that leads
    /// nowhere.
    fn mutate(&self, parent: &[usize], random: &mut ChaCha8Rng) -> Option<Vec<usize>> {
        let mut choice = parent.to_vec();
        let (mut raised, mut lowered) = (BTreeSet::new(), BTreeSet::new());
        let mut draw = || random.random_range(1..=RAISED);
        for _ in 0..draw().min(draw()) {
            raised.extend(self.take(&mut choice, true, &lowered, |_| true, random));
        }
        while !self.allows(&choice) {
            lowered.insert(self.take(&mut choice, false, &raised, |_| true, random)?);
        }
        loop {
            let left = self.budget * (1.0 + BUDGET_SLACK) - self.spent(&choice);
            if self.take(&mut choice, true, &lowered, |price| price > 0.0 && price <= left, random).is_none() {
                break;
            }
        }
        (choice != parent && self.allows(&choice)).then_some(choice)
    }
}

/// Candidates in play, from the cheapest on.
fn ladder(item: &Item) -> Vec<usize> {
    let Item { costs, damages } = item;
    let least = |candidate: usize| {
        let no_dearer = (0..costs.len()).filter(|&other| costs[other] <= costs[candidate]);
        no_dearer.map(|other| damages[other]).fold(f64::INFINITY, f64::min)
    };
    let mut ladder: Vec<usize> =
        (0..costs.len()).filter(|&candidate| damages[candidate] <= NEAR * least(candidate)).collect();
    ladder.sort_by(|&x, &y| costs[x].total_cmp(&costs[y]).then(damages[y].total_cmp(&damages[x])));
    ladder
}

/// What an evolution ended with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Evolved {
    pub(super) choice: Vec<usize>,
    /// Its divergence on the whole probe.
    pub(super) divergence: f64,
    /// Those of the choices it started from.
    pub(super) starts: Vec<f64>,
}

/// The best of `starts`, then generation after generation the best of its offspring if it is better: never worse than
/// any of the starts on the whole probe.
pub(super) fn evolve(
    rules: &Rules,
    starts: &[Vec<usize>],
    generations: usize,
    seed: u64,
    arena: &mut dyn Arena,
    mut progress: impl FnMut(usize),
) -> Result<Evolved> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let all: Vec<usize> = (0..arena.sequences()).collect();
    let mut judged = Vec::with_capacity(starts.len());
    for start in starts {
        judged.push(total(&arena.judge(start, &all)?).mean());
    }
    let best = (0..starts.len()).min_by(|&x, &y| judged[x].total_cmp(&judged[y])).unwrap_or_default();
    let (mut parent, mut divergence) =
        (starts.get(best).cloned().unwrap_or_default(), judged.get(best).copied().unwrap_or(f64::INFINITY));
    arena.adopt(&parent)?;
    let mut known: BTreeSet<Vec<usize>> = starts.iter().cloned().collect();
    for generation in 0..generations {
        progress(generation);
        let mut offspring = brood(rules, &parent, &known, &mut random);
        if offspring.is_empty() {
            continue;
        }
        // A generation's few sequences are others than the last one's.
        let order: Vec<usize> = (0..all.len()).map(|index| (index + generation) % all.len()).collect();
        let mut before = 0;
        for (round, &survivors) in ROUNDS.iter().enumerate() {
            let until = all.len().div_ceil(1 << (ROUNDS.len() - 1 - round));
            offspring.truncate(survivors);
            for (choice, score) in &mut offspring {
                for more in arena.judge(choice, &order[before..until])? {
                    *score += more;
                }
            }
            offspring.sort_by(|(_, x), (_, y)| x.mean().total_cmp(&y.mean()));
            before = until;
        }
        let Some((choice, score)) = offspring.into_iter().next() else { continue };
        known.insert(choice.clone());
        if score.mean() < divergence {
            (parent, divergence) = (choice, score.mean());
            arena.adopt(&parent)?;
        }
    }
    Ok(Evolved { choice: parent, divergence, starts: judged })
}

/// Mutations of `parent` that are not known yet and differ from one another; fewer than wanted if they are hard to find.
fn brood(
    rules: &Rules,
    parent: &[usize],
    known: &BTreeSet<Vec<usize>>,
    random: &mut ChaCha8Rng,
) -> Vec<(Vec<usize>, Score)> {
    let mut found = Vec::with_capacity(ROUNDS[0]);
    for _ in 0..8 * ROUNDS[0] {
        let Some(choice) = rules.mutate(parent, random) else { continue };
        if !known.contains(&choice) && found.iter().all(|(other, _)| *other != choice) {
            found.push((choice, Score::default()));
        }
        if found.len() == ROUNDS[0] {
            break;
        }
    }
    found
}

fn total(scores: &[Score]) -> Score {
    scores.iter().fold(Score::default(), |mut sum, &score| {
        sum += score;
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Units whose damages do not add up: each pair of neighbours hurts more together than apart.
    struct Neighbours {
        items: Vec<Item>,
        adopted: Vec<usize>,
    }

    impl Neighbours {
        fn divergence(&self, choice: &[usize], sequence: usize) -> f64 {
            let damage = |unit: usize| self.items[unit].damages[choice[unit]];
            let alone: f64 = (0..choice.len()).map(damage).sum();
            let together: f64 = (1..choice.len()).map(|unit| damage(unit - 1) * damage(unit)).sum();
            // No sequence is like another.
            alone + 3.0 * together + 0.01 * damage(sequence % choice.len())
        }
    }

    impl Arena for Neighbours {
        fn sequences(&self) -> usize {
            5
        }

        fn judge(&self, choice: &[usize], sequences: &[usize]) -> Result<Vec<Score>> {
            assert!(!self.adopted.is_empty() || sequences.len() == self.sequences(), "starts are judged on all");
            let score = |&sequence| Score { sum: 7.0 * self.divergence(choice, sequence), rows: 7 };
            Ok(sequences.iter().map(score).collect())
        }

        fn adopt(&mut self, choice: &[usize]) -> Result<()> {
            self.adopted = choice.to_vec();
            Ok(())
        }
    }

    const COSTS: [f64; 4] = [0.125, 0.1875, 0.1875, 0.25];

    fn arena(units: usize) -> Neighbours {
        let scale = |unit: usize| f64::from(u8::try_from(unit * unit % 7).expect("small") + 1);
        let damages = |unit| [0.4, 0.21, 0.2, 0.05].map(|damage| damage * scale(unit) / 7.0).to_vec();
        let costs = |unit: usize| COSTS.map(|cost| (1.0 + (unit % 3) as f64) * cost).to_vec();
        let items = (0..units).map(|unit| Item { costs: costs(unit), damages: damages(unit) });
        Neighbours { items: items.collect(), adopted: Vec::new() }
    }

    fn rules(arena: &Neighbours) -> Rules {
        // What the second of the candidates costs everywhere.
        Rules::new(arena.items.clone(), arena.items.iter().map(|item| item.costs[1]).sum())
    }

    fn on_all(arena: &Neighbours, choice: &[usize]) -> f64 {
        let all: Vec<usize> = (0..arena.sequences()).collect();
        total(&arena.judge(choice, &all).expect("judged")).mean()
    }

    /// The least divergence of every choice there is.
    fn least(rules: &Rules, arena: &Neighbours) -> f64 {
        let mut choice = vec![0; arena.items.len()];
        let mut least = f64::INFINITY;
        loop {
            if rules.allows(&choice) {
                least = least.min(on_all(arena, &choice));
            }
            let Some(digit) = choice.iter().position(|&candidate| candidate + 1 < COSTS.len()) else { return least };
            choice[..digit].fill(0);
            choice[digit] += 1;
        }
    }

    #[test]
    fn it_comes_close_to_the_best_of_all_choices() {
        let mut arena = arena(6);
        arena.adopted = vec![0];
        let (rules, starts) = (rules(&arena), [vec![1; 6], vec![0; 6]]);
        let least = least(&rules, &arena);
        let run = |generations, arena: &mut Neighbours| {
            evolve(&rules, &starts, generations, 0, arena, |_| ()).expect("evolves")
        };
        let none = run(0, &mut arena);
        assert_eq!((&none.choice, none.divergence), (&starts[0], none.starts[0]), "the better start");
        let some = run(40, &mut arena);
        assert_eq!(arena.adopted, some.choice);
        assert!((some.divergence - on_all(&arena, &some.choice)).abs() < 1e-12);
        assert!(some.divergence <= 1.02 * least, "{} {least}", some.divergence);
        assert_eq!(run(40, &mut arena), some, "the same seed, the same end");
    }

    #[test]
    fn without_starts_or_sequences_nothing_breaks() {
        let mut arena = arena(3);
        arena.adopted = vec![0];
        let rules = rules(&arena);
        assert!(evolve(&rules, &[], 2, 0, &mut arena, |_| ()).expect("evolves").choice.is_empty());
    }

    proptest! {
        #[test]
        fn mutations_keep_the_budget_and_change_something(units in 1_usize..9, seed in 0_u64..200, start in 0_usize..3) {
            let rules = rules(&arena(units));
            let parent = vec![start; units];
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            for _ in 0..20 {
                if let Some(choice) = rules.mutate(&parent, &mut random) {
                    prop_assert!(rules.allows(&choice) && choice != parent);
                }
            }
        }
    }

    #[test]
    fn what_is_much_worse_than_something_as_cheap_is_not_in_play() {
        let ladder = |damages: [f64; 4]| ladder(&Item { costs: COSTS.to_vec(), damages: damages.to_vec() });
        assert_eq!(ladder([0.4, 0.21, 0.2, 0.05]), [0, 1, 2, 3]);
        assert_eq!(ladder([0.4, 0.3, 0.2, 0.05]), [0, 2, 3]);
    }
}
