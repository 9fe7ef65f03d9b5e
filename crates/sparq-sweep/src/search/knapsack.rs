//! The choice of one candidate for each unit that does least damage within a budget.

/// A unit: the cost and the damage of each candidate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// Cost of each candidate.
    pub(crate) costs: Vec<f64>,
    /// Damage of each candidate.
    pub(crate) damages: Vec<f64>,
}

/// Costs are sums of many products. An excess over the budget below this share of it is rounding.
pub(crate) const BUDGET_SLACK: f64 = 1e-9;

/// Damage of a choice of candidates.
pub(crate) fn total(items: &[Item], chosen: &[usize]) -> f64 {
    items.iter().zip(chosen).map(|(item, &candidate)| item.damages[candidate]).sum()
}

/// Chooses a candidate for each item so that the sum of costs stays within `budget` and the sum of damages is small.
/// Starts from the cheapest choice. Then, as long as a step along the lower convex hull of an item's candidates fits,
/// takes the one that saves the most damage for its cost. The rest of the budget is less than one step, so the sum of
/// damages is within one step of the least possible.
///
/// None if the cheapest choice of all is beyond the budget. Ties go to the item that comes first.
pub(crate) fn choose(items: &[Item], budget: f64) -> Option<Vec<usize>> {
    let hulls: Vec<Vec<usize>> = items.iter().map(hull).collect();
    let mut at = vec![0_usize; items.len()];
    let spent = |item: usize, candidate: usize| items[item].costs[candidate];
    let mut left = budget - hulls.iter().enumerate().map(|(item, hull)| spent(item, hull[0])).sum::<f64>();
    let slack = BUDGET_SLACK * budget.abs();
    if left.is_nan() || left < -slack {
        return None;
    }
    loop {
        let step = |item: usize| {
            let (from, to) = (hulls[item][at[item]], *hulls[item].get(at[item] + 1)?);
            let price = spent(item, to) - spent(item, from);
            let gain = items[item].damages[from] - items[item].damages[to];
            (price <= left + slack).then_some((gain / price, price))
        };
        let steps = (0..items.len()).filter_map(|item| Some((item, step(item)?)));
        let best = steps.max_by(|(x, (a, _)), (y, (b, _))| a.total_cmp(b).then(y.cmp(x)));
        let Some((item, (_, price))) = best else { break };
        at[item] += 1;
        left -= price;
    }
    Some(at.iter().zip(&hulls).map(|(at, hull)| hull[*at]).collect())
}

/// Candidates on the lower convex hull of damage over cost, from the cheapest on; damages fall along it.
fn hull(item: &Item) -> Vec<usize> {
    let Item { costs, damages } = item;
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by(|&x, &y| costs[x].total_cmp(&costs[y]).then(damages[x].total_cmp(&damages[y])));
    let mut hull: Vec<usize> = Vec::new();
    for candidate in order {
        if hull.last().is_some_and(|&last| damages[candidate] >= damages[last]) {
            continue;
        }
        let slope = |from: usize, to: usize| (damages[from] - damages[to]) / (costs[to] - costs[from]);
        while let [.., before, last] = hull[..]
            && slope(before, last) <= slope(last, candidate)
        {
            hull.pop();
        }
        hull.push(candidate);
    }
    hull
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COSTS: [f64; 4] = [0.125, 0.25, 0.5, 1.0];

    fn item(weights: f64, damages: Vec<f64>) -> Item {
        Item { costs: COSTS[..damages.len()].iter().map(|cost| weights * cost).collect(), damages }
    }

    fn spent(items: &[Item], chosen: &[usize]) -> f64 {
        items.iter().zip(chosen).map(|(item, &candidate)| item.costs[candidate]).sum()
    }

    /// Every choice there is.
    fn best(items: &[Item], budget: f64) -> Option<f64> {
        let mut least = None;
        let mut chosen = vec![0; items.len()];
        loop {
            if spent(items, &chosen) <= budget * (1.0 + 1e-9) {
                let damage = total(items, &chosen);
                least = Some(least.map_or(damage, |least: f64| least.min(damage)));
            }
            let Some(digit) = chosen.iter().position(|&candidate| candidate + 1 < COSTS.len()) else { return least };
            chosen[..digit].fill(0);
            chosen[digit] += 1;
        }
    }

    proptest! {
        #[test]
        fn it_keeps_the_budget_and_is_within_one_step_of_the_best(
            items in proptest::collection::vec((1.0_f64..5.0, proptest::collection::vec(0.0_f64..1.0, 4)), 1..6),
            budget in 0.1_f64..20.0,
        ) {
            let items: Vec<Item> = items.into_iter().map(|(weights, damages)| item(weights, damages)).collect();
            let chosen = choose(&items, budget);
            let least = best(&items, budget);
            prop_assert_eq!(chosen.is_some(), least.is_some());
            if let (Some(chosen), Some(least)) = (chosen, least) {
                prop_assert!(spent(&items, &chosen) <= budget * (1.0 + 1e-8));
                let step = items.iter().flat_map(|item| &item.damages).fold(0.0_f64, |most, &damage| most.max(damage));
                prop_assert!(total(&items, &chosen) <= least + step, "{} {}", total(&items, &chosen), least);
            }
        }
    }

    #[test]
    fn what_is_sensitive_gets_more() {
        let items: Vec<Item> =
            [1.0, 10.0, 1.0].map(|scale| item(1.0, [0.4, 0.1, 0.02].map(|damage| scale * damage).to_vec())).to_vec();
        assert_eq!(choose(&items, 0.75), Some(vec![0, 2, 0]));
        assert_eq!(choose(&items, 0.3), None);
        assert_eq!(choose(&items, 2.0), Some(vec![2, 2, 2]));
    }
}
