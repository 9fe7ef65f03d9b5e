use super::{TextEvaluation, TextScores, Window, WindowComparison, WindowScores};
use crate::dealt::dealt;
use crate::{Error, LanguageModel, Result};
use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;
use sparq_core::{Observer, Ranks, message};
use sparq_model::{BatchLayout, Softmax};

/// Tokens per forward pass: a model that is read from disk block by block is read once per pass, and the hidden states of
/// one pass are held in memory. Processes share passes, so the size also says how even the shares are.
const BATCH: usize = 4096;

/// Rows of logits held at once, per model.
const TILE: usize = 256;

/// The base model's hidden states over a text. They are kept instead of logits, which are larger by the ratio of
/// vocabulary to width. Logits are computed from them, tile by tile, whenever a model is compared.
#[derive(Debug, Clone)]
pub struct TextBaseline<M> {
    model: M,
    /// `[tokens scored, hidden]`: the states that predict each scored token.
    hidden: Array2<f32>,
    scores: TextScores,
}

impl<M> TextBaseline<M> {
    /// The base model's own scores.
    pub fn scores(&self) -> &TextScores {
        &self.scores
    }

    /// The hidden states that predict each scored token, `[tokens scored, hidden]`.
    pub fn hidden(&self) -> ArrayView2<'_, f32> {
        self.hidden.view()
    }
}

/// The contribution of one scored token to its window.
#[derive(Clone, Copy)]
struct TokenScores {
    nll: f64,
    base: Option<(f64, bool, f64)>,
}

impl TextEvaluation {
    /// Runs the base model over the text once and keeps what later comparisons need: `4 · tokens scored · hidden` bytes.
    ///
    /// # Errors
    /// The model's; [`Error::TooLarge`]; [`Error::NotFinite`].
    ///
    /// # Examples
    /// ```no_run
    /// # fn run(base: sparq_model::Model, compressed: sparq_model::Model) -> sparq_eval::Result<()> {
    /// use sparq_eval::{TextEvaluation, TextSettings};
    /// let evaluation = TextEvaluation::from_text(&base, "a long text", TextSettings::default())?;
    /// let baseline = evaluation.baseline(&base, &())?;
    /// let scores = evaluation.evaluate(&compressed, Some(&baseline), &())?;
    /// # Ok(()) }
    /// ```
    pub fn baseline<M: LanguageModel>(&self, base: &M, observer: &dyn Observer) -> Result<TextBaseline<M>> {
        self.baseline_by(&Ranks::default(), base, observer)
    }

    /// The same, shared by processes.
    pub(crate) fn baseline_by<M: LanguageModel>(
        &self,
        ranks: &Ranks,
        base: &M,
        observer: &dyn Observer,
    ) -> Result<TextBaseline<M>> {
        let mut kept: Option<Array2<f32>> = None;
        let total = self.tokens_scored();
        let new = |width: usize| {
            let bytes = total.checked_mul(width).and_then(|elements| elements.checked_mul(size_of::<f32>()));
            match bytes.filter(|&bytes| isize::try_from(bytes).is_ok()) {
                Some(_) => Ok(Array2::zeros((total, width))),
                None => Err(Error::TooLarge { tokens: total, width }),
            }
        };
        let scores = self.run(ranks, base, None, observer, |row, hidden| {
            let kept = match &mut kept {
                Some(kept) => kept,
                none => none.insert(new(hidden.ncols())?),
            };
            kept.slice_mut(s![row..row + hidden.nrows(), ..]).assign(hidden);
            Ok(())
        })?;
        if !ranks.is_alone() {
            // Each process has the states of its own passes.
            let batches = batches(&self.windows);
            for (index, batch) in batches.iter().enumerate() {
                let (owner, mut bytes) = (ranks.owner(index, batches.len()), Vec::new());
                let first = rows_before(&self.windows, batch.start);
                let rows = rows(&self.windows[batch.clone()]);
                if let (Some(kept), true) = (&kept, owner == ranks.rank()) {
                    message::put(&mut bytes, kept.slice(s![first..first + rows, ..]));
                }
                let bytes = ranks.broadcast(owner, bytes)?;
                let kept = match &mut kept {
                    Some(kept) => kept,
                    none => none.insert(new(bytes.len() / size_of::<f32>() / rows.max(1))?),
                };
                message::take(&mut bytes.as_slice(), kept.slice_mut(s![first..first + rows, ..]))?;
            }
        }
        Ok(TextBaseline { model: base.output_layer(), hidden: kept.unwrap_or_default(), scores })
    }

    /// A baseline from hidden states stored earlier: `[tokens scored, hidden]`, as [`TextBaseline::hidden`] gave them for
    /// this text, these settings and this model.
    ///
    /// # Errors
    /// [`Error::Baseline`] if their number is not that of the scored tokens; those of [`baseline`](Self::baseline).
    pub fn restore_baseline<M: LanguageModel>(&self, base: &M, hidden: Array2<f32>) -> Result<TextBaseline<M>> {
        self.restore_baseline_by(&Ranks::default(), base, hidden)
    }

    /// The same, shared by processes.
    pub(crate) fn restore_baseline_by<M: LanguageModel>(
        &self,
        ranks: &Ranks,
        base: &M,
        hidden: Array2<f32>,
    ) -> Result<TextBaseline<M>> {
        if hidden.nrows() != self.tokens_scored() {
            let reason = format!("{} hidden states for {} scored tokens", hidden.nrows(), self.tokens_scored());
            return Err(Error::Baseline { reason });
        }
        let scores = self.tally(ranks, false, |batch| {
            let rows = rows(&self.windows[batch.clone()]);
            let first = rows_before(&self.windows, batch.start);
            self.score_batch(base, &hidden.slice(s![first..first + rows, ..]), None, batch)
        })?;
        Ok(TextBaseline { model: base.output_layer(), hidden, scores })
    }

    /// Scores a model on the text: perplexity, and with a baseline KL(base ‖ model) and top-1 agreement.
    ///
    /// A model against its own baseline gives a divergence of exactly 0 and full agreement.
    ///
    /// # Errors
    /// The model's; [`Error::NotFinite`]; [`Error::Baseline`] if the baseline is of another text, other settings or a
    /// model with another vocabulary.
    ///
    /// # Examples
    /// See [`baseline`](Self::baseline).
    pub fn evaluate<M: LanguageModel>(
        &self,
        model: &M,
        baseline: Option<&TextBaseline<M>>,
        observer: &dyn Observer,
    ) -> Result<TextScores> {
        self.evaluate_by(&Ranks::default(), model, baseline, observer)
    }

    /// The same, shared by processes.
    pub(crate) fn evaluate_by<M: LanguageModel>(
        &self,
        ranks: &Ranks,
        model: &M,
        baseline: Option<&TextBaseline<M>>,
        observer: &dyn Observer,
    ) -> Result<TextScores> {
        if let Some(baseline) = baseline
            && baseline.scores.fingerprint != self.fingerprint
        {
            return Err(Error::Baseline { reason: "it was made from another text or with other settings".to_owned() });
        }
        self.run(ranks, model, baseline, observer, |_, _| Ok(()))
    }

    /// Runs a model over the text. `keep` gets the hidden states of this process's passes with the row they begin at.
    fn run<M: LanguageModel>(
        &self,
        ranks: &Ranks,
        model: &M,
        baseline: Option<&TextBaseline<M>>,
        observer: &dyn Observer,
        mut keep: impl FnMut(usize, &ArrayView2<'_, f32>) -> Result<()>,
    ) -> Result<TextScores> {
        let (mut done, total) = (0, self.tokens_scored());
        self.tally(ranks, baseline.is_some(), |batch| {
            let windows = &self.windows[batch.clone()];
            let sequences: Vec<&[u32]> = windows.iter().map(|window| &self.tokens[window.start..window.end]).collect();
            let predicting = predicting_rows(&model.hidden(&sequences)?, windows);
            let first = rows_before(&self.windows, batch.start);
            keep(first, &predicting.view())?;
            let base = baseline
                .map(|baseline| (&baseline.model, baseline.hidden.slice(s![first..first + predicting.nrows(), ..])));
            let scores = self.score_batch(model, &predicting.view(), base, batch)?;
            done += predicting.nrows() * ranks.size();
            observer.progress(done.min(total), total, &"text");
            Ok(scores)
        })
    }

    /// Scores of all windows from those of batches, which the processes share.
    fn tally(
        &self,
        ranks: &Ranks,
        compares: bool,
        mut score: impl FnMut(std::ops::Range<usize>) -> Result<Vec<(f64, WindowComparison)>>,
    ) -> Result<TextScores> {
        let batches = batches(&self.windows);
        let messages = dealt(ranks, batches.len(), |index| {
            let mut bytes = Vec::new();
            for (nll, comparison) in score(batches[index].clone())? {
                message::put_number(&mut bytes, nll);
                message::put_number(&mut bytes, comparison.kl);
                message::put_count(&mut bytes, comparison.agreements as u64);
                message::put_number(&mut bytes, comparison.base_nll);
            }
            Ok(bytes)
        })?;
        let messages = messages.concat();
        let mut rest = messages.as_slice();
        let (mut windows, mut comparisons) = (Vec::new(), Vec::new());
        for window in &self.windows {
            windows.push(WindowScores { tokens: window.scored(), nll: message::take_number(&mut rest)? });
            let (kl, agreements) = (message::take_number(&mut rest)?, message::take_count(&mut rest)? as usize);
            comparisons.push(WindowComparison { kl, agreements, base_nll: message::take_number(&mut rest)? });
        }
        Ok(TextScores::new(windows, compares.then_some(comparisons), &self.fingerprint))
    }

    /// Scores the windows of one batch given the hidden states that predict their tokens, `[rows, hidden]`: the sum of
    /// negative log-likelihoods of each, and how it compares with the base.
    fn score_batch<M: LanguageModel>(
        &self,
        model: &M,
        hidden: &ArrayView2<'_, f32>,
        base: Option<(&M, ArrayView2<'_, f32>)>,
        batch: std::ops::Range<usize>,
    ) -> Result<Vec<(f64, WindowComparison)>> {
        let (windows, first) = (&self.windows[batch.clone()], batch.start);
        let mut sums = vec![(0.0, WindowComparison::default()); windows.len()];
        let owners: Vec<(usize, u32)> = (batch.zip(windows))
            .flat_map(|(index, window)| {
                self.tokens[window.first_scored..window.end].iter().map(move |token| (index, *token))
            })
            .collect();
        for start in (0..owners.len()).step_by(TILE) {
            let rows = start..owners.len().min(start + TILE);
            let logits = model.logits(hidden.slice(s![rows.clone(), ..]))?;
            let base_logits = match &base {
                Some((base, hidden)) => Some(base.logits(hidden.slice(s![rows.clone(), ..]))?),
                None => None,
            };
            let owners = &owners[rows];
            for ((window, _), scores) in owners.iter().zip(score_tile(&logits, base_logits.as_ref(), owners)?) {
                if !scores.is_finite() {
                    return Err(Error::NotFinite { what: format!("window {window} of the text") });
                }
                let (nll, comparison) = &mut sums[window - first];
                *nll += scores.nll;
                if let Some((kl, agrees, base_nll)) = scores.base {
                    comparison.kl += kl;
                    comparison.agreements += usize::from(agrees);
                    comparison.base_nll += base_nll;
                }
            }
        }
        Ok(sums)
    }
}

impl TokenScores {
    fn is_finite(&self) -> bool {
        self.nll.is_finite() && self.base.is_none_or(|(kl, _, nll)| kl.is_finite() && nll.is_finite())
    }
}

/// Scores of the rows of one tile; each row by itself, so that threads do not change the order of additions.
fn score_tile(
    logits: &Array2<f32>,
    base_logits: Option<&Array2<f32>>,
    owners: &[(usize, u32)],
) -> Result<Vec<TokenScores>> {
    let vocabulary = logits.ncols();
    if let Some(base) = base_logits
        && base.ncols() != vocabulary
    {
        let reason = format!("the base has {} tokens in its vocabulary, the model {vocabulary}", base.ncols());
        return Err(Error::Baseline { reason });
    }
    let logits = logits.as_standard_layout();
    let base_logits = base_logits.map(|base| base.as_standard_layout());
    let score = |(row, (_, token)): (usize, &(usize, u32))| {
        let range = s![row, ..];
        let row = logits.slice(range);
        let row = row.as_slice().unwrap_or_default(); // rows of a standard layout are slices
        let softmax = Softmax::of(row);
        let base = base_logits.as_ref().map(|base| {
            let base_row = base.slice(range);
            let base_row = base_row.as_slice().unwrap_or_default();
            let base_softmax = Softmax::of(base_row);
            let divergence = base_softmax.divergence(base_row, &softmax, row);
            (divergence, base_softmax.best == softmax.best, -base_softmax.log_probability(base_row, *token))
        });
        TokenScores { nll: -softmax.log_probability(row, *token), base }
    };
    Ok(owners.par_iter().enumerate().map(|(row, owner)| score((row, owner))).collect())
}

/// Index ranges of the windows that run together.
fn batches(windows: &[Window]) -> Vec<std::ops::Range<usize>> {
    let lengths: Vec<usize> = windows.iter().map(|window| window.end - window.start).collect();
    BatchLayout::cut(&lengths, BATCH)
}

fn rows(windows: &[Window]) -> usize {
    windows.iter().map(Window::scored).sum()
}

fn rows_before(windows: &[Window], index: usize) -> usize {
    rows(&windows[..index])
}

/// The rows of `hidden`, `[sum of window lengths, hidden]`, that predict scored tokens.
fn predicting_rows(hidden: &Array2<f32>, windows: &[Window]) -> Array2<f32> {
    let mut kept = Array2::zeros((rows(windows), hidden.ncols()));
    let (mut from, mut to) = (0, 0);
    for window in windows {
        let rows = window.predicting();
        kept.slice_mut(s![to..to + rows.len(), ..]).assign(&hidden.slice(s![from + rows.start..from + rows.end, ..]));
        to += rows.len();
        from += window.end - window.start;
    }
    kept
}

#[cfg(test)]
mod tests;
