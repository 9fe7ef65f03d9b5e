use super::common_prefix;
use super::continuation::{Continuation, ContinuationScore};
use super::head::{Query, ask};
use crate::dealt::dealt;
use crate::{Error, LanguageModel, Result};
use ndarray::Array2;
use sparq_core::{Ranks, message};

/// Tokens that the caches of a batch may hold together, as a multiple of the tokens that run: long prompts whose choices
/// each need a copy of the cache bound the memory, not the work.
const CACHED_TOKENS: usize = 8;
/// A shared prefix shorter than this is run again for each choice: it costs less than another pass.
const WORTH_SHARING: usize = 4;

/// Scores the continuations of many items, each item being a list of them.
///
/// A prefix that all continuations of all items share is run once. A prefix that the continuations of one item share is
/// run once for the item, and its cache is cloned for each of them. Items run together until about `batch_tokens`
/// tokens are reached. Only positions that predict a scored token go through the output layer. `progress` gets the
/// number of items done and the number of all.
///
/// # Errors
/// The model's; [`Error::NotFinite`]; [`Error::Setting`] if `batch_tokens` is 0.
///
/// # Examples
/// ```no_run
/// use sparq_eval::{Continuation, score_continuations};
/// let model = sparq_model::Model::open("models/SmolLM2-135M")?;
/// let choice = |text| Continuation::encode(&model, "The sky is", text, true);
/// let scores = score_continuations(&model, &[vec![choice(" blue")?, choice(" wooden")?]], 2048, &|_, _| {})?;
/// assert!(scores[0][0].log_likelihood > scores[0][1].log_likelihood);
/// # Ok::<(), sparq_eval::Error>(())
/// ```
pub fn score_continuations<M: LanguageModel>(
    model: &M,
    items: &[Vec<Continuation>],
    batch_tokens: usize,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<Vec<ContinuationScore>>> {
    score_by(&Ranks::default(), model, items, batch_tokens, progress)
}

/// The same, shared by processes.
pub(crate) fn score_by<M: LanguageModel>(
    ranks: &Ranks,
    model: &M,
    items: &[Vec<Continuation>],
    batch_tokens: usize,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<Vec<ContinuationScore>>> {
    if batch_tokens == 0 {
        return Err(Error::setting("batch_tokens", "at least 1 is needed"));
    }
    model.check_length(items.iter().flatten().map(|choice| choice.inputs().len()).max().unwrap_or(0))?;
    let (root_length, root) = root(model, items)?;
    let plans: Vec<Plan<'_>> = items.iter().map(|item| Plan::new(item, root_length)).collect();
    let (mut batches, mut rest) = (Vec::new(), plans.as_slice());
    while !rest.is_empty() {
        let (mut tokens, mut cached) = (0, 0);
        let fitting = rest.iter().take_while(|plan| {
            tokens += plan.cost(root_length);
            cached += plan.cached();
            tokens <= batch_tokens && cached <= CACHED_TOKENS.saturating_mul(batch_tokens)
        });
        let (batch, later) = rest.split_at(fitting.count().max(1));
        batches.push(batch);
        rest = later;
    }
    let mut done = 0;
    let messages = dealt(ranks, batches.len(), |index| {
        let mut bytes = Vec::new();
        for score in score_batch(model, batches[index], root_length, &root)?.into_iter().flatten() {
            message::put_number(&mut bytes, score.log_likelihood);
            bytes.push(u8::from(score.greedy));
        }
        done += batches[index].len() * ranks.size();
        progress(done.min(items.len()), items.len());
        Ok(bytes)
    })?;
    let messages = messages.concat();
    let mut rest = messages.as_slice();
    let mut of = |_: &Continuation| {
        let log_likelihood = message::take_number(&mut rest)?;
        Ok(ContinuationScore { log_likelihood, greedy: message::take_bytes(&mut rest, 1)? == [1] })
    };
    items.iter().map(|item| item.iter().map(&mut of).collect()).collect()
}

/// Length of the prefix that all continuations share, and the cache after it.
fn root<M: LanguageModel>(model: &M, items: &[Vec<Continuation>]) -> Result<(usize, M::Cache)> {
    let all = || items.iter().flatten();
    // The position that predicts the first scored token must stay outside: its hidden state is needed.
    let longest = all().map(Continuation::first_predicting).min().unwrap_or(0);
    let mut length = common_prefix(all().map(Continuation::inputs)).min(longest);
    if length < WORTH_SHARING || items.len() < 2 {
        length = 0;
    }
    let mut cache = model.new_cache();
    if let Some(first) = all().next().filter(|_| length > 0) {
        model.extend(std::slice::from_mut(&mut cache), &[&first.inputs()[..length]])?;
    }
    Ok((length, cache))
}

/// One item: its choices, and the prefix of them that is run once.
struct Plan<'a> {
    choices: &'a [Continuation],
    /// Number of first tokens that all choices share and that are run once.
    shared: usize,
    /// First position of the shared tokens that predicts a scored token of some choice; `shared` if none does.
    first_row: usize,
}

impl<'a> Plan<'a> {
    fn new(choices: &'a [Continuation], root: usize) -> Self {
        let shared = common_prefix(choices.iter().map(Continuation::inputs));
        let shared = if choices.len() < 2 || shared < root + WORTH_SHARING { root } else { shared };
        let first_row = choices.iter().map(Continuation::first_predicting).min().unwrap_or(shared).min(shared);
        Self { choices, shared, first_row }
    }

    /// Tokens that its caches hold in the end.
    fn cached(&self) -> usize {
        let own = self.choices.iter().map(|choice| choice.inputs().len()).filter(|&length| length > self.shared);
        self.shared + own.sum::<usize>()
    }

    /// Tokens that run through the model.
    fn cost(&self, root: usize) -> usize {
        let own: usize = self.choices.iter().map(|choice| choice.inputs().len() - self.shared).sum();
        self.shared - root + own
    }
}

fn score_batch<M: LanguageModel>(
    model: &M,
    plans: &[Plan<'_>],
    root_length: usize,
    root: &M::Cache,
) -> Result<Vec<Vec<ContinuationScore>>> {
    // First the tokens that choices share, ...
    let sharing: Vec<&Plan<'_>> = plans.iter().filter(|plan| plan.shared > root_length).collect();
    let prefixes: Vec<&[u32]> =
        sharing.iter().map(|plan| &plan.choices[0].inputs()[root_length..plan.shared]).collect();
    let mut shared_caches = vec![root.clone(); prefixes.len()];
    let shared_hidden = extend(model, &mut shared_caches, &prefixes)?;
    // ... then each choice's own tokens, from a copy of its item's cache.
    let mut caches = Vec::new();
    let mut own: Vec<&[u32]> = Vec::new();
    let mut shared_caches = shared_caches.into_iter();
    for plan in plans {
        let cache = if plan.shared > root_length { shared_caches.next() } else { None };
        for choice in plan.choices.iter().filter(|choice| choice.inputs().len() > plan.shared) {
            caches.push(cache.as_ref().unwrap_or(root).clone());
            own.push(&choice.inputs()[plan.shared..]);
        }
    }
    let own_hidden = extend(model, &mut caches, &own)?;
    drop(caches);

    let mut rows = Rows::default();
    let (mut shared_offset, mut own_offset) = (0, 0);
    for (index, plan) in plans.iter().enumerate() {
        // `first_row` is not below the root, which ends before any position that predicts.
        let first = rows.source.len();
        rows.source.extend((plan.first_row..plan.shared).map(|at| (true, shared_offset + at - root_length)));
        if plan.shared > root_length {
            shared_offset += plan.shared - root_length;
        }
        for (slot, choice) in plan.choices.iter().enumerate() {
            let tokens = choice.continuation();
            for (at, token) in (choice.first_predicting()..).zip(tokens) {
                let row = if at < plan.shared {
                    first + at - plan.first_row
                } else {
                    rows.source.push((false, own_offset + at - plan.shared));
                    rows.source.len() - 1
                };
                rows.queries.push((Query { row, token: *token }, (index, slot)));
            }
            own_offset += choice.inputs().len() - plan.shared;
        }
    }
    rows.score(model, plans, [&own_hidden, &shared_hidden])
}

/// Rows of hidden states that are needed, and the tokens whose probability is computed from them.
#[derive(Default)]
struct Rows {
    /// Whether a row is among the shared ones, and its index there.
    source: Vec<(bool, usize)>,
    /// The query, and the choice and item that it belongs to.
    queries: Vec<(Query, (usize, usize))>,
}

impl Rows {
    fn score<M: LanguageModel>(
        mut self,
        model: &M,
        plans: &[Plan<'_>],
        [own, shared]: [&Array2<f32>; 2],
    ) -> Result<Vec<Vec<ContinuationScore>>> {
        let mut hidden = Array2::zeros((self.source.len(), own.ncols().max(shared.ncols())));
        for (mut row, (is_shared, index)) in hidden.rows_mut().into_iter().zip(&self.source) {
            row.assign(&if *is_shared { shared } else { own }.row(*index));
        }
        // Stable: the tokens of one choice stay in order, as their rows are.
        self.queries.sort_by_key(|(query, _)| query.row);
        let queries: Vec<Query> = self.queries.iter().map(|(query, _)| *query).collect();
        let answers = ask(model, &hidden, &queries)?;
        let blank = ContinuationScore { log_likelihood: 0.0, greedy: true };
        let mut scores: Vec<Vec<ContinuationScore>> =
            plans.iter().map(|plan| vec![blank; plan.choices.len()]).collect();
        for ((_, (item, slot)), (log_probability, greedy)) in self.queries.iter().zip(answers) {
            let score = &mut scores[*item][*slot];
            score.log_likelihood += log_probability;
            score.greedy &= greedy;
        }
        Ok(scores)
    }
}

/// [`LanguageModel::extend`], but nothing for nothing.
fn extend<M: LanguageModel>(model: &M, caches: &mut [M::Cache], batch: &[&[u32]]) -> Result<Array2<f32>> {
    if batch.is_empty() { Ok(Array2::zeros((0, 0))) } else { model.extend(caches, batch) }
}
